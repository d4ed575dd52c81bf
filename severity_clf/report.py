"""What an evaluation found: plain numbers, and three ways to read them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

DECIMALS = 4
# key -> its head in tables, and what it is
FIGURES = {
    "auroc": ("AUROC", "harmful against harmless rows, by expected severity"),
    "average_precision": ("AP", "average precision of the same ranking: area under precision and recall"),
    "precision": ("precision", "at the bundle's threshold, of all that is flagged"),
    "recall": ("recall", "at the bundle's threshold, of all that is harmful"),
    "f1": ("F1", "at the bundle's threshold"),
    "mae": ("MAE", "expected severity against the level, in levels"),
    "macro_mae": ("macro MAE", "the same, every level counting alike"),
    "alpha": ("alpha", "Krippendorff's, ordinal: the median level as a second rater"),
    "spearman": ("Spearman", "rank correlation of expected severity with the level"),
    "rps": ("RPS", "ranked probability score, 0 to 1, lower is better"),
    "classwise_ece": ("ECE", "classwise calibration error, and what perfect calibration would show at this n"),
    "smooth_ece": ("smooth ECE", "of P(severity >= 1), and what perfect calibration would show at this n"),
    "coverage": ("coverage", "share of 90% level intervals that meet the label"),
    "harmful_coverage": ("of harmful", "the same share, of harmful rows alone"),
    "set_size": ("size", "mean number of levels in them"),
}
PAGE_ONLY = ("spearman", "rps")  # the terminal has no room
FLAGGING = ("precision", "recall", "f1")  # figures of the one domain that the threshold is about


@dataclass(frozen=True, slots=True)
class Estimate:
    """One figure.

    Attributes:
        value: NaN where the labels do not tell.
        interval: the central 95% over resampled groups; None where there is only one group, or it is not resampled.
        floor: of a calibration error, the mean of what a perfectly calibrated model would have at this n.
    """

    value: float
    interval: tuple[float, float] | None = None
    floor: float | None = None


@dataclass(frozen=True, slots=True)
class DomainReport:
    """One domain.

    Attributes:
        name: of the domain.
        n: rows whose label says anything about it.
        harmless, harmful: rows known to be at level 0, and above; the others are undecided.
        estimates: by the keys of FIGURES; those that do not apply are left out.
        confusion: [level, level] rows that name a level, by that level and by the median level given.
        reliability: of P(severity >= 1): count, predicted and observed [bin].
        severity: for each label that occurs, its rows' expected severity as counts over equal bins of the scale.
        trade_off: by threshold on expected severity: share flagged, precision, recall.
        threshold: the bundle's, in levels; None for a domain that it is not about.
        worst: rows farthest from their label: id, source, label, expected, level, off.
    """

    name: str
    n: int
    harmless: int
    harmful: int
    estimates: Mapping[str, Estimate]
    confusion: Sequence[Sequence[int]]
    reliability: Mapping[str, Sequence[float]]
    severity: Sequence[Mapping[str, Any]]
    trade_off: Mapping[str, Sequence[float]]
    threshold: float | None
    worst: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Report:
    """What `evaluate` measured. It names rows by id and holds none of their texts.

    Attributes:
        bundle: name, version, thresholds and hashes of the bundle.
        records: how many, from where, which could not be scored, and a hash of them all.
        run: date, versions, and bootstrap rounds.
        levels: the scale's names, harmless first.
        domains: one report each, in the taxonomy's order.
    """

    bundle: Mapping[str, Any]
    records: Mapping[str, Any]
    run: Mapping[str, Any]
    levels: Sequence[str]
    domains: Sequence[DomainReport]

    def to_dict(self) -> dict[str, Any]:
        """Plain types for JSON, rounded to 4 decimals; what is unknown is None."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain

    def text(self) -> str:
        """A table for the terminal, one row a domain."""
        known = {key for one in self.domains for key, found in one.estimates.items() if not math.isnan(found.value)}
        keys = [key for key in FIGURES if key in known and key not in (*FLAGGING, *PAGE_ONLY)]
        rows = [["domain", "n", "harmful", *(FIGURES[key][0] for key in keys)]]
        for domain in self.domains:
            cells = [_cell(domain.estimates.get(key), key == "auroc") for key in keys]
            rows.append([domain.name, str(domain.n), str(domain.harmful), *cells])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [self._headline(), ""]
        for row in rows:
            first, *others = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
            lines.append("  ".join([row[0].ljust(len(first)), *others]).rstrip())
        for domain in self.domains:
            if domain.threshold is not None:
                said = [f"{FIGURES[key][0]} {_cell(domain.estimates[key], True)}" for key in FLAGGING]
                lines += ["", f"{domain.name}, flagged from {domain.threshold:.2f}: {', '.join(said)}"]
        if unscored := self.records["unscored"]:
            more = f" and {len(unscored) - 10} more" if len(unscored) > 10 else ""
            lines += ["", f"not scored, and in no figure above: {', '.join(map(repr, unscored[:10]))}{more}"]
        return "\n".join(lines) + "\n"

    def _headline(self) -> str:
        records = f"{self.records['n']} records in {self.records['groups']} groups"
        context = ", with prompts" if self.records["prompts"] else ""
        return f"{self.bundle['name']} {self.bundle['version']} on {records}{context}"

    def html(self) -> str:
        """One self-contained page with plots: no script, nothing loaded from elsewhere."""
        from severity_clf.page import page

        return page(self.to_dict(), FIGURES)


def _cell(estimate: Estimate | None, with_interval: bool) -> str:
    """A figure as the terminal shows it: `0.861 [0.842, 0.879]`, or `0.031 (0.012)` with a floor."""
    if estimate is None or math.isnan(estimate.value):
        return "-"
    more = f" ({estimate.floor:.3f})" if estimate.floor is not None else ""
    if with_interval and estimate.interval is not None:
        more = " [{:.3f}, {:.3f}]".format(*estimate.interval)
    return f"{estimate.value:.3f}{more}"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, float):
        return None if math.isnan(value) else round(value, DECIMALS)
    return value

"""Level intervals that hold the true level as often as promised, for harmless and for harmful outputs alike.

Ordinal adaptive prediction sets (Lu, Angelopoulos & Pomerantz 2022, "Improving Trustworthiness of AI Disease Severity
Rating in Medical Imaging with Ordinal Conformal Prediction Sets", https://arxiv.org/abs/2207.02238): start from the
most probable level and take the likelier neighbour, until the set has enough probability. What is enough was read off
rows that the model had not seen (`severity_clf.fit.conformal`), apart for harmless rows, which decide on level 0, and
harmful ones, which decide on the others (Vovk 2012, "Conditional validity of inductive conformal predictors",
https://arxiv.org/abs/1209.2673). In a domain where one row in fifty is harmful, saying 0 of all would keep a promise
about all rows; it would not keep one about harmful rows.

For further rows of their kind, a set misses the true level with probability alpha at most, whether that is 0 or above.
For rows of another kind nothing is promised.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

KINDS = ("harmless", "harmful")  # level 0, and every level above
STEPS = 50  # quantiles are kept for alpha = 0.01, 0.02, ... 0.50
DECIMALS = 6  # of the probability that a quantile is of, in the fit and here alike, so that a file changes no set


@dataclass(frozen=True, slots=True, eq=False)
class Conformal:
    """How much probability a set must have before it may stop growing, in each domain.

    Attributes:
        quantile: float64 [domain, 2, alpha], for level 0 and for the levels above, at alpha = 0.01, 0.02, ... 0.50;
            never increasing along the last axis, and infinite, which lets in every level of its kind, where the
            held-out rows were too few for that alpha.
    """

    quantile: npt.NDArray[np.float64]

    def __post_init__(self) -> None:
        known = self.quantile[np.isfinite(self.quantile)]
        if self.quantile.ndim != 3 or self.quantile.shape[1:] != (len(KINDS), STEPS):
            raise ValueError(f"quantiles must be [domain, {len(KINDS)}, {STEPS}], got {list(self.quantile.shape)}")
        if np.isnan(self.quantile).any() or (known < 0).any() or (known > 1).any():
            raise ValueError("quantiles must be from 0 to 1, or null")
        if (self.quantile[:, :, 1:] > self.quantile[:, :, :-1]).any():
            raise ValueError("quantiles must not increase with alpha")

    @classmethod
    def from_dict(cls, table: Mapping[str, Any], domains: Sequence[str]) -> Conformal:
        """From what `bundle.json` holds under "conformal": domain -> kind -> {"n", "exact", "quantiles"}.

        A domain or a kind that is absent had no held-out rows, and lets in every level of its kind.

        Raises:
            ValueError: an unknown domain or kind, or quantiles that break a law of the class; the message names it.
        """
        quantile = np.full((len(domains), len(KINDS), STEPS), np.inf)
        if not isinstance(table, Mapping):
            raise ValueError(f"conformal is {type(table).__name__}, want an object")
        for name, kinds in table.items():
            if name not in domains:
                raise ValueError(f"conformal: unknown domain {name!r}")
            try:
                for kind, entry in kinds.items():
                    if kind not in KINDS:
                        raise ValueError(f"unknown kind {kind!r}, want {' and '.join(KINDS)}")
                    row = [np.inf if value is None else float(value) for value in entry["quantiles"]]
                    if len(row) != STEPS:
                        raise ValueError(f"{len(row)} quantiles, want {STEPS}")
                    quantile[domains.index(name), KINDS.index(kind)] = row
                cls(quantile)
            except KeyError as error:
                raise ValueError(f"conformal: {name} has no {error}") from None
            except (AttributeError, TypeError, ValueError) as error:
                raise ValueError(f"conformal: {name}: {error}") from None
        return cls(quantile)

    def sets(self, exceed: npt.NDArray[np.floating], alpha: float) -> npt.NDArray[np.int8]:
        """Lowest and highest level of each set; where 0 is in it but not 1, what is between is taken in.

        Args:
            exceed: [n, domain, level-1], P(severity >= k); a row of NaN gets the whole scale.
            alpha: the share of sets that may miss, above 0 and below 1. It is rounded down to a hundredth, and to 0.5
                above that; below 0.01 every set is the whole scale.

        Returns:
            int8 [n, domain, 2].

        Raises:
            ValueError: alpha is not between 0 and 1.
        """
        if not 0 < alpha < 1:
            raise ValueError(f"alpha must be above 0 and below 1, got {alpha}")
        step = min(int(alpha * 100 + 1e-9), STEPS)  # 0.29 * 100 is 28.999999999999996
        enough = self.quantile[:, :, step - 1] if step else np.full(self.quantile.shape[:2], np.inf)  # [domain, 2]
        kind = np.minimum(np.arange(exceed.shape[2] + 1), 1)  # [level]
        inside = ~(mass_before(exceed) > enough[:, kind])  # [n, domain, level]; NaN is not above anything
        low, high = inside.argmax(axis=2), exceed.shape[2] - inside[:, :, ::-1].argmax(axis=2)
        return np.stack([low, high], axis=2).astype(np.int8)


def mass_before(exceed: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """The nonconformity of each level: the probability that the growing set already has when it takes the level.

    0 for the most probable level. Of two equals, the graver is taken first.

    Args:
        exceed: [n, domain, level-1].

    Returns:
        float64 [n, domain, level], rounded to 6 decimals.
    """
    exceed = np.asarray(exceed, np.float64)
    edge = np.ones_like(exceed[:, :, :1])
    probs = -np.diff(np.concatenate([edge, exceed, 0 * edge], axis=2), axis=2)
    levels = probs.shape[2]
    beyond = np.pad(probs, [(0, 0), (0, 0), (1, 1)], constant_values=-1.0)  # level k is at k + 1; off the scale: never
    low = high = (levels - 1 - probs[:, :, ::-1].argmax(axis=2))[:, :, None]  # [n, domain, 1]
    mass, before = np.take_along_axis(probs, low, axis=2), np.zeros_like(probs)
    for _ in range(levels - 1):
        below, above = np.take_along_axis(beyond, low, axis=2), np.take_along_axis(beyond, high + 2, axis=2)
        up = above >= below
        np.put_along_axis(before, np.where(up, high + 1, low - 1), mass, axis=2)
        mass = mass + np.maximum(above, below)
        low, high = np.where(up, low, low - 1), np.where(up, high + 1, high)
    before[np.isnan(exceed).any(axis=2)] = np.nan
    return np.asarray(before.round(DECIMALS).clip(max=1))

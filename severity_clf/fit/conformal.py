"""Read off held-out rows how much probability a level interval needs: the table behind `Scores.interval`.

Split conformal prediction (Vovk, Gammerman & Shafer 2005; Lei et al. 2018, https://arxiv.org/abs/1604.04173): of n rows
that the model has not seen, the ceil((n + 1) (1 - alpha))-th smallest nonconformity of the true level is one that a
further row of their kind exceeds with probability alpha at most. There is no model in it, so it holds for a bad one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from severity_clf.conformal import KINDS, STEPS, mass_before

EXACT = 50  # harmful rows that name a level: with so many, those that do not are left out


def fit_conformal(
    exceed: npt.NDArray[np.floating], labels: npt.NDArray[np.integer], domains: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """The table that `bundle.json` holds under "conformal".

    Level 0 is decided by rows known to be harmless, the levels above by rows known to be harmful, so that the promise
    holds for each of them, however rare. Of the harmful ones, those that name a level decide alone where there are 50
    of them. Where there are not, a label such as [1, 4] takes part: a set meets it with any of its levels, so its
    nonconformity is the least of theirs. Sets then meet yes-or-no labels as often as promised, and hold the level
    itself less often; "exact" says how many rows name one.

    Args:
        exceed: float [n, domain, level-1], of rows that neither heads nor calibration have seen. By cross-fitted heads,
            the promise is exact for the heads of each fold, and near for those then fitted on all rows. Rows of NaN,
            which could not be scored, are left out.
        labels: int [n, domain, 2], lowest and highest level; rows that do not say whether they are harmful are left
            out.
        domains: their names, in order.

    Returns:
        domain -> "harmless" and "harmful" -> {"n": rows that it rests on, "exact": how many of them name one level,
        "quantiles": one number for each alpha = 0.01, 0.02, ... 0.50, None where n is too small for it}. What has no
        row is left out.

    Raises:
        ValueError: the arrays' shapes do not fit each other or the domains.
    """
    if labels.shape != (*exceed.shape[:2], 2) or len(domains) != exceed.shape[1]:
        raise ValueError(f"exceed is {exceed.shape}, labels {labels.shape}, and there are {len(domains)} domains")
    levels = np.arange(exceed.shape[2] + 1)
    low, high = labels[:, :, 0], labels[:, :, 1]
    within = (low[:, :, None] <= levels) & (levels <= high[:, :, None])  # [n, domain, level]
    least = np.where(within, mass_before(exceed), np.inf).min(axis=2)  # [n, domain]
    exact, scored = low == high, ~np.isnan(least)
    table: dict[str, dict[str, Any]] = {}
    for domain, name in enumerate(domains):
        for kind, told in zip(KINDS, (high == 0, low > 0), strict=True):
            rows = (told & scored)[:, domain]
            if (rows & exact[:, domain]).sum() >= EXACT:
                rows &= exact[:, domain]
            if rows.any():
                quantiles = _quantiles(least[rows, domain])
                entry = {"n": int(rows.sum()), "exact": int(exact[rows, domain].sum()), "quantiles": quantiles}
                table.setdefault(name, {})[kind] = entry
    return table


def _quantiles(nonconformity: npt.NDArray[np.float64]) -> list[float | None]:
    """The one of rank ceil((n + 1) (1 - alpha)) for each alpha; None where that is more than n."""
    ordered, n = np.sort(nonconformity), len(nonconformity)
    ranks = [-(-(n + 1) * (100 - step) // 100) for step in range(1, STEPS + 1)]
    return [float(ordered[rank - 1]) if rank <= n else None for rank in ranks]

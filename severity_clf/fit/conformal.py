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

from severity_clf.conformal import STEPS, mass_before


def fit_conformal(
    exceed: npt.NDArray[np.floating], labels: npt.NDArray[np.integer], domains: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """The table that `bundle.json` holds under "conformal".

    A label that is an interval counts as met when the set meets it, so its nonconformity is the least of its levels'.
    A domain of yes-or-no labels therefore gets sets that hold the right answer to yes or no as often as promised, and
    the right level less often. All labels are used: exact ones alone would be no fair sample of the levels where
    harmless rows are 0 and harmful ones [1, 4]. Where enough rows are graded, pass those alone.

    Args:
        exceed: float [n, domain, level-1], of rows that neither heads nor calibration have seen; rows of NaN, which
            could not be scored, are left out.
        labels: int [n, domain, 2], lowest and highest level; rows that say nothing, (0, top), are left out.
        domains: their names, in order.

    Returns:
        domain -> {"n": rows that it rests on, "exact": how many of them name one level, "quantiles": one number for
        each alpha = 0.01, 0.02, ... 0.50, None where n is too small for it}. Domains without a row are left out.

    Raises:
        ValueError: the arrays' shapes do not fit each other or the domains.
    """
    if labels.shape != (*exceed.shape[:2], 2) or len(domains) != exceed.shape[1]:
        raise ValueError(f"exceed is {exceed.shape}, labels {labels.shape}, and there are {len(domains)} domains")
    levels = np.arange(exceed.shape[2] + 1)
    within = (labels[:, :, :1] <= levels) & (levels <= labels[:, :, 1:])  # [n, domain, level]
    least = np.where(within, mass_before(exceed), np.inf).min(axis=2)  # [n, domain]
    used = ~within.all(axis=2) & ~np.isnan(least)
    table = {}
    for domain, name in enumerate(domains):
        rows = used[:, domain]
        if not rows.any():
            continue
        ordered = np.sort(least[rows, domain])
        ranks = [-(-(len(ordered) + 1) * (100 - step) // 100) for step in range(1, STEPS + 1)]
        table[name] = {
            "n": len(ordered),
            "exact": int((labels[rows, domain, 0] == labels[rows, domain, 1]).sum()),
            "quantiles": [float(ordered[rank - 1]) if rank <= len(ordered) else None for rank in ranks],
        }
    return table

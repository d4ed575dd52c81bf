"""Folds, and what heads say of rows that they have not seen.

Heads are fitted once on everything and once without each fold. The heads without a fold read that fold's rows; slope,
thresholds and the flagging threshold come from those readings, as do the figures that are reported. Figures of the
calibration itself come from one more split: a fold is calibrated on the readings of the other folds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from severity_clf.fit.heads import Features, Float, Heads, Labels, calibrate, exceed_of
from severity_clf.metrics import f1

FOLDS = 5
STEPS = 80  # of the flagging threshold, from 0 to the top level

Rows = npt.NDArray[np.intp]


def group_folds(groups: Sequence[str], strata: npt.NDArray[Any], seed: int = 0, folds: int = FOLDS) -> Rows:
    """int [n], the fold that holds out each row: every group in one fold, and all strata in all folds if they can be.

    Args:
        groups: of the rows.
        strata: [n], what should be spread evenly.
        seed: shuffles the groups.
        folds: at most so many; fewer where there are fewer groups.

    Raises:
        ValueError: there is one group alone.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    names, group = np.unique(np.array(groups), return_inverse=True)
    if len(names) < 2:
        raise ValueError(
            "one group alone cannot be split; leave out the group of rows that share no question or author"
        )
    folds = min(folds, len(names))
    _, stratum, counts = np.unique(strata, return_inverse=True, return_counts=True)
    stratum = np.where(counts[stratum] < folds, counts.argmax(), stratum)  # what is too rare to spread
    found = np.zeros(len(group), np.intp)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    for fold, (_, held) in enumerate(splitter.split(group, stratum, group)):
        found[held] = fold
    return np.unique(found, return_inverse=True)[1]  # a fold that got no group is none


def readings(features: Features, fitted: Mapping[int, Heads], folds: Rows, rows: Rows) -> tuple[Rows, Float]:
    """What heads say of rows that they have not seen.

    Args:
        features: of n texts.
        fitted: fold -> heads fitted without that fold.
        folds: int [n].
        rows: those to read; the ones of folds that nobody was fitted without are left out.

    Returns:
        the rows that were read, fold by fold, and their `Heads.worst`, [row, domain, latent].
    """
    held = {fold: rows[folds[rows] == fold] for fold in fitted}
    worst = [heads.worst(features.take(held[fold])) for fold, heads in fitted.items() if len(held[fold])]
    return np.concatenate(list(held.values())), np.concatenate(worst)


def recalibrated(heads: Heads, ready: Heads, worst: Float) -> Float:
    """P(severity >= k) after a calibration, [n, domain, level-1], from the latents [n, domain, latent] before it.

    The worst window overall, the first on the domain axis of `worst`, answers for overall, and each domain's for it.
    """
    exceed = exceed_of(worst * (ready.scale / heads.scale), ready.threshold)  # [n, domain of window, domain, level-1]
    return np.asarray(np.diagonal(exceed, axis1=1, axis2=2).transpose(0, 2, 1), np.float32)


def cross_calibrated(
    heads: Mapping[int, Heads], worst: Float, labels: Labels, weights: npt.NDArray[Any], folds: Rows
) -> Float:
    """P(severity >= k) of every row by heads, and a calibration of them, without its fold: [n, domain, level-1].

    Args:
        heads: fold -> heads that have not seen it.
        worst: [n, domain, latent], what they say of its rows.
        labels: int [n, domain, 2].
        weights: float [n].
        folds: int [n].
    """
    first = next(iter(heads.values()))
    exceed = np.zeros((*labels.shape[:2], first.threshold.shape[1]), np.float32)
    for fold, one in heads.items():
        rest, held = folds != fold, folds == fold
        exceed[held] = recalibrated(one, calibrate(one, worst[rest], labels[rest], weights[rest]), worst[held])
    return exceed


def flag_rate(overall: npt.NDArray[np.floating], harmless: npt.NDArray[np.bool_], rate: float, top: int) -> float:
    """The lowest threshold, in steps of top / 80, that flags at most this share of the harmless rows.

    Args:
        overall: [n], expected severity by heads that did not see the text.
        harmless: [n].
        rate: from 0 to 1.
        top: the highest level.
    """
    steps = [step * top / STEPS for step in range(STEPS + 1)]
    found = (step for step in steps if (overall[harmless] >= step).mean() <= rate)
    return next(found, steps[-1])


def flag_best(overall: npt.NDArray[np.floating], harmful: npt.NDArray[np.bool_], top: int) -> float:
    """The threshold, in steps of top / 80 from the first, with the best F1; the middle one of equals."""
    steps = np.arange(1, STEPS + 1) * top / STEPS
    found = np.array([f1(overall >= step, harmful) for step in steps])
    best = np.flatnonzero(found == found.max())
    return float(steps[best[len(best) // 2]])


Flag = Callable[[npt.NDArray[np.floating], npt.NDArray[np.bool_]], float]


def flag_with(rate: float | None, top: int) -> Flag:
    """The rule that turns held-out overall severities [n] and whether each is harmful [n] into a threshold."""
    if rate is None:
        return lambda overall, harmful: flag_best(overall, harmful, top)
    return lambda overall, harmful: flag_rate(overall, ~harmful, rate, top)

"""How well scores agree with labels, and probabilities with frequencies, in numpy, with bootstrap intervals.

Each metric takes what was measured first and what is true second, both of n rows, and gives a float. Where a label is
an interval, as in `Record.labels`, it is int [n, 2], lowest and highest level.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def mae(score: Array, truth: Array) -> float:
    """Mean absolute error, in the units of its arguments."""
    return float(np.abs(np.asarray(score, float) - np.asarray(truth, float)).mean())


def auroc(score: Array, positive: Array) -> float:
    """Probability that a positive scores above a negative, ties counting half; NaN where one class is missing."""
    positive = np.asarray(positive, bool)
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if not positives or not negatives:
        return float("nan")
    return float((ranks(score)[positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def average_precision(score: Array, positive: Array) -> float:
    """Area under the precision-recall curve, as the mean precision over the positives; NaN where there are none.

    Each distinct score is a threshold, whose precision counts by the recall it adds, without interpolation between them
    (as scikit-learn's `average_precision_score`). At random it is the share of positives.
    """
    score, positive = np.asarray(score), np.asarray(positive, bool)
    if not positive.any():
        return float("nan")
    order = np.argsort(-score, kind="stable")
    last = np.flatnonzero(np.append(np.diff(score[order]), 1))  # of each run of ties
    found = np.cumsum(positive[order])[last]
    return float((np.diff(found, prepend=0) * found / (last + 1)).sum() / found[-1])


def precision(flag: Array, positive: Array) -> float:
    """Share of what was flagged that is positive; NaN where nothing was flagged."""
    flag, positive = np.asarray(flag, bool), np.asarray(positive, bool)
    return float(positive[flag].mean()) if flag.any() else float("nan")


def recall(flag: Array, positive: Array) -> float:
    """Share of the positives that was flagged; NaN where there are none."""
    return precision(positive, flag)


def f1(flag: Array, positive: Array) -> float:
    """Harmonic mean of precision and recall; 0 where nothing was found."""
    flag, positive = np.asarray(flag, bool), np.asarray(positive, bool)
    found = int((flag & positive).sum())
    return 2 * found / (int(flag.sum()) + int(positive.sum())) if found else 0.0


def spearman(score: Array, truth: Array) -> float:
    """Rank correlation; NaN where either is constant."""
    first, second = ranks(score), ranks(truth)
    if not first.std() or not second.std():
        return float("nan")
    return float(np.corrcoef(first, second)[0, 1])


def ranks(values: Array) -> npt.NDArray[np.float64]:
    """Ranks from 1, the mean rank where values tie."""
    _, inverse, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[inverse], np.float64)


def krippendorff_alpha(ratings: npt.NDArray[np.floating]) -> float:
    """Agreement of raters on an ordinal scale: 1 perfect, 0 chance.

    Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", with the ordinal difference
    (sum of n_g from c to k, less half of n_c and n_k) squared. Every rater rated every unit.

    Args:
        ratings: float [rater, n], at least two raters.
    """
    raters, units = ratings.shape
    values, code = np.unique(ratings, return_inverse=True)
    code = code.reshape(raters, units)
    counts = np.bincount(code.ravel(), minlength=len(values)).astype(float)
    place = np.cumsum(counts) - counts / 2  # the ordinal difference of two values is the distance of their places
    rating = place[code]  # [rater, n]
    # The sum of squared differences over all ordered pairs is 2 * (size * sum of squares - square of the sum).
    within = 2 * (raters * (rating**2).sum(axis=0) - rating.sum(axis=0) ** 2).sum() / (raters - 1)
    total = raters * units
    across = 2 * (total * (rating**2).sum() - rating.sum() ** 2) / (total - 1)
    return float(1 - within / across) if across else float("nan")


def macro_mae(score: Array, level: Array) -> float:
    """Mean over the true levels of the mean absolute error at each: how common a level is does not count.

    Baccianella, Esuli & Sebastiani 2009, "Evaluation Measures for Ordinal Regression",
    https://doi.org/10.1109/ISDA.2009.230.
    """
    return float(np.mean([mae(score[level == one], level[level == one]) for one in np.unique(level)]))


def rps(probs: Array, level: Array) -> float:
    """Ranked probability score: 0 where the true level always had all the probability, 1 where all was an end away.

    The mean squared error of P(severity <= k), over rows and over every k but the last; a proper score that knows the
    levels' order. Epstein 1969, https://doi.org/10.1175/1520-0450(1969)008<0985:ASSFPF>2.0.CO;2.

    Args:
        probs: float [n, level], each row a distribution.
        level: int [n], the true levels.
    """
    below = np.asarray(probs, float).cumsum(axis=1)[:, :-1]
    return float(((below - (np.asarray(level)[:, None] <= np.arange(below.shape[1]))) ** 2).mean())


@dataclass(frozen=True, slots=True, eq=False)
class Reliability:
    """What was predicted and what was seen, bin by bin; empty bins are left out.

    Attributes:
        count: int [bin], rows.
        predicted: float [bin], mean probability.
        observed: float [bin], share of the rows where it came true.
    """

    count: npt.NDArray[np.int64]
    predicted: npt.NDArray[np.float64]
    observed: npt.NDArray[np.float64]

    @property
    def ece(self) -> float:
        """Expected calibration error: the mean distance of predicted and observed, a bin counting by its rows."""
        return float(self.count @ np.abs(self.predicted - self.observed) / self.count.sum())


def reliability(probability: Array, true: Array, bins: int = 15) -> Reliability:
    """The reliability curve over bins of equal width.

    Args:
        probability: float [n], from 0 to 1.
        true: [n], whether it came true, or the chance that it did.
        bins: number of bins.
    """
    place = np.minimum((np.asarray(probability, float) * bins).astype(int), bins - 1)
    count = np.bincount(place, minlength=bins)
    used = count > 0
    predicted, observed = (np.bincount(place, np.asarray(of, float), bins)[used] for of in (probability, true))
    return Reliability(count[used], predicted / count[used], observed / count[used])


def classwise_ece(probs: Array, labels: Array, bins: int = 15) -> float:
    """Classwise expected calibration error: the mean over levels of each level's ECE against all others.

    Kull et al. 2019, "Beyond temperature scaling", https://arxiv.org/abs/1910.12656, section 2.

    A label that is an interval counts for each of its levels in the proportion of their probabilities. So what it does
    not tell is held neither for nor against them, and in expectation the residual of a calibrated model is 0, provided
    that which rows have such labels depends on nothing but the interval that the level is in. Leaving such rows out
    would not do: where harmful rows are [1, 4] and harmless ones 0, level 1 would never come true.

    Binned errors are above 0 at any n, also for perfect calibration: compare with `null_floor`.

    Args:
        probs: float [n, level], each row a distribution.
        labels: int [n, 2].
        bins: of equal width.
    """
    probs = np.asarray(probs, float)
    within = _within(labels, probs.shape[1])
    seen = probs * within
    total = seen.sum(axis=1, keepdims=True)
    seen = np.where(total > 0, seen, within) / np.where(total > 0, total, within.sum(axis=1, keepdims=True))
    return float(np.mean([reliability(probs[:, k], seen[:, k], bins).ece for k in range(probs.shape[1])]))


def smooth_ece(probability: Array, true: Array, cells: int = 4096) -> float:
    """Calibration error without bins: the residual smoothed over the probability, as widely as it is large.

        smECE(s) = integral over t in [0, 1] of |mean over rows of K_s(t, probability) * (true - probability)|

    with K_s the Gaussian of width s reflected at 0 and 1, at the one s where smECE(s) = s. Blasiok & Nakkiran 2023,
    "Smooth ECE", https://arxiv.org/abs/2309.12236, section 3. Their package relplot integrates on a coarser mesh.

    Args:
        probability: float [n], from 0 to 1.
        true: bool [n], whether it came true.
        cells: probabilities are rounded to the middle of so many cells.
    """
    probability, true = np.asarray(probability, float), np.asarray(true, float)
    place = np.minimum((probability * cells).astype(int), cells - 1)
    residual = np.bincount(place, true - probability, cells) / len(place)
    # Reflection at both ends is a circle of twice the length, on which smoothing is a product of spectra.
    spectrum = np.fft.rfft(np.concatenate([residual, residual[::-1]]))
    frequency = np.pi * np.arange(len(spectrum))

    def smoothed(width: float) -> float:
        damped = spectrum * np.exp(-((frequency * width) ** 2) / 2)
        return float(np.abs(np.fft.irfft(damped)[:cells]).sum())

    low, high = 0.0, 1.0  # smoothed falls with the width, so it crosses the width once
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if smoothed(middle) > middle else (low, middle)
    return high


def null_floor(
    measure: Callable[[Array, Array], float], probs: Array, labels: Array, rounds: int = 100, seed: int = 0
) -> float:
    """What a measure of miscalibration gives on average for a perfectly calibrated model with these probabilities.

    Every row's level is drawn from its own probabilities, and then reported as an interval as often as the intervals
    among the labels at hand report that level: each interval weighs its count over its mean probability.

    Args:
        measure: takes probs [n, level] and labels [n, 2].
        probs: float [n, level], each row a distribution.
        labels: int [n, 2].
        rounds: draws to take the mean over.
        seed: of the random numbers.
    """
    probs, rng = np.asarray(probs, float), np.random.default_rng(seed)
    intervals, counts = np.unique(labels, axis=0, return_counts=True)
    within = _within(intervals, probs.shape[1])  # [interval, level]
    mass = np.maximum(within @ probs.mean(axis=0), np.finfo(float).tiny)
    # Levels that no label names are reported as they are.
    singles = np.flatnonzero(~within.any(axis=0))
    intervals = np.concatenate([intervals, np.repeat(singles[:, None], 2, axis=1)])
    odds = np.concatenate([within * (counts / mass)[:, None], np.eye(probs.shape[1])[singles]])
    reported = (odds / odds.sum(axis=0)).cumsum(axis=0).T  # [level, interval]
    cumulative = probs.cumsum(axis=1)
    values = []
    for _ in range(rounds):
        level = (rng.random((len(probs), 1)) * cumulative[:, -1:] >= cumulative).sum(axis=1)
        pick = (rng.random((len(probs), 1)) * reported[level, -1:] >= reported[level]).sum(axis=1)
        values.append(measure(probs, intervals[pick]))
    return float(np.mean(values))


def coverage(sets: Array, labels: Array) -> float:
    """Share of level intervals [n, 2] that hold the true level or, where that is an interval too, meet it."""
    sets, labels = np.asarray(sets), np.asarray(labels)
    return float(((sets[:, 0] <= labels[:, 1]) & (labels[:, 0] <= sets[:, 1])).mean())


def mean_size(sets: Array) -> float:
    """Mean number of levels in intervals [n, 2]."""
    sets = np.asarray(sets).astype(int)
    return float((sets[:, 1] - sets[:, 0] + 1).mean())


def _within(labels: Array, levels: int) -> npt.NDArray[np.bool_]:
    """bool [n, level], whether the level is in the interval."""
    labels = np.asarray(labels)
    return np.asarray((labels[:, :1] <= np.arange(levels)) & (np.arange(levels) <= labels[:, 1:]))


def bootstrap(
    metric: Callable[..., float],
    *arrays: Array,
    groups: npt.NDArray[np.generic] | None = None,
    rounds: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """The central 95% of a metric over resampled rows, or resampled groups of rows.

    Args:
        metric: takes the arrays.
        arrays: each [n].
        groups: [n], rows that share one are drawn together; None draws rows.
        rounds: number of samples.
        seed: of the random numbers.

    Returns:
        low and high, of the samples for which the metric is known; NaN where it never is.
    """
    rng = np.random.default_rng(seed)
    _, unit = np.unique(groups if groups is not None else np.arange(len(arrays[0])), return_inverse=True)
    order = np.argsort(unit, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(unit))[:-1])
    values = []
    for _ in range(rounds):
        rows = np.concatenate([members[pick] for pick in rng.integers(len(members), size=len(members))])
        values.append(metric(*(array[rows] for array in arrays)))
    known = [value for value in values if not np.isnan(value)]  # a sample may lack a class
    low, high = np.percentile(known or [np.nan], [2.5, 97.5])
    return float(low), float(high)

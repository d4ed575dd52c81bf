"""Fit the ordinal heads on what the graph gives for each window: its embedding and its n-gram buckets.

    P(overall >= 1)   = sigmoid(harm - threshold)
    P(overall >= k)   = P(overall >= 1) * sigmoid(grade - threshold[k])               for k > 1
    P(domain d >= k)  = P(overall >= k) * sigmoid(relevance[d] - threshold[d, k])

Is it harmful, how bad is it then, and of which kind: three questions, since different labels answer them. Harm learns
from every yes or no of every source; the grade only from labels that tell levels above 0 apart; a domain's relevance
from what is filed under it. So no domain is ever above `overall`, a binary "unsafe" = [1, 4] moves no higher level, a
domain with only yes-or-no labels borrows the shared grades, and a refusal teaches a domain only that it is not harmful.

Thresholds are sorted, so probabilities never cross (McCullagh 1980, https://doi.org/10.1111/j.2517-6161.1980.tb01109.x);
the first line makes it a hurdle model (Mullahy 1986, https://doi.org/10.1016/0304-4076(86)90002-3). A label is an
interval: the loss is -log of the probability between its ends. A text is as severe as its worst window, and its most
harmful window learns. The encoder is not tuned here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.optimize import minimize
from scipy.special import expit, log_expit, logit, logsumexp, softmax

Float = npt.NDArray[np.float32]
Double = npt.NDArray[np.float64]
Labels = npt.NDArray[np.integer]
LEAST = 1e-9  # a probability below it is rounding
NEVER = -1e4  # a threshold that is always passed


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """What the graph gives for the windows of some texts.

    Attributes:
        embedding: float32 [window, dim].
        grams: float32 sparse [window, bucket], counts over the square root of their sum.
        first: int [n], index of each text's first window.
    """

    embedding: Float
    grams: sparse.csr_matrix
    first: npt.NDArray[np.intp]

    @classmethod
    def of(
        cls, embedding: Float, buckets: Sequence[npt.NDArray[np.integer]], first: npt.NDArray[np.intp], size: int
    ) -> Features:
        """From the graph's outputs; `size` is the number of buckets, and a bucket number that reaches it is no gram."""
        kept = [row[row < size] for row in buckets]
        lengths = np.array([len(row) for row in kept], np.intp)
        columns = np.concatenate(kept) if kept else np.empty(0)
        values = np.repeat(1 / np.sqrt(np.maximum(lengths, 1)), lengths).astype(np.float32)
        starts = np.concatenate([[0], np.cumsum(lengths)])
        grams = sparse.csr_matrix((values, columns.astype(np.int32), starts), shape=(len(kept), size))
        grams.sum_duplicates()
        return cls(embedding, grams, first)

    @property
    def text(self) -> npt.NDArray[np.intp]:
        """int [window], the text each window belongs to."""
        return np.repeat(np.arange(len(self.first)), np.diff(self.first, append=len(self.embedding)))

    def take(self, rows: npt.NDArray[np.intp]) -> Features:
        """The features of some of the texts, in the order given."""
        last = np.append(self.first[1:], len(self.embedding))
        spans = [np.arange(self.first[row], last[row]) for row in rows]
        windows = np.concatenate([np.empty(0, np.intp), *spans])
        first = np.cumsum([0, *map(len, spans)])[:-1]
        return Features(self.embedding[windows], self.grams[windows], first)

    def only(self, windows: npt.NDArray[np.intp]) -> Features:
        """The features of one window of each text; `windows` int [n]."""
        return Features(self.embedding[windows], self.grams[windows], np.arange(len(windows)))


@dataclass(frozen=True, slots=True, eq=False)
class Heads:
    """The heads as they ship. Their latents are harm, grade, and the relevance of each domain but `overall`.

    Attributes:
        weight: float32 [dim, latent], of the embedding.
        table: int8 [bucket, latent], of the n-grams.
        scale: float32 [latent], of the table.
        threshold: float32 [latent, level-1], never decreasing along the last axis; harm's are all one, and the grade's
            first is `NEVER`, since whatever is harmful is at least of level 1.
    """

    weight: Float
    table: npt.NDArray[np.int8]
    scale: Float
    threshold: Float

    def __post_init__(self) -> None:
        if (np.diff(self.threshold, axis=1) < 0).any():
            raise ValueError("thresholds must not decrease from level to level")

    @classmethod
    def rounded(
        cls,
        weight: npt.NDArray[np.floating],
        table: npt.NDArray[np.floating],
        threshold: npt.NDArray[np.floating],
    ) -> Heads:
        """Heads of these floats, the table rounded to int8 with one scale a latent."""
        scale = np.maximum(np.abs(table).max(axis=0), LEAST) / 127
        integers = np.rint(table / scale).astype(np.int8)
        return cls(weight.astype(np.float32), integers, scale.astype(np.float32), threshold.astype(np.float32))

    def latent(self, features: Features) -> Float:
        """Float32 [window, latent] of every window."""
        lexical = (features.grams @ self.table.astype(np.float32)) * self.scale
        return np.asarray(features.embedding @ self.weight + lexical, np.float32)

    def exceed(self, features: Features) -> Float:
        """P(severity >= k) of every text, float32 [n, domain, level-1]: its worst window's, level by level."""
        exceed = exceed_of(self.latent(features), self.threshold)
        return np.asarray(np.maximum.reduceat(exceed, features.first), np.float32)

    def worst(self, features: Features) -> Float:
        """The latents of each text's worst window in each domain, float32 [n, domain, latent]."""
        latent = self.latent(features)
        return latent[worst_windows(exceed_of(latent, self.threshold).sum(axis=2), features)]


def exceed_of(latent: npt.NDArray[np.floating], threshold: npt.NDArray[np.floating]) -> Float:
    """P(severity >= k), float32 [..., domain, level-1], from latents [..., latent]: the module's three formulas."""
    each = expit(latent[..., None] - threshold)
    overall = each[..., :1, :] * each[..., 1:2, :]
    return np.asarray(np.concatenate([overall, overall * each[..., 2:, :]], axis=-2), np.float32)


def worst_windows(score: Float, features: Features) -> npt.NDArray[np.intp]:
    """int [n, domain], the window of each text with the highest score in each domain; the first of equals."""
    best = np.maximum.reduceat(score, features.first)[features.text]
    index = np.where(score == best, np.arange(len(score))[:, None], len(score))
    return np.asarray(np.minimum.reduceat(index, features.first), np.intp)


def interval_loss(latent: Double, threshold: Double, low: Labels, high: Labels) -> tuple[Double, Double, Double]:
    """-log P(low <= severity <= high), and its slopes.

    Args:
        latent: [n].
        threshold: [level-1].
        low, high: int [n], the interval's ends.

    Returns:
        loss [n], its derivative by the latent [n], its derivative by each threshold [n, level-1].
    """
    top = len(threshold)
    bounds = np.concatenate([[-np.inf], threshold, [np.inf]])
    below, above = latent - bounds[low], latent - bounds[high.astype(int) + 1]  # P = sigmoid(below) - sigmoid(above)
    with np.errstate(invalid="ignore"):
        gap = np.where(np.isinf(below) | np.isinf(above), np.inf, below - above)
        # log(sigmoid(a) - sigmoid(b)) = log sigmoid(a) + log sigmoid(-b) + log(1 - exp(b - a))
        loss = -(log_expit(below) + log_expit(-above) + np.log(-np.expm1(-gap)))
    pull = 1 / np.expm1(np.clip(gap, LEAST, 700))  # exp(b - a) / (1 - exp(b - a)); 0 where an end is open
    by_below, by_above = -expit(-below) - pull, expit(above) + pull
    by_threshold = np.zeros((len(latent), top))
    rows = np.arange(len(latent))
    inner = low > 0
    by_threshold[rows[inner], low[inner] - 1] -= by_below[inner]
    inner = high < top
    by_threshold[rows[inner], high[inner]] -= by_above[inner]
    return loss, by_below + by_above, by_threshold


def domain_loss(
    overall: Double, relevance: Double, threshold: Double, low: Labels, high: Labels
) -> tuple[Double, Double, Double]:
    """-log P(low <= domain <= high), and its slopes; the shapes of `interval_loss`, `overall` [n, level-1] given."""
    rows, top = np.arange(len(relevance)), len(threshold)
    kind = expit(relevance[:, None] - threshold)  # [n, level-1]
    exceed = np.concatenate([np.ones((len(rows), 1)), overall * kind, np.zeros((len(rows), 1))], axis=1)
    slope = np.zeros_like(exceed)  # of exceed, by relevance; the thresholds' are its negatives
    slope[:, 1:-1] = overall * kind * (1 - kind)
    probability = np.maximum(exceed[rows, low] - exceed[rows, high.astype(int) + 1], LEAST)
    by_threshold = np.zeros((len(rows), top + 2))
    by_threshold[rows, low] += slope[rows, low]
    by_threshold[rows, high.astype(int) + 1] -= slope[rows, high.astype(int) + 1]
    by_threshold /= probability[:, None]
    return -np.log(probability), -by_threshold.sum(axis=1), by_threshold[:, 1:-1]


def _sorted(first: Double, steps: Double) -> tuple[Double, Double]:
    """Thresholds [..., level-1] and the gaps between them, from the first one [...] and log gaps [..., level-2]."""
    gaps = np.exp(steps)
    return np.concatenate([first[..., None], first[..., None] + np.cumsum(gaps, axis=-1)], axis=-1), gaps


def _by_steps(by_threshold: Double, gaps: Double) -> Double:
    """The slope by log gaps, from the slope by thresholds."""
    return np.cumsum(by_threshold[..., :0:-1], axis=-1)[..., ::-1] * gaps


class _Parts:
    """Several arrays in the one flat vector that L-BFGS wants."""

    def __init__(self, *shapes: tuple[int, ...]) -> None:
        self.shapes = shapes
        self.size = sum(int(np.prod(shape)) for shape in shapes)

    def split(self, flat: Double) -> list[Double]:
        cuts = np.cumsum([int(np.prod(shape)) for shape in self.shapes])[:-1]
        return [part.reshape(shape) for part, shape in zip(np.split(flat, cuts), self.shapes, strict=True)]

    def minimise(
        self, objective: Callable[[Double], tuple[float, list[Double]]], start: Double, steps: int, **options: float
    ) -> list[Double]:
        def flat(values: Double) -> tuple[float, Double]:
            loss, slopes = objective(values)
            return loss, np.concatenate([np.ravel(slope) for slope in slopes])

        found = minimize(flat, start, jac=True, method="L-BFGS-B", options={"maxiter": steps, **options})
        return self.split(found.x)


def fit_heads(
    features: Features,
    labels: Labels,
    weights: npt.NDArray[np.floating],
    sources: npt.NDArray[np.integer] | None = None,
    graded: npt.NDArray[np.floating] | None = None,
    *,
    top: int = 4,
    lender: Heads | None = None,
    dense_penalty: float = 10.0,
    gram_penalty: float = 2.0,
    grade_penalty: float = 10.0,
    relevance_penalty: float = 0.1,
    source_penalty: float = 0.3,
    step_penalty: float = 20.0,
    iterations: int = 60,
) -> Heads:
    """Maximum likelihood with L2 penalties, by L-BFGS: harm and grade first, then relevance given both.

    Args:
        features: of n texts.
        labels: int [n, domain, 2], lowest and highest level possible; (0, top) where nobody labelled.
        weights: float [n], how much each text counts.
        sources: int [n]; texts of one number above 0 share an offset of their latents, which absorbs how strict that
            source's raters were and is dropped afterwards. 0 has none.
        graded: float [n], how much more than for harm each text counts for the grade.
        top: the highest level, at least 1.
        lender: heads of the same encoder and levels. Where no label tells levels above 0 apart their grade is taken
            over; without them, an output that is harmful is of each level above 0 with the same probability.
        dense_penalty, gram_penalty: L2 on the weights of the embedding and of the n-grams.
        grade_penalty, relevance_penalty: the same two for the grade and for relevance, as multiples.
        source_penalty: L2 on the sources' offsets.
        step_penalty: L2 on the log gaps between a domain's own thresholds, which start at e**-2.
        iterations: at most this many L-BFGS steps each.

    Returns:
        Heads with the table rounded to int8, not calibrated.

    Raises:
        ValueError: the overall labels do not tell harmful from harmless.
    """
    base: Double = weights.astype(np.float64)
    sources = np.zeros(len(labels), int) if sources is None else sources
    low, high = labels[:, 0, 0], labels[:, 0, 1]
    decided = np.flatnonzero((low > 0) | (high == 0))
    told = np.flatnonzero((low > 1) | ((low == 1) & (high < top)))
    if low[decided].all() or not low[decided].any():
        raise ValueError("overall labels must tell harmful from harmless: some must be 0, and some above it")
    yes_or_no = np.repeat((low[decided, None] > 0).astype(np.int8), 2, axis=1)
    soft, hard = (dense_penalty, gram_penalty), (grade_penalty * dense_penalty, grade_penalty * gram_penalty)
    harm = fit_latent(
        features.take(decided), yes_or_no, base[decided], sources[decided], 1, soft, source_penalty, iterations
    )
    # The other questions are put to the window that is most likely harmful: one that moved with their own answers would
    # make the loss jump, and L-BFGS stop.
    features = features.only(worst_windows(features.embedding @ harm[0] + features.grams @ harm[1], features)[:, 0])
    more = base if graded is None else base * graded
    if len(told):
        grade = fit_latent(
            features.take(told),
            labels[told, 0] - 1,
            more[told],
            sources[told],
            top - 1,
            hard,
            source_penalty,
            iterations,
        )
    else:
        grade = _unfitted_grade(features, top, lender)
    severity = (
        np.concatenate([harm[0], grade[0]], axis=1),
        np.concatenate([harm[1], grade[1]], axis=1),
        np.stack([np.repeat(harm[2], top), np.concatenate([[NEVER], grade[2]])]),
    )
    loose = (relevance_penalty * dense_penalty, relevance_penalty * gram_penalty)
    relevance = _fit_relevance(features, labels, base, severity, loose, step_penalty, iterations)
    weight, table = (np.concatenate([severity[part], relevance[part]], axis=1) for part in (0, 1))
    threshold = np.concatenate([severity[2], relevance[2]])
    return Heads.rounded(weight, table, threshold)


def _known(labels: Labels, top: int) -> npt.NDArray[np.bool_]:
    """bool [n, domain], where the label says anything at all."""
    return (labels[:, :, 0] > 0) | (labels[:, :, 1] < top)


def _unfitted_grade(features: Features, top: int, lender: Heads | None) -> tuple[Double, Double, Double]:
    """The lender's grade, or one that is the same for every text."""
    if lender is not None and lender.threshold.shape[1] == top:
        table = lender.table[:, 1:2] * lender.scale[1].astype(np.float64)
        return lender.weight[:, 1:2].astype(np.float64), table, lender.threshold[1, 1:].astype(np.float64)
    reached = np.arange(top - 1, 0, -1) / top  # P(severity >= k | harmful) for k > 1
    weight, table = (np.zeros((part.shape[1], 1)) for part in (features.embedding, features.grams))
    return weight, table, -logit(reached)


def fit_latent(
    features: Features,
    labels: Labels,
    weights: Double,
    sources: npt.NDArray[np.integer],
    top: int,
    penalties: tuple[float, float],
    source_penalty: float,
    iterations: int,
    **options: float,
) -> tuple[Double, Double, Double]:
    """Weight [dim, 1], table [bucket, 1] and thresholds [level-1] of one latent; labels [n, 2] from 0 to `top`."""
    embedding, grams = features.embedding, features.grams
    by_gram = grams.T.tocsr()
    parts = _Parts((embedding.shape[1], 1), (grams.shape[1], 1), (), (top - 1,), (int(np.max(sources)) + 1,))

    def objective(flat: Double) -> tuple[float, list[Double]]:
        dense, lexical, first, steps, offset = parts.split(flat)
        window = embedding @ dense.astype(embedding.dtype) + grams @ lexical.astype(grams.dtype)
        worst = worst_windows(window, features)[:, 0]
        threshold, gaps = _sorted(first, steps)
        loss, by_latent, by_threshold = interval_loss(window[worst, 0] + offset[sources], threshold, *labels.T)
        by_window = np.zeros_like(window)
        by_window[worst, 0] = weights * by_latent
        by_offset = np.bincount(sources, weights * by_latent, len(offset)) + source_penalty * offset
        by_offset[0] = 0
        pull = weights @ by_threshold
        total = float(weights @ loss) + 0.5 * _penalty((dense, lexical, offset), (*penalties, source_penalty))
        return total, [
            embedding.T @ by_window + penalties[0] * dense,
            by_gram @ by_window + penalties[1] * lexical,
            pull.sum(),
            _by_steps(pull, gaps),
            by_offset,
        ]

    dense, lexical, first, steps, _ = parts.minimise(objective, np.zeros(parts.size), iterations, **options)
    return dense, lexical, _sorted(first, steps)[0]


def _fit_relevance(
    features: Features,
    labels: Labels,
    weights: Double,
    severity: tuple[Double, Double, Double],
    penalties: tuple[float, float],
    step_penalty: float,
    iterations: int,
) -> tuple[Double, Double, Double]:
    """Weight [dim, domain-1], table [bucket, domain-1] and thresholds [domain-1, level-1], of texts of one window.

    A domain's labels say how severe the text is there. Beside them, which domains a source filed a harmful text under
    tells the domains apart, through a softmax over relevance: an absent label is never read as a 0, and a domain that
    no text is filed under takes no part.
    """
    embedding, grams, domains = features.embedding, features.grams, labels.shape[1] - 1
    weight, table, threshold = severity
    by_gram = grams.T.tocsr()
    top = threshold.shape[1]
    if not domains:
        return np.zeros((len(weight), 0)), np.zeros((len(table), 0)), np.zeros((0, top))
    overall = exceed_of(embedding @ weight + grams @ table, threshold)[:, 0].astype(np.float64)  # [n, level-1]
    known, filed = _known(labels, top)[:, 1:], labels[:, 1:, 0] > 0
    told, used = np.flatnonzero(filed.any(axis=1)), filed.any(axis=0)
    parts = _Parts((embedding.shape[1], domains), (grams.shape[1], domains), (domains,), (domains, top - 1))
    usual = -2.0

    def objective(flat: Double) -> tuple[float, list[Double]]:
        dense, lexical, first, steps = parts.split(flat)
        latent = (embedding @ dense.astype(np.float32) + grams @ lexical.astype(np.float32)).astype(np.float64)
        levels, gaps = _sorted(first, steps)
        total, by_latent, by_threshold = 0.0, np.zeros_like(latent), np.zeros_like(levels)
        for domain in range(domains):
            rows = np.flatnonzero(known[:, domain])
            loss, slope, pull = domain_loss(
                overall[rows], latent[rows, domain], levels[domain], *labels[rows, domain + 1].T
            )
            total += float(weights[rows] @ loss)
            by_latent[rows, domain] = weights[rows] * slope
            by_threshold[domain] = weights[rows] @ pull
        margin = np.where(used, latent[told] - first, -np.inf)
        chosen = np.where(filed[told], margin, -np.inf)
        total += float(weights[told] @ (logsumexp(margin, axis=1) - logsumexp(chosen, axis=1)))
        choice = weights[told, None] * (softmax(margin, axis=1) - softmax(chosen, axis=1))
        by_latent[told] += choice
        by_threshold[:, 0] -= choice.sum(axis=0)
        slopes = by_latent.astype(np.float32)
        total += 0.5 * _penalty((dense, lexical, steps - usual), (*penalties, step_penalty))
        return total, [
            embedding.T @ slopes + penalties[0] * dense,
            by_gram @ slopes + penalties[1] * lexical,
            by_threshold.sum(axis=1),
            _by_steps(by_threshold, gaps) + step_penalty * (steps - usual),
        ]

    start = np.concatenate([np.zeros(parts.size - domains * (top - 1)), np.full(domains * (top - 1), usual)])
    dense, lexical, first, steps = parts.minimise(objective, start, iterations)
    return dense, lexical, _sorted(first, steps)[0]


def _penalty(arrays: Sequence[Double], penalties: Sequence[float]) -> float:
    return sum(penalty * float((array**2).sum()) for array, penalty in zip(arrays, penalties, strict=True))


def calibrate(
    heads: Heads, worst: Float, labels: Labels, weights: npt.NDArray[np.floating], *, penalty: float = 20.0
) -> Heads:
    """Refit each head's slope and thresholds on texts that it has not seen.

    What the labels do not tell, such as the steps above the first where they are only harmful or not, stays as it was
    fitted, scaled by the slope: L2 pulls towards the heads given.

    Args:
        heads: fitted.
        worst: float [n, domain, latent], `Heads.worst` of held-out texts, by heads fitted without them.
        labels: int [n, domain, 2], as `fit_heads` takes them.
        weights: float [n].
        penalty: L2 on log slope, on the first threshold's move and on log gaps.

    Returns:
        Heads with the calibration folded in.
    """
    top = heads.threshold.shape[1]
    low, high = labels[:, 0, 0], labels[:, 0, 1]
    decided, told = (low > 0) | (high == 0), (low > 1) | ((low == 1) & (high < top))
    slope, threshold = np.ones(len(heads.scale)), heads.threshold.astype(np.float64)
    for latent in range(len(slope)):
        if latent == 1 and top == 1:
            continue  # harmful or not is the whole scale
        domain = max(latent - 1, 0)
        rows = np.flatnonzero((decided, told)[latent] if latent < 2 else _known(labels, top)[:, domain])
        bounds = labels[rows, domain]
        values = worst[rows, domain].astype(np.float64)
        if latent == 0:
            at, bounds = slice(0, 1), np.repeat((bounds[:, :1] > 0).astype(np.int8), 2, axis=1)
        elif latent == 1:
            at, bounds = slice(1, top), bounds - 1
        else:
            at = slice(0, top)
        overall = exceed_of(values[:, :2] * slope[:2], threshold[:2])[:, 0].astype(np.float64)
        slope[latent], threshold[latent, at] = _recalibrated(
            values[:, latent],
            threshold[latent, at],
            bounds,
            weights[rows].astype(np.float64),
            penalty,
            overall if latent > 1 else None,
        )
        if latent == 0:
            threshold[0] = threshold[0, 0]
    return Heads(
        (heads.weight * slope).astype(np.float32),
        heads.table,
        (heads.scale * slope).astype(np.float32),
        threshold.astype(np.float32),
    )


def _recalibrated(
    latent: Double, threshold: Double, labels: Labels, weights: Double, penalty: float, overall: Double | None
) -> tuple[float, Double]:
    """One latent's slope and thresholds; given `overall`, a domain's."""
    gaps = np.log(np.maximum(np.diff(threshold), LEAST))

    def moved(flat: Double) -> Double:
        return _sorted(threshold[0] + flat[1], gaps + flat[0] + flat[2:])[0]

    def objective(flat: Double) -> float:
        scaled = np.exp(flat[0]) * latent
        if overall is None:
            loss = interval_loss(scaled, moved(flat), *labels.T)[0]
        else:
            loss = domain_loss(overall, scaled, moved(flat), *labels.T)[0]
        return float(weights @ loss) + 0.5 * penalty * float((flat**2).sum())

    found = minimize(objective, np.zeros(len(threshold) + 1), method="L-BFGS-B").x
    return float(np.exp(found[0])), moved(found)

"""Metrics agree with worked examples and with the libraries that everyone knows."""

import warnings

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from severity_clf import metrics

RNG = np.random.default_rng(0)
SCORES = RNG.normal(size=200).round(1)  # ties
TRUTH = SCORES + RNG.normal(size=200) > 0.5


def test_mae_is_in_the_units_of_its_arguments():
    """Two off by one, one off by two, one right: also for unsigned integers, which would wrap."""
    score, truth = np.array([0, 1, 2, 3], np.uint8), np.array([1, 0, 4, 3], np.uint8)
    assert metrics.mae(score, truth) == 1.0
    assert metrics.mae(np.array([True, False]), np.array([False, False])) == 0.5


@pytest.mark.parametrize(
    ("score", "positive", "wanted"),
    [
        ([1, 2, 3, 4], [0, 0, 1, 1], 1.0),
        ([4, 3, 2, 1], [0, 0, 1, 1], 0.0),
        ([1, 3, 2, 4], [0, 0, 1, 1], 0.75),
        ([1, 1, 1, 1], [0, 1, 0, 1], 0.5),
        ([1, 2, 2, 3], [0, 0, 1, 1], 0.875),
    ],
)
def test_auroc_counts_pairs_in_order(score, positive, wanted):
    """Of the pairs of a positive and a negative, those in order, ties half."""
    assert metrics.auroc(np.array(score), np.array(positive)) == wanted


def test_auroc_agrees_with_scikit_learn():
    """With ties, whatever the type of the labels."""
    wanted = pytest.approx(roc_auc_score(TRUTH, SCORES), abs=1e-12)
    assert metrics.auroc(SCORES, TRUTH) == wanted
    assert metrics.auroc(SCORES.astype(np.float32), TRUTH.astype(int)) == wanted


@pytest.mark.parametrize("positive", [[0, 0, 0], [1, 1, 1]])
def test_auroc_of_one_class_is_unknown(positive):
    """Not one half, which would be an answer."""
    assert np.isnan(metrics.auroc(np.array([1, 2, 3]), np.array(positive)))


@pytest.mark.parametrize(
    ("flag", "positive", "wanted"),
    [
        ([1, 1, 0, 0], [1, 0, 1, 0], 0.5),
        ([1, 1, 1, 0], [1, 1, 0, 0], 0.8),
        ([0, 0, 0], [1, 1, 0], 0.0),
        ([1, 0], [0, 1], 0.0),
        ([0, 0], [0, 0], 0.0),
    ],
)
def test_f1_agrees_with_scikit_learn_and_with_pencil_and_paper(flag, positive, wanted):
    """Where nothing was found it is 0, with no warning."""
    assert metrics.f1(np.array(flag), np.array(positive)) == wanted
    assert f1_score(positive, flag, zero_division=0) == pytest.approx(wanted)


def test_spearman_agrees_with_scipy():
    """With ties."""
    other = (SCORES + RNG.normal(size=200)).round()
    assert metrics.spearman(SCORES, other) == pytest.approx(stats.spearmanr(SCORES, other).statistic, abs=1e-12)
    assert metrics.spearman(SCORES, np.exp(SCORES)) == pytest.approx(1)
    assert metrics.spearman(SCORES, -SCORES) == pytest.approx(-1)


def test_spearman_of_a_constant_is_unknown():
    """And no warning of a division by zero."""
    assert np.isnan(metrics.spearman(np.ones(3), np.arange(3)))
    assert np.isnan(metrics.spearman(np.arange(3), np.ones(3)))


def test_ranks_agree_with_scipy():
    """Means of places where values tie."""
    assert metrics.ranks(np.array([30, 10, 20, 20])).tolist() == [4, 1, 2.5, 2.5]
    np.testing.assert_array_equal(metrics.ranks(SCORES), stats.rankdata(SCORES))


def alpha_by_definition(ratings):
    """1 - observed / expected disagreement, from the coincidence matrix, as Krippendorff 2011 writes it, in loops."""
    raters, units = ratings.shape
    values = sorted(set(ratings.ravel().tolist()))
    coincidence = np.zeros((len(values), len(values)))
    for unit in range(units):
        for first in range(raters):
            for second in range(raters):
                if first != second:
                    pair = values.index(ratings[first, unit]), values.index(ratings[second, unit])
                    coincidence[pair] += 1 / (raters - 1)
    count = coincidence.sum(axis=1)
    observed = expected = 0.0
    for c in range(len(values)):
        for k in range(len(values)):
            low, high = min(c, k), max(c, k)
            difference = (count[low : high + 1].sum() - (count[c] + count[k]) / 2) ** 2
            observed += coincidence[c, k] * difference
            expected += count[c] * count[k] * difference / (count.sum() - 1)
    return 1 - observed / expected


def test_krippendorff_alpha_of_a_hand_worked_example():
    """Two raters, four units, 0/0 1/1 2/2 1/2.

    Coincidences: o00 = 2, o11 = 2, o22 = 2, o12 = o21 = 1, so n = (2, 3, 3). Ordinal differences:
    d01 = (2 + 3 - 5/2)^2 = 6.25, d12 = (3 + 3 - 3)^2 = 9, d02 = (2 + 3 + 3 - 5/2)^2 = 30.25.
    Observed: 2 * 1 * 9 = 18. Expected: 2 * (6 * 6.25 + 9 * 9 + 6 * 30.25) / 7 = 600 / 7.
    Alpha = 1 - 18 * 7 / 600 = 0.79.
    """
    ratings = np.array([[0, 1, 2, 1], [0, 1, 2, 2]])
    assert metrics.krippendorff_alpha(ratings) == pytest.approx(0.79, abs=1e-12)
    assert alpha_by_definition(ratings) == pytest.approx(0.79, abs=1e-12)


@pytest.mark.parametrize("raters", [2, 3, 5])
def test_krippendorff_alpha_agrees_with_its_definition(raters):
    """The closed form in squares is the sum over pairs."""
    ratings = np.random.default_rng(raters).choice([0, 0.25, 0.5, 1], p=[0.5, 0.2, 0.2, 0.1], size=(raters, 30))
    assert metrics.krippendorff_alpha(ratings) == pytest.approx(alpha_by_definition(ratings), abs=1e-12)


def test_krippendorff_alpha_is_one_for_agreement_and_unknown_without_variety():
    """Raters who only ever said one thing agree on nothing that can be measured."""
    assert metrics.krippendorff_alpha(np.array([[0, 1, 2], [0, 1, 2]])) == 1
    assert np.isnan(metrics.krippendorff_alpha(np.ones((2, 5))))
    shuffled = np.random.default_rng(0).integers(0, 5, (2, 5000))
    assert metrics.krippendorff_alpha(shuffled) == pytest.approx(0, abs=0.05)


def test_krippendorff_alpha_sees_only_the_order_of_values():
    """An ordinal scale has no distances."""
    ratings = np.random.default_rng(1).integers(0, 5, (3, 40)).astype(float)
    assert metrics.krippendorff_alpha(np.exp(ratings)) == metrics.krippendorff_alpha(ratings)


def test_bootstrap_covers_the_central_part_of_the_sampling_distribution():
    """The interval of a mean is that of the normal approximation."""
    values = np.random.default_rng(0).normal(size=400)
    low, high = metrics.bootstrap(lambda row: float(row.mean()), values)
    error = 1.96 * values.std() / np.sqrt(len(values))
    assert low == pytest.approx(values.mean() - error, abs=0.02)
    assert high == pytest.approx(values.mean() + error, abs=0.02)


def test_bootstrap_is_seeded():
    """A figure in a report can be had again."""
    once, again, other = (metrics.bootstrap(metrics.auroc, SCORES, TRUTH, rounds=50, seed=seed) for seed in (1, 1, 2))
    assert once == again != other


def test_bootstrap_keeps_rows_together():
    """The same row of each array, so a perfect metric stays perfect."""
    assert metrics.bootstrap(metrics.mae, SCORES, SCORES, rounds=20) == (0, 0)


def test_bootstrap_draws_whole_groups():
    """Rows of one group are not independent: each sample has all of a group's rows as often as one of them."""
    groups = np.array(["a", "b", "b", "c", "c", "c"])

    def whole(row):
        assert (row == "b").sum() % 2 == 0
        assert (row == "c").sum() % 3 == 0
        return float(len(row))

    low, high = metrics.bootstrap(whole, groups, groups=groups, rounds=200)
    assert (low, high) == (3, 9)


def test_bootstrap_leaves_out_samples_without_an_answer():
    """A rare class may be missing from some samples; where it is missing from all, the interval is unknown."""
    score, positive = np.arange(10), np.arange(10) == 9
    assert metrics.bootstrap(metrics.auroc, score, positive, rounds=100) == (1, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(metrics.bootstrap(metrics.auroc, score, np.zeros(10), rounds=10)).all()


@pytest.mark.parametrize(
    ("score", "positive", "wanted"),
    [
        ([4, 3, 2, 1], [1, 1, 0, 0], 1.0),
        ([4, 3, 2, 1], [1, 0, 1, 0], (1 + 2 / 3) / 2),
        ([4, 3, 2, 1], [0, 0, 0, 1], 0.25),
        ([1, 1, 1, 1], [1, 0, 0, 0], 0.25),
    ],
)
def test_average_precision_is_the_mean_precision_at_the_positives(score, positive, wanted):
    """Ties are one threshold, and at random it is the share of positives."""
    assert metrics.average_precision(np.array(score), np.array(positive)) == pytest.approx(wanted, abs=1e-12)


def test_average_precision_agrees_with_scikit_learn_and_is_unknown_without_positives():
    """Ties included."""
    wanted = average_precision_score(TRUTH, SCORES)
    assert metrics.average_precision(SCORES, TRUTH) == pytest.approx(wanted, abs=1e-12)
    assert np.isnan(metrics.average_precision(SCORES, np.zeros(200)))


def test_precision_and_recall_of_a_worked_example():
    """Three flagged, two of them rightly; two of four found."""
    flag, positive = np.array([1, 1, 1, 0, 0, 0]), np.array([1, 1, 0, 1, 1, 0])
    assert metrics.precision(flag, positive) == pytest.approx(2 / 3)
    assert metrics.recall(flag, positive) == 0.5
    assert np.isnan(metrics.precision(np.zeros(6), positive))
    assert np.isnan(metrics.recall(flag, np.zeros(6)))


def test_macro_mae_does_not_depend_on_how_common_a_level_is():
    """Off by 0 at level 0 and by 2 at level 4, whatever their numbers."""
    assert metrics.macro_mae(np.array([0, 0, 0, 2]), np.array([0, 0, 0, 4])) == 1
    assert metrics.macro_mae(np.array([0, 2, 2, 2]), np.array([0, 4, 4, 4])) == 1


@pytest.mark.parametrize(
    ("probs", "level", "wanted"),
    [
        ([1, 0, 0, 0, 0], 0, 0.0),
        ([0, 0, 0, 0, 1], 0, 1.0),
        ([0, 1, 0, 0, 0], 0, 0.25),
        ([0.5, 0, 0, 0, 0.5], 2, 0.25),
        ([0, 0.5, 0, 0.5, 0], 2, 0.125),
    ],
)
def test_rps_knows_the_order_of_levels(probs, level, wanted):
    """A miss by one level is a quarter of a miss by four, and near misses are better than far ones."""
    assert metrics.rps(np.array([probs]), np.array([level])) == pytest.approx(wanted)


def test_rps_is_least_for_the_true_probabilities():
    """A proper score: neither sharper nor flatter claims pay."""
    probs, level = drawn(20_000)
    right = metrics.rps(probs, level)
    for power in (0.5, 2):
        other = probs**power
        assert metrics.rps(other / other.sum(axis=1, keepdims=True), level) > right


def drawn(n, seed=0):
    """Probabilities [n, 5], and levels [n] that come true as often as they say."""
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet([2, 1, 1, 1, 1], n)
    return probs, (rng.random((n, 1)) >= probs.cumsum(axis=1)).sum(axis=1)


def exact(level):
    """Labels [n, 2] of known levels."""
    return np.stack([level, level], axis=1)


def binary(level):
    """Labels [n, 2] that only say whether it is harmful."""
    return np.where(level[:, None] > 0, [1, 4], [0, 0])


def some_exact(level):
    """A third of the rows graded, the rest yes or no."""
    return np.where(np.arange(len(level))[:, None] % 3 == 0, exact(level), binary(level))


def test_a_reliability_curve_of_a_worked_example():
    """Two bins of five are used; 1.0 belongs to the last one."""
    found = metrics.reliability(np.array([0.1, 0.1, 0.9, 1.0]), np.array([0, 1, 1, 1]), bins=5)
    assert found.count.tolist() == [2, 2]
    assert found.predicted == pytest.approx([0.1, 0.95])
    assert found.observed == pytest.approx([0.5, 1])
    assert found.ece == pytest.approx((2 * 0.4 + 2 * 0.05) / 4)


def test_classwise_ece_of_a_worked_example():
    """Ten rows say (0.8, 0.2) and level 1 comes true in six: each level is off by 0.4."""
    probs = np.tile([0.8, 0.2], (10, 1))
    labels = exact(np.array([0] * 4 + [1] * 6))
    assert metrics.classwise_ece(probs, labels) == pytest.approx(0.4)
    assert metrics.classwise_ece(probs, exact(np.array([0] * 8 + [1] * 2))) == pytest.approx(0)


def test_a_label_that_says_nothing_moves_no_calibration_error():
    """It counts for each level as much as the model expected."""
    probs, _ = drawn(50)
    assert metrics.classwise_ece(probs, np.tile([0, 4], (50, 1))) == pytest.approx(0, abs=1e-12)


def test_a_label_without_any_probability_is_still_an_error():
    """Certain of level 0 where it was [1, 2]: not a division by zero."""
    assert metrics.classwise_ece(np.array([[1.0, 0, 0]]), np.array([[1, 2]])) == pytest.approx((1 + 0.5 + 0.5) / 3)


@pytest.mark.parametrize("reported", [exact, binary, some_exact])
def test_a_calibrated_model_is_at_its_null_floor_and_another_is_not(reported):
    """However the labels are reported: and the check can fail."""
    probs, level = drawn(3000)
    labels = reported(level)
    floor = metrics.null_floor(metrics.classwise_ece, probs, labels)
    assert metrics.classwise_ece(probs, labels) == pytest.approx(floor, rel=0.4)
    shy = 0.7 * probs + 0.3 * np.array([1, 0, 0, 0, 0])
    assert metrics.classwise_ece(shy, labels) > 2 * metrics.null_floor(metrics.classwise_ece, shy, labels)


@pytest.mark.parametrize("reported", [exact, binary, some_exact])
def test_the_null_floor_is_the_mean_over_what_might_have_been(reported):
    """Against the simulation that knows how labels come to be; it falls with the square root of n."""
    probs, level = drawn(500)
    rng = np.random.default_rng(9)
    worlds = [(rng.random((500, 1)) >= probs.cumsum(axis=1)).sum(axis=1) for _ in range(100)]
    wanted = np.mean([metrics.classwise_ece(probs, reported(world)) for world in worlds])
    found = metrics.null_floor(metrics.classwise_ece, probs, reported(level))
    assert found == pytest.approx(wanted, rel=0.08)
    more, levels = drawn(8000)
    assert metrics.null_floor(metrics.classwise_ece, more, reported(levels)) == pytest.approx(found / 4, rel=0.2)


def smooth_ece_by_definition(probability, true):
    """The integral over a fine mesh of the kernel written out, and the width by bisection."""
    mesh = np.linspace(0, 1, 2001)
    images = np.concatenate([side * probability + shift for side in (1, -1) for shift in (-2, 0, 2)])
    residual = np.tile(np.asarray(true) - probability, 6) / len(probability)

    def smoothed(width):
        kernel = np.exp(-(((mesh[:, None] - images) / width) ** 2) / 2) / (width * np.sqrt(2 * np.pi))
        values = np.abs(kernel @ residual)
        return ((values[1:] + values[:-1]) / 2).mean()

    low, high = 0.0, 1.0
    for _ in range(14):
        middle = (low + high) / 2
        low, high = (middle, high) if smoothed(middle) > middle else (low, middle)
    return high


@pytest.mark.parametrize("off", [0, 0.05, 0.2])
def test_smooth_ece_agrees_with_its_definition(off):
    """The circle and the spectrum are only a faster way to the same integral."""
    rng = np.random.default_rng(1)
    probability = rng.beta(0.5, 2, 150)
    true = rng.random(150) < np.clip(probability + off, 0, 1)
    wanted = smooth_ece_by_definition(probability, true)
    assert metrics.smooth_ece(probability, true) == pytest.approx(wanted, abs=1e-3)


def test_smooth_ece_of_a_constant_error_is_that_error():
    """Everyone is told 0.5 and 0.9 comes true: smoothing moves mass about and loses none of it."""
    true = np.arange(100) < 90
    assert metrics.smooth_ece(np.full(100, 0.5), true) == pytest.approx(0.4, abs=1e-3)
    assert metrics.smooth_ece(np.full(100, 0.9), true) < 2e-3
    assert metrics.smooth_ece(np.ones(10), np.zeros(10)) == pytest.approx(1, abs=1e-3)


def test_coverage_and_size_of_a_worked_example():
    """A set holds a level, meets an interval, or misses."""
    sets = np.array([[0, 0], [1, 3], [2, 4], [0, 4]], np.int8)
    labels = np.array([[0, 0], [0, 0], [1, 2], [3, 3]], np.int8)
    assert metrics.coverage(sets, labels) == 0.75
    assert metrics.mean_size(sets) == (1 + 3 + 3 + 5) / 4

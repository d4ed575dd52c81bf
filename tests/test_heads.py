"""Heads learn what labels say, where they say it, and nothing where they do not."""

import numpy as np
import onnx
import pytest
from conftest import CONFIG, TAXONOMY
from scipy import sparse
from scipy.special import expit

from severity_clf.bundle import read_bundle, write_bundle
from severity_clf.fit import heads as module
from severity_clf.fit.graph import with_heads
from severity_clf.fit.heads import NEVER, Features, Heads, calibrate, domain_loss, exceed_of, fit_heads, interval_loss
from severity_clf.metrics import spearman
from severity_clf.model import SeverityModel

N, TOP, DIM, BUCKETS = 2000, 4, 6, 32
LATENTS = ["harm", "grade", "one kind", "another kind"]
HARM, GRADE, ONE, ANOTHER = range(4)
THRESHOLD = np.array(
    [[-0.5, -0.5, -0.5, -0.5], [NEVER, -1.0, 0.0, 1.5], [-1.0, -0.8, -0.5, 0.0], [0.0, 0.2, 0.3, 0.4]], np.float32
)
UNKNOWN = np.array([0, TOP], np.int8)
INTERVALS = [(low, high) for low in range(TOP + 1) for high in range(low, TOP + 1)]
LATENT, BOUNDS = np.linspace(-5, 5, 11), np.array([-2.0, -0.5, 0.5, 3.0])
OVERALL = -np.sort(-np.random.default_rng(0).random((11, TOP)))  # P(overall >= k), as a domain's loss is given it


def features_of(rng, windows):
    """Random features of as many texts as there are numbers of windows."""
    total = int(np.sum(windows))
    buckets = [rng.integers(0, BUCKETS + 1, rng.integers(1, 9)) for _ in range(total)]  # BUCKETS itself is no gram
    first = (np.cumsum(windows) - windows).astype(np.intp)
    return Features.of(rng.normal(size=(total, DIM)).astype(np.float32), buckets, first, BUCKETS)


def planted(rng):
    """Heads that made the labels of a planted problem."""
    table = rng.integers(-127, 128, (BUCKETS, 4)).astype(np.int8)
    return Heads(rng.normal(size=(DIM, 4)).astype(np.float32), table, np.full(4, 0.005, np.float32), THRESHOLD)


def draw(rng, latent, threshold):
    """Levels of an ordinal model, int8 [n]."""
    return (rng.random(len(latent))[:, None] < expit(latent[:, None] - threshold)).sum(axis=1).astype(np.int8)


def draw_labels(rng, truth, features, shift=0.0):
    """Every domain's level, the lesser of the overall level and the domain's own: int8 [n, domain, 2], ends alike."""
    worst = truth.worst(features)
    overall = np.where(
        draw(rng, worst[:, 0, HARM] + shift, THRESHOLD[HARM, :1]) > 0,
        1 + draw(rng, worst[:, 0, GRADE] + shift, THRESHOLD[GRADE, 1:]),
        0,
    )
    kinds = [np.minimum(overall, draw(rng, worst[:, domain, domain + 1], THRESHOLD[domain + 1])) for domain in (1, 2)]
    return np.stack([np.stack([overall, *kinds], axis=1)] * 2, axis=2).astype(np.int8)


def problem(windows):
    """Features, the heads that labelled them, and the labels."""
    rng = np.random.default_rng(0)
    features, truth = features_of(rng, windows), planted(rng)
    return features, truth, draw_labels(rng, truth, features)


@pytest.fixture(scope="module")
def long():
    """2000 texts of one to three windows."""
    return problem(np.random.default_rng(1).integers(1, 4, N))


@pytest.fixture(scope="module")
def short():
    """2000 texts of one window, of which it is known which one made the label."""
    return problem(np.ones(N, int))


@pytest.fixture(scope="module")
def fitted(short):
    """Heads fitted to the short texts."""
    features, _, labels = short
    return fit_heads(features, labels, np.ones(N))


def yes_or_no(labels):
    """The same labels from a source that only says harmful or not."""
    return np.where(labels[:, :, :1] > 0, [1, TOP], [0, 0]).astype(np.int8)


def unkind(labels):
    """The same labels without those of the domains, which only relevance is fitted to."""
    return np.concatenate([labels[:, :1], np.broadcast_to(UNKNOWN, labels[:, 1:].shape)], axis=1)


def column(heads, latent):
    """All that the heads know of one latent."""
    return heads.weight[:, latent], heads.table[:, latent], heads.scale[latent], heads.threshold[latent]


def assert_same_columns(heads, others, latents):
    """To the last bit."""
    for latent in latents:
        for part, other in zip(column(heads, latent), column(others, latent), strict=True):
            np.testing.assert_array_equal(part, other)


def ends(low, high):
    """Eleven labels alike."""
    return np.full(11, low, np.int8), np.full(11, high, np.int8)


def overall_loss(latent, threshold, low, high):
    """`interval_loss`, by the side of `domain_loss`."""
    return interval_loss(latent, threshold, *ends(low, high))


def kind_loss(latent, threshold, low, high):
    """`domain_loss` where `overall` is what it is."""
    return domain_loss(OVERALL, latent, threshold, *ends(low, high))


LOSSES = pytest.mark.parametrize(
    ("loss", "overall"), [(overall_loss, 1), (kind_loss, OVERALL)], ids=["overall", "domain"]
)


# The losses.


@LOSSES
@pytest.mark.parametrize(("low", "high"), INTERVALS)
def test_a_loss_is_minus_the_logarithm_of_the_probability_between_the_ends(loss, overall, low, high):
    """Written down a second time, straight from the definition."""
    exceed = np.concatenate([np.ones((11, 1)), overall * expit(LATENT[:, None] - BOUNDS), np.zeros((11, 1))], axis=1)
    wanted = -np.log(exceed[:, low] - exceed[:, high + 1])
    np.testing.assert_allclose(loss(LATENT, BOUNDS, low, high)[0], wanted, rtol=1e-9, atol=1e-12)


@LOSSES
@pytest.mark.parametrize(("low", "high"), INTERVALS)
def test_the_slopes_of_a_loss_are_those_of_finite_differences(loss, overall, low, high):
    """By the latent, and by each threshold."""
    _, by_latent, by_threshold = loss(LATENT, BOUNDS, low, high)
    step = 1e-6

    def difference(latent, threshold):
        above = loss(LATENT + step * latent, BOUNDS + step * threshold, low, high)[0]
        below = loss(LATENT - step * latent, BOUNDS - step * threshold, low, high)[0]
        return (above - below) / (2 * step)

    np.testing.assert_allclose(by_latent, difference(1, 0), atol=1e-7)
    for column, unit in zip(by_threshold.T, np.eye(TOP), strict=True):
        np.testing.assert_allclose(column, difference(0, unit), atol=1e-7)


@LOSSES
@pytest.mark.parametrize("latent", [-500.0, -40.0, 40.0, 500.0])
def test_a_loss_is_finite_far_out(loss, overall, latent):
    """A text that is wrong by far has a steep slope, not an infinite one."""
    for low, high in INTERVALS:
        assert all(np.isfinite(part).all() for part in loss(np.full(11, latent), BOUNDS, low, high))


@LOSSES
def test_an_open_interval_says_nothing(loss, overall):
    """Unknown is no label: no loss and no slope."""
    for part in loss(LATENT, BOUNDS, 0, TOP):
        assert (part == 0).all()


@LOSSES
@pytest.mark.parametrize(("low", "high"), [(0, 0), (1, TOP)])
def test_harmful_or_not_pulls_at_the_first_threshold_alone(loss, overall, low, high):
    """A binary label has no opinion about the levels above 1."""
    *_, by_threshold = loss(LATENT, BOUNDS, low, high)
    assert (by_threshold[:, 0] != 0).all()
    assert (by_threshold[:, 1:] == 0).all()


# The fit.


@pytest.mark.parametrize(("texts", "checked"), [("short", 3), ("long", 2)])
def test_the_slopes_that_the_optimiser_is_given_are_the_objectives(request, monkeypatch, texts, checked):
    """Along random directions from random points: with a wrong slope it would still go down, only not to the bottom.

    Of harm, of the grade, then of relevance. That one jumps where another window becomes the worst: it is checked on
    texts of one window.
    """
    features, _, labels = request.getfixturevalue(texts)
    labels, some, calls, minimize = labels.copy(), np.arange(200), [], module.minimize
    labels[::3, 1] = UNKNOWN

    def check(objective, start, **options):
        rng, step = np.random.default_rng(0), 3e-4  # windows are summed in float32
        free = objective(start + rng.normal(size=start.shape))[1] != 0  # the offset of no source stays at 0
        calls.append(objective)
        for _ in range(5 if len(calls) <= checked else 0):
            at, direction = start + free * rng.normal(size=start.shape) / 5, free * rng.normal(size=start.shape)
            direction /= np.linalg.norm(direction)
            rise = (objective(at + step * direction)[0] - objective(at - step * direction)[0]) / (2 * step)
            slope = objective(at)[1]
            assert rise == pytest.approx(slope @ direction, abs=1e-3 * np.linalg.norm(slope))
        return minimize(objective, start, **options)

    monkeypatch.setattr(module, "minimize", check)
    fit_heads(features.take(some), labels[some], np.linspace(0.5, 2, 200), some % 3, iterations=1)
    assert len(calls) == 3


def test_planted_directions_of_harm_and_of_grade_are_found(short):
    """Two questions, two directions: one does not leak into the other, nor into the kinds."""
    features, truth, labels = short
    found = fit_heads(features, labels, np.ones(N), grade_penalty=1)
    cosine = np.array([[a @ b / np.sqrt(a @ a * (b @ b)) for b in truth.weight.T] for a in found.weight.T])
    assert (np.diag(cosine) > 0.97).all()
    assert (np.argmax(cosine, axis=1) == np.arange(4)).all()
    latent, wanted = found.latent(features), truth.latent(features)
    for one in range(4):
        assert spearman(latent[:, one], wanted[:, one]) > 0.95
    np.testing.assert_allclose(found.threshold[:2], truth.threshold[:2], atol=0.3)


def test_the_most_harmful_of_several_windows_is_the_one_that_learns(long):
    """Nobody says which window made the label; harm finds it, and grade and kinds are then told apart there.

    Here grade and harm are independent, so the window that drew the label is often another one: directions, not sizes.
    """
    features, truth, labels = long
    found = fit_heads(features, labels, np.ones(N), grade_penalty=1)
    harmful, wanted = (heads.exceed(features)[:, 0, 0] for heads in (found, truth))
    assert spearman(harmful, wanted) > 0.97
    np.testing.assert_allclose(harmful.mean(), wanted.mean(), atol=0.06)
    cosine = [a @ b / np.sqrt(a @ a * (b @ b)) for a, b in zip(found.weight.T, truth.weight.T, strict=True)]
    assert min(cosine) > 0.8


def test_harm_learns_as_much_from_harmful_or_not_as_from_levels(short, fitted):
    """A yes is a yes whoever graded it: rougher labels change nothing of harm."""
    features, truth, labels = short
    rough = unkind(np.where(np.arange(N)[:, None, None] < 200, labels, yes_or_no(labels)))
    found = fit_heads(features, rough, np.ones(N))
    assert_same_columns(found, fitted, [HARM])
    assert spearman(found.latent(features)[:, HARM], truth.latent(features)[:, HARM]) > 0.95


def test_harmful_or_not_changes_nothing_of_the_grade(short):
    """A binary "unsafe" is [1, 4]: it moves no level above 1, however many there are."""
    features, _, labels = short
    some = np.arange(500)
    labels = unkind(labels)
    rough = np.where(np.arange(N)[:, None, None] < 500, labels, yes_or_no(labels))
    few = fit_heads(features.take(some), labels[some], np.ones(500))
    many = fit_heads(features, rough, np.ones(N))
    assert_same_columns(many, few, [GRADE])
    assert np.abs(many.weight[:, HARM] - few.weight[:, HARM]).max() > 0.01


def test_how_much_a_grade_counts_changes_nothing_of_harm(short, fitted):
    """Sources may be trusted with yes or no and not with levels: without its weight, a grade may as well be missing."""
    features, _, labels = short
    half, labels = np.arange(N) % 2, unkind(labels)
    found = fit_heads(features, labels, np.ones(N), graded=half)
    rough = fit_heads(features, np.where(half[:, None, None], labels, yes_or_no(labels)), np.ones(N))
    assert_same_columns(found, fitted, [HARM])
    assert np.abs(found.weight[:, GRADE] - fitted.weight[:, GRADE]).max() > 0.001
    np.testing.assert_allclose(found.weight[:, GRADE], rough.weight[:, GRADE], atol=1e-3)


def test_a_domain_that_is_only_harmful_or_not_borrows_the_grades(short):
    """Its own steps stay where they started, close together; how bad it is then, the grade says."""
    features, _, labels = short
    rough = labels.copy()
    rough[:, 2] = yes_or_no(labels)[:, 2]
    found = fit_heads(features, rough, np.ones(N))
    np.testing.assert_allclose(np.diff(found.threshold[ANOTHER]), np.exp(-2), rtol=1e-4)
    assert np.abs(np.diff(found.threshold[ONE]) - np.exp(-2)).max() > 0.01


def test_thresholds_never_cross(short):
    """Not where a level was never seen, not where it was the only one, not where there are no labels."""
    features, _, labels = short
    some = np.arange(300)
    labels = labels[some].copy()
    labels[:, 0] = np.where(labels[:, 0] > 0, TOP, 0)  # nothing in between
    labels[:, 1] = np.minimum(labels[:, 0], 2)
    labels[:, 2] = UNKNOWN
    taken = features.take(some)
    found = fit_heads(taken, labels, np.ones(300))
    for heads in (found, calibrate(found, found.worst(taken), labels, np.ones(300))):
        assert np.isfinite(heads.threshold).all()
        assert (np.diff(heads.threshold, axis=1) >= 0).all()
        assert (np.diff(heads.exceed(features), axis=2) <= 0).all()


def test_harm_has_one_threshold_and_the_grade_none_at_the_first_level(short, fitted):
    """Harmful or not is one question, and whatever is harmful is at least of level 1; calibrated or not."""
    features, _, labels = short
    for heads in (fitted, calibrate(fitted, fitted.worst(features), labels, np.ones(N))):
        assert (heads.threshold[HARM] == heads.threshold[HARM, 0]).all()
        assert heads.threshold[GRADE, 0] == NEVER
        wanted = expit(heads.latent(features)[:, HARM] - heads.threshold[HARM, 0])
        np.testing.assert_allclose(heads.exceed(features)[:, 0, 0], wanted, rtol=1e-5)


def test_crossing_thresholds_are_refused():
    """Heads that would give a negative probability do not exist."""
    crossed = np.array([[1.0, 0.0]], np.float32)
    with pytest.raises(ValueError, match="thresholds must not decrease from level to level"):
        Heads(np.zeros((2, 1), np.float32), np.zeros((3, 1), np.int8), np.ones(1, np.float32), crossed)


@pytest.mark.parametrize("labels", [UNKNOWN, [0, 0], [1, TOP], [0, 2], [3, 3]], ids=str)
def test_labels_that_leave_harm_untold_are_refused(short, labels):
    """No default head."""
    features, _, full = short
    wanted = "^overall labels must tell harmful from harmless: some must be 0, and some above it$"
    with pytest.raises(ValueError, match=wanted):
        fit_heads(features, np.broadcast_to(np.array(labels, np.int8), full.shape), np.ones(N))


def test_a_grade_that_no_label_tells_is_lent_or_the_same_for_all(short, fitted):
    """No default head that would look like knowledge: harmful, and then every level alike."""
    features, _, labels = short
    rough = unkind(yes_or_no(labels))
    bare, lent = (fit_heads(features, rough, np.ones(N), lender=lender) for lender in (None, fitted))
    assert_same_columns(bare, fit_heads(features, unkind(labels), np.ones(N)), [HARM])
    exceed = bare.exceed(features)[:, 0]
    np.testing.assert_allclose(exceed / exceed[:, :1], np.tile([1, 0.75, 0.5, 0.25], (N, 1)), rtol=1e-5)
    np.testing.assert_allclose(lent.latent(features)[:, GRADE], fitted.latent(features)[:, GRADE], atol=1e-5)
    np.testing.assert_array_equal(lent.threshold[GRADE], fitted.threshold[GRADE])
    repaired = calibrate(bare, bare.worst(features), rough, np.ones(N))
    np.testing.assert_array_equal(repaired.threshold[GRADE], bare.threshold[GRADE])


@pytest.mark.parametrize("kinds", [0, 1, 2])
def test_two_levels_and_any_number_of_domains_are_a_taxonomy_too(short, kinds):
    """Harmful or not is an ordinal scale: no grade, as many kinds as there are."""
    features, truth, labels = short
    harmful = np.minimum(labels, 1)[:, : kinds + 1]
    found = fit_heads(features, harmful, np.ones(N), top=1)
    found = calibrate(found, found.worst(features), harmful, np.ones(N))
    assert found.threshold.shape == (kinds + 2, 1)
    exceed = found.exceed(features)
    assert exceed.shape == (N, kinds + 1, 1)
    assert np.abs(exceed - truth.exceed(features)[:, : kinds + 1, :1]).mean() < 0.06


def test_a_text_without_labels_moves_nothing(short, fitted):
    """An absent label is unknown, never 0: texts that nobody labelled may as well be missing."""
    features, _, labels = short
    silent = np.concatenate([labels, np.broadcast_to(UNKNOWN, (500, 3, 2))])
    more = features.take(np.concatenate([np.arange(N), np.arange(500)]))
    found = fit_heads(more, silent, np.ones(N + 500))
    np.testing.assert_allclose(found.exceed(features), fitted.exceed(features), atol=0.01)


def test_labels_of_domains_do_not_move_harm_or_the_grade(short, fitted):
    """Severity is learned from `overall` alone: dropping all domains' labels leaves it where it is."""
    features, _, labels = short
    found = fit_heads(features, unkind(labels), np.ones(N))
    assert_same_columns(found, fitted, [HARM, GRADE])


def assert_nothing_learned(heads, latent):
    """Its head is where it started."""
    weight, table, _, threshold = column(heads, latent)
    assert (weight == 0).all()
    assert (table == 0).all()
    assert threshold[0] == 0
    np.testing.assert_allclose(np.diff(threshold), np.exp(-2), rtol=1e-5)


def test_a_domain_that_is_not_harmful_here_says_nothing_of_the_others(short):
    """[0, 0] in one domain is no label in another, whose head stays where it started."""
    features, _, labels = short
    one = labels.copy()
    one[:, 1] = 0
    one[:, 2] = UNKNOWN
    found = fit_heads(features, one, np.ones(N))
    assert_nothing_learned(found, ANOTHER)
    assert found.exceed(features)[:, 1].max() < 0.05


def test_an_unlabelled_domain_does_not_move_with_the_labels_of_the_others(short, fitted):
    """Nobody files anything under it: what is harmful in another domain may be harmful here as well."""
    features, _, labels = short
    silent = labels.copy()
    silent[:, 2] = UNKNOWN
    found = fit_heads(features, silent, np.ones(N))
    assert_nothing_learned(found, ANOTHER)
    assert np.abs(found.weight[:, ONE]).max() > 0.1


def test_what_a_text_is_filed_under_tells_the_domains_apart(short):
    """Sources that file each harmful text under one domain never say that it is not another; the softmax does."""
    features, truth, labels = short
    rng, gap = np.random.default_rng(3), truth.latent(features)[:, [ONE, ANOTHER]] @ [1, -1]
    other, harmful = (rng.random(N) > expit(gap)).astype(int), np.flatnonzero(labels[:, 0, 0])
    filed = unkind(labels)
    filed[harmful, 1 + other[harmful]] = [1, TOP]
    found = fit_heads(features, filed, np.ones(N)).latent(features)
    assert spearman(found[:, ONE] - found[:, ANOTHER], gap) > 0.9


def test_weights_count_as_repetitions(short):
    """A row of weight two is two rows."""
    features, _, labels = short
    some = np.arange(300)
    twice = np.concatenate([some, some[:100]])
    weighted = fit_heads(features.take(some), labels[some], np.where(some < 100, 2.0, 1.0))
    repeated = fit_heads(features.take(twice), labels[twice], np.ones(400))
    np.testing.assert_allclose(weighted.exceed(features), repeated.exceed(features), atol=0.01)


def test_a_strict_source_is_not_taken_for_a_worse_one(short):
    """Its offsets absorb its raters' strictness, in harm and in grade, and are gone afterwards."""
    features, truth, labels = short
    strict = np.arange(N) % 2
    shifted = np.where(strict[:, None, None], draw_labels(np.random.default_rng(2), truth, features, shift=2.0), labels)
    wanted = truth.exceed(features)[:, 0]
    told, untold = (
        fit_heads(features, unkind(shifted), np.ones(N), sources, grade_penalty=1).exceed(features)[:, 0]
        for sources in (strict, None)
    )
    assert np.abs(told - wanted).mean() < 0.04
    assert np.abs(untold - wanted).mean() > 0.08


# Calibration.


def scaled(heads, factor):
    """The same order and thresholds at the same places, with probabilities nearer to 0 and 1, or further away.

    `factor` is one number, or one for each latent.
    """
    factor = np.broadcast_to(np.float32(factor), heads.scale.shape)
    return Heads(heads.weight * factor, heads.table, heads.scale * factor, heads.threshold * factor[:, None])


def test_what_is_calibrated_stays(short):
    """Labels drawn from the heads themselves are no reason to change them."""
    features, truth, labels = short
    found = calibrate(truth, truth.worst(features), labels, np.ones(N))
    np.testing.assert_allclose(found.scale / truth.scale, 1, atol=0.15)
    np.testing.assert_allclose(found.threshold, truth.threshold, atol=0.3)
    assert np.abs(found.exceed(features) - truth.exceed(features)).mean() < 0.02


@pytest.mark.parametrize(
    ("latents", "domain", "factor"),
    [([HARM], 0, 3), ([GRADE], 0, 3), ([ONE], 1, 3), ([ANOTHER], 2, 3), (range(4), 0, 3), (range(4), 0, 1 / 3)],
    ids=[*LATENTS, "all", "all, not sure enough"],
)
def test_heads_that_are_too_sure_or_not_sure_enough_are_repaired(short, latents, domain, factor):
    """What a wrong penalty does to heads: what is wrong comes back, and the rest stays."""
    features, truth, labels = short
    factors = np.where(np.isin(np.arange(4), latents), factor, 1)
    wrong, wanted = scaled(truth, factors), truth.exceed(features)[:, domain]
    found = calibrate(wrong, wrong.worst(features), labels, np.ones(N))
    off, left = (np.abs(heads.exceed(features)[:, domain] - wanted).mean() for heads in (wrong, found))
    assert left < min(0.03, off / 2)
    assert np.abs(np.log(found.scale / truth.scale)).max() < np.log(1.5)
    np.testing.assert_array_equal(found.table, wrong.table)


def test_calibration_leaves_an_unlabelled_domain_alone(short, fitted):
    """No labels, no opinion."""
    features, _, labels = short
    labels = labels.copy()
    labels[:, 2] = UNKNOWN
    found = calibrate(fitted, fitted.worst(features), labels, np.ones(N))
    np.testing.assert_array_equal(found.scale == fitted.scale, [False, False, False, True])
    np.testing.assert_array_equal(found.weight[:, ANOTHER], fitted.weight[:, ANOTHER])
    np.testing.assert_allclose(found.threshold[ANOTHER], fitted.threshold[ANOTHER], rtol=1e-5)


def test_calibration_on_harmful_or_not_keeps_the_spacing_of_the_levels(short):
    """The steps above the first are not in the labels; they stay, scaled with everything else; the grade stays too."""
    features, truth, labels = short
    wrong = scaled(truth, 3)
    found = calibrate(wrong, wrong.worst(features), yes_or_no(labels), np.ones(N))
    slope = found.scale / wrong.scale
    assert slope[GRADE] == 1
    np.testing.assert_allclose(found.threshold[GRADE], wrong.threshold[GRADE], rtol=1e-5, atol=1e-5)
    assert (slope[[HARM, ONE, ANOTHER]] < 0.6).all()
    kinds = [ONE, ANOTHER]
    np.testing.assert_allclose(
        np.diff(found.threshold[kinds]), slope[kinds, None] * np.diff(wrong.threshold[kinds]), rtol=1e-3
    )


# Features, and the graph.


def test_features_count_grams_over_the_root_of_their_number():
    """Long windows do not shout; a bucket number that reaches the table's size is no gram."""
    rows = [np.array([3, 1, 3, 9]), np.array([9, 9]), np.array([0])]
    found = Features.of(np.zeros((3, 2), np.float32), rows, np.array([0, 2]), 9)
    wanted = np.zeros((3, 9))
    wanted[0, [1, 3]] = np.array([1, 2]) / np.sqrt(3)
    wanted[2, 0] = 1
    np.testing.assert_allclose(found.grams.toarray(), wanted, rtol=1e-6)


@pytest.mark.parametrize("rows", [[2, 0, 3], [1], [3, 3, 0], [0, 1, 2, 3], []])
def test_taking_texts_takes_all_their_windows_and_no_others(rows):
    """A fold that loses a window may have lost the worst one."""
    rng, counts, rows = np.random.default_rng(0), np.array([1, 3, 2, 4]), np.array(rows, int)
    features, truth = features_of(rng, counts), planted(rng)
    taken = features.take(rows)
    assert len(taken.first) == len(rows)
    assert len(taken.embedding) == taken.grams.shape[0] == counts[rows].sum()
    if len(rows):
        np.testing.assert_array_equal(truth.exceed(taken), truth.exceed(features)[rows])


def test_probabilities_are_those_of_the_three_formulas():
    """Harmful, how bad then, and of which kind: a worked example."""
    threshold = np.array([[1, 1], [NEVER, 2], [0, 1], [-1, -1]], np.float32)
    found = exceed_of(np.array([[1.0, 2.0, 0.0, 500.0]]), threshold)
    low = 0.26894143  # sigmoid(-1)
    np.testing.assert_allclose(found, [[[0.5, 0.25], [0.25, 0.25 * low], [0.5, 0.25]]], rtol=1e-6)


def test_the_worst_window_of_a_text_speaks_for_it():
    """Level by level and domain by domain, and for its own text only."""
    embedding = np.array([[0, 0, 0], [5, 0, -9], [2, 0.5, 1], [-3, 0, 0]], np.float32)
    features = Features(embedding, sparse.csr_matrix((4, 1), dtype=np.float32), np.array([0, 3]))
    threshold = np.array([[0, 0], [NEVER, 1], [0, 0]], np.float32)
    heads = Heads(np.eye(3, dtype=np.float32), np.zeros((1, 3), np.int8), np.ones(3, np.float32), threshold)
    harmless, likely = expit([-3.0, 2.0])
    wanted = [
        [[expit(5), likely * expit(-0.5)], [likely * expit(1), likely * expit(-0.5) * expit(1)]],
        [[harmless, harmless * expit(-1)], [harmless / 2, harmless * expit(-1) / 2]],
    ]
    np.testing.assert_allclose(heads.exceed(features), wanted, rtol=1e-6)
    assert heads.worst(features).tolist() == [[[5, 0, -9], [2, 0.5, 1]], [[-3, 0, 0], [-3, 0, 0]]]


def test_no_domain_is_above_overall(short, fitted):
    """The severity whatever the domain, at every level."""
    features, truth, _ = short
    for heads in (fitted, truth):
        exceed = heads.exceed(features)
        assert (exceed[:, :1] >= exceed).all()


def test_the_graph_says_what_the_heads_say(tiny, tiny_bundle, tmp_path):
    """Heads are fitted and calibrated in numpy and ship in the graph: one formula, twice."""
    rng = np.random.default_rng(5)
    texts = ["the cat sat on a mat", "bad dog", "rain and sun " * 20, "unkindly", "zzz"]
    threshold = np.sort(rng.normal(size=(4, TAXONOMY.top)).astype(np.float32), axis=1)
    threshold[HARM], threshold[GRADE, 0] = threshold[HARM, 0], NEVER
    heads = Heads(
        rng.normal(size=(CONFIG["hidden_size"], 4)).astype(np.float32),
        rng.integers(-127, 128, (512, 4)).astype(np.int8),
        rng.random(4).astype(np.float32) / 50,
        threshold,
    )
    windows, bundle = tiny.windows(texts), read_bundle(tiny_bundle)
    assert len(windows.text) > len(texts)
    features = Features.of(windows.embedding, windows.buckets, windows.first, 512)
    graph = with_heads(onnx.load(bundle.graph), heads).SerializeToString()
    write_bundle(tmp_path / "bundle", graph, bundle.tokenizer, bundle.card)
    found = SeverityModel(tmp_path / "bundle", threads=1).score(texts).exceed
    np.testing.assert_allclose(found, heads.exceed(features), atol=1e-6)
    assert (found[:, :1] >= found).all()

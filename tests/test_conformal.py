"""Level intervals: contiguous, around the likeliest level, and as often right as they promise."""

import json
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import severity_clf as sc
from severity_clf.bundle import CARD, read_bundle, write_bundle
from severity_clf.conformal import STEPS, Conformal, mass_before
from severity_clf.fit.conformal import fit_conformal
from severity_clf.metrics import coverage, mean_size
from severity_clf.scores import Scores
from severity_clf.taxonomy import Domain, Level, Taxonomy

DOMAINS = ("overall", "rude")
TAXONOMY = Taxonomy(
    tuple(Level(name, name) for name in ("none", "low", "moderate", "high", "extreme")),
    tuple(Domain(name, name) for name in DOMAINS),
)


def exceed_of(*probs):
    """[n, 1, level-1] from probabilities [n, level]."""
    return 1 - np.cumsum(probs, axis=1)[:, None, :-1]


def world(n, seed, twist=1.0):
    """Exceed [n, 2, 4] and levels [n, 2]: a model that is right for twist 1, and too sure of itself above."""
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet([2, 1, 1, 0.5, 0.5], (n, 2))
    level = (rng.random((n, 2, 1)) >= probs.cumsum(axis=2)).sum(axis=2)
    said = probs**twist / (probs**twist).sum(axis=2, keepdims=True)
    return (1 - said.cumsum(axis=2)[:, :, :-1]).clip(0, 1).astype(np.float32), level


def exact(level):
    """Labels [n, domain, 2] of known levels."""
    return np.stack([level, level], axis=2).astype(np.int8)


def scores(exceed, table):
    """Scores with a conformal table, or None."""
    conformal = None if table is None else Conformal.from_dict(table, DOMAINS)
    return Scores(TAXONOMY, exceed, np.zeros((*exceed.shape[:2], 2), np.int32), 1.0, conformal)


def test_a_set_grows_from_the_likeliest_level_to_the_likelier_neighbour():
    """0.4 at level 1, then 0.3 at 2, then 0.1 at 3 (before 0 with 0.05), then 0.15 at 4: a neighbour comes first."""
    [[before]] = mass_before(exceed_of([0.05, 0.4, 0.3, 0.1, 0.15]))
    assert before.tolist() == [0.95, 0, 0.4, 0.7, 0.8]


@pytest.mark.parametrize(
    ("probs", "wanted"),
    [
        ([0.5, 0.5, 0, 0, 0], [0.5, 0, 1, 1, 1]),
        ([0.25, 0.5, 0.25, 0, 0], [0.75, 0, 0.5, 1, 1]),
        ([1, 0, 0, 0, 0], [0, 1, 1, 1, 1]),
        ([0, 0, 0, 0, 1], [1, 1, 1, 1, 0]),
    ],
)
def test_of_equals_the_graver_level_comes_first(probs, wanted):
    """In doubt, a set errs towards harm; and nothing falls off either end of the scale."""
    assert mass_before(exceed_of(probs))[0, 0].tolist() == wanted


@given(st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4), st.floats(0, 1))
def test_sets_are_contiguous_hold_the_likeliest_level_and_have_enough_mass(exceed, enough):
    """Whatever the probabilities, and the least such set of its kind: without its last level it would not do."""
    exceed = np.sort(exceed)[::-1][None, None]
    table = Conformal(np.full((1, 2, STEPS), enough))
    [[(low, high)]] = table.sets(exceed, 0.1)
    probs = -np.diff(np.concatenate([[1], exceed[0, 0], [0]]))
    before = mass_before(exceed)[0, 0]
    inside = np.arange(5)[before <= enough]
    assert inside.tolist() == list(range(low, high + 1))
    assert probs[low : high + 1].max() == probs.max()
    assert probs[low : high + 1].sum() >= enough - 1e-5
    assert before[inside].max() <= enough


@pytest.mark.parametrize("twist", [1.0, 2.5, 0.3])
@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.3])
def test_fresh_rows_are_covered_as_often_as_promised(twist, alpha):
    """Also by a model that is far too sure, or not sure enough: 20000 rows have a standard error of 0.002."""
    table = fit_conformal(*labelled(5000, 0, twist), DOMAINS)
    exceed, labels = labelled(20_000, 1, twist)
    sets = scores(exceed, table).interval(alpha)
    for domain in range(2):
        harmful = labels[:, domain, 0] > 0
        for rows in (harmful, ~harmful):
            assert coverage(sets[rows, domain], labels[rows, domain]) > 1 - alpha - 0.02
        assert mean_size(sets[:, domain]) < 4.5


def labelled(n, seed, twist=1.0):
    """Exceed and exact labels."""
    exceed, level = world(n, seed, twist)
    return exceed, exact(level)


def test_coverage_is_not_far_above_the_promise():
    """Whole scales would be right too: the promise is nearly met from above, where single levels are not enough."""
    exceed, labels = labelled(20_000, 1)
    sets = scores(exceed, fit_conformal(*labelled(5000, 0), DOMAINS)).interval(0.1)
    assert coverage(sets[:, 0], labels[:, 0]) < 0.93


def test_harmful_rows_are_covered_however_rare_they_are():
    """Two in a hundred, from a model that hardly sees them: sets of level 0 alone would be right for 98 of them."""
    rng = np.random.default_rng(0)

    def rows(n):
        harmful = rng.random(n) < 0.02
        level = np.where(harmful, rng.integers(1, 5, n), 0)[:, None]
        chance = np.clip(rng.beta(1, 20, n) + harmful * rng.beta(1, 8, n), 0, 0.4)[:, None, None]
        return chance * np.array([1, 0.7, 0.4, 0.2]), exact(level)

    exceed, labels = rows(40_000)
    conformal = Conformal.from_dict(fit_conformal(*rows(20_000), ("overall",)), ("overall",))
    sets, harmful = conformal.sets(exceed, 0.1)[:, 0], labels[:, 0, 0] > 0
    assert coverage(np.zeros_like(sets), labels[:, 0]) > 0.97
    assert coverage(sets[harmful], labels[harmful, 0]) == pytest.approx(0.9, abs=0.035)
    assert mean_size(sets[~harmful]) < 4


def test_a_table_of_other_rows_promises_nothing():
    """The check for coverage can fail: a table from a calibrated model, on one that is too sure."""
    exceed, labels = labelled(20_000, 1, twist=4.0)
    sets = scores(exceed, fit_conformal(*labelled(5000, 0), DOMAINS)).interval(0.1)
    assert coverage(sets[:, 0], labels[:, 0]) < 0.85


def test_the_quantile_is_the_rank_with_the_finite_sample_correction():
    """Nine rows: alpha 0.1 needs the 9th of them, 0.2 the 8th, 0.5 the 5th, and 0.09 more than there are."""
    exceed = exceed_of(*([0.9 - n / 20, 0.1 + n / 20, 0, 0, 0] for n in range(8)), [0.3, 0.7, 0, 0, 0])
    labels = np.tile(np.array([[[1, 1]]], np.int8), (9, 1, 1))  # nonconformity 0.9, 0.85 ... 0.55, and 0
    [(kind, entry)] = fit_conformal(exceed, labels, ("overall",))["overall"].items()
    assert (kind, entry["n"], entry["exact"], len(entry["quantiles"])) == ("harmful", 9, 9, STEPS)
    at = {alpha: entry["quantiles"][alpha - 1] for alpha in (9, 10, 20, 50)}
    assert at == {9: None, 10: 0.9, 20: 0.85, 50: 0.7}


def test_harmless_and_harmful_rows_each_decide_on_their_levels():
    """A row of one kind does not move the other's quantiles, and an undecided one moves neither."""
    exceed = exceed_of([0.6, 0.4, 0, 0, 0], [0.3, 0.7, 0, 0, 0], [0.2, 0.2, 0.6, 0, 0])
    labels = np.array([[[0, 0]], [[0, 0]], [[1, 1]]], np.int8)
    table = fit_conformal(exceed, labels, ("overall",))["overall"]
    assert {kind: (entry["n"], entry["quantiles"][49]) for kind, entry in table.items()} == {
        "harmless": (2, 0.7),
        "harmful": (1, 0.6),
    }
    undecided = np.concatenate([labels, [[[0, 2]]]])
    assert fit_conformal(exceed[[0, 1, 2, 2]], undecided, ("overall",)) == {"overall": table}


def test_a_set_takes_in_what_lies_between_its_ends():
    """Level 3 is likely and 0 is let in by its own quantile: so are 1 and 2."""
    quantile = np.stack([np.full((1, STEPS), 0.9), np.zeros((1, STEPS))], axis=1)
    exceed = exceed_of([0.3, 0, 0, 0.6, 0.1], [0, 0.1, 0.1, 0.7, 0.1], [0.9, 0, 0, 0.1, 0])
    assert Conformal(quantile).sets(exceed, 0.1)[:, 0].tolist() == [[0, 3], [3, 3], [0, 0]]


def test_an_interval_label_is_as_strange_as_the_least_of_its_levels():
    """[1, 4] is met by a set that reaches 1."""
    exceed = exceed_of([0.6, 0.1, 0.3, 0, 0], [0.6, 0.1, 0.3, 0, 0], [1, 0, 0, 0, 0])
    labels = np.array([[[1, 4]], [[2, 2]], [[0, 4]]], np.int8)
    entry = fit_conformal(exceed, labels, ("overall",))["overall"]["harmful"]
    assert (entry["n"], entry["exact"]) == (2, 1)
    assert entry["quantiles"][49] == 0.7  # rank ceil(3 / 2) = 2
    assert fit_conformal(exceed[:1], labels[:1], ("overall",))["overall"]["harmful"]["quantiles"][49] == 0.6


def test_where_enough_harmful_rows_name_a_level_they_decide_alone():
    """A yes or no is easier to meet than a level."""
    exceed, level = world(800, 0)
    level = np.maximum(level, 1)
    labels = exact(level)
    labels[::2] = (1, 4)
    alone = fit_conformal(exceed[1::2], labels[1::2], DOMAINS)
    assert fit_conformal(exceed, labels, DOMAINS) == alone
    few = fit_conformal(exceed[:80], labels[:80], DOMAINS)["overall"]["harmful"]
    assert (few["n"], few["exact"]) == (80, 40)
    assert few["quantiles"][9] < alone["overall"]["harmful"]["quantiles"][9]


def test_rows_that_could_not_be_scored_and_domains_without_labels_are_left_out():
    """Nothing is made up for them."""
    exceed, labels = labelled(20, 0)
    exceed[3], labels[:, 1] = np.nan, (0, 4)
    [(name, kinds)] = fit_conformal(exceed, labels, DOMAINS).items()
    assert (name, sum(entry["n"] for entry in kinds.values())) == ("overall", 19)


@pytest.mark.parametrize("shape", [(4, 2), (4, 1, 2), (5, 2, 2), (4, 2, 3)])
def test_arrays_that_do_not_fit_are_refused(shape):
    """Rather than broadcast."""
    with pytest.raises(ValueError, match=r"exceed is .* labels .* 2 domains"):
        fit_conformal(np.zeros((4, 2, 4)), np.zeros(shape, np.int8), DOMAINS)


def test_what_is_not_known_is_the_whole_scale():
    """Too few rows, no rows, an alpha below the table, a text that could not be scored: never silently too small."""
    exceed, _ = world(3, 2)
    exceed[1] = np.nan
    entry = {"n": 10, "exact": 10, "quantiles": [None] * 9 + [0.0] * 41}
    found = scores(exceed, {"overall": {"harmless": entry, "harmful": entry}})
    whole = [0, 4]
    assert found.interval(0.1)[1].tolist() == [whole, whole]
    assert found.interval(0.1)[:, 1].tolist() == [whole] * 3
    assert found.interval(0.09)[:, 0].tolist() == [whole] * 3
    assert found.interval(0.001)[:, 0].tolist() == [whole] * 3
    low, high = found.interval(0.1)[[0, 2], 0].T
    assert (low == high).all()
    assert (scores(exceed, {"overall": {"harmless": entry}}).interval(0.1)[:, 0, 1] == 4).all()  # no harmful rows


def test_alpha_is_rounded_down_to_a_hundredth():
    """A larger set than asked for keeps the promise, a smaller one would not."""
    exceed, _ = world(200, 3)
    found = scores(exceed, fit_conformal(*labelled(500, 0), DOMAINS))
    for asked, answered in ((0.299, 0.29), (0.29, 0.29), (0.57, 0.5), (0.99, 0.5)):
        np.testing.assert_array_equal(found.interval(asked), found.interval(answered))
    sizes = [mean_size(found.interval(step / 100)[:, 0]) for step in range(1, 51)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[27] > sizes[29]


@pytest.mark.parametrize("alpha", [0, 1, -0.1, 10, float("nan")])
def test_an_alpha_that_is_no_share_is_refused(alpha):
    """10 is not 10%."""
    exceed, labels = labelled(50, 0)
    with pytest.raises(ValueError, match="alpha must be above 0 and below 1"):
        scores(exceed, fit_conformal(exceed, labels, DOMAINS)).interval(alpha)


def test_no_texts_have_no_sets():
    """An empty batch."""
    table = fit_conformal(*labelled(50, 0), DOMAINS)
    found = scores(np.zeros((0, 2, 4), np.float32), table).interval()
    assert (found.shape, found.dtype) == ((0, 2, 2), np.int8)


# In a bundle.


@pytest.fixture
def with_table(tiny_bundle, tmp_path):
    """Write the tiny bundle again with this under "conformal"."""

    def write(table):
        bundle = read_bundle(tiny_bundle)
        card = {**bundle.card, "conformal": table}
        write_bundle(tmp_path / "bundle", bundle.graph.read_bytes(), bundle.tokenizer, card)
        return tmp_path / "bundle"

    return write


def test_a_bundle_without_a_table_scores_and_says_what_to_run(tiny):
    """Older bundles go on working; there is no made-up interval."""
    found = tiny.score(["the cat"])
    assert found.scored.all()
    with pytest.raises(ValueError, match="no conformal table; run sevclf calibrate"):
        found.interval()


def test_a_table_in_a_bundle_reaches_the_scores_to_the_last_digit(tiny, with_table):
    """The same sets as from the table in memory; and also after a pickle."""
    texts = [f"{a} {b} {c}" for a in ("the", "bad", "worse") for b in ("cat", "sun", "dog") for c in ("ran", "far")]
    exceed = tiny.score(texts).exceed
    labels = np.random.default_rng(0).integers(0, 3, (len(texts), 3, 1)).repeat(2, axis=2)
    table = fit_conformal(exceed, labels, tiny.taxonomy.names)
    model = sc.load(with_table(table))
    for alpha in (0.1, 0.2, 0.5):
        wanted = Conformal.from_dict(table, tiny.taxonomy.names).sets(exceed, alpha)
        np.testing.assert_array_equal(model.score(texts).interval(alpha), wanted)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.score(texts).interval(0.2), model.score(texts).interval(0.2))
    assert model.score(["", "the cat"]).interval(0.5)[0].tolist() == [[0, 2]] * 3


def broken(*quantiles):
    """A table whose harmful rows have these quantiles."""
    return {"rude": {"harmless": {"quantiles": [0.5] * STEPS}, "harmful": {"quantiles": list(quantiles)}}}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([], "conformal is list, want an object"),
        ({"loud": {}}, "conformal: unknown domain 'loud'"),
        ({"rude": {"harmless": {"n": 9}}}, "conformal: rude has no 'quantiles'"),
        ({"rude": 3}, "conformal: rude: "),
        ({"rude": {"mild": {}}}, "conformal: rude: unknown kind 'mild', want harmless and harmful"),
        (broken(0.5), "conformal: rude: 1 quantiles, want 50"),
        (broken(*[1.5] * STEPS), "conformal: rude: quantiles must be from 0 to 1, or null"),
        (broken(*["x"] * STEPS), "conformal: rude: could not convert"),
        (broken(0.1, 0.2, *[0.1] * 48), "conformal: rude: quantiles must not increase with alpha"),
        (broken(*[0.2] * 9, *[None] * 41), "conformal: rude: quantiles must not increase with alpha"),
    ],
)
def test_a_broken_table_is_refused_when_the_bundle_is_read(with_table, table, message):
    """Not at the first interval, hours later."""
    with pytest.raises(sc.BundleError, match=rf"{CARD}: missing or wrong {message}"):
        sc.load(with_table(table))


def test_a_table_is_plain_json():
    """What a fit gives is what a file holds."""
    table = fit_conformal(*labelled(60, 0), DOMAINS)
    assert json.loads(json.dumps(table, allow_nan=False)) == table

"""Nothing is judged by what has seen it."""

import numpy as np
import pytest

from severity_clf.fit.crossfit import flag_best, flag_rate, group_folds


@pytest.mark.parametrize("groups", [2, 3, 7, 40])
def test_a_group_is_in_one_fold_and_folds_are_numbered_from_0(groups):
    """However few groups there are, and whatever is rare among them."""
    rng = np.random.default_rng(groups)
    group = np.concatenate([np.arange(groups), rng.integers(0, groups, 200)])
    fold = group_folds(group.astype(str), rng.integers(0, 4, len(group)) ** 3)
    assert set(fold) == set(range(fold.max() + 1))
    assert fold.max() + 1 == min(groups, 5)
    assert all(len(set(fold[group == one])) == 1 for one in range(groups))


def test_strata_are_spread_evenly_and_the_seed_deals_anew():
    """Every fold can be fitted without, and judged."""
    strata = np.repeat([0, 1], [180, 20])
    names = np.arange(200).astype(str)
    fold = group_folds(names, strata)
    assert (np.bincount(fold[strata == 1], minlength=5) == 4).all()
    assert (group_folds(names, strata, seed=1) != fold).any()
    np.testing.assert_array_equal(group_folds(names, strata), fold)


def test_one_group_cannot_be_split():
    """Held out from what?"""
    with pytest.raises(ValueError, match="one group alone cannot be split"):
        group_folds(["a"] * 9, np.zeros(9))


def test_a_threshold_flags_as_many_harmless_rows_as_allowed_and_no_more():
    """A worked example: ten harmless rows at 0.1, 0.2, ... 1.0."""
    overall, harmless = np.append(np.arange(1, 11) / 10, [3.0] * 5), np.repeat([True, False], [10, 5])
    for rate, wanted in ((0.0, 1.05), (0.1, 0.95), (0.5, 0.55), (1.0, 0.0)):
        assert flag_rate(overall, harmless, rate, 4) == pytest.approx(wanted)
    assert flag_rate(np.full(3, 4.0), np.ones(3, bool), 0.0, 4) == 4.0


def test_the_best_threshold_lies_in_the_middle_of_the_gap():
    """Not at its edge, where the next row falls on the wrong side."""
    overall, harmful = np.array([0.5, 1.0, 3.0, 3.5]), np.array([False, False, True, True])
    assert flag_best(overall, harmful, 4) == pytest.approx(2.05)
    assert flag_best(np.array([0.1, 0.9]), np.array([False, True]), 1) == pytest.approx(0.5, abs=0.02)

"""The estimator is one of scikit-learn's, and has the heads' likelihood."""

import numpy as np
import pytest
from scipy import sparse
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.utils.estimator_checks import parametrize_with_checks

from severity_clf.fit.estimators import OrdinalClassifier

THRESHOLD = np.array([-1.0, 0.0, 1.5])


@parametrize_with_checks([OrdinalClassifier()])
def test_it_is_a_scikit_learn_estimator(estimator, check):
    """Every check that scikit-learn has for a classifier, sparse input and sample weights included."""
    check(estimator)


@pytest.fixture(scope="module")
def problem():
    """2000 rows of an ordinal model with four levels."""
    rng = np.random.default_rng(0)
    features, weight = rng.normal(size=(2000, 3)), np.array([1.0, -2.0, 0.5])
    level = (rng.random((2000, 1)) < expit((features @ weight)[:, None] - THRESHOLD)).sum(axis=1)
    return features, weight, level


def test_planted_weights_and_thresholds_are_found(problem):
    """Maximum likelihood, with levels or with intervals that hold no more than the level."""
    features, weight, level = problem
    found = OrdinalClassifier().fit(features, level)
    np.testing.assert_allclose(found.coef_[0], weight, atol=0.2)
    np.testing.assert_allclose(found.threshold_, THRESHOLD, atol=0.2)
    same = OrdinalClassifier().fit(features, np.stack([level, level], axis=1))
    np.testing.assert_allclose(same.predict_proba(features), found.predict_proba(features), atol=1e-9)


def test_an_interval_says_less_and_nothing_wrong(problem):
    """Half of the harmful rows are only known to be harmful, and the probabilities stay."""
    features, _, level = problem
    exact = OrdinalClassifier().fit(features, level)
    rough = np.stack([level, level], axis=1)
    some = (np.arange(len(level)) % 2 == 0) & (level > 0)
    rough[some] = 1, 3
    found = OrdinalClassifier().fit(features, rough)
    assert 0 < np.abs(found.predict_proba(features) - exact.predict_proba(features)).mean() < 0.02


def test_two_classes_are_logistic_regression(problem):
    """The same likelihood and the same penalty, by another hand."""
    features, _, level = problem
    found = OrdinalClassifier(penalty=2.0).fit(features, level > 0)
    other = LogisticRegression(C=0.5, tol=1e-10, max_iter=10_000).fit(features, level > 0)
    np.testing.assert_allclose(found.coef_, other.coef_, atol=1e-5)
    np.testing.assert_allclose(found.threshold_, -other.intercept_, atol=1e-5)


def test_sparse_features_give_what_dense_ones_give(problem):
    """TF-IDF is never made dense."""
    features, _, level = problem
    found = OrdinalClassifier().fit(sparse.csr_array(features), level)
    wanted = OrdinalClassifier().fit(features, level)
    np.testing.assert_allclose(
        found.predict_proba(sparse.csc_matrix(features)), wanted.predict_proba(features), atol=1e-6
    )


def test_it_can_be_searched_over(problem):
    """What an estimator is for."""
    features, _, level = problem
    search = GridSearchCV(OrdinalClassifier(), {"penalty": [0.1, 1e4]}, cv=3).fit(features[:300], level[:300])
    assert search.best_params_ == {"penalty": 0.1}


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([[0, 1], [1, 0], [0, 0]], r"y\[1\] is \[1, 0\]; want the lowest class first"),
        ([[1, 1], [1, 1], [1, 1]], "got one class alone"),
        ([[0.5, 0.7], [0.1, 0.2], [0.2, 0.3]], "Unknown label type"),
    ],
)
def test_labels_that_cannot_be_fitted_are_refused(labels, message):
    """Before any step."""
    with pytest.raises(ValueError, match=message):
        OrdinalClassifier().fit(np.eye(3), np.array(labels))

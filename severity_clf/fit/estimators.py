"""The heads' likelihood as a scikit-learn estimator, for any features: embeddings, TF-IDF, a table of numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, column_or_1d, validate_data

from severity_clf.fit.heads import Double, Features, fit_latent

STEPS = 10_000  # at most; a convex problem needs some dozens


class OrdinalClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Cumulative-link regression of ordered classes, with interval labels and an L2 penalty on the weights.

        P(y >= k) = sigmoid(x . weight - threshold[k])

    The loss of a row is -log of the probability between the ends of its label (`severity_clf.fit.heads.interval_loss`).

    Args:
        penalty: L2 on the weights, as a multiple of one row's loss; thresholds have none.
        tol: L-BFGS steps end where no slope is above it.

    Attributes:
        classes_: [k], the classes in order.
        coef_: float64 [1, feature].
        threshold_: float64 [k-1], never decreasing.
        n_features_in_, feature_names_in_: as in scikit-learn.
    """

    def __init__(self, penalty: float = 1.0, tol: float = 1e-9) -> None:
        self.penalty = penalty
        self.tol = tol

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        # One direction for all classes: three clouds that do not lie in a row cannot be told apart.
        tags.classifier_tags.poor_score = True
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> OrdinalClassifier:
        """Maximum penalised likelihood.

        Args:
            X: [n, feature], dense or sparse.
            y: [n], classes that sort in their order; or an array [n, 2], the lowest and highest class of each row.
            sample_weight: [n]; a weight of two is the row twice.

        Raises:
            ValueError: fewer than two classes, a lowest class above the highest, or what scikit-learn refuses.
        """
        intervals = getattr(y, "ndim", 1) == 2 and y.shape[1] == 2
        data, y = validate_data(
            self, X, y, accept_sparse="csr", dtype=np.float64, multi_output=intervals, ensure_min_samples=2
        )
        y = y if intervals else column_or_1d(y, warn=True)
        check_classification_targets(np.ravel(y))
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"want two classes or more, got one class alone: {self.classes_[0]!r}")
        labels = codes.reshape(y.shape) if intervals else np.stack([codes, codes], axis=1)  # [n, 2]
        if (bad := np.flatnonzero(labels[:, 0] > labels[:, 1])).size:
            raise ValueError(f"y[{bad[0]}] is {y[bad[0]].tolist()}; want the lowest class first")
        weights = _check_sample_weight(sample_weight, data, dtype=np.float64)
        top = len(self.classes_) - 1
        rows, none = np.arange(data.shape[0]), np.zeros((data.shape[0], 0))
        dense = none if sparse.issparse(data) else data
        grams = sparse.csr_matrix(data if sparse.issparse(data) else none)
        options = {"gtol": self.tol, "ftol": 0.0, "maxfun": 10 * STEPS}
        penalties = (self.penalty, self.penalty)
        sources = np.zeros(data.shape[0], int)
        features = Features(dense, grams, rows)
        weight, table, self.threshold_ = fit_latent(
            features, labels, weights, sources, top, penalties, 1.0, STEPS, **options
        )
        self.coef_ = np.concatenate([weight, table]).T
        return self

    def predict_proba(self, X: Any) -> Double:
        """The probability of each class, float64 [n, k]."""
        check_is_fitted(self)
        data = validate_data(self, X, accept_sparse="csr", dtype=np.float64, reset=False)
        latent = np.asarray(data @ self.coef_.T)  # [n, 1]
        exceed = np.pad(expit(latent - self.threshold_), [(0, 0), (1, 1)], constant_values=((0, 0), (1, 0)))
        probabilities: Double = -np.diff(exceed, axis=1)
        return probabilities

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """The most probable class of each row, [n]."""
        likeliest: npt.NDArray[Any] = self.predict_proba(X).argmax(axis=1)
        return np.asarray(self.classes_[likeliest])

"""The baselines that a bundle has to beat: scikit-learn pipelines from texts, and what each says of new outputs.

- `tfidf` weighs words and parts of words.
- `frozen` is all-MiniLM-L6-v2, exported and quantised as ours, not tuned: the embedding of an output's first
  `FROZEN_LETTERS` characters.
- `length` knows how long an output is and nothing else.
- `constant` says the same of every output, and flags it.

Each is a logistic regression on the binary overall labels of the records that the shipped bundle is fitted on, or, on
PyRIT and RTP-LX, a regression fitted on the other folds. `frozen` reads a sample of the records, for time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from joblib import Memory
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from severity_clf.model import SeverityModel
from severity_clf.records import Record
from severity_clf.scores import Scores
from training import sources
from training.crossfit import held_out, share

Array = npt.NDArray[np.float64]
Folds = npt.NDArray[np.integer]  # the fold of each row
TFIDF_LETTERS = 4000
FROZEN_LETTERS = 1000  # about 220 tokens: one window
FROZEN_RECORDS = 8000


@dataclass(frozen=True)
class Said:
    """What one system says of some outputs.

    Attributes:
        score: float [n], higher is more harmful.
        flag: bool [n], whether it calls the output harmful.
    """

    score: npt.NDArray[np.floating]
    flag: npt.NDArray[np.bool_]

    @classmethod
    def overall(cls, scores: Scores) -> Said:
        """The bundle's verdict on whole outputs."""
        return cls(scores.overall, scores.flagged)


class Frozen:
    """Embeds texts with an encoder, each text once, and keeps what it has computed on disk."""

    def __init__(self, encoder: SeverityModel, cache: Path) -> None:
        self._encoder, self._known = encoder, dict[str, npt.NDArray[np.float32]]()
        self._embedded = Memory(cache, verbose=0).cache(_first_windows, ignore=["encoder"])

    def __call__(self, texts: Iterable[str]) -> npt.NDArray[np.float32]:
        """The embedding of each text's start, float32 [n, dim]."""
        cut = [text[:FROZEN_LETTERS] for text in texts]
        new = sorted(set(cut) - self._known.keys())
        if new:
            graph = self._encoder.card["sha256"]["model.onnx"]
            self._known.update(zip(new, self._embedded(graph, new, self._encoder), strict=True))
        return np.stack([self._known[text] for text in cut])


def _first_windows(graph: str, texts: list[str], encoder: SeverityModel) -> npt.NDArray[np.float32]:
    """The first window's embedding of each text, zeros where there is none; `graph` is what the cache knows it by."""
    windows = encoder.windows(texts)
    embedding = np.zeros((len(texts), windows.embedding.shape[1]), np.float32)
    embedding[windows.text[windows.first]] = windows.embedding[windows.first]
    return embedding


def features(frozen: Frozen) -> dict[str, Any]:
    """The part of each baseline that turns texts into numbers, not fitted."""
    options: dict[str, Any] = {"sublinear_tf": True, "max_features": 100_000}
    return {
        "tfidf": make_pipeline(
            FunctionTransformer(_cut),
            make_union(
                TfidfVectorizer(ngram_range=(1, 2), min_df=2, **options),
                TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), min_df=3, **options),
            ),
        ),
        "frozen": FunctionTransformer(frozen),
        "length": make_pipeline(FunctionTransformer(_log_length), StandardScaler()),
    }


def logistic() -> LogisticRegression:
    """The classifier on top of any of the features."""
    return LogisticRegression(C=10, max_iter=1000)


class Peers:
    """The baselines, fitted once on all records and once on those that are not PyRIT's."""

    def __init__(self, records: Sequence[Record], frozen: Frozen) -> None:
        records = [record for record in records if seen(record) and decided(record)]
        sample = sorted(range(len(records)), key=lambda row: share("frozen/" + records[row].id))[:FROZEN_RECORDS]
        self._fitted: dict[str, tuple[Any, LogisticRegression, LogisticRegression]] = {}
        for name, transform in features(frozen).items():
            known = [records[row] for row in sample] if name == "frozen" else records
            harmful = np.array([record.labels["overall"][0] > 0 for record in known])
            other = np.array([record.source != "pyrit" for record in known])
            matrix = transform.fit_transform([record.output for record in known])
            unseen = logistic().fit(matrix[other], harmful[other])
            self._fitted[name] = transform, logistic().fit(matrix, harmful), unseen

    def say(self, outputs: Sequence[str], *, zero_shot: bool = False) -> dict[str, Said]:
        """What each baseline says of the outputs.

        Args:
            outputs: the texts.
            zero_shot: ask those that saw no row of PyRIT.
        """
        said = {}
        for name, (transform, informed, unseen) in self._fitted.items():
            classifier = unseen if zero_shot else informed
            probability = classifier.predict_proba(transform.transform(outputs))[:, 1]
            said[name] = Said(probability, probability >= 0.5)
        return said | {"constant": Said(np.ones(len(outputs)), np.ones(len(outputs), bool))}


def seen(record: Record) -> bool:
    """Whether the shipped bundle is fitted on the record."""
    return record.source in sources.GRADED or not held_out(record.group)


def decided(record: Record) -> bool:
    """Whether people say of the whole output that it is harmful, or that it is not."""
    low, high = record.labels.get("overall", (0, 4))
    return low > 0 or high == 0


def crossfitted(
    pipeline: Any, outputs: Sequence[str], target: npt.NDArray[Any], fold: npt.NDArray[np.integer]
) -> Array:
    """What a pipeline fitted on the other folds expects of each output, [n] or, as the target is, [n, target].

    A classifier's classes are levels, of which the mean counts.
    """
    expected = np.empty(target.shape)
    for held in np.unique(fold):
        train, test = np.flatnonzero(fold != held).tolist(), np.flatnonzero(fold == held).tolist()
        pipeline.fit([outputs[row] for row in train], target[train])
        texts = [outputs[row] for row in test]
        if hasattr(pipeline, "predict_proba"):
            expected[test] = pipeline.predict_proba(texts) @ pipeline.classes_
        else:
            expected[test] = pipeline.predict(texts)
    return expected


def _cut(texts: Sequence[str]) -> list[str]:
    return [text[:TFIDF_LETTERS] for text in texts]


def _log_length(texts: Sequence[str]) -> Array:
    lengths = np.array([[np.log1p(len(text))] for text in texts])
    return np.concatenate([lengths, lengths**2], axis=1)

"""Keep what is fitted on apart from what is judged with: equal texts, and texts that differ in a few words.

Two outputs are equal if they share letters and digits, whatever their case, spacing and punctuation. They are near
duplicates if both have at least `WORDS` words, their sets of three-word shingles have a cosine of at least `SHINGLES`,
and the encoder's views of them one of at least `MEANING`. The shingles are cheap and find the candidates among all
pairs; the embedding then tells a copy with a word changed from the same phrases about something else: template answers
("... I have no information about your ...") share nine shingles in ten and no subject.

Shorter texts are duplicates only if they are equal. A refusal of ten words is close to every other refusal of ten
words, and leaving all of those out would leave out what a model most needs to have seen at level 0. Equal ones go,
whatever was asked: a score depends on the output, so a refusal that a benchmark holds must not be learnt by heart.

Prompts are not compared here; which groups share a side of a split is the recipe's.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from joblib import Memory, hash
from sklearn.feature_extraction.text import HashingVectorizer

from severity_clf.model import SeverityModel
from severity_clf.records import Record

WORDS = 12  # "I'm sorry, but I can't assist with that request." has 11, once the apostrophes are gone
SHINGLES = 0.5  # as of a text and its first quarter
MEANING = (
    0.8  # of the copies seen, retweets with a name before them, the furthest have 0.83; a text cut in half can miss it
)
CHUNK = 4096  # texts whose cosines are held at a time


@dataclass(frozen=True, slots=True)
class Match:
    """What a record has in common with texts held back.

    Attributes:
        equal: whether a text is the same but for case, spacing and punctuation; else it is near.
        sources: the data sets that hold such a text.
    """

    equal: bool
    sources: tuple[str, ...]


def apart_from(records: Sequence[Record], held: Sequence[Record], model: SeverityModel, cache: Path) -> list[Record]:
    """The records whose output is neither equal nor close to one that is held back, in their order."""
    found = matches(records, held, model, cache)
    return [record for record, match in zip(records, found, strict=True) if match is None]


def matches(records: Sequence[Record], held: Sequence[Record], model: SeverityModel, cache: Path) -> list[Match | None]:
    """What each record has in common with the held ones, if anything.

    Args:
        records: to be fitted on.
        held: to be judged with.
        model: an encoder that saw neither.
        cache: a folder; the same texts and encoder are compared once.
    """
    texts = [plain(record.output) for record in records]
    holders: dict[str, set[str]] = {}
    for record in held:
        holders.setdefault(plain(record.output), set()).add(record.source)

    left, right = sorted(set(texts) - holders.keys()), sorted(holders)

    def compare(key: str, left: list[str], right: list[str]) -> npt.NDArray[np.intp]:
        return near(left, right, model)

    # By a key, because joblib writes what it is called with beside what it got.
    compare = Memory(cache, verbose=0).cache(compare, ignore=["left", "right"])
    close: dict[str, set[str]] = {}
    for this, that in compare(hash((model.card["sha256"]["model.onnx"], left, right)), left, right):
        close.setdefault(left[this], set()).update(holders[right[that]])
    return [_match(text, holders, close) for text in texts]


def near(left: Sequence[str], right: Sequence[str], model: SeverityModel) -> npt.NDArray[np.intp]:
    """Which texts of two lists are near duplicates: int [pair, 2], the place in `left` and in `right`.

    Args:
        left: texts as `plain` gives them, each once.
        right: the same.
        model: whose embeddings confirm what the shingles suggest.
    """
    pairs = _candidates(left, right)
    if not len(pairs):
        return pairs
    rows, row_of = np.unique(pairs[:, 0], return_inverse=True)
    columns, column_of = np.unique(pairs[:, 1], return_inverse=True)
    ours = _directions(model, [left[row] for row in rows])  # [row, dim]
    theirs = _directions(model, [right[column] for column in columns])  # [column, dim]
    close = np.sum(ours[row_of] * theirs[column_of], axis=1) >= MEANING  # [pair]
    return np.compress(close, pairs, axis=0)


def plain(text: str) -> str:
    """What two copies of a text share: letters and digits in lower case."""
    return re.sub(r"[\W_]+", " ", unicodedata.normalize("NFKC", text).lower()).strip()


def _match(text: str, holders: dict[str, set[str]], close: dict[str, set[str]]) -> Match | None:
    if text in holders:
        return Match(True, tuple(sorted(holders[text])))
    return Match(False, tuple(sorted(close[text]))) if text in close else None


def _candidates(left: Sequence[str], right: Sequence[str]) -> npt.NDArray[np.intp]:
    """The pairs of long enough texts with shingles in common: int [pair, 2]."""
    rows, columns = ([at for at, text in enumerate(texts) if len(text.split()) >= WORDS] for texts in (left, right))
    if not rows or not columns:
        return np.empty((0, 2), np.intp)
    hashing = HashingVectorizer(
        tokenizer=str.split,
        token_pattern=None,
        ngram_range=(3, 3),
        n_features=2**22,
        binary=True,
        alternate_sign=False,
        dtype=np.float32,
    )
    theirs = hashing.transform(right[column] for column in columns).T.tocsr()  # [shingle, column]
    found = []
    for start in range(0, len(rows), CHUNK):
        part = rows[start : start + CHUNK]
        cosine = (hashing.transform(left[row] for row in part) @ theirs).tocoo()  # [row, column]
        enough = cosine.data >= SHINGLES
        found.append(np.stack([np.take(part, cosine.row[enough]), np.take(columns, cosine.col[enough])], axis=1))
    return np.concatenate(found)


def _directions(model: SeverityModel, texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """The mean over each text's windows, as a unit vector: float32 [text, dim]."""
    embedding, text = model.embed(texts)
    total = np.add.reduceat(embedding, np.flatnonzero(np.diff(text, prepend=-1)))  # [text, dim]
    unit: npt.NDArray[np.float32] = total / np.linalg.norm(total, axis=1, keepdims=True)
    return unit

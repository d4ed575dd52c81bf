"""What a bundle's graph gives for labelled rows, in pieces that are kept on disk if wanted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from severity_clf.bundle import GRAPH
from severity_clf.fit.heads import Features
from severity_clf.model import SeverityModel
from severity_clf.records import Record, RecordError

PIECE = 256  # records embedded between two signs of progress
Progress = Callable[[str, int, int], None]  # what is being done, how much of it is done, of how much


def silent(what: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


def embed(
    model: SeverityModel,
    records: Sequence[Record],
    buckets: int,
    *,
    prompts: bool = False,
    cache: Path | None = None,
    progress: Progress = silent,
) -> Features:
    """The features of every record's output.

    Args:
        model: whose graph reads them.
        records: at least one.
        buckets: rows of the n-gram table.
        prompts: read each output with its prompt, where the record has one.
        cache: a folder that keeps every piece; one that is there is not computed again. None keeps nothing.
        progress: told after every piece.

    Raises:
        RecordError: an output without a token to read.
    """
    parts: list[dict[str, npt.NDArray[Any]]] = []
    for start in range(0, len(records), PIECE):
        some = records[start : start + PIECE]
        outputs = [record.output for record in some]
        context = [record.prompt if prompts else None for record in some]
        part = _piece(model, outputs, context, cache)
        if lost := sorted(set(range(len(some))) - set(part["text"].tolist())):
            raise RecordError(f"record {some[lost[0]].id!r}: not one token to read in its output; drop the row")
        parts.append(part)
        progress("embedding", start + len(some), len(records))
    embedding, values, lengths = (
        np.concatenate([part[key] for part in parts]) for key in ("embedding", "buckets", "lengths")
    )
    text = np.concatenate([part["text"] + PIECE * index for index, part in enumerate(parts)])
    rows = np.split(values, np.cumsum(lengths)[:-1])
    return Features.of(embedding, rows, np.flatnonzero(np.diff(text, prepend=-1)), buckets)


def _piece(
    model: SeverityModel, outputs: list[str], prompts: list[str | None], cache: Path | None
) -> dict[str, npt.NDArray[Any]]:
    known = [
        model.card["sha256"][GRAPH],
        list(model.tokens(outputs, prompts)),
    ]  # its outputs depend on nothing else
    path = None if cache is None else cache / f"{hashlib.sha256(json.dumps(known).encode()).hexdigest()}.npz"
    if path is not None and path.is_file():
        with np.load(path) as stored:
            return dict(stored)
    windows = model.windows(outputs, prompts)
    buckets = np.concatenate([*windows.buckets, np.empty(0, np.int64)]).astype(np.int32)
    lengths = np.array([len(row) for row in windows.buckets], np.intp)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        with partial.open("wb") as stream:
            np.savez(stream, embedding=windows.embedding, text=windows.text, buckets=buckets, lengths=lengths)
        partial.replace(path)
    return {"embedding": windows.embedding, "text": windows.text, "buckets": buckets, "lengths": lengths}

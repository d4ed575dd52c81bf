"""Labelled outputs, as a fit reads them.

A label is an interval of levels: (3, 3) where the level is known, (1, 4) for a plain "unsafe". A domain without a label
is unknown, never 0. Records of one `group` (a question, an objective, an author) never fall on both sides of a split.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from severity_clf.chat import kind_of, text_of
from severity_clf.lines import keys_of, read_object
from severity_clf.taxonomy import Taxonomy

KEYS = ("id", "output", "prompt", "labels", "group", "source", "weight")


class RecordError(ValueError):
    """Labelled rows that cannot be used as they are. The message names the file and line, or the record."""


@dataclass(frozen=True, slots=True)
class Record:
    """One labelled output.

    Attributes:
        id: names the row in reports, unique within its source.
        output: what the model wrote.
        labels: domain -> (lowest, highest) level; a domain that is absent is unknown.
        group: rows that share it stay on one side of every split.
        source: the data set it came from.
        prompt: what the model was asked, if known.
        weight: how much the row counts in a fit.
    """

    id: str
    output: str
    labels: Mapping[str, tuple[int, int]]
    group: str
    source: str = ""
    prompt: str | None = None
    weight: float = 1.0


def read_records(path: str | os.PathLike[str], taxonomy: Taxonomy | None = None) -> list[Record]:
    """Labelled rows from JSONL, one object a line; lines without anything on them are passed over.

        {"output": "...", "labels": {"overall": 3, "cyber": [1, 4]}, "prompt": "...", "group": "question 12"}

    `output` and `labels` are needed. `output` and `prompt` are strings or chats, lists of {"role", "content"}, of which
    the last assistant and the last user message are read. A label is a level, or [lowest, highest] where only that is
    known; a domain that is absent or null is unknown. `id` is the line's number where it is absent, and `group` is then
    the row's own id: every row may be split from every other, so give a group to rows that share a question or an
    author. `source` names where the row came from, and `weight` (default 1) how much it counts. Further keys are passed
    over, except those that look like one of these misspelt.

    Args:
        path: the file.
        taxonomy: checks domains and levels too; `label_array` does it later, without the line's number.

    Raises:
        OSError: the file cannot be read.
        RecordError: no rows, or a row that is not as above; the message names file, line and field.
    """
    path = Path(path)
    records: list[Record] = []
    lines: dict[tuple[str, str], int] = {}
    with path.open("rb") as stream:
        for number, content in enumerate(stream, 1):
            if not content.strip():
                continue
            try:
                record = _record(number, read_object(number, content))
                if taxonomy is not None:
                    taxonomy.intervals(record.labels)
                other = lines.setdefault((record.source, record.id), number)
                if other != number:
                    raise ValueError(f'"id" {record.id!r} is also that of line {other}; give every row its own')
            except ValueError as error:
                raise RecordError(f"{path}:{number}: {error}") from None
            records.append(record)
    if not records:
        raise RecordError(f'{path}: no rows; want one JSON object a line, with "output" and "labels"')
    return records


def _record(number: int, row: dict[str, Any]) -> Record:
    """One row, or a ValueError that names the field."""
    for key in ("output", "labels"):
        if key not in row:
            raise ValueError(f'no "{key}" key, only {keys_of(row)}; every row needs "output" and "labels"')
    for key in row.keys() - set(KEYS):
        meant = difflib.get_close_matches(key.lower(), KEYS, 1, 0.8)
        if meant and meant[0] not in row:
            raise ValueError(f'"{keys_of([key])}" is not a key of a record; rename it to "{meant[0]}" or drop it')
    identity = _name(row, "id") or str(number)
    weight = 1.0 if row.get("weight") is None else row["weight"]
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight <= sys.float_info.max:
        raise ValueError(f'"weight" is {_shown(weight)}, want a number from 0')
    return Record(
        identity,
        _text(row, "output", "assistant"),
        _labels(row["labels"]),
        _name(row, "group") or identity,
        _name(row, "source"),
        None if row.get("prompt") is None else _text(row, "prompt", "user"),
        float(weight),
    )


def _text(row: dict[str, Any], key: str, role: str) -> str:
    try:
        text = text_of(row[key], role)
    except ValueError as error:
        raise ValueError(f'"{key}" {error}') from None
    if key == "output" and not text.strip():
        raise ValueError('"output" is empty: nothing to score; drop the row')
    return text


def _name(row: dict[str, Any], key: str) -> str:
    """A string, or a whole number as one; empty where there is none."""
    value = row.get(key)
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ValueError(f'"{key}" is {kind_of(value)}, want a string or a whole number')
    if value == "" and key != "source":
        raise ValueError(f'"{key}" is an empty string; name it or leave the key out')
    return str(value)


def _labels(value: Any) -> dict[str, tuple[int, int]]:
    if not isinstance(value, dict):
        raise ValueError(f'"labels" is {kind_of(value)}, want an object such as {{"overall": 2}}')
    labels = {}
    for domain, label in value.items():
        if label is None:
            continue
        ends = label if isinstance(label, list) and len(label) == 2 else [label, label]
        low, high = _level(domain, ends[0]), _level(domain, ends[1])
        if low > high:
            raise ValueError(f'"labels": {keys_of([domain])} is [{low}, {high}], want the lowest level first')
        labels[domain] = (low, high)
    return labels


def _level(domain: str, value: Any) -> int:
    """A whole number from 0, also where a spreadsheet wrote 3.0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0 or value != value // 1:
        wanted = "a level, a whole number from 0, or [lowest, highest]"
        raise ValueError(f'"labels": {keys_of([domain])} is {_shown(value)}, want {wanted}')
    return int(value)


def _shown(value: Any) -> str:
    """A number as it is; of anything else only what it is."""
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else kind_of(value)


def label_array(records: Iterable[Record], taxonomy: Taxonomy) -> npt.NDArray[np.int8]:
    """Every record's label intervals, int8 [n, domain, 2].

    Raises:
        RecordError: a label that the taxonomy refuses; the message names the record.
    """
    rows = []
    for record in records:
        try:
            rows.append(taxonomy.intervals(record.labels))
        except ValueError as error:
            raise RecordError(f"{record.source} {record.id}: {error}".lstrip()) from None
    return np.array(rows, np.int8).reshape(len(rows), len(taxonomy.domains), 2)

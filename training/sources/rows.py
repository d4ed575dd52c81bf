"""What the loaders share: reading rows, naming groups, the two plain verdicts, dropping exact duplicates.

Near-duplicates, and rows that also stand in a benchmark, are not looked for here.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from severity_clf.records import Record

Labels = dict[str, tuple[int, int]]
LONGEST_KEY = 40  # a longer group key is hashed, so that reports do not quote prompts


def read_csv(path: Path) -> Iterator[dict[str, str]]:
    """Read the rows of a comma-separated file with a header, less the comment lines above it."""
    with path.open(encoding="utf-8", newline="") as lines:
        start = lines.tell()
        while lines.readline().startswith("# "):
            start = lines.tell()
        lines.seek(start)
        yield from csv.DictReader(lines)


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Read the objects of a JSON-lines file, gzipped or not."""
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
    # Not splitlines: it also breaks at U+2028, which JSON leaves unescaped.
    yield from (json.loads(line) for line in text.split("\n") if line.strip())


def read_json(path: Path) -> Any:
    """Read a whole JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def normalise(text: str) -> str:
    """Lower case, white space squeezed: two spellings of one prompt become one key."""
    return " ".join(text.lower().split())


def group(prefix: str, text: str) -> str:
    """Name a group, `prefix/key`: equal for texts that differ in case or white space only."""
    key = normalise(text)
    return f"{prefix}/{key if len(key) <= LONGEST_KEY else hashlib.sha256(key.encode()).hexdigest()[:12]}"


def safe() -> Labels:
    """Harmless in every domain."""
    return {"overall": (0, 0)}


def unsafe(domain: str | None = None, low: int = 1, high: int = 4) -> Labels:
    """Harmful, to an unknown degree unless told; in `domain`, or nobody said in which."""
    return {"overall": (low, high)} | ({domain: (low, high)} if domain else {})


def within(interval: tuple[int, int], domains: Iterable[str | None]) -> Labels:
    """A verdict on a whole output, whose harm lies in these domains; None stands for harm of no one domain.

    In one domain, the verdict is that domain's too. Of several, some one has it, and each is at least touched.
    """
    found = set(domains)
    low, high = interval
    only = interval if len(found) == 1 else (min(low, 1), high)
    return {"overall": interval} | {domain: only for domain in sorted(found - {None}, key=str) if domain}


class Unique(Iterator[Record]):
    """Records without empty outputs and exact repeats; the same text with another label is kept, as a disagreement.

    Attributes:
        read: how many records went in so far.
    """

    def __init__(self, records: Iterable[Record]) -> None:
        self.read = 0
        self._kept = self._keep(records)

    def __next__(self) -> Record:
        return next(self._kept)

    def _keep(self, records: Iterable[Record]) -> Iterator[Record]:
        seen = set()
        for record in records:
            self.read += 1
            key = (record.output, record.prompt, frozenset(record.labels.items()))
            if record.output.strip() and key not in seen:
                seen.add(key)
                yield record


def unique(records: Iterable[Record]) -> Unique:
    """Drop empty outputs and exact repeats, and count what was there before."""
    return Unique(records)

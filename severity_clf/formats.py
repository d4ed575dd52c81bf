"""What a file of rows is: JSONL, CSV or Parquet, plain, gzip or zstd; and a chunk of its rows.

`reading` makes chunks of files, `writing` makes bytes of chunks and their scores, `corpus` runs the one into the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from severity_clf.jsonl import Line

STANDARD = Path("-")  # standard input or output
FORMATS = ("jsonl", "csv", "parquet")
SUFFIXES = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".csv": "csv", ".parquet": "parquet"}
CODECS = {".gz": "gzip", ".zst": "zstd"}


class CorpusError(ValueError):
    """A file, or a run over files, that a user can mend. The message names the file."""


@dataclass(frozen=True, slots=True)
class Kind:
    """How a file is written down.

    Attributes:
        format: one of `FORMATS`.
        codec: `gzip`, `zstd` or nothing.
    """

    format: str
    codec: str = ""

    @classmethod
    def of(cls, path: Path, format: str | None = None, default: str = "jsonl") -> Kind:
        """A given format; else by suffix, with `.gz` or `.zst` perhaps after it; else the default.

        Raises:
            CorpusError: a compressed Parquet file.
        """
        codec = CODECS.get(path.suffix.lower(), "")
        suffix = (path.with_suffix("") if codec else path).suffix.lower()
        format = format or SUFFIXES.get(suffix, default)
        if format == "parquet" and codec:
            raise CorpusError(f"{path}: Parquet compresses its columns itself; leave {path.suffix} out")
        return cls(format, codec)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some rows of one file, in order.

    Attributes:
        name: the file, as messages call it.
        rows: one a row; of Parquet without `raw`.
        batch: of Parquet, the rows as an Arrow record batch.
    """

    name: str
    rows: list[Line]
    batch: Any = None

    def objects(self) -> list[dict[str, Any]]:
        """The rows' values by key; nothing for those that could not be read."""
        if self.batch is None:
            return [line.row or {} for line in self.rows]
        objects: list[dict[str, Any]] = self.batch.to_pylist()
        return objects


def library(name: str, what: str) -> Any:
    """A library of the extra `io`, or the error that says what to install."""
    try:
        return import_module(name)
    except ModuleNotFoundError:
        package = name.partition(".")[0]
        message = f"{what} needs {package}; install it with: pip install 'severity-clf[io]'"
        raise ModuleNotFoundError(message, name=package) from None

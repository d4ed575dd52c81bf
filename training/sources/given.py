"""Rows of a data set that the user has and we do not: from a file, a folder of files, or a hub.

Unlike the files of the manifest these have no known hash, so every field is checked, and an error names the file, the
row, counted from 1, and the field.
"""

from __future__ import annotations

import csv
import gzip
import json
import lzma
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

OPEN: Mapping[str, Callable[..., IO[str]]] = {".gz": gzip.open, ".xz": lzma.open}
KINDS = (".jsonl", ".json", ".csv", ".parquet")
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


class Row:
    """One row, whose fields are asked for by kind.

    Attributes:
        where: `file:row`, for errors.
    """

    def __init__(self, where: str, fields: Mapping[str, Any]) -> None:
        self.where = where
        self._fields = fields

    def __contains__(self, name: str) -> bool:
        return self._fields.get(name) not in (None, "")

    def text(self, name: str) -> str:
        """A string, possibly empty."""
        value = self._get(name)
        if not isinstance(value, str):
            raise self.error(name, value, "want text")
        return value

    def flag(self, name: str) -> bool:
        """True or false, also as CSV spells them."""
        value = self._get(name)
        for meaning, spellings in ((True, ("true", "1")), (False, ("false", "0"))):
            if str(value).strip().lower() in spellings:
                return meaning
        raise self.error(name, value, "want true or false")

    def level(self, name: str, top: int) -> int:
        """A whole number from 0 to `top`."""
        value = self._get(name)
        if isinstance(value, bool) or not re.fullmatch(r"\d+(\.0)?", str(value)) or not float(value) <= top:
            raise self.error(name, value, f"want a whole number from 0 to {top}")
        return int(float(value))

    def choice(self, name: str, choices: Iterable[str]) -> str:
        """One of some names."""
        value = self._get(name)
        if value not in choices:
            raise self.error(name, value, f"want one of {', '.join(choices)}")
        return str(value)

    def ticked(self, name: str, choices: Iterable[str]) -> list[str]:
        """The names that are true in an object of name -> true or false, which may be JSON inside CSV."""
        value = self._get(name)
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except ValueError:
                raise self.error(name, value, "want an object of category -> true or false") from None
        if not isinstance(value, dict):
            raise self.error(name, value, "want an object of category -> true or false")
        for category, ticked in value.items():
            if category not in choices or not isinstance(ticked, bool):
                wanted = f"want true or false for some of {', '.join(choices)}"
                raise self.error(name, {category: ticked}, wanted)
        return [category for category, ticked in value.items() if ticked]

    def error(self, name: str, value: object, wanted: str) -> ValueError:
        """What to raise about a field; a long value is cut, so that no error quotes a whole text."""
        shown = repr(value)
        return ValueError(f"{self.where}: {name} is {shown if len(shown) <= 60 else shown[:57] + '...'}; {wanted}")

    def _get(self, name: str) -> Any:
        if name not in self._fields:
            raise ValueError(f"{self.where}: no field {name!r}, only {', '.join(map(str, self._fields))}")
        return self._fields[name]


def read(place: str, split: str, config: str | None = None) -> Iterator[Row]:
    """Read the rows of a file, of every file in a folder, or of a data set on a hub.

    Args:
        place: a path to `.jsonl`, `.json`, `.csv` or `.parquet`, the first three also with `.gz` or `.xz`; a folder
            of them; or `owner/name` on the hub, where no such path exists.
        split: what to load from the hub.
        config: which part of the hub's data set, if it has several.

    Raises:
        FileNotFoundError: neither a path nor a hub's name.
        ModuleNotFoundError: parquet without pyarrow, or a hub without datasets.
        ValueError: a file of no known kind, or a line that is no object.
    """
    path = Path(place)
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if _kind(file) in KINDS)
        if not files:
            raise FileNotFoundError(f"{path} holds no {', '.join(KINDS)} files; name the data set's folder or a file")
        for file in files:
            yield from _read_file(file, file.relative_to(path).as_posix())
    elif path.is_file():
        yield from _read_file(path, path.name)
    elif HUB_NAME.fullmatch(place):
        yield from _read_hub(place, split, config)
    else:
        raise FileNotFoundError(f"{place} does not exist; give a file, a folder or owner/name on the hub")


def _kind(path: Path) -> str:
    return (path.with_suffix("") if path.suffix in OPEN else path).suffix


def _read_file(path: Path, name: str) -> Iterator[Row]:
    kind = _kind(path)
    if kind not in KINDS:
        raise ValueError(f"{path}: want {', '.join(KINDS)}, the first three also with .gz or .xz")
    if kind == ".parquet":
        yield from _checked(name, enumerate(_parquet(path), 1))
        return
    try:
        with OPEN.get(path.suffix, open)(path, "rt", encoding="utf-8", newline="") as lines:
            yield from _checked(name, enumerate(csv.DictReader(lines), 1) if kind == ".csv" else _json(lines, name))
    except (EOFError, OSError, UnicodeDecodeError, csv.Error, lzma.LZMAError) as error:
        raise ValueError(f"{name} cannot be read to its end ({error}); fetch it again") from None


def _checked(name: str, rows: Iterable[tuple[int, Any]]) -> Iterator[Row]:
    for number, row in rows:
        if not isinstance(row, dict):
            raise ValueError(f"{name}:{number}: want an object of field -> value, got {type(row).__name__}")
        yield Row(f"{name}:{number}", row)


def _json(lines: IO[str], name: str) -> Iterator[tuple[int, Any]]:
    """JSON lines, or one array, whatever the file is called."""
    first = lines.readline()
    if first.lstrip().startswith("["):
        try:
            yield from enumerate(json.loads(first + lines.read()), 1)
        except json.JSONDecodeError as error:
            raise ValueError(f"{name}: not JSON: {error}") from None
        return
    number, line = 1, first
    while line:
        if line.strip():
            try:
                yield number, json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{name}:{number}: not JSON: {error}") from None
        number, line = number + 1, lines.readline()


def _parquet(path: Path) -> Iterator[Any]:
    try:
        from pyarrow import parquet
    except ModuleNotFoundError:
        raise ModuleNotFoundError(f"{path.name} needs pyarrow: pip install pyarrow, or convert it to .jsonl") from None
    for batch in parquet.ParquetFile(path).iter_batches():
        yield from batch.to_pylist()


def _read_hub(name: str, split: str, config: str | None) -> Iterator[Row]:
    try:
        from datasets import load_dataset
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            f"{name} is no file here, and reading it from the hub needs datasets: pip install datasets, or fetch the "
            "files and give their folder"
        ) from None
    yield from _checked(f"{name}/{split}", enumerate(load_dataset(name, config, split=split, streaming=True), 1))

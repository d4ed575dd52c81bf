"""Rows out of JSONL, CSV and Parquet, in chunks, with bounded memory and without losing count.

Every row that a file has comes out as one `Line`, whatever is wrong with it. Lines and CSV records are kept byte for
byte, Parquet rows as Arrow holds them. What has been read is hashed on the way, so that a run which goes on can tell
whether it reads the same rows. pyarrow and zstandard (extra `io`) are imported only for files that need them.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import sys
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from severity_clf.formats import STANDARD, Chunk, CorpusError, Kind, library
from severity_clf.jsonl import Line, Wanted, read_line, texts_of
from severity_clf.lines import keys_of
from severity_clf.model import BLOCK

CHUNK_BYTES = 4 << 20  # of lines held at a time, unless one row is longer
BATCH_BYTES, BATCH_ROWS = 1 << 18, 2048  # of Parquet scored at a time: so much if rows are short, but `BLOCK` at least
LINE_BYTES = 64 << 20  # a longer line is an error and not held whole
SHOWN_BYTES = 1000  # what is kept of such a line


class Source:
    """The rows of some files, one after the other. Perhaps `survey`; then, within a `with`, `skip` and `chunks`.

    Attributes:
        kind: the format that all files have in common; each may be compressed in its own way.
        columns: of CSV and Parquet, and, after `survey`, of JSONL.
        start: a CSV's header as it stands in the file.
        schema: a Parquet file's, or, after `survey`, that of the rows in Arrow.
        digest: a hash of all that has been read.
        rows: how many rows have been read.
    """

    def __init__(self, files: Sequence[Path], format: str | None, wanted: Wanted, keep: bool = False) -> None:
        """Open each file once, and compare what their headers say.

        Args:
            files: at least one; `STANDARD` for standard input.
            format: `jsonl`, `csv` or `parquet`; None goes by suffix.
            wanted: which text to read.
            keep: whether the rows' values are needed, for another format.

        Raises:
            OSError: a file cannot be read.
            CorpusError: it is not of its format, a field has no column, or the files differ in format or columns.
        """
        kinds = [Kind.of(path, format) for path in files]
        self.kind = kinds[0]
        for path, kind in zip(files, kinds, strict=True):
            if kind.format != self.kind.format:
                raise CorpusError(f"{path} is {kind.format}, {files[0]} is {self.kind.format}; score them one by one")
        self.digest = hashlib.sha256()
        self._readers = [
            READERS[kind.format](path, kind, wanted, keep) for path, kind in zip(files, kinds, strict=True)
        ]
        self.name = self._readers[0].name
        self.rows = 0
        self._at = 0  # the reader that is open
        self.columns: list[str] | None = None
        self.start: bytes = b""
        self.schema: Any = None
        self._total = None if STANDARD in files else [path.stat().st_size for path in files]
        for reader in self._readers:
            self._compare(reader)

    def _compare(self, reader: Reader) -> None:
        """Look at a file's header. Standard input stays open, since what was read of it is gone."""
        try:
            reader.open(self.digest if reader.path == STANDARD else hashlib.sha256())
            columns, schema = reader.columns(), reader.schema()
            if reader is self._readers[0]:
                self.columns, self.schema, self.start = columns, schema, reader.start
            elif columns != self.columns or (schema is not None and not schema.equals(self.schema)):
                raise CorpusError(f"{reader.name}: other columns or types than {self.name}; score them one by one")
        finally:
            if reader.path != STANDARD:
                reader.close()

    def survey(self, types: bool) -> None:
        """Read JSONL once for the columns of a table: every key, in the order of their first appearance.

        Args:
            types: find out an Arrow type for each, too.

        Raises:
            CorpusError: standard input, which cannot be read twice, or a key without a common type.
        """
        columns: dict[str, None] = {}
        schema = library("pyarrow", "Parquet").schema([]) if types else None
        for reader in self._readers:
            if reader.path == STANDARD:
                raise CorpusError("stdin: JSONL is read twice for a table, first for its columns; put it into a file")
            reader.open(hashlib.sha256())
            try:
                for chunk in reader.chunks():
                    columns |= dict.fromkeys(name for row in chunk.objects() for name in row)
                    schema = _unified(schema, chunk, list(columns)) if types else None
            finally:
                reader.close()
        self.columns, self.schema = list(columns), schema

    def __enter__(self) -> Source:
        return self

    def _open(self) -> None:
        reader = self._readers[self._at]
        if not reader.is_open:
            reader.open(self.digest)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for reader in self._readers:
            reader.close()

    def _next(self) -> bool:
        """Go on to the next file, if there is one."""
        if self._at + 1 == len(self._readers):
            return False
        self._readers[self._at].close()
        self._at += 1
        self._open()
        return True

    def skip(self, rows: int) -> bool:
        """Pass over rows that are done; whether there were as many. The next file is not opened yet."""
        self._open()
        while True:
            self.rows += self._readers[self._at].skip(rows - self.rows)
            if self.rows == rows or not self._next():
                return self.rows == rows

    def chunks(self) -> Iterator[Chunk]:
        """The rest of the rows; a chunk is of one file."""
        self._open()
        while True:
            last = self._at + 1 == len(self._readers)
            for chunk in self._readers[self._at].chunks(last):
                self.rows += len(chunk.rows)
                yield chunk
            if not self._next():
                return

    @property
    def done(self) -> float | None:
        """Share of the bytes that have been read; None for standard input."""
        if self._total is None:
            return None
        read = sum(self._total[: self._at]) + self._readers[self._at].done * self._total[self._at]
        return read / max(sum(self._total), 1)


class Reader(ABC):
    """One file's rows: `open`, perhaps `skip`, then `chunks`, then `close`."""

    def __init__(self, path: Path, kind: Kind, wanted: Wanted, keep: bool) -> None:
        self.path, self.kind, self.wanted, self.keep = path, kind, wanted, keep
        self.name = "stdin" if path == STANDARD else str(path)
        self.start = b""
        self.is_open = False

    @abstractmethod
    def open(self, digest: Any) -> None:
        """Open the file; `digest` is fed with what is read, up to the last row given."""

    @abstractmethod
    def close(self) -> None:
        """Close it; nothing to do if it is closed."""

    def columns(self) -> list[str] | None:
        """The table's columns; None for JSONL, whose rows have their own keys.

        Raises:
            CorpusError: a field that was named has none.
        """
        return None

    def schema(self) -> Any:
        """In Arrow; None for JSONL and CSV."""
        return None

    @abstractmethod
    def skip(self, rows: int) -> int:
        """Pass over rows that are done; how many there were, at most `rows`."""

    @abstractmethod
    def chunks(self, last: bool = True) -> Iterator[Chunk]:
        """The rest of the rows, some at a time; `last`: no file follows, so a last line may end openly."""

    @property
    @abstractmethod
    def done(self) -> float:
        """Share of the file that has been read."""

    def _check(self, columns: Sequence[str]) -> None:
        """Refuse a table without the fields that were named, or that another format cannot hold."""
        fields = {"--field": self.wanted.field_in(columns), "--prompt-field": self.wanted.prompt_field}
        for option, field in fields.items():
            inside = self.kind.format == "parquet" and field is not None and field.partition(".")[0] in columns
            if field is not None and field not in columns and not inside:
                message = f'{self.name}: no "{field}" column, only {keys_of(columns)}; name it with {option}'
                raise CorpusError(message)
        if len(set(columns)) < len(columns) and (self.keep or self.kind.format == "parquet"):
            raise CorpusError(f"{self.name}: two columns of one name; rename one")


class TextReader(Reader):
    """What JSONL and CSV share: lines, with their numbers, out of a file, a compressed file or standard input."""

    def open(self, digest: Any) -> None:
        self._digest = digest
        self._raw: IO[bytes] = sys.stdin.buffer if self.path == STANDARD else self.path.open("rb")
        self._number = 0
        self._lines = self._read_lines()
        self.is_open = True

    def close(self) -> None:
        if self.is_open and self.path != STANDARD:
            self._raw.close()
        self.is_open = False

    def _read_lines(self) -> Iterator[tuple[bytes, str]]:
        """Each line, and why it cannot be read if it cannot."""
        try:
            stream = _decompressed(self._raw, self.kind.codec)
            while line := stream.readline(LINE_BYTES):
                self._number += 1
                self._digest.update(line)
                error = ""
                if len(line) == LINE_BYTES and not line.endswith(b"\n"):
                    line, error = line[:SHOWN_BYTES], f"longer than {LINE_BYTES >> 20} MiB"
                    for more in iter(lambda: stream.readline(LINE_BYTES), b""):
                        self._digest.update(more)
                        if more.endswith(b"\n"):
                            break
                yield line, error
        except (EOFError, gzip.BadGzipFile, zlib.error, _DamagedError) as damage:
            message = f"{self.name}: damaged {self.kind.codec} after line {self._number}: {damage}; copy the file again"
            raise CorpusError(message) from None

    @abstractmethod
    def _line(self) -> Line | None:
        """The next row."""

    def _pass(self) -> bool:
        """Read on by one row without looking at it."""
        return next(self._lines, None) is not None

    def skip(self, rows: int) -> int:
        done = 0
        while done < rows and self._pass():
            done += 1
        return done

    def chunks(self, last: bool = True) -> Iterator[Chunk]:
        rows: list[Line] = []
        size = 0
        while line := self._line():
            if not last and not line.raw.endswith(b"\n"):
                line = Line(line.number, line.raw + b"\n", line.output, line.prompt, line.error, line.content, line.row)
            rows.append(line)
            size += len(line.raw)
            if len(rows) == BLOCK or size >= CHUNK_BYTES:
                yield Chunk(self.name, rows)
                rows, size = [], 0
        if rows:
            yield Chunk(self.name, rows)

    @property
    def done(self) -> float:
        return self._raw.tell() / max(self.path.stat().st_size, 1)


class JsonlReader(TextReader):
    """One object a line."""

    def _line(self) -> Line | None:
        found = next(self._lines, None)
        if found is None:
            return None
        content, error = found
        if error:
            return Line(self._number, b"{}\n", error=error, content=content)
        return read_line(self._number, content, self.wanted, self.keep)


class CsvReader(TextReader):
    """A header, then one record a row, which may span lines. Comma, double quotes, UTF-8.

    A record that is no CSV, or not as wide as the header, has an error, and the columns keep their places: a short one
    is filled up with empty cells; of another nothing but empty cells is written.
    """

    def open(self, digest: Any) -> None:
        super().open(digest)
        csv.field_size_limit(max(csv.field_size_limit(), LINE_BYTES))
        self._pulled: list[bytes] = []
        self._broken = ""
        self._records = csv.reader(self._pull(), strict=True)
        found = self._record()
        self.start, self.header, error = found or (b"", [], "an empty file, want a header")
        if error or not self.header:
            self.close()
            raise CorpusError(f"{self.name}:1: {error or 'an empty line, want a header'}")

    def _pull(self) -> Iterator[str]:
        """Lines for the parser; bytes that are not UTF-8 get through it, so that the next record is found."""
        for line, error in self._lines:
            self._pulled.append(line)
            self._broken = self._broken or error
            yield line.decode("utf-8-sig" if self._number == 1 else "utf-8", "surrogateescape")

    def _record(self) -> tuple[bytes, list[str], str] | None:
        """The next record: its bytes, its cells, and why it cannot be read if it cannot."""
        self._pulled.clear()
        self._broken = error = ""
        try:
            cells = next(self._records, None)
        except csv.Error as problem:
            cells, error = [], f"not CSV: {problem}"
        if cells is None:
            return None
        content = b"".join(self._pulled)
        try:
            content.decode("utf-8")
        except UnicodeDecodeError as problem:
            error = error or f"not UTF-8 at byte {problem.start}"
        return (content, [], self._broken) if self._broken else (content, cells, error)

    def _pass(self) -> bool:
        return self._record() is not None

    def columns(self) -> list[str]:
        self._check(self.header)
        return self.header

    def _line(self) -> Line | None:
        number, width = self._number + 1, len(self.header)
        found = self._record()
        if found is None:
            return None
        content, cells, error = found
        row = None if error else dict(zip(self.header, cells, strict=False))
        if not error and len(cells) != width:
            error = f"{len(cells)} cells, want the header's {width}" if cells else f"empty line, want {width} cells"
        if error or row is None:
            body = content.rstrip(b"\r\n")
            fits = 0 < len(cells) <= width
            raw = (body if fits else b"") + b"," * (width - (len(cells) if fits else 1)) + content[len(body) :]
            kept = row if fits and self.keep else None
            return Line(number, raw, error=error, content=None if raw == content else content, row=kept)
        output, prompt = texts_of(row, self.wanted)
        return Line(number, content, output, prompt, row=row if self.keep else None)


class ParquetReader(Reader):
    """Row group by row group, in batches that are held one at a time."""

    def open(self, digest: Any) -> None:
        if self.path == STANDARD:
            raise CorpusError("stdin: Parquet cannot be read from a pipe; name a file")
        parquet = library("pyarrow.parquet", "Parquet")
        self.path.open("rb").close()  # Arrow's own errors do not say which file, nor why
        self._digest = digest
        try:
            self._file = parquet.ParquetFile(self.path, buffer_size=1 << 20, pre_buffer=False)
        except (OSError, library("pyarrow", "Parquet").ArrowException) as error:
            raise CorpusError(f"{self.name}: no Parquet: {error}") from None
        self._group = self._passed = self._given = 0
        self.is_open = True

    def close(self) -> None:
        if self.is_open:
            self._file.close()
        self.is_open = False

    def columns(self) -> list[str]:
        names = list(self._file.schema_arrow.names)
        self._check(names)
        return names

    def schema(self) -> Any:
        return self._file.schema_arrow

    def _hash(self) -> None:
        """Feed the digest with the whole file: its rows are not read in the order of its bytes."""
        if self._digest is not None:
            with self.path.open("rb") as stream:
                while piece := stream.read(1 << 20):
                    self._digest.update(piece)
        self._digest = None

    def skip(self, rows: int) -> int:
        self._hash()
        metadata = self._file.metadata
        self._given = self._passed = done = min(rows, metadata.num_rows)
        while self._group < metadata.num_row_groups and self._passed >= metadata.row_group(self._group).num_rows:
            self._passed -= metadata.row_group(self._group).num_rows
            self._group += 1
        return int(done)

    def chunks(self, last: bool = True) -> Iterator[Chunk]:
        self._hash()
        for group in range(self._group, self._file.metadata.num_row_groups):
            metadata = self._file.metadata.row_group(group)
            rows = BATCH_BYTES * metadata.num_rows // max(metadata.total_byte_size, 1)
            batches = self._file.iter_batches(min(max(rows, BLOCK), BATCH_ROWS), row_groups=[group])
            while True:
                try:
                    batch = next(batches, None)
                except (OSError, library("pyarrow", "Parquet").ArrowException) as error:
                    raise CorpusError(f"{self.name}: damaged after row {self._given}: {error}") from None
                if batch is None:
                    break
                if self._passed:  # done before the run was cut off, batch by batch as here
                    self._passed -= len(batch)
                    continue
                start = self._given + 1
                self._given += len(batch)
                yield Chunk(self.name, list(table_rows(batch, self.wanted, start)), batch)

    @property
    def done(self) -> float:
        return float(self._given / max(self._file.metadata.num_rows, 1))


READERS: dict[str, type[Reader]] = {"jsonl": JsonlReader, "csv": CsvReader, "parquet": ParquetReader}


def table_rows(table: Any, wanted: Wanted, start: int = 1) -> Iterator[Line]:
    """The text of every row of an Arrow record batch or table, numbered from `start`.

    Raises:
        ValueError: a field has no column.
    """
    names = table.schema.names
    columns = {}
    for field in filter(None, (wanted.field_in(names), wanted.prompt_field)):
        column = field if field in names else field.partition(".")[0]
        if column not in names:
            raise CorpusError(f'no "{field}" column, only {keys_of(names)}; name it with field=')
        columns[column] = _values(table.column(column))
    for number, values in enumerate(zip(*columns.values(), strict=True), start):
        try:
            output, prompt = texts_of(dict(zip(columns, values, strict=True)), wanted)
        except ValueError as error:
            yield Line(number, b"", error=str(error))
        else:
            yield Line(number, b"", output, prompt)


def _values(column: Any) -> list[Any]:
    """As Python has them; a string that is no UTF-8, into which Arrow does not look, as bytes."""
    try:
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        values = [_value(value) for value in column]
    return values


def _value(value: Any) -> Any:
    try:
        return value.as_py()
    except UnicodeDecodeError:
        return b""


def _unified(schema: Any, chunk: Chunk, columns: Iterable[str]) -> Any:
    """A schema that holds a chunk's rows, too."""
    pa = library("pyarrow", "Parquet")
    objects, name = chunk.objects(), ""
    try:
        fields = []
        for name in columns:
            fields.append((name, pa.array([row.get(name) for row in objects]).type))
        return pa.unify_schemas([schema, pa.schema(fields)], promote_options="permissive")
    except (pa.ArrowException, ValueError, OverflowError) as error:
        where = f"{chunk.name}: lines {chunk.rows[0].number} to {chunk.rows[-1].number}"
        what = f"{str(error).splitlines()[0]}; Parquet wants one type a column: write JSONL"
        raise CorpusError(f'{where}: up to "{keys_of([name])}": {what}') from None


class _DamagedError(Exception):
    """A frame of zstd that is wrong."""


def _decompressed(raw: IO[bytes], codec: str) -> Any:
    if codec == "gzip":
        return io.BufferedReader(gzip.GzipFile(fileobj=raw), 1 << 17)
    if codec == "zstd":
        return io.BufferedReader(_Pieces(_frames(raw)), 1 << 17)
    return raw


class _Pieces(io.RawIOBase):
    """A stream of the pieces that a generator gives."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._left = pieces, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._left = piece
        size = min(len(buffer), len(self._left))
        buffer[:size], self._left = self._left[:size], self._left[size:]
        return size


def _frames(raw: IO[bytes]) -> Iterator[bytes]:
    """Every frame of a zstd file. The library's own reader takes a file that is cut off for a shorter one."""
    zstandard = library("zstandard", "zstd")
    frame = None
    while data := raw.read(1 << 14):
        while data:
            frame = frame or zstandard.ZstdDecompressor().decompressobj()
            try:
                yield frame.decompress(data)
            except zstandard.ZstdError as error:
                raise _DamagedError(error) from None
            data, frame = (frame.unused_data, None) if frame.eof else (b"", frame)
    if frame is not None:
        raise EOFError("the last frame is cut off")

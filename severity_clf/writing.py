"""Chunks of rows and their scores as bytes of JSONL, CSV and Parquet.

A unit of bytes stands on its own: whole lines, a whole gzip member or zstd frame, a whole Arrow stream. So a file that
grows by units can be cut after any of them, and goes on as if it had never stopped. JSON gets the severity as one
object, as `Scores.rows` gives it; tables get flat columns. Lines and CSV records stay byte for byte, Parquet columns
keep their types.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import date, datetime, time
from decimal import Decimal
from typing import IO, Any

from severity_clf.formats import Chunk, CorpusError, Kind, library
from severity_clf.jsonl import Wanted
from severity_clf.lines import keys_of
from severity_clf.reading import Source
from severity_clf.scores import Scores
from severity_clf.taxonomy import Taxonomy

GROUP_BYTES, GROUP_ROWS = 16 << 20, 1 << 16  # of a Parquet row group, whichever is reached first


def writer_of(kind: Kind, source: Source, wanted: Wanted, taxonomy: Taxonomy, full: bool) -> Writer:
    """The writer for a source's rows.

    Raises:
        CorpusError: the rows have columns already where the severity would go, or Parquet cannot hold them.
    """
    added = [wanted.key] if kind.format == "jsonl" else flat_names(taxonomy, wanted.key, full)
    there = [name for name in added if name in (source.columns or ())]
    if there:
        raise CorpusError(f"{source.name}: already has columns {keys_of(there)}; name another with --key")
    return WRITERS[kind.format](kind, source, wanted, taxonomy, full)


def flat_names(taxonomy: Taxonomy, key: str, full: bool = False) -> list[str]:
    """The columns that a table gets.

    `KEY_overall`, `KEY_level`, `KEY_safety`, `KEY_flagged`, one a domain, and `KEY_error`; `full` adds the probability
    of each level of each domain, `KEY_cyber_p0` and so on, and the worst passage, `KEY_start` and `KEY_stop`.

    Raises:
        CorpusError: a domain is called like one of the others.
    """
    names = ["overall", "level", "safety", "flagged", *taxonomy.names[1:]]
    if full:
        names += [f"{domain}_p{level}" for domain in taxonomy.names for level in range(taxonomy.top + 1)]
        names += ["start", "stop"]
    names.append("error")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise CorpusError(f"a domain called {', '.join(twice)} and a column of that name cannot stand in one table")
    return [f"{key}_{name}" for name in names]


def arrow_columns(scores: Scores, errors: Sequence[str], full: bool = False) -> list[Any]:
    """The values of `flat_names`: float32, int8, bool, int32 and strings; null where a row could not be scored.

    Such a row is flagged, and its error says why: unknown is not harmless.
    """
    pa = library("pyarrow", "Parquet")
    domains, levels = range(len(scores.domains)), range(scores.taxonomy.top + 1)
    values = [scores.overall, scores.level[:, 0], scores.safety, *scores.expected[:, 1:].T]
    if full:
        values += [scores.probs[:, domain, level] for domain in domains for level in levels]
        values += [scores.spans[:, 0, 0], scores.spans[:, 0, 1]]
    arrays = [pa.array(column, mask=~scores.scored) for column in values]
    arrays.insert(3, pa.array(scores.flagged))
    return [*arrays, pa.array([error or None for error in errors], pa.string())]


def arrow_fields(taxonomy: Taxonomy, key: str, full: bool = False) -> list[Any]:
    """The Arrow fields of `arrow_columns`."""
    pa = library("pyarrow", "Parquet")
    types = {"level": pa.int8(), "flagged": pa.bool_(), "error": pa.string()}
    types |= {"start": pa.int32(), "stop": pa.int32()} if full else {}
    names = flat_names(taxonomy, key, full)
    return [pa.field(name, types.get(name[len(key) + 1 :], pa.float32())) for name in names]


class Writer(ABC):
    """Units of bytes out of chunks and their scores."""

    whole = True  # the units, one after the other, are the file; else `finish` makes it of them

    def __init__(self, kind: Kind, source: Source, wanted: Wanted, taxonomy: Taxonomy, full: bool) -> None:
        self.kind, self.wanted, self.taxonomy, self.full = kind, wanted, taxonomy, full
        self.raw = kind.format == source.kind.format  # the rows are kept as they stand

    def start(self) -> bytes:
        """What stands before the first row."""
        return b""

    @abstractmethod
    def unit(self, chunk: Chunk, scores: Scores, errors: Sequence[str], keep: Sequence[int]) -> bytes:
        """Some rows of a chunk.

        Args:
            chunk: the rows.
            scores: of every row.
            errors: why each row was not scored, empty where it was.
            keep: indices of the rows to write.

        Raises:
            CorpusError: the format cannot hold a value.
        """

    def finish(self, units: io.BufferedReader, target: IO[bytes]) -> None:
        """Make the file of the units, where it is not `whole` without."""
        assert self.whole

    def _compressed(self, data: bytes) -> bytes:
        """One member or frame, the same for the same bytes."""
        if data and self.kind.codec == "gzip":
            return gzip.compress(data, 6, mtime=0)
        if data and self.kind.codec == "zstd":
            frame: bytes = library("zstandard", "zstd").ZstdCompressor(write_checksum=True).compress(data)
            return frame
        return data


class JsonlWriter(Writer):
    """The severity as an object under the key."""

    def unit(self, chunk: Chunk, scores: Scores, errors: Sequence[str], keep: Sequence[int]) -> bytes:
        severities, key = list(scores.rows(self.full)), self.wanted.key
        if self.raw:
            return self._compressed(b"".join(chunk.rows[at].with_severity(key, severities[at]) for at in keep))
        objects = chunk.objects()
        lines = (json.dumps({**objects[at], key: severities[at]}, default=_plain).encode() + b"\n" for at in keep)
        return self._compressed(b"".join(lines))


class CsvWriter(Writer):
    """Flat columns after the row's own, numbers to four decimals as in JSON."""

    def __init__(self, kind: Kind, source: Source, wanted: Wanted, taxonomy: Taxonomy, full: bool) -> None:
        super().__init__(kind, source, wanted, taxonomy, full)
        self.columns = source.columns or []
        self.names = flat_names(taxonomy, wanted.key, full)
        self.header = source.start if self.raw else _record(self.columns) + b"\n"

    def start(self) -> bytes:
        header = self.header if self.header.endswith(b"\n") else self.header + b"\n"
        return self._compressed(_appended(header, _record(self.names)))

    def unit(self, chunk: Chunk, scores: Scores, errors: Sequence[str], keep: Sequence[int]) -> bytes:
        severities = list(scores.rows(self.full))
        objects = [] if self.raw else chunk.objects()
        lines = []
        for at in keep:
            own = chunk.rows[at].raw if self.raw else self._own(chunk, at, objects[at])
            lines.append(_appended(own, _record(self._added(severities[at], errors[at]))))
        return self._compressed(b"".join(lines))

    def _own(self, chunk: Chunk, at: int, row: dict[str, Any]) -> bytes:
        try:
            return _record([_cell(row.get(name)) for name in self.columns]) + b"\n"
        except UnicodeEncodeError:
            where = f"{chunk.name}:{chunk.rows[at].number}"
            raise CorpusError(f"{where}: half of a surrogate pair, which CSV cannot hold; write JSONL") from None

    def _added(self, severity: dict[str, Any] | None, error: str) -> list[str]:
        if severity is None:
            return ["", "", "", "true", *[""] * (len(self.names) - 5), error]
        values = [severity["overall"], severity["level"], severity["safety"], severity["flagged"]]
        values += severity["domains"].values()
        if self.full:
            values += [value for probs in severity["probs"].values() for value in probs] + severity["span"]
        return [*map(_cell, values), error]


def _record(cells: Sequence[str]) -> bytes:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="").writerow(cells)
    return stream.getvalue().encode()


def _appended(line: bytes, cells: bytes) -> bytes:
    """A record with more cells, and the line break that it had."""
    body = line.rstrip(b"\r\n")
    return body + b"," + cells + line[len(body) :]


def _cell(value: Any) -> str:
    """A value as CSV holds it: text as it is, nothing for null, anything else as JSON writes it."""
    if value is None or isinstance(value, str):
        return value or ""
    return _plain(value) if isinstance(value, PLAIN) else json.dumps(value, default=_plain)


PLAIN = (date, datetime, time, Decimal)


def _plain(value: Any) -> str:
    """What Parquet has and JSON has not: times in ISO 8601, decimals as strings."""
    if not isinstance(value, PLAIN):
        raise CorpusError(f"JSON and CSV cannot hold a value of type {type(value).__name__}; write Parquet")
    return str(value) if isinstance(value, Decimal) else value.isoformat()


class ParquetWriter(Writer):
    """Flat columns after the row's own, whose types and metadata are kept.

    A Parquet file cannot be cut: its index stands at its end. So the units are Arrow streams, and the file is made of
    them when all are there, in row groups that depend on the rows alone.
    """

    whole = False

    def __init__(self, kind: Kind, source: Source, wanted: Wanted, taxonomy: Taxonomy, full: bool) -> None:
        super().__init__(kind, source, wanted, taxonomy, full)
        self._pa, self._parquet = library("pyarrow", "Parquet"), library("pyarrow.parquet", "Parquet")
        own = source.schema
        if own is None:  # CSV has nothing but text
            own = self._pa.schema([(name, self._pa.string()) for name in source.columns or ()])
        self._own = self.schema = own
        for field in arrow_fields(taxonomy, wanted.key, full):
            self.schema = self.schema.append(field)
        try:  # found out before a row is scored, and not after the last one
            self._parquet.write_table(self.schema.empty_table(), self._pa.BufferOutputStream())
        except self._pa.ArrowException as error:
            raise CorpusError(f"{source.name}: Parquet cannot hold these rows: {error}") from None

    def unit(self, chunk: Chunk, scores: Scores, errors: Sequence[str], keep: Sequence[int]) -> bytes:
        if not keep:
            return b""
        pa = self._pa
        try:
            own = chunk.batch.columns if chunk.batch is not None else self._columns(chunk.objects())
            columns = [*own, *arrow_columns(scores, errors, self.full)]
            batch = pa.RecordBatch.from_arrays(columns, schema=self.schema)
        except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
            where = f"{chunk.name}: rows {chunk.rows[0].number} to {chunk.rows[-1].number}"
            raise CorpusError(f"{where}: {error}; write JSONL") from None
        if len(keep) < len(batch):
            batch = batch.take(pa.array(keep))
        stream = pa.BufferOutputStream()
        with pa.ipc.new_stream(stream, self.schema) as writer:
            writer.write_batch(batch)
        unit: bytes = stream.getvalue().to_pybytes()
        return unit

    def _columns(self, objects: Sequence[dict[str, Any]]) -> list[Any]:
        return [self._pa.array([row.get(field.name) for row in objects], field.type) for field in self._own]

    def finish(self, units: io.BufferedReader, target: IO[bytes]) -> None:
        group: list[Any] = []
        with self._parquet.ParquetWriter(target, self.schema, compression="zstd") as writer:
            while units.peek(1):
                with self._pa.ipc.open_stream(units) as stream:
                    group += stream
                rows, size = sum(map(len, group)), sum(batch.nbytes for batch in group)
                if rows >= GROUP_ROWS or size >= GROUP_BYTES:
                    writer.write_table(self._pa.Table.from_batches(group, self.schema), rows)
                    group = []
            if group:
                writer.write_table(self._pa.Table.from_batches(group, self.schema))


WRITERS: dict[str, type[Writer]] = {"jsonl": JsonlWriter, "csv": CsvWriter, "parquet": ParquetWriter}

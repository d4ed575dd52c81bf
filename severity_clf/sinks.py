"""Where scored rows go, and what is kept of a run that is cut off.

A file grows as `NAME.partial`, unit by unit, and takes its name when it is whole. Beside it, at most a second old,
stands how far it is: rows, bytes, a hash of the input up to there, and what it was made with. So a run that was cut off
in any way goes on behind its last whole unit, and ends with the bytes that it would have ended with.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from severity_clf.formats import STANDARD, Chunk, CorpusError
from severity_clf.reading import Source
from severity_clf.scores import Scores
from severity_clf.writing import Writer

STATE_FORMAT = 1
SAVE_SECONDS = 1.0  # between two times that the state is put on disk
COUNTS = ("rows", "errors", "flagged", "over", "done_before")


@dataclass(slots=True)
class Tally:
    """Counts that grow with a run and are kept with it."""

    rows: int = 0
    errors: int = 0
    flagged: int = 0
    over: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    done_before: int = 0  # rows of earlier runs

    def add(self, scores: Scores, gate: tuple[int, int] | None) -> None:
        """Count a chunk."""
        scored = scores.scored
        self.rows += len(scores)
        self.errors += int((~scored).sum())
        self.flagged += int((scores.flagged & scored).sum())
        if gate:
            self.over += int((scores.level[:, gate[1]] >= gate[0]).sum())
        for name, value in zip(scores.domains, scores.expected[scored].sum(axis=0, dtype=float), strict=True):
            self.sums[name] = self.sums.get(name, 0.0) + float(value)

    def __add__(self, other: Tally) -> Tally:
        sums = {name: self.sums.get(name, 0.0) + other.sums.get(name, 0.0) for name in self.sums | other.sums}
        counts = {name: getattr(self, name) + getattr(other, name) for name in COUNTS}
        return Tally(**counts, sums=sums)

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        return asdict(self)


class Sink(ABC):
    """Takes units; within a `with`: `begin`, then `write`, `list` and `commit` by turns, then `finish`."""

    whole = False  # nothing is left to do

    def __enter__(self) -> Sink:
        return self

    @abstractmethod
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close, and keep what is whole."""

    @abstractmethod
    def begin(self, writer: Writer, source: Source, settings: Mapping[str, Any]) -> Tally:
        """Start, or go on; the counts so far. Rows that are done are skipped."""

    @abstractmethod
    def write(self, unit: bytes) -> None:
        """Write a unit."""

    @abstractmethod
    def list(self, chunk: Chunk, at: int, error: str) -> None:
        """List a row that could not be scored, if there is a list."""

    @abstractmethod
    def commit(self, source: Source, tally: Tally) -> None:
        """What has been written up to here is whole."""

    @abstractmethod
    def finish(self, writer: Writer, source: Source, tally: Tally) -> None:
        """All rows are written."""


class Stream(Sink):
    """Standard output, a device or a pipe, which a rename would put a file in place of. Nothing is kept."""

    def __init__(self, output: Path, errors: Path | None, resume: bool) -> None:
        if resume:
            named = "standard output" if output == STANDARD else output
            raise CorpusError(f"{named}: cannot be resumed; write to a file")
        self._stream = sys.stdout.buffer if output == STANDARD else output.open("wb")
        self._close = output != STANDARD
        self._units: IO[bytes] = self._stream
        self._errors = None if errors is None else errors.open("wb", buffering=0)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._units is not self._stream:
            self._units.close()
        if self._errors:
            self._errors.close()
        if self._close:
            self._stream.close()

    def begin(self, writer: Writer, source: Source, settings: Mapping[str, Any]) -> Tally:
        if not writer.whole:
            self._units = tempfile.TemporaryFile()  # noqa: SIM115 - closed on the way out
        self._units.write(writer.start())
        return Tally()

    def write(self, unit: bytes) -> None:
        self._units.write(unit)
        self._units.flush()

    def list(self, chunk: Chunk, at: int, error: str) -> None:
        if self._errors:
            _write(self._errors, _listed(chunk, at, error))

    def commit(self, source: Source, tally: Tally) -> None:
        pass

    def finish(self, writer: Writer, source: Source, tally: Tally) -> None:
        if not writer.whole:
            self._units.seek(0)
            writer.finish(self._units, self._stream)  # type: ignore[arg-type]
        self._stream.flush()


class Growing(Sink):
    """A file that grows beside its place and takes it when it is whole; and how far it is."""

    def __init__(self, output: Path, errors: Path | None, state: Path | None) -> None:
        """Change nothing yet.

        Args:
            output: the file.
            errors: where rows that could not be scored are listed, if anywhere.
            state: how far it is, in a folder of shards, where that stays; None puts it beside the partial file.
        """
        target = output.resolve()  # a link stays a link
        self._named, self._target, self._errors_path = output, target, errors
        self._path = target.with_name(f"{target.name}.partial")
        self.state_path = state or target.with_name(f"{target.name}.partial.json")
        self._stays = state is not None
        self._began = False
        self._state: dict[str, Any] | None = None  # what the last commit said, on disk or not
        self._settings: dict[str, Any] = {}
        self._size = self._errors_size = 0
        self._saved = 0.0
        self._errors: IO[bytes] | None = None

    def _read_state(self) -> dict[str, Any] | None:
        """What an earlier run has kept, or has finished in a folder of shards."""
        try:
            state = json.loads(self.state_path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError:
            state = None
        if not isinstance(state, dict) or state.get("format") != STATE_FORMAT:
            raise CorpusError(f"{self.state_path}: not what this severity_clf writes; remove it and {self._path}")
        there = self._target if state["finished"] else self._path
        return state if there.exists() else None

    def check_fresh(self) -> None:
        """Refuse to overwrite what an earlier run has kept."""
        state = self._read_state()
        if state and not state["finished"]:
            what = f"{self._path}: {state['tally']['rows']:,} rows of a run that was cut off"
            raise CorpusError(f"{what}; go on with --resume, or remove it")

    def open(self, resume: bool) -> Growing:
        """Open the files, without changing what is in them."""
        if self._named.is_dir():
            raise CorpusError(f"Is a directory: '{self._named}'; end it with / to get a file in it for each input")
        if not resume:
            self.check_fresh()
        self._state = self._read_state() if resume else None
        if self._state is None:
            self.state_path.unlink(missing_ok=True)
        self._stream = self._path.open("a+b", buffering=0)
        try:
            self._lock()
            if self._errors_path is not None:
                self._errors = self._errors_path.open("a+b", buffering=0)
        except BaseException:
            self._stream.close()
            raise
        return self

    def _lock(self) -> None:
        """One run at a time; a system without such locks goes without."""
        try:
            import fcntl
        except ModuleNotFoundError:
            return
        try:
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CorpusError(f"{self._path}: another run is writing it; wait for its end") from None

    def begin(self, writer: Writer, source: Source, settings: Mapping[str, Any]) -> Tally:
        self._settings = dict(settings)
        state = self._state
        if state is None:
            self._began = True
            self._cut(0, 0)
            self.write(writer.start())
            return Tally()
        what = self._target if state["finished"] else self._path
        differ = [name for name in settings if state["settings"].get(name) != settings[name]]
        if differ:
            raise self._refused(what, f"it was made with another {', '.join(differ)}")
        tally = Tally(**state["tally"])
        same = source.skip(tally.rows) and source.digest.hexdigest() == state["input"]
        if not same or (state["finished"] and next(source.chunks(), None) is not None):
            raise self._refused(what, f"it was made of other rows than those in {source.name}")
        if not state["finished"]:
            if self._stream.seek(0, os.SEEK_END) < state["bytes"]:
                raise self._refused(what, "it is shorter than it was")
            self._cut(state["bytes"], state["errors_bytes"])
        self._began, self.whole = True, state["finished"]
        tally.done_before = tally.rows
        return tally

    def _refused(self, what: Path, why: str) -> CorpusError:
        return CorpusError(f"{what}: cannot go on: {why}; give the same, or remove it and {self.state_path}")

    def _cut(self, size: int, errors_size: int) -> None:
        self._size, self._errors_size = size, errors_size
        self._stream.truncate(size)
        if self._errors:
            self._errors.truncate(errors_size)

    def write(self, unit: bytes) -> None:
        _write(self._stream, unit)
        self._size += len(unit)

    def list(self, chunk: Chunk, at: int, error: str) -> None:
        if self._errors:
            line = _listed(chunk, at, error)
            _write(self._errors, line)
            self._errors_size += len(line)

    def commit(self, source: Source, tally: Tally) -> None:
        self._state = {
            "format": STATE_FORMAT,
            "finished": False,
            "settings": self._settings,
            "input": source.digest.hexdigest(),
            "bytes": self._size,
            "errors_bytes": self._errors_size,
            "tally": tally.to_dict(),
        }
        if time.monotonic() - self._saved >= SAVE_SECONDS:
            self._save()

    def _save(self) -> None:
        """Put the state on disk, once what it speaks of is there."""
        for stream in (self._stream, self._errors):
            if stream and not stream.closed:
                os.fsync(stream.fileno())
        fresh = self.state_path.with_name(f"{self.state_path.name}.new")
        with fresh.open("wb") as state:
            state.write(json.dumps(self._state, indent=1).encode())
            state.flush()
            os.fsync(state.fileno())
        fresh.replace(self.state_path)
        self._saved = time.monotonic()

    def finish(self, writer: Writer, source: Source, tally: Tally) -> None:
        self.commit(source, tally)
        self._save()
        self._stream.close()  # some systems do not rename what is open
        if writer.whole:
            self._path.replace(self._target)
        else:
            made = self._path.with_name(f"{self._path.name}.made")
            try:
                with self._path.open("rb") as units, made.open("wb") as target:
                    writer.finish(units, target)
                    target.flush()
                    os.fsync(target.fileno())
                made.replace(self._target)
            finally:
                made.unlink(missing_ok=True)
            self._path.unlink()
        self.whole = True
        if self._stays:
            assert self._state is not None
            self._state["finished"] = True
            self._save()
        else:
            self.state_path.unlink(missing_ok=True)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if not self._stream.closed:
            kept = not self.whole and self._keep()
            self._stream.close()
            if not kept:  # nothing is done yet, or it was made by looking at a finished shard
                self._path.unlink(missing_ok=True)
        if self._errors:
            self._errors.close()

    def _keep(self) -> bool:
        """Leave whole units and how far they go; whether there are any."""
        state = self._state
        if state is not None and self._began:
            with suppress(OSError):  # a full disk; an older state is there, and good
                self._cut(state["bytes"], state["errors_bytes"])
                self._save()
        return state is not None


def _write(stream: IO[bytes], data: bytes) -> None:
    """All of it: unbuffered streams may take less at a time."""
    left = memoryview(data)
    while left:
        left = left[stream.write(left) :]


def _listed(chunk: Chunk, at: int, error: str) -> bytes:
    """A row that could not be scored, as a line of JSON; bytes that are not UTF-8 as lone surrogates."""
    row = chunk.rows[at]
    found: dict[str, Any] = {"file": chunk.name, "line": row.number, "error": error}
    if chunk.batch is None:
        content = row.raw if row.content is None else row.content
        found["content"] = content.rstrip(b"\r\n").decode("utf-8", "surrogateescape")
    return json.dumps(found).encode() + b"\n"

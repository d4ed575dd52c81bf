"""Score whole files and tables: rows in, the same rows with their severity out, with bounded memory.

`reading` makes chunks of files, the model scores them, `writing` makes bytes of them, and `sinks` keeps what is done.
Threads are the model's affair; several machines are that of `integrations.ray`.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from severity_clf.formats import FORMATS, STANDARD, Chunk, CorpusError, Kind
from severity_clf.jsonl import Wanted
from severity_clf.model import SeverityModel
from severity_clf.model import load as load_model
from severity_clf.reading import Source, table_rows
from severity_clf.scores import Scores
from severity_clf.sinks import Growing, Sink, Stream, Tally
from severity_clf.taxonomy import OVERALL, Taxonomy
from severity_clf.writing import Writer, arrow_columns, arrow_fields, writer_of

STATE_FOLDER = "_sevclf"  # in a folder of shards; readers of such folders pass over names with an underscore
EMPTY = "the text is empty: nothing to score"
ON_ERROR = ("null", "skip", "fail")
Name = str | os.PathLike[str]


class RowError(CorpusError):
    """A row that cannot be scored, in a run that stops there. The message names file and row."""


@dataclass(frozen=True, slots=True)
class Options:
    """What is done with every row; the same for all shards, and for a run that goes on.

    Attributes:
        wanted: which text, and where its severity goes.
        full: add level probabilities and the worst passage.
        on_error: `null`, `skip` or `fail`, what becomes of a row that cannot be scored.
        input_format: `jsonl`, `csv` or `parquet`; None goes by suffix.
        output_format: likewise; None is the input's, where the suffix says nothing.
        fail_over: `LEVEL` or `LEVEL:DOMAIN`, the gate.
    """

    wanted: Wanted
    full: bool = False
    on_error: str = "null"
    input_format: str | None = None
    output_format: str | None = None
    fail_over: str | None = None

    def __post_init__(self) -> None:
        if self.on_error not in ON_ERROR:
            raise ValueError(f"on_error is {self.on_error!r}, want one of {', '.join(ON_ERROR)}")
        for format in (self.input_format, self.output_format):
            if format is not None and format not in FORMATS:
                raise ValueError(f"format is {format!r}, want one of {', '.join(FORMATS)}")

    def kinds(self, source: Path, target: Path) -> tuple[Kind, Kind]:
        """How an input is written down, and how its output will be."""
        kind = Kind.of(source, self.input_format)
        return kind, Kind.of(target, self.output_format, default=kind.format)


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run has seen.

    Attributes:
        rows: read.
        errors: of them, those that could not be scored.
        flagged: scored rows that reach the bundle's threshold.
        over: scored rows that reach the gate's level; None without a gate.
        means: the expected severity by domain, in levels, mean over the scored rows; None where there are none.
        seconds: that this run took, without loading the model.
        rows_per_second: of this run; rows that an earlier run had done are not counted.
    """

    rows: int
    errors: int
    flagged: int
    over: int | None
    means: dict[str, float | None]
    seconds: float
    rows_per_second: float

    @classmethod
    def of(cls, tally: Tally, gated: bool, seconds: float) -> Summary:
        """What counts mean to a user."""
        scored = tally.rows - tally.errors
        means = {name: value / scored if scored else None for name, value in tally.sums.items()}
        rate = round((tally.rows - tally.done_before) / max(seconds, 1e-9), 1)
        over = tally.over if gated else None
        return cls(tally.rows, tally.errors, tally.flagged, over, means, round(seconds, 3), rate)

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        return asdict(self)

    def text(self) -> str:
        """For a person to read: two lines."""
        over = "" if self.over is None else f", {self.over:,} at the gate's level or above"
        means = ", ".join(f"{name} {mean:.2f}" for name, mean in self.means.items() if mean is not None)
        return (
            f"{self.rows:,} rows, {self.flagged:,} flagged, {self.errors:,} errors{over}; "
            f"{self.rows_per_second:,.1f} rows/s\nmean severity: {means or 'none'}\n"
        )


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is.

    Attributes:
        name: the input.
        rows: done, an earlier run's included.
        rows_per_second: of this run.
        share: of the input, from 0 to 1; None for standard input.
        seconds_left: until the end, at this rate; None where the share is not known.
    """

    name: str
    rows: int
    rows_per_second: float
    share: float | None
    seconds_left: float | None


def score_file(
    inputs: Name | Sequence[Name],
    output: Name,
    model: SeverityModel | Name = "base",
    *,
    field: str | None = None,
    prompt_field: str | None = None,
    key: str = "severity",
    full: bool = False,
    on_error: str = "null",
    input_format: str | None = None,
    output_format: str | None = None,
    errors_file: Name | None = None,
    fail_over: str | None = None,
    resume: bool = False,
    threads: int | None = None,
    warn: Callable[[str], object] | None = None,
    progress: Callable[[Progress], object] | None = None,
) -> Summary:
    """Score JSONL, CSV or Parquet, plain, `.gz` or `.zst`; every row comes back, in order, with its severity.

        sc.score_file("outputs.parquet", "scored.parquet", resume=True)
        sc.score_file("shards/*.jsonl.gz", "scored/")

    Args:
        inputs: a file, a pattern such as `in/*.parquet`, a list of them, or `-` for standard input.
        output: a file, into which all inputs go; a folder, if it ends with `/`, with a file for each; `-` for standard
            output. Its suffix says the format.
        model: a loaded model, a shipped bundle's name, or a bundle's path.
        field: the key or column of the text, `response.text` for one inside another; None takes the first of output,
            completion, response, text. Chats are read as their last assistant message.
        prompt_field: that of the prompt, read as context; None scores outputs alone.
        key: what the severity is called: the key of an object in JSON, the start of column names in tables.
        full: add every domain's level probabilities and the worst passage's characters.
        on_error: `null` writes a row that cannot be scored without a severity, `skip` leaves it out, `fail` stops.
        input_format: `jsonl`, `csv` or `parquet`; None goes by suffix, and anything else is JSONL.
        output_format: likewise; None is the input's format, where the output's suffix says nothing.
        errors_file: JSONL for the rows that could not be scored: file, line, error, and the line's content.
        fail_over: `LEVEL` or `LEVEL:DOMAIN`; rows whose level reaches it are counted in `Summary.over`.
        resume: go on with what an earlier, interrupted run has kept; without any, start.
        threads: windows scored side by side, for a model that is loaded here. None: the CPUs at hand.
        warn: called with a line for each row that cannot be scored.
        progress: called after every few rows.

    Raises:
        OSError: a file cannot be read or written; what was done is kept.
        CorpusError: something about the files that can be mended; the message says what.
        RowError: `on_error` is `fail`, and a row could not be scored.
        BundleError: the bundle cannot be read.
    """
    options = Options(Wanted(field, prompt_field, key), full, on_error, input_format, output_format, fail_over)
    files = input_files(inputs)
    load = _loader(model, threads)
    errors = None if errors_file is None else Path(errors_file)
    if not os.fspath(output).endswith(("/", os.sep)):
        tally, seconds = Run(files, Path(output), options, errors).go(load, resume, warn, progress)
        return Summary.of(tally, fail_over is not None, seconds)
    runs = shards(files, Path(output), options, errors is not None)
    check_fresh(runs, resume)
    tally, seconds = Tally(), 0.0
    for run in runs:
        one, took = run.go(load, resume, warn, progress)
        tally, seconds = tally + one, seconds + took
    join_errors(runs, errors)
    return Summary.of(tally, fail_over is not None, seconds)


def score_table(
    table: Any,
    model: SeverityModel | Name = "base",
    *,
    field: str | None = None,
    prompt_field: str | None = None,
    key: str = "severity",
    full: bool = False,
) -> Any:
    """An Arrow table with the flat columns of its rows' severity added; its own columns stay as they are.

    The batch function for whatever hands out Arrow: `datasets.map`, DuckDB, Ray Data, Spark. Needs pyarrow.

    Args:
        table: `pyarrow.Table` or `pyarrow.RecordBatch`; the result is of the same type.
        model, field, prompt_field, key, full: as in `score_file`.

    Raises:
        CorpusError: there is no such column, or there is one already where the severity would go.
    """
    loaded = _loader(model, None)()
    fields = arrow_fields(loaded.taxonomy, key, full)
    there = [added.name for added in fields if added.name in table.schema.names]
    if there:
        raise CorpusError(f"the table already has columns {', '.join(there)}; name another with key=")
    rows = list(table_rows(table, Wanted(field, prompt_field, key)))
    scores = loaded.score([row.output for row in rows], [row.prompt for row in rows])
    columns = arrow_columns(scores, _errors(Chunk("", rows), scores), full)
    schema = table.schema
    for added in fields:
        schema = schema.append(added)
    return type(table).from_arrays([*table.columns, *columns], schema=schema)


def input_files(inputs: Name | Sequence[Name]) -> list[Path]:
    """The files that are meant, patterns spelt out in the order of their names.

    Raises:
        CorpusError: none, or a pattern without a match.
    """
    names = [inputs] if isinstance(inputs, (str, os.PathLike)) else list(inputs)
    files: list[Path] = []
    for name in [os.fspath(name) for name in names]:
        if not glob.has_magic(name) or Path(name).exists():
            files.append(Path(name))
            continue
        found = sorted(path for path in map(Path, glob.glob(name, recursive=True)) if path.is_file())  # noqa: PTH207 - absolute, too
        if not found:
            raise CorpusError(f"{name}: no file is called so")
        files += found
    if not files:
        raise CorpusError("no input; name a file")
    return files


def gate_of(fail_over: str | None, taxonomy: Taxonomy) -> tuple[int, int] | None:
    """Level and domain index of `LEVEL[:DOMAIN]`; a level is a number or a name.

    Raises:
        CorpusError: there is no such level or domain.
    """
    if fail_over is None:
        return None
    level, _, domain = fail_over.partition(":")
    levels = [one.name for one in taxonomy.levels]
    number = levels.index(level) if level in levels else int(level) if level.isdecimal() else 0
    if not 1 <= number <= taxonomy.top:
        wanted = ", ".join(f"{number} ({name})" for number, name in enumerate(levels) if number)
        raise CorpusError(f"fail over {fail_over!r}: no level {level!r}, want one of {wanted}")
    if (domain or OVERALL) not in taxonomy.names:
        raise CorpusError(f"fail over {fail_over!r}: no domain {domain!r}, want one of {', '.join(taxonomy.names)}")
    return number, taxonomy.names.index(domain or OVERALL)


@dataclass(frozen=True, slots=True)
class Run:
    """Some inputs and the one output that they go into.

    Attributes:
        files: the inputs, in order.
        output: the file, or `STANDARD`.
        options: what is done with each row.
        errors: where rows that could not be scored are listed, if anywhere.
        state: how far the run is, in a folder of shards, where it stays; None puts it beside the partial file.
    """

    files: Sequence[Path]
    output: Path
    options: Options
    errors: Path | None = None
    state: Path | None = None

    def go(
        self,
        load: Callable[[], SeverityModel],
        resume: bool,
        warn: Callable[[str], object] | None = None,
        progress: Callable[[Progress], object] | None = None,
    ) -> tuple[Tally, float]:
        """Score what is not scored yet: the counts of all rows, and the seconds that it took.

        Raises:
            OSError, CorpusError, RowError, BundleError: as `score_file`.
        """
        options = self.options
        kind, target = options.kinds(self.files[0], self.output)
        source = Source(self.files, options.input_format, options.wanted, keep=kind.format != target.format)
        with _sink(self, resume) as sink, source:
            if target.format != "jsonl" and kind.format == "jsonl":
                source.survey(types=target.format == "parquet")
            model = load()
            writer = writer_of(target, source, options.wanted, model.taxonomy, options.full)
            gate = gate_of(options.fail_over, model.taxonomy)
            tally = sink.begin(writer, source, self._settings(model, kind, target))
            start = time.perf_counter()
            if not sink.whole:
                for chunk in source.chunks():
                    self._score(chunk, model, writer, sink, warn, tally, gate)
                    sink.commit(source, tally)
                    if progress:
                        progress(_progress(source, tally, time.perf_counter() - start))
                sink.finish(writer, source, tally)
            tally.sums = tally.sums or dict.fromkeys(model.taxonomy.names, 0.0)
            return tally, time.perf_counter() - start

    def _score(
        self,
        chunk: Chunk,
        model: SeverityModel,
        writer: Writer,
        sink: Sink,
        warn: Callable[[str], object] | None,
        tally: Tally,
        gate: tuple[int, int] | None,
    ) -> None:
        scores = model.score([row.output for row in chunk.rows], [row.prompt for row in chunk.rows])
        errors = _errors(chunk, scores)
        bad = [at for at, error in enumerate(errors) if error]
        on_error = self.options.on_error
        if bad and on_error == "fail":
            del bad[1:]
        for at in bad:
            sink.list(chunk, at, errors[at])
            if warn:
                warn(f"{chunk.name}:{chunk.rows[at].number}: {errors[at]}")
        if bad and on_error == "fail":
            sink.write(writer.unit(chunk, scores, errors, range(bad[0])))
            raise RowError(f"{chunk.name}:{chunk.rows[bad[0]].number}: {errors[bad[0]]}")
        keep = [at for at, error in enumerate(errors) if not (error and on_error == "skip")]
        sink.write(writer.unit(chunk, scores, errors, keep))
        tally.add(scores, gate)

    def _settings(self, model: SeverityModel, source: Kind, target: Kind) -> dict[str, Any]:
        """All that a run which goes on must have in common with the one that was cut off."""
        options = self.options
        return {
            "model": hashlib.sha256(json.dumps(model.card, sort_keys=True).encode()).hexdigest(),
            "field": options.wanted.field,
            "prompt field": options.wanted.prompt_field,
            "key": options.wanted.key,
            "full": options.full,
            "treatment of errors": options.on_error,
            "list of errors": self.errors is not None,
            "gate": options.fail_over,
            "input format": source.format,
            "output format": " ".join(filter(None, (target.format, target.codec))),
        }


def shards(files: Sequence[Path], folder: Path, options: Options, errors: bool) -> list[Run]:
    """A run for each input, into a folder, which is made.

    Raises:
        CorpusError: two inputs would go into one file, or standard input, which has no name.
    """
    state = folder / STATE_FOLDER
    runs: dict[Path, Run] = {}
    for path in files:
        if path == STANDARD:
            raise CorpusError("stdin: has no name for a file in a folder; name an output file")
        kind, target = options.kinds(path, path)
        name = path.name
        if target.format != kind.format:
            stem = path.name[: -len(path.suffix)] if kind.codec else path.name
            codec = path.suffix if kind.codec and target.format != "parquet" else ""
            name = f"{Path(stem).stem}.{target.format}{codec}"
        output = folder / name
        if output in runs:
            raise CorpusError(f"{path} and {runs[output].files[0]} would both become {output}; score them one by one")
        listed = state / f"{name}.errors.jsonl" if errors else None
        runs[output] = Run([path], output, options, listed, state / f"{name}.json")
    state.mkdir(parents=True, exist_ok=True)
    return list(runs.values())


def check_fresh(runs: Iterable[Run], resume: bool) -> None:
    """Refuse to start where an earlier run has kept something; forget what is finished if nothing is resumed.

    Raises:
        CorpusError: there is a partial file, and `resume` is not set.
    """
    if resume:
        return
    outputs = [Growing(run.output, run.errors, run.state) for run in runs]
    for output in outputs:
        output.check_fresh()
    for output in outputs:
        output.state_path.unlink(missing_ok=True)


def join_errors(runs: Iterable[Run], errors: Path | None) -> None:
    """Put the shards' lists of errors into one, in the shards' order."""
    if errors is None:
        return
    with errors.open("wb") as stream:
        for run in runs:
            assert run.errors is not None
            stream.write(run.errors.read_bytes())


def _loader(model: SeverityModel | Name, threads: int | None) -> Callable[[], SeverityModel]:
    """Loads the model when it is first needed, which is after files that cannot be opened have been found out."""
    if isinstance(model, SeverityModel) and threads is not None:
        raise ValueError("threads are those of the loaded model; give them to load()")
    loaded = [model] if isinstance(model, SeverityModel) else []

    def load() -> SeverityModel:
        if not loaded:
            assert not isinstance(model, SeverityModel)
            loaded.append(load_model(model, threads=threads))
        return loaded[0]

    return load


def _errors(chunk: Chunk, scores: Scores) -> list[str]:
    """Why each row was not scored; empty where it was."""
    return [row.error or ("" if scored else EMPTY) for row, scored in zip(chunk.rows, scores.scored, strict=True)]


def _progress(source: Source, tally: Tally, seconds: float) -> Progress:
    rate = (tally.rows - tally.done_before) / max(seconds, 1e-9)
    share = source.done
    left = None if not share else (1 - share) / share * tally.rows / max(rate, 1e-9)
    return Progress(source.name, tally.rows, rate, share, left)


def _sink(run: Run, resume: bool) -> Sink:
    """Where a run's output goes."""
    output = run.output
    if output == STANDARD or (output.exists() and not (output.is_file() or output.is_dir())):
        return Stream(output, run.errors, resume)
    return Growing(output, run.errors, run.state).open(resume)

"""The command `sevclf`: parse, call one function, print."""

from __future__ import annotations

import errno
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from enum import Enum
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

import severity_clf
from severity_clf.bundle import CARD, GRAPH, TOKENIZER, BundleError, check_target, find_bundle, read_bundle
from severity_clf.corpus import Progress, RowError
from severity_clf.formats import STANDARD, CorpusError
from severity_clf.records import RecordError
from severity_clf.taxonomy import Taxonomy

if TYPE_CHECKING:  # fitting is imported inside its verbs
    from severity_clf.fit.train import Fitted, Survey

FAILED, USAGE, GATE, BAD_LINES, INTERRUPTED = 1, 2, 3, 4, 130
CLEAR = "\r\x1b[K"  # a terminal's line
NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}

app = typer.Typer(
    name="sevclf",
    help="How harmful is this LLM output? Severity on a five-level scale, in each harm domain.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # its tracebacks print locals, and locals hold the scored text
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class OnError(str, Enum):
    """What becomes of a row that cannot be scored."""

    null = "null"
    skip = "skip"
    fail = "fail"


class Format(str, Enum):
    """How rows are written down."""

    jsonl = "jsonl"
    csv = "csv"
    parquet = "parquet"


class Engine(str, Enum):
    """What scores side by side."""

    local = "local"
    ray = "ray"


ModelOption = Annotated[str, typer.Option("-m", "--model", help="A shipped bundle's name, or a bundle's path.")]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sevclf {severity_clf.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """How harmful is this LLM output? Severity on a five-level scale, in each harm domain."""


@app.command()
def score(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[FILE]...",
            help="JSONL, CSV or Parquet, perhaps .gz or .zst, by suffix; a quoted pattern; - is standard input.",
        ),
    ] = None,
    model: ModelOption = "base",
    output: Annotated[
        str,
        typer.Option(
            "-o",
            "--output",
            help="Write here, by suffix; FOLDER/ gets a file for each input; - is standard output.",
        ),
    ] = "-",
    field: Annotated[
        str | None,
        typer.Option(
            help="Key or column of the text to score; response.text is text in response. "
            "[default: the first of output, completion, response, text]"
        ),
    ] = None,
    prompt_field: Annotated[
        str | None, typer.Option(help="Key of the prompt, read as context. [default: outputs are scored alone]")
    ] = None,
    key: Annotated[
        str, typer.Option(help="Key that the severity is written to; of a table's columns, what they start with.")
    ] = "severity",
    full: Annotated[
        bool, typer.Option("--full", help="Add every domain's level probabilities and the worst passage's characters.")
    ] = False,
    on_error: Annotated[
        OnError,
        typer.Option(
            help="A row that cannot be scored: null writes it with a null severity, skip drops it, fail stops there."
        ),
    ] = OnError.null,
    errors_file: Annotated[
        Path | None,
        typer.Option(help="List rows that cannot be scored here, as JSONL. [default: on standard error]"),
    ] = None,
    format: Annotated[
        Format | None, typer.Option(help="Format of the output. [default: by suffix, else the input's]")
    ] = None,
    input_format: Annotated[
        Format | None, typer.Option(help="Format of the input. [default: by suffix, else jsonl]")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with what an interrupted run has kept, or start if there is none.")
    ] = False,
    fail_over: Annotated[
        str | None,
        typer.Option(
            metavar="LEVEL[:DOMAIN]", help="Exit with 3 if any row reaches this level, in overall or the domain."
        ),
    ] = None,
    summary_json: Annotated[Path | None, typer.Option(help="Write the summary here. [default: not written]")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress and no summary on a terminal.")] = False,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Windows scored side by side. [default: the CPUs at hand]")
    ] = None,
    engine: Annotated[
        Engine, typer.Option(help="ray scores a folder's files side by side, on one machine or many; extra ray.")
    ] = Engine.local,
    workers: Annotated[
        int | None, typer.Option(min=1, help="With --engine ray: processes of one thread. [default: the CPUs there]")
    ] = None,
) -> None:
    """Score JSONL, CSV or Parquet: every row comes back, in order and unchanged, with its severity added.

    JSON gets an object under "severity", tables get columns severity_overall, severity_level, severity_cyber and so on.
    Values may be chats, lists of {"role", "content"}: the last assistant message is scored. The output grows as
    NAME.partial and takes its name when it is whole; what an interrupted run has done is kept for --resume.

    Exit codes: 0 all rows are scored; 1 it could not go on (full disk, closed pipe, a bug); 2 a usage error, or a file
    that cannot be read; 3 --fail-over was reached; 4 rows could not be scored; 130 interrupted.

    Example: sevclf score outputs.jsonl -o scored.jsonl
    """
    inputs = files or [STANDARD]
    if STANDARD in inputs and (sys.stdin is None or sys.stdin.isatty()):
        raise typer.BadParameter("no input; name a FILE or pipe JSONL in")
    if summary_json == STANDARD and output == "-":
        raise typer.BadParameter("--summary-json and the rows cannot both go to standard output; name a file")
    if engine is Engine.ray and not output.endswith("/"):
        raise typer.BadParameter("--engine ray writes a file for each input; name a folder, -o FOLDER/")
    options: dict[str, Any] = {"field": field, "prompt_field": prompt_field, "key": key, "full": full}
    options |= {"on_error": on_error.value, "errors_file": errors_file, "resume": resume, "fail_over": fail_over}
    options |= {"output_format": format and format.value, "input_format": input_format and input_format.value}
    shown = sys.stderr.isatty() and not quiet
    beside = output != "-" or not sys.stdout.isatty()  # a bar among the results on one terminal is worse than none
    named = errors_file is None and engine is Engine.local  # bad rows, as they come
    with ExitStack() as stack:  # a file that cannot be written is found out before rows are scored
        sink = stack.enter_context(_writing(summary_json)) if summary_json else None
        with _ends_of_scoring(output, named):
            if engine is Engine.ray:
                from severity_clf.integrations.ray import score_files

                summary = score_files(inputs, output, model, workers=workers, **options)
            else:
                warn = partial(typer.echo, err=True) if named else None
                progress = _Bar().show if shown and beside else None
                summary = severity_clf.score_file(
                    inputs, output, model, threads=threads, warn=warn, progress=progress, **options
                )
        if sink:
            sink.write(json.dumps(summary.to_dict(), indent=2).encode() + b"\n")
    if shown:
        typer.echo(f"{CLEAR}{summary.text()}", err=True, nl=False)
    if summary.errors and not named:
        where = f"see {errors_file}" if errors_file else "list them with --errors-file"
        typer.echo(f"sevclf: {summary.errors} rows could not be scored; {where}", err=True)
    if summary.over:
        typer.echo(f"sevclf: {summary.over} rows reach --fail-over {fail_over}", err=True)
        raise typer.Exit(GATE)
    if summary.errors:
        raise typer.Exit(BAD_LINES)


@contextmanager
def _ends_of_scoring(output: str, named: bool) -> Iterator[None]:
    """SIGTERM as Ctrl-C, and what is said of a run that did not get to its end."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except RowError as error:
        if not named:
            typer.echo(str(error), err=True)
        raise typer.Exit(BAD_LINES) from None
    except KeyboardInterrupt:
        if output.endswith("/") or Path(f"{output}.partial").exists():
            typer.echo("sevclf: interrupted; what was scored is kept, go on with --resume", err=True)
        raise typer.Exit(INTERRUPTED) from None
    finally:
        signal.signal(signal.SIGTERM, before)


class _Bar:
    """One line on a terminal: how much is done, how fast, and how long the rest will take."""

    SECONDS = 0.2

    def __init__(self) -> None:
        self._at = 0.0

    def show(self, now: Progress) -> None:
        """Write the line anew, not too often."""
        whole = now.share is not None and now.share >= 1
        if not whole and time.monotonic() - self._at < self.SECONDS:
            return
        self._at = time.monotonic()
        share = "" if now.share is None else f"{now.share:4.0%}  "
        left = "" if now.seconds_left is None else f"  {timedelta(seconds=round(now.seconds_left))} left"
        line = f"{Path(now.name).name}  {share}{now.rows:,} rows  {now.rows_per_second:,.1f} rows/s{left}"
        typer.echo(f"{CLEAR}{line}", err=True, nl=whole)


@contextmanager
def _writing(output: Path) -> Iterator[IO[bytes]]:
    """Standard output, or a file that appears under its name only when it is whole."""
    if output == STANDARD:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    if output.exists() and not output.is_file():  # a device or a pipe, which a rename would put a file in place of
        with output.open("wb") as stream:
            yield stream
        return
    output = output.resolve()  # a link stays a link
    partial = output.with_name(f"{output.name}.partial")
    try:
        with partial.open("wb") as stream:
            yield stream
        partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)


@app.command()
def evaluate(
    records: Annotated[
        Path, typer.Argument(metavar="RECORDS", help='Labelled JSONL: "output", "labels", perhaps "prompt", "group".')
    ],
    model: ModelOption = "base",
    as_json: Annotated[
        Path | None, typer.Option("--json", help="Write every figure here as JSON. [default: not written]")
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write a page with plots here, one file. [default: not written]")
    ] = None,
    prompts: Annotated[bool, typer.Option("--prompts", help="Read each record's prompt as context.")] = False,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Windows scored side by side. [default: the CPUs at hand]")
    ] = None,
) -> None:
    """Compare a bundle with labelled records that it was not fitted on: ranking, levels, calibration, level intervals.

    Prints a table. 95% intervals are over whole groups of records; a calibration error stands beside the floor that
    perfect calibration would show for as many rows. Rows are named by id, and no text is written.

    Example: sevclf evaluate labelled.jsonl --html report.html
    """
    written = [path for path in (as_json, html) if path is not None]
    if len({path.resolve() for path in (records, *written)}) <= len(written):
        raise typer.BadParameter("RECORDS, --json and --html must be different files")
    loaded = severity_clf.load(model, threads=threads)
    rows = severity_clf.read_records(records, loaded.taxonomy)
    with ExitStack() as stack:  # files that cannot be written are found out before rows are scored
        sinks = [stack.enter_context(_writing(path)) for path in written]
        with _advancing(len(rows), records.name) as progress:
            report = severity_clf.evaluate(loaded, rows, prompts=prompts, progress=progress)
        for path, sink in zip(written, sinks, strict=True):
            text = report.html() if path == html else json.dumps(report.to_dict(), indent=2, allow_nan=False) + "\n"
            sink.write(text.encode())
    if STANDARD not in written:
        typer.echo(report.text(), nl=False)


@contextmanager
def _advancing(length: int, label: str) -> Iterator[Callable[[int], object] | None]:
    """What to call with the number of steps done since the last call, if standard error is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    with typer.progressbar(length=length, label=label, file=sys.stderr) as bar:
        yield bar.update


@app.command()
def info(
    model: ModelOption = "base",
    as_json: Annotated[bool, typer.Option("--json", help="Print the bundle's whole card as JSON.")] = False,
) -> None:
    """Say what a bundle is: its domains, threshold, encoder and hashes, which are verified first.

    Example: sevclf info -m base
    """
    bundle = read_bundle(find_bundle(model))
    card = bundle.card
    if as_json:
        typer.echo(json.dumps(card, indent=2, ensure_ascii=False))
        return
    try:
        training = card.get("training", {"records": 0, "sources": []})  # an encoder on its own has had none
        rows = {
            "bundle": f"{card['name']} {card['version']} (format {card['format']}) in {bundle.path}",
            "levels": ", ".join(f"{number} {level.name}" for number, level in enumerate(bundle.taxonomy.levels)),
            "domains": ", ".join(f"{domain.name} ({domain.evidence})" for domain in bundle.taxonomy.domains),
            "threshold": f"flagged from an expected overall severity of {bundle.threshold:.2f}",
            "encoder": ", ".join(f"{value}" for value in card["encoder"].values()),
            "training": f"{training['records']} records of {len(training['sources'])} sources",
            **{file: f"sha256 {card['sha256'][file]}, verified" for file in (GRAPH, TOKENIZER)},
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"{bundle.path / CARD}: missing or wrong {error}") from None
    width = max(map(len, rows))
    for name, value in rows.items():
        typer.echo(f"{name:<{width}}  {value}")


# The verbs that fit. What they need is imported inside them: scoring is light.

RecordsArgument = Annotated[
    Path, typer.Argument(metavar="RECORDS", help='Labelled JSONL: "output", "labels", perhaps "prompt", "group".')
]
BundleOption = Annotated[
    Path, typer.Option("-o", "--output", metavar="D", help="The bundle to write; an older bundle there is replaced.")
]
PromptsOption = Annotated[
    bool, typer.Option("--prompts", help="Read outputs with their prompts; score with --prompt-field then.")
]
FalseFlagsOption = Annotated[
    float | None,
    typer.Option(
        min=0, max=1, help="Flag at most this share of held-out harmless rows. [default: flag with the best F1]"
    ),
]
SeedOption = Annotated[int, typer.Option(min=0, help="Shuffles the groups before they are dealt to the folds.")]
CacheOption = Annotated[Path | None, typer.Option(help="Keep embeddings in this folder. [default: not kept]")]
ThreadsOption = Annotated[int | None, typer.Option(min=1, help="Processes and threads. [default: the CPUs at hand]")]


@app.command()
def train(
    records: RecordsArgument,
    output: BundleOption,
    taxonomy: Annotated[
        Path | None,
        typer.Option(
            help="TOML with your own levels and domains. [default: the bundle's, less domains without labels]"
        ),
    ] = None,
    model: Annotated[str, typer.Option("-m", "--model", help="The bundle whose encoder the heads are for.")] = "base",
    test: Annotated[
        Path | None, typer.Option(help="Further labelled rows, only judged; their groups must be others.")
    ] = None,
    prompts: PromptsOption = False,
    false_flags: FalseFlagsOption = None,
    seed: SeedOption = 0,
    cache: CacheOption = None,
    threads: ThreadsOption = None,
    finetune: Annotated[
        bool, typer.Option("--finetune", help="Tune the whole encoder, too: hours, and the extra finetune.")
    ] = False,
    encoder: Annotated[
        Path | None, typer.Option(help="With --finetune: start from this folder. [default: the bundle's encoder]")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="With --finetune: passes over the rows.")] = 2,
) -> None:
    """Fit heads for your own labels and taxonomy: about a minute for 5,000 rows, without torch.

    Heads are cross-fitted over groups of rows and calibrated on rows that they have not seen, which the printed figures
    are of, too. A label is a level, {"overall": 2}, or [lowest, highest], {"overall": [1, 4]} for a plain "unsafe".
    With --finetune the tuned encoder and its checkpoints stay in D.encoder, where a run that was cut off goes on.

    Example: sevclf train labelled.jsonl -o mine
    """
    check_target(output)
    if encoder is not None and not finetune:
        raise typer.BadParameter("--encoder is for --finetune; export it first, and name the bundle with -m")
    from severity_clf.fit import train as fit

    loaded = severity_clf.load(model, threads=threads)
    with _mendable("--taxonomy"):
        wanted = Taxonomy.from_toml(taxonomy) if taxonomy else loaded.taxonomy
    rows = severity_clf.read_records(records, wanted)
    tests = severity_clf.read_records(test, wanted) if test else []
    wanted = wanted if taxonomy else fit.labelled([*rows, *tests], wanted)
    _print_survey(fit.survey(rows, wanted), len(rows))
    fit.check_apart(rows, tests)
    groups = None
    if finetune:
        work = output.with_name(f"{output.name}.encoder")
        with _mendable("--encoder"):
            path, groups = fit.tune(rows, wanted, loaded.path, work, encoder=encoder, epochs=epochs, seed=seed)
        loaded = severity_clf.load(path, threads=threads)
    options: dict[str, Any] = {"prompts": prompts, "false_flags": false_flags, "seed": seed, "cache": cache}
    fitted = fit.train(rows, wanted, loaded, test=tests, tuned_on=groups, progress=_progress, **options)
    _print_fitted(fitted, output)


@app.command()
def calibrate(
    records: RecordsArgument,
    output: BundleOption,
    model: ModelOption = "base",
    prompts: PromptsOption = False,
    false_flags: FalseFlagsOption = None,
    seed: SeedOption = 0,
    cache: CacheOption = None,
    threads: ThreadsOption = None,
) -> None:
    """Refit a bundle's slopes, thresholds and flagging threshold on rows like those that it will score.

    What the heads look at stays. Figures before and after are printed, those after of rows that the calibration they
    are judged by has not seen. Domains that no row labels stay as they are.

    Example: sevclf calibrate labelled.jsonl -m base -o mine
    """
    check_target(output)
    from severity_clf.fit import train as fit

    loaded = severity_clf.load(model, threads=threads)
    rows = severity_clf.read_records(records, loaded.taxonomy)
    _print_survey(fit.survey(rows, fit.labelled(rows, loaded.taxonomy)), len(rows))
    options: dict[str, Any] = {"prompts": prompts, "false_flags": false_flags, "seed": seed, "cache": cache}
    _print_fitted(fit.recalibrate(rows, loaded, progress=_progress, **options), output)


@app.command()
def export(
    encoder: Annotated[
        Path, typer.Argument(help="A sentence-transformers folder: config.json, model.safetensors, tokenizer.json.")
    ],
    output: BundleOption,
    window: Annotated[int, typer.Option(min=4, help="Tokens in a window, its two special tokens included.")] = 128,
    overlap: Annotated[int, typer.Option(min=0, help="Tokens that neighbouring windows share.")] = 32,
) -> None:
    """Turn an encoder into a bundle without heads, quantised to int8, for `sevclf train -m`.

    BERT encoders are supported: model_type bert, gelu, absolute positions, WordPiece, such as all-MiniLM-L6-v2, BGE, E5
    and GTE in their English BERT sizes. Tokens are pooled as the folder's 1_Pooling/config.json says: mean, cls or max.

    Example: sevclf export all-MiniLM-L12-v2 -o encoder
    """
    from severity_clf.fit.export import export_bundle

    with _mendable("ENCODER"):
        export_bundle(encoder, output, severity_clf.load().taxonomy, window=window, overlap=overlap)
    typer.echo(f"wrote {output}, an encoder without heads; next: sevclf train RECORDS -m {output} -o D")


@contextmanager
def _mendable(name: str) -> Iterator[None]:
    """What a user can mend about a parameter, as a usage error."""
    try:
        yield
    except RecordError:
        raise
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=name) from None


def _progress(what: str, done: int, total: int) -> None:
    """One line on standard error that counts up, if that is a terminal."""
    if sys.stderr.isatty():
        typer.echo(f"\r{what} {done} of {total}", err=True, nl=done == total)


def _print_survey(found: Survey, rows: int) -> None:
    """What a file of labels holds, before anything is done with it."""
    typer.echo(f"{rows} rows in {found.groups} groups")
    width = max(map(len, found.counts))
    for domain, counts in found.counts.items():
        levels = ((f"{low}" if low == high else f"[{low}, {high}]", count) for (low, high), count in counts.items())
        typer.echo(f"{domain:<{width}}  " + ", ".join(f"{level}: {count}" for level, count in levels))
    for warning in found.warnings:
        typer.echo(f"warning: {warning}", err=True)


def _print_fitted(fitted: Fitted, output: Path) -> None:
    """Write the bundle, and say how good it is."""
    from severity_clf.fit.train import table

    fitted.write(output)
    titles = {"before": "as the bundle was", "held_out": "held out", "test": "test rows"}
    for key, title in titles.items():
        if key in fitted.report:
            typer.echo(f"\n{title}, {fitted.report[key]['records']} rows\n{table(fitted.report[key])}")
    threshold, rule = fitted.card["thresholds"]["overall"], fitted.card["calibration"]["threshold"]
    typer.echo(f"\nflagged from an expected overall severity of {threshold:.2f}: {rule}")
    typer.echo(f"wrote {output}; next: sevclf score -m {output} FILE")


def main() -> None:
    """Run the command; what a user can mend is one line on standard error and exit code 2, a full disk is 1."""
    try:
        app()
    except (BundleError, RecordError, CorpusError, OSError, ModuleNotFoundError) as error:
        typer.echo(f"sevclf: {error}", err=True)
        sys.exit(FAILED if isinstance(error, OSError) and error.errno in NO_SPACE else USAGE)

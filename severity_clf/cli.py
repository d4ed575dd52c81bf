"""The command `sevclf`: parse, call one function, print."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from enum import Enum
from pathlib import Path
from typing import IO, Annotated

import typer

import severity_clf
from severity_clf.bundle import CARD, GRAPH, TOKENIZER, BundleError, find_bundle, read_bundle
from severity_clf.jsonl import read_line, score_lines
from severity_clf.records import RecordError

USAGE = 2
BAD_LINES = 4
STANDARD = Path("-")  # input or output

app = typer.Typer(
    name="sevclf",
    help="How harmful is this LLM output? Severity on a five-level scale, in each harm domain.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # its tracebacks print locals, and locals hold the scored text
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class OnError(str, Enum):
    """What becomes of a line that cannot be scored."""

    null = "null"
    skip = "skip"
    fail = "fail"


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
    file: Annotated[Path, typer.Argument(help="JSONL, one object a line; - is standard input.")] = STANDARD,
    model: ModelOption = "base",
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Write here, whole or not at all; - is standard output.")
    ] = STANDARD,
    field: Annotated[
        str | None,
        typer.Option(help="Key of the text to score. [default: the first of output, completion, response, text]"),
    ] = None,
    prompt_field: Annotated[
        str | None, typer.Option(help="Key of the prompt, read as context. [default: outputs are scored alone]")
    ] = None,
    key: Annotated[str, typer.Option(help="Key that the severity is written to.")] = "severity",
    full: Annotated[
        bool, typer.Option("--full", help="Add every domain's level probabilities and the worst passage's characters.")
    ] = False,
    on_error: Annotated[
        OnError,
        typer.Option(
            help="A line that cannot be scored: null writes it with a null severity, skip drops it, fail stops there."
        ),
    ] = OnError.null,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Windows scored side by side. [default: the CPUs at hand]")
    ] = None,
) -> None:
    """Score JSONL: every line comes back, in order, with a "severity" added.

    Values may be chats, lists of {"role", "content"}: the last assistant message is scored. Bad lines are named on
    standard error, and the exit code is then 4; 2 is a usage error or a bundle that cannot be read.

    Example: sevclf score outputs.jsonl -o scored.jsonl
    """
    name = "stdin" if file == STANDARD else str(file)
    bad = 0
    with (
        _reading(file, show_progress=output != STANDARD or not sys.stdout.isatty()) as source,
        _writing(output) as sink,
    ):
        loaded = severity_clf.load(model, threads=threads)
        lines = (read_line(number, content, field, prompt_field, key) for number, content in enumerate(source, 1))
        for line, severity in score_lines(loaded, lines, full):
            if line.error:
                bad += 1
                typer.echo(f"{name}:{line.number}: {line.error}", err=True)
                if on_error is OnError.fail:
                    raise typer.Exit(BAD_LINES)
                if on_error is OnError.skip:
                    continue
            sink.write(line.with_severity(key, severity))
    if bad:
        raise typer.Exit(BAD_LINES)


@contextmanager
def _reading(file: Path, show_progress: bool) -> Iterator[Iterable[bytes]]:
    """The file's lines, or standard input's, with a progress bar on standard error if that is a terminal."""
    if file == STANDARD:
        if sys.stdin is None or sys.stdin.isatty():
            raise typer.BadParameter("no input; name a FILE or pipe JSONL in")
        yield sys.stdin.buffer
        return
    with file.open("rb") as stream:
        if not (show_progress and sys.stderr.isatty()):
            yield stream
            return
        with typer.progressbar(length=file.stat().st_size, label=file.name, file=sys.stderr) as bar:

            def advancing() -> Iterator[bytes]:
                for line in stream:
                    bar.update(len(line))
                    yield line

            yield advancing()


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


def main() -> None:
    """Run the command; what a user can mend is one line on standard error and exit code 2."""
    try:
        app()
    except (BundleError, RecordError, OSError) as error:
        typer.echo(f"sevclf: {error}", err=True)
        sys.exit(USAGE)

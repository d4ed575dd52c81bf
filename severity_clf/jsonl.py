"""Score JSONL: one object a line in, the same line with its severity out, in the order given.

The line itself is kept: the severity is put before its closing brace, and not one byte of the rest is written anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from severity_clf.chat import text_of
from severity_clf.lines import keys_of, read_object
from severity_clf.model import BLOCK, SeverityModel

FIELDS = ("output", "completion", "response", "text")


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a file, parsed as far as it could be.

    Attributes:
        number: from 1.
        raw: the line as it was, its line break included; `{}` in its place where it is not a JSON object.
        output: the text to score, None where there is none.
        prompt: its context, None where there is none.
        error: why the line cannot be scored; empty where it can.
    """

    number: int
    raw: bytes
    output: str | None = None
    prompt: str | None = None
    error: str = ""

    def with_severity(self, key: str, severity: dict[str, Any] | None) -> bytes:
        """The line with `severity` added under `key`; null where there is none."""
        head, brace, tail = self.raw.rpartition(b"}")
        comma = "" if head.rstrip().endswith(b"{") else ", "
        return head + f"{comma}{json.dumps(key)}: {json.dumps(severity)}".encode() + brace + tail


def read_line(number: int, content: bytes, field: str | None, prompt_field: str | None, key: str) -> Line:
    """Parse one line.

    Args:
        number: from 1.
        content: the line, with or without its line break.
        field: the key of the text to score; None looks for output, completion, response, text, in this order.
        prompt_field: the key of the prompt; None scores outputs without context.
        key: where the severity goes; a line that has it already is an error: nothing of the user's is overwritten.
    """
    unread = b"{}" + content[len(content.rstrip(b"\r\n")) :]
    try:
        row = read_object(number, content, parse_int=float)  # only texts are read, however long a number is
    except ValueError as error:
        return Line(number, unread, error=str(error))
    name = next((name for name in FIELDS if name in row), FIELDS[0]) if field is None else field
    if name not in row:
        return Line(number, content, error=f'no "{name}" key, only {keys_of(row)}; name it with --field')
    if key in row:
        return Line(number, content, error=f'already has a "{key}" key; name another with --key')
    try:
        output = text_of(row[name], "assistant")
    except ValueError as error:
        return Line(number, content, error=f'"{name}" {error}')
    if prompt_field is None:
        return Line(number, content, output)
    if prompt_field not in row:
        return Line(number, content, error=f'no "{prompt_field}" key, only {keys_of(row)}; name it with --prompt-field')
    try:
        prompt = None if row[prompt_field] is None else text_of(row[prompt_field], "user")
    except ValueError as error:
        return Line(number, content, error=f'"{prompt_field}" {error}')
    return Line(number, content, output, prompt)


def score_lines(
    model: SeverityModel, lines: Iterable[Line], full: bool = False
) -> Iterator[tuple[Line, dict[str, Any] | None]]:
    """Each line with its severity, as `Scores.rows` gives it; None with an error, and where there is no token."""
    lines = iter(lines)
    while block := list(islice(lines, BLOCK)):
        outputs, prompts = [line.output for line in block], [line.prompt for line in block]
        for line, severity in zip(block, model.score(outputs, prompts).rows(full), strict=True):
            empty = severity is None and not line.error
            yield replace(line, error="the text is empty: nothing to score") if empty else line, severity

"""One line of JSONL, and the text in it; the line itself is kept.

The severity is put before its closing brace, and not one byte of the rest is written anew.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from severity_clf.chat import text_of
from severity_clf.lines import keys_of, read_object

FIELDS = ("output", "completion", "response", "text")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which text of a row is scored, and where its severity goes.

    Attributes:
        field: the key of the text, `response.text` for one inside another; None looks for `FIELDS`, in their order.
        prompt_field: the key of the prompt, likewise; None scores outputs without context.
        key: what the severity is called; a row that has it already is an error: nothing of the user's is overwritten.
    """

    field: str | None = None
    prompt_field: str | None = None
    key: str = "severity"

    def field_in(self, names: Sequence[str] | dict[str, Any]) -> str:
        """The field to read in a row or a table with these keys; the first of `FIELDS` if there is none of them."""
        return next((name for name in FIELDS if name in names), FIELDS[0]) if self.field is None else self.field


@dataclass(frozen=True, slots=True)
class Line:
    """One row of a file, parsed as far as it could be.

    Attributes:
        number: from 1, of the row's first line.
        raw: the line to write, its line break included; `{}` in its place where it is not a JSON object.
        output: the text to score, None where there is none.
        prompt: its context, None where there is none.
        error: why the row cannot be scored; empty where it can.
        content: the line as it was read, where that is not what is written.
        row: the row's values by key, for another format; None unless they were asked for.
    """

    number: int
    raw: bytes
    output: str | None = None
    prompt: str | None = None
    error: str = ""
    content: bytes | None = None
    row: dict[str, Any] | None = None

    def with_severity(self, key: str, severity: dict[str, Any] | None) -> bytes:
        """The line with `severity` added under `key`; null where there is none."""
        head, brace, tail = self.raw.rpartition(b"}")
        comma = "" if head.rstrip().endswith(b"{") else ", "
        return head + f"{comma}{json.dumps(key)}: {json.dumps(severity)}".encode() + brace + tail


def read_line(number: int, content: bytes, wanted: Wanted, keep: bool = False) -> Line:
    """Parse one line.

    Args:
        number: from 1.
        content: the line, with or without its line break.
        wanted: which text, and where the severity goes.
        keep: keep the row's values, for a table, which gets columns and no key.
    """
    unread = b"{}" + content[len(content.rstrip(b"\r\n")) :]
    try:
        # Where only texts are read, a number may be as long as it likes.
        row = read_object(number, content, parse_int=int if keep else float)
    except ValueError as error:
        return Line(number, unread, error=str(error), content=content)
    kept = row if keep else None
    if wanted.key in row and not keep:
        return Line(number, content, error=f'already has a "{wanted.key}" key; name another with --key', row=kept)
    try:
        output, prompt = texts_of(row, wanted)
    except ValueError as error:
        return Line(number, content, error=str(error), row=kept)
    return Line(number, content, output, prompt, row=kept)


def texts_of(row: dict[str, Any], wanted: Wanted) -> tuple[str, str | None]:
    """The output and the prompt of a row.

    Raises:
        ValueError: one is missing, or is no text; the message says which and why.
    """
    name = wanted.field_in(row)
    output = _text(row, name, "--field", "assistant")
    if wanted.prompt_field is None:
        return output, None
    found = find(row, wanted.prompt_field, "--prompt-field")
    return output, None if found is None else _text(row, wanted.prompt_field, "--prompt-field", "user")


def _text(row: dict[str, Any], name: str, option: str, role: str) -> str:
    value = find(row, name, option)
    try:
        return text_of(value, role)
    except ValueError as error:
        raise ValueError(f'"{name}" {error}') from None


def find(row: dict[str, Any], name: str, option: str) -> Any:
    """The value under a key, or under keys inside one another: `choices.0.message`.

    Raises:
        ValueError: there is none; the message names the option that says where to look.
    """
    if name in row:
        return row[name]
    value: Any = row
    for part in name.split("."):
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            raise ValueError(f'no "{name}" key, only {keys_of(row)}; name it with {option}')
    return value

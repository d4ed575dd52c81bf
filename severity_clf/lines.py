"""One line of JSONL: the object in it, or why there is none."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from severity_clf.chat import kind_of


def read_object(number: int, content: bytes, parse_int: Callable[[str], Any] = int) -> dict[str, Any]:
    """The object of one line.

    Args:
        number: of the line, from 1; the first may start with a byte order mark.
        content: the line, with or without its line break.
        parse_int: what becomes of integers; Python's int refuses more than 4300 digits, which JSON allows.

    Raises:
        ValueError: there is none; the message says why, without file and line, which the caller knows.
    """
    try:
        text = content.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        row = json.loads(text, parse_int=parse_int)
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        problem = f"not JSON: {error.msg.removesuffix(' at')} at column {error.colno}"
        raise ValueError(problem if text.strip() else "empty line, want a JSON object") from None
    except RecursionError:
        raise ValueError("not read: lists or objects nested too deeply") from None
    if not isinstance(row, dict):
        raise ValueError(f"the line is {kind_of(row)}, want an object")
    return row


def keys_of(row: Iterable[str]) -> str:
    """The keys as an error shows them: no control characters, not pages of them."""
    keys = ", ".join(repr(name)[1:-1] for name in row)
    return f"{keys[:200]}..." if len(keys) > 200 else keys or "no keys"

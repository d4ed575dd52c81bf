"""Text that an output carries in an encoding, so that it can be read beside the text as given.

    decoded("see SG93IHRvIG1ha2UgYSBwb3Qgb2YgdGVh").text    # "How to make a pot of tea"

Base64, hex, percent, HTML and backslash escapes, bytes in variation selectors, Unicode tags, rot13, reversed text; each
also inside another, two deep. What decodes to bytes or to symbols is no text: hashes, pictures, tokens and addresses
give nothing. Other alphabets, keys, compression and numbers for letters are not looked for, nor is a word alone: a run
must hold some sixteen characters and three words. Nothing decoded is longer than the run that it came from, and no
character is decoded by two rules, so all of it is at most as long as the text.
"""

from __future__ import annotations

import base64
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import unescape
from urllib.parse import unquote

DEPTH = 2
BLOCK = 8  # words that are judged together, deciphered or not
SELECTORS = "\ufe00-\ufe0f\U000e0100-\U000e01ef"  # 256 invisible characters: one for each byte
TAGS = "\U000e0020-\U000e007e"  # invisible ASCII
_BACKSLASH = r"\\{1,4}(?:u([0-9A-Fa-f]{4})|x([0-9A-Fa-f]{2}))"  # several where JSON quotes code
_ESCAPE = rf"(?:%[0-9A-Fa-f]{{2}}|&(?:amp;)?#(?:\d{{2,7}}|[xX][0-9A-Fa-f]{{2,6}});|{_BACKSLASH})"
_DIGITS = "[A-Za-z0-9+/_-]"  # of base64, in both alphabets
_ILLEGIBLE = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ufffd]")
_WORD = re.compile(r"[^\W\d_]+")
_COMMON_WORDS = """
the and you for with this that from your are have they will not but what when which can their there about
would should could then than them into has his her its all our out use make also more some other these any
just like only how who been were where while before after because each very need take using first
"""
_COMMON = frozenset(_COMMON_WORDS.split())
_ROT13 = str.maketrans(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", "NOPQRSTUVWXYZABCDEFGHIJKLMnopqrstuvwxyzabcdefghijklm"
)

Run = tuple[int, int, str]  # start and end in the text, and what it says


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a text says in encodings.

    Attributes:
        text: every decoded run, in the order of the text, one a line.
        runs: for each, where it starts in `text`, and where its encoded form starts and ends in the text as given.
    """

    text: str
    runs: tuple[tuple[int, int, int], ...]

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Where the encoded form of a part of `text` starts and ends in the text as given, by whole runs."""
        first = bisect_right(self.runs, start, key=lambda run: run[0]) - 1
        last = bisect_left(self.runs, end, key=lambda run: run[0]) - 1
        return self.runs[first][1], self.runs[last][2]


def decoded(text: str) -> Decoded | None:
    """What a text says in encodings; None where it says nothing, as nearly all texts."""
    lines, runs, at = [], [], 0
    for start, end, line in _runs(text, DEPTH):
        lines.append(line)
        runs.append((at, start, end))
        at += len(line) + 1
    return Decoded("\n".join(lines), tuple(runs)) if runs else None


def _runs(text: str, depth: int) -> list[Run]:
    """The runs of a text that decode to something legible, in order, none overlapping another."""
    found: list[Run] = []
    taken = bytearray(len(text))
    for start, end, candidate in _candidates(text):
        if 1 in taken[start:end] or len(_ILLEGIBLE.findall(candidate)) * 20 > len(candidate):
            continue
        inner = _runs(candidate, depth - 1) if depth > 1 else []
        if inner or _reads(candidate):
            taken[start:end] = b"\1" * (end - start)
            found.append((start, end, _replaced(candidate, inner)))
    return sorted(found)


def _replaced(text: str, runs: list[Run]) -> str:
    """The text with what its runs say in their place."""
    pieces, at = [], 0
    for start, end, line in runs:
        pieces += [text[at:start], line]
        at = end
    return "".join([*pieces, text[at:]])


def _reads(text: str) -> bool:
    """Whether a decoded run is words of some language or code, and not symbols."""
    words = text.split()
    marks = sum(map(len, words))
    return len(words) >= 3 and 2 <= marks / len(words) <= 12 and sum(map(str.isalpha, text)) >= 0.65 * marks


def _candidates(text: str) -> Iterator[Run]:
    """Every run that has the form of an encoding, with what it may say; of two that overlap, the surer comes first."""
    for pattern, decode in _FORMS:
        for run in pattern.finditer(text):
            for candidate in decode(run[0]):
                yield *run.span(), candidate
    words = set(text.lower().split())
    for ciphered, decipher in _CIPHERS:
        if not ciphered.isdisjoint(words):
            yield from _deciphered(text, ciphered, decipher)


def _selected(run: str) -> Iterator[str]:
    """Bytes as variation selectors: 16 in the basic plane, the other 240 beyond it."""
    codes = (ord(mark) for mark in run)
    data = bytes(code - 0xFE00 if code < 0xFE10 else code - 0xE0100 + 16 for code in codes if _is_selector(code))
    yield data.decode("utf-8", "replace")


def _is_selector(code: int) -> bool:
    return 0xFE00 <= code <= 0xFE0F or 0xE0100 <= code <= 0xE01EF


def _tagged(run: str) -> Iterator[str]:
    yield "".join(chr(ord(mark) - 0xE0000) for mark in run if ord(mark) > 0xE0000)


def _unescaped(run: str) -> Iterator[str]:
    run = re.sub(_BACKSLASH, lambda code: chr(int(code[1] or code[2], 16)), run)
    yield unescape(unquote(run) if "%" in run else run)


def _from_hex(run: str) -> Iterator[str]:
    if re.search("[A-Fa-f]", run):  # numbers in a list are no letters
        yield bytes.fromhex(re.sub("0x|[^0-9A-Fa-f]", "", run)).decode("utf-8", "replace")


def _from_base64(run: str) -> Iterator[str]:
    """As it stands, and as if a word of one to three letters had been glued to its start."""
    digits = re.sub(r"\s|=", "", run).replace("-", "+").replace("_", "/")
    for skip in range(4):
        whole = digits[skip : len(digits) - ((len(digits) - skip) % 4 == 1)]
        data = base64.b64decode(whole + "=" * (-len(whole) % 4))
        wide = data[1:2] == b"\0"  # as PowerShell's encoded commands
        yield data.decode("utf-16-le" if wide else "utf-8", "replace")


_FORMS: tuple[tuple[re.Pattern[str], Callable[[str], Iterator[str]]], ...] = (
    (re.compile(f"[{SELECTORS}](?:[^{SELECTORS}]{{0,4}}[{SELECTORS}]){{11,}}"), _selected),
    # Elsewhere than inside words the tokenizer reads tags itself.
    (re.compile(rf"(?<=\w)[{TAGS}](?:\w{{0,4}}[{TAGS}]){{11,}}(?=\w)"), _tagged),
    (re.compile(rf"{_ESCAPE}(?:[^%&\\]{{0,16}}{_ESCAPE}){{7,}}[^\s%&\\]{{0,16}}"), _unescaped),
    (re.compile(r"(?<![0-9A-Za-z])(?:0x)?[0-9A-Fa-f]{2}(?:[\s:,;-]{0,2}(?:0x)?[0-9A-Fa-f]{2}){11,}"), _from_hex),
    (
        re.compile(rf"{_DIGITS}{{16,}}(?:\r?\n[ \t]*{_DIGITS}{{16,}})*(?:\r?\n[ \t]*{_DIGITS}{{2,15}}(?==))?={{0,2}}"),
        _from_base64,
    ),
)


def _reversed(text: str) -> str:
    return text[::-1]


def _rotated(text: str) -> str:
    return text.translate(_ROT13)


# Common words as each cipher writes them, less those that are words themselves.
_CIPHERS: tuple[tuple[frozenset[str], Callable[[str], str]], ...] = tuple(
    (frozenset(map(decipher, _COMMON)) - _COMMON - {"dna", "era", "nac", "sti", "ton", "tub", "tuo"}, decipher)
    for decipher in (_rotated, _reversed)
)


def _deciphered(text: str, ciphered: frozenset[str], decipher: Callable[[str], str]) -> Iterator[Run]:
    """Blocks of words in which more common words are found deciphered than as they stand, with what is around them.

    A block beside one belongs to it where no common word stands in it, and so do up to two between.
    """
    words = list(_WORD.finditer(text))
    blocks = [words[start : start + BLOCK] for start in range(0, len(words), BLOCK)]
    told = [[word[0].lower() for word in block] for block in blocks]
    plain = [sum(word in _COMMON for word in block) for block in told]
    runs: list[list[int]] = []
    for number, block in enumerate(told):
        if sum(word in ciphered for word in block) > plain[number]:
            if runs and number - runs[-1][-1] <= 3:
                runs[-1].append(number)
            else:
                runs.append([number])
    for run in runs:
        first = max(run[0] - 1, 0) if not plain[max(run[0] - 1, 0)] else run[0]
        last = run[-1] + 1 if run[-1] + 1 < len(blocks) and not plain[run[-1] + 1] else run[-1]
        hidden = [word for block in told[first : last + 1] for word in block if word in ciphered]
        if len(set(hidden)) >= 3 and len(hidden) * 8 >= (last + 1 - first) * BLOCK:
            start, end = blocks[first][0].start(), blocks[last][-1].end()
            yield start, end, decipher(text[start:end])

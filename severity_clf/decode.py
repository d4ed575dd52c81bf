"""A text with all that it says in an encoding put in the place of the encoded form.

    decoded("see SG93IHRvIG1ha2UgYSBwb3Qgb2YgdGVh", vocabulary).text    # "see How to make a pot of tea"

Base64, hex, percent, HTML and backslash escapes, bytes in variation selectors, Unicode tags, and any of these or of
the following inside them, two deep; rot13, reversed text, leetspeak. What decodes to bytes or to symbols is no text:
hashes, pictures, tokens and addresses stay as they are. Other alphabets, keys, compression and numbers for letters are
not looked for, nor is a word alone: a run must hold some sixteen characters and three words.

Nothing that can be read as it stands may vanish by decoding to something else. So ciphers are undone word by word, and
a word that the encoder's vocabulary knows as it stands stays; and what a rule would drop stays before what was decoded:
visible characters between invisible ones, words in a run of base64. The vocabulary lists common words first, and `##`
marks what continues a word.
"""

from __future__ import annotations

import base64
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from html import unescape
from itertools import product
from string import ascii_letters, digits, hexdigits, whitespace
from urllib.parse import unquote

from severity_clf.plain import kinds

DEPTH = 2
BLOCK = 8  # words that are judged together, deciphered or not
LONGEST = 40  # letters of a word that is spelt
REACH = 200  # characters beside a passage in which its signs are looked for
SELECTORS = "\ufe00-\ufe0f\U000e0100-\U000e01ef"  # 256 invisible characters: one for each byte
TAGS = "\U000e0020-\U000e007e"  # invisible ASCII
_BACKSLASH = r"\\{1,4}(?:u([0-9A-Fa-f]{4})|x([0-9A-Fa-f]{2}))"  # several where JSON quotes code
_ESCAPE = rf"(?:%[0-9A-Fa-f]{{2}}|&(?:amp;)?#(?:\d{{2,7}}|[xX][0-9A-Fa-f]{{2,6}});|{_BACKSLASH})"
_DIGITS = "[A-Za-z0-9+/_-]"  # of base64, in both alphabets
_ILLEGIBLE = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ufffd]")
_NAME_WORD = re.compile("[A-Z]?[a-z]{3,}|[A-Z]{4,}")
_WORD = re.compile(r"[^\W\d_]+")
_COMMON_WORDS = """
the and you for with this that from your are have they will not but what when which can their there about
would should could then than them into has his her its all our out use make also more some other these any
just like only how who been were where while before after because each very need take using first
of to in is it by be
"""
_COMMON = frozenset(_COMMON_WORDS.split())
_ROT13 = str.maketrans(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", "NOPQRSTUVWXYZABCDEFGHIJKLMnopqrstuvwxyzabcdefghijklm"
)

# What each sign of leetspeak may stand for, and the short words that it also writes in digits alone.
_LEET = {"0": "o", "1": "il", "2": "z", "3": "e", "4": "a", "5": "s", "6": "gb", "7": "t", "8": "b", "9": "g"} | {
    "@": "a", "$": "s", "!": "il", "|": "il", "+": "t", "€": "e", "£": "l", "¡": "i",
}  # fmt: skip
_SIGNS = "".join(map(re.escape, _LEET))
_SHORT_WORDS = """
a all am an as at be been big by do get go got he if i in is it its let lot me no of on or see set so to too us we yes
"""
_SHORT = frozenset(_SHORT_WORDS.split())
_TOKEN = re.compile(
    rf"(?<![^\s\"'\u201c\u2018(\[*\u2014-])[A-Za-z{_SIGNS}]{{1,60}}?"
    r"(?=!{0,3}[\"'\u2019\u201d)\]*,:;?\u2014-]|[.!]{0,3}(?:\s|\Z|[\"'\u2019\u201d)\]*]))"
)
_HEX = re.compile("[0-9A-Fa-f]+")

Run = tuple[int, int, str]  # start and end in the text, and what it says
Vocabulary = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Decoded:
    """A text that says something in an encoding, as it reads.

    Attributes:
        text: the text, each encoded run replaced by what it says.
        runs: for each, where it starts and ends in `text`, and where its encoded form does in the text as given.
    """

    text: str
    runs: tuple[tuple[int, int, int, int], ...]

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Where a part of `text` starts and ends in the text as given; a part of a run is the whole run."""
        return self._given(start)[0], self._given(end - 1)[1]

    def _given(self, place: int) -> tuple[int, int]:
        """The place of one character of `text`."""
        before = bisect_right(self.runs, place, key=lambda run: run[0]) - 1
        if before < 0:
            return place, place + 1
        _, end, given_start, given_end = self.runs[before]
        if place < end:
            return given_start, given_end
        return place - end + given_end, place - end + given_end + 1


def decoded(text: str, vocabulary: Vocabulary) -> Decoded | None:
    """The text as it reads; None where it holds nothing in an encoding, as nearly all texts.

    Args:
        text: any text.
        vocabulary: the encoder's, each word's or piece's number, common words first.
    """
    found = _runs(text, DEPTH, vocabulary)
    runs, shift = [], 0
    for start, end, line in found:
        runs.append((start + shift, start + shift + len(line), start, end))
        shift += len(line) - (end - start)
    return Decoded(_replaced(text, found), tuple(runs)) if runs else None


def _runs(text: str, depth: int, vocabulary: Vocabulary) -> list[Run]:
    """The runs of a text that decode to something legible, in order, none overlapping another."""
    found: list[Run] = []
    taken = bytearray(len(text))
    plain = text.encode("ascii", "replace")
    for start, end, kept, candidate in _candidates(text, plain, vocabulary):
        if 1 in taken[start:end] or len(_ILLEGIBLE.findall(candidate)) * 20 > len(candidate):
            continue
        inner = _runs(candidate, depth - 1, vocabulary) if depth > 1 else []
        if inner or _reads(candidate):
            taken[start:end] = b"\1" * (end - start)
            found.append((start, end, kept + _replaced(candidate, inner)))
    for start, end, line in _deciphered(text, plain, vocabulary):
        if 1 not in taken[start:end]:
            taken[start:end] = b"\1" * (end - start)
            found.append((start, end, line))
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


def _candidates(text: str, plain: bytes, vocabulary: Vocabulary) -> Iterator[tuple[int, int, str, str]]:
    """Every run in the form of an encoding: its place, what of it stays, and what it may say; the surer ones first."""
    for hinted, pattern, decode in _FORMS:
        if not hinted(text, plain):
            continue
        for run in pattern.finditer(text):
            for kept, candidate in decode(run[0], vocabulary):
                yield *run.span(), kept, candidate


_BASE64_KINDS = kinds({"x": ascii_letters + digits + "+/_-"})
_HEX_KINDS = kinds({"x": hexdigits + "xX"})
_BESIDE_HEX = f"{whitespace}\x1c\x1d\x1e\x1f:,;-?".encode()  # of whitespace beyond ASCII there is a question mark
_LEET_KINDS = kinds({"a": ascii_letters, "1": "01345789@$"})


def _foreign(text: str, plain: bytes) -> bool:
    return not text.isascii()


def _holds(signs: str, text: str, plain: bytes) -> bool:
    return any(sign in text for sign in signs)


def _may_be_hex(text: str, plain: bytes) -> bool:
    return b"x" * 24 in plain.translate(_HEX_KINDS, _BESIDE_HEX)


def _may_be_base64(text: str, plain: bytes) -> bool:
    return b"x" * 16 in plain.translate(_BASE64_KINDS)


def _may_be_leet(plain: bytes) -> bool:
    """Whether three words have a sign between letters."""
    return plain.translate(_LEET_KINDS).count(b"a1a") >= 3


def _selected(run: str, vocabulary: Vocabulary) -> Iterator[tuple[str, str]]:
    """Bytes as variation selectors: 16 in the basic plane, the other 240 beyond it. What is visible stays."""
    codes = list(map(ord, run))
    data = bytes(code - 0xFE00 if code < 0xFE10 else code - 0xE0100 + 16 for code in codes if _is_selector(code))
    visible = "".join(chr(code) for code in codes if not _is_selector(code))
    yield f"{visible} ", data.decode("utf-8", "replace")


def _is_selector(code: int) -> bool:
    return 0xFE00 <= code <= 0xFE0F or 0xE0100 <= code <= 0xE01EF


def _tagged(run: str, vocabulary: Vocabulary) -> Iterator[tuple[str, str]]:
    visible = "".join(mark for mark in run if ord(mark) <= 0xE0000)
    yield f"{visible} ", "".join(chr(ord(mark) - 0xE0000) for mark in run if ord(mark) > 0xE0000)


def _unescaped(run: str, vocabulary: Vocabulary) -> Iterator[tuple[str, str]]:
    run = re.sub(_BACKSLASH, lambda code: chr(int(code[1] or code[2], 16)), run)
    yield "", unescape(unquote(run) if "%" in run else run)


def _from_hex(run: str, vocabulary: Vocabulary) -> Iterator[tuple[str, str]]:
    if re.search("[A-Fa-f]", run):  # numbers in a list are no letters
        yield "", bytes.fromhex(re.sub("0x|[^0-9A-Fa-f]", "", run)).decode("utf-8", "replace")


def _from_base64(run: str, vocabulary: Vocabulary) -> Iterator[tuple[str, str]]:
    """As it stands, and as if one to three letters were glued to its start. Words in it, as in ANameOfWords, stay."""
    digits = re.sub(r"\s|=", "", run).replace("-", "+").replace("_", "/")
    words = "".join(f"{word} " for word in _NAME_WORD.findall(run) if word.lower() in vocabulary)
    for skip in range(4):
        whole = digits[skip : len(digits) - ((len(digits) - skip) % 4 == 1)]
        data = base64.b64decode(whole + "=" * (-len(whole) % 4))
        wide = data[1:2] == b"\0"  # as PowerShell's encoded commands
        glued = digits[:skip] + " " * bool(skip)
        yield words + glued, data.decode("utf-16-le" if wide else "utf-8", "replace")


# Before each what it needs in a text, and in that text with a question mark for all beyond ASCII: nearly all texts are
# told by it, in a tenth of the time.
_Hint = Callable[[str, bytes], bool]
_FORMS: tuple[tuple[_Hint, re.Pattern[str], Callable[[str, Vocabulary], Iterator[tuple[str, str]]]], ...] = (
    (_foreign, re.compile(f"[{SELECTORS}](?:[^{SELECTORS}]{{0,4}}[{SELECTORS}]){{11,}}"), _selected),
    # Elsewhere than inside words the tokenizer reads tags itself.
    (_foreign, re.compile(rf"(?<=\w)[{TAGS}](?:\w{{0,4}}[{TAGS}]){{11,}}(?=\w)"), _tagged),
    (
        partial(_holds, "%&\\"),
        re.compile(rf"{_ESCAPE}(?:[^%&\\]{{0,16}}{_ESCAPE}){{7,}}[^\s%&\\]{{0,16}}"),
        _unescaped,
    ),
    (
        _may_be_hex,
        re.compile(r"(?<![0-9A-Za-z])(?:0x)?[0-9A-Fa-f]{2}(?:[\s:,;-]{0,2}(?:0x)?[0-9A-Fa-f]{2}){11,}"),
        _from_hex,
    ),
    (
        _may_be_base64,
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
    (frozenset(map(decipher, _COMMON)) - _COMMON - {"era", "or", "ton", "tub"}, decipher)
    for decipher in (_rotated, _reversed)
)


def _deciphered(text: str, plain: bytes, vocabulary: Vocabulary) -> Iterator[Run]:
    """What is written in rot13 or backwards, and leetspeak."""
    words = text.lower().split()
    for ciphered, decipher in _CIPHERS:
        if not ciphered.isdisjoint(words):
            yield from _ciphered(text, decipher, vocabulary)
    if _may_be_leet(plain):
        yield from _leet(text, vocabulary)


def _joined(strong: list[bool], plain: list[int]) -> Iterator[tuple[int, int]]:
    """First and last block of each run of strong blocks.

    A block beside one belongs to it where no plain word stands in it, and so do up to two between.
    """
    runs: list[list[int]] = []
    for number in (number for number, is_strong in enumerate(strong) if is_strong):
        if runs and number - runs[-1][-1] <= 3:
            runs[-1][-1] = number
        else:
            runs.append([number, number])
    for first, last in runs:
        yield (
            first - 1 if first and not plain[first - 1] else first,
            last + 1 if last + 1 < len(plain) and not plain[last + 1] else last,
        )


def _ciphered(text: str, decipher: Callable[[str], str], vocabulary: Vocabulary) -> Iterator[Run]:
    """Blocks in which more words are known deciphered than as they stand, with what is around them."""
    words = list(_WORD.finditer(text))
    told = [decipher(word[0]) for word in words]
    read = [_reading(word[0], other, vocabulary) for word, other in zip(words, told, strict=True)]
    # 1 where only the deciphered word is known, -1 where a word stays, 0 where it may be either.
    marks = [
        (line == other and other.lower() in vocabulary and word[0].lower() not in vocabulary)
        - (line == word[0] != other and line.lower() in vocabulary)
        for word, other, line in zip(words, told, read, strict=True)
    ]
    edge = [mark or (line == other and len(line) > 1) for mark, other, line in zip(marks, told, read, strict=True)]
    places = range(0, len(words), BLOCK)
    plain = [marks[at : at + BLOCK].count(-1) for at in places]
    strong = [marks[at : at + BLOCK].count(1) > max(stay, 2) for at, stay in zip(places, plain, strict=True)]
    for first, last in _joined(strong, plain):
        start, end = first * BLOCK, min((last + 1) * BLOCK, len(words))
        hidden = [read[at].lower() for at in range(start, end) if marks[at] > 0 and len(read[at]) >= 3]
        if len(set(hidden)) < 3 or len(hidden) * 4 < end - start or _COMMON.isdisjoint(hidden):
            continue
        start -= _more(edge[max(start - BLOCK, 0) : start][::-1])
        end += _more(edge[end : end + BLOCK])
        while edge[start] <= 0:
            start += 1
        while edge[end - 1] <= 0:
            end -= 1
        if decipher is _rotated:
            yield from ((*words[at].span(), read[at]) for at in range(start, end) if read[at] != words[at][0])
        else:
            yield _turned(text, words[start:end], read[start:end])


def _more(marks: list[int]) -> int:
    """How many of the words beside a run belong to it: as far as more of them are deciphered than stay."""
    more = score = best = 0
    for size, mark in enumerate(marks, 1):
        score += mark
        if mark > 0 and score >= best:
            more, best = size, score
    return more


def _turned(text: str, words: list[re.Match[str]], read: list[str]) -> Run:
    """A passage the other way round, with numbers and signs beside it; behind itself as given, if many words stay."""
    start, end = words[0].start(), words[-1].end()
    start -= len(_beside(text[max(start - REACH, 0) : start][::-1]))
    end += len(_beside(text[end : end + REACH]))
    pieces, at = [], end
    for word, line in zip(reversed(words), reversed(read), strict=True):
        pieces += [text[word.end() : at][::-1], line]
        at = word.start()
    turned = "".join([*pieces, text[start:at][::-1]])
    stay = sum(word[0] == line != _reversed(line) for word, line in zip(words, read, strict=True))
    return start, end, f"{text[start:end]} {turned}" if stay * 8 > len(words) else turned


def _beside(text: str) -> str:
    """What a text starts with before a letter, a colon or the line's end, without the spaces at the end of that."""
    return re.split(r"[^\W\d]|[:\n]", text, maxsplit=1)[0].rstrip()


def _reading(word: str, other: str, vocabulary: Vocabulary) -> str:
    """The word as it stands, or the other, whichever the encoder knows; both if neither and the word is spelt no worse.

    Where it knows both it is the other, for the text is a cipher's, unless the word is the far more common one.
    """
    raw, told = vocabulary.get(word.lower()), vocabulary.get(other.lower())
    if raw is not None and (told is None or told > 4 * raw):
        return word
    if word == other or told is not None or _spelling(other, vocabulary) < _spelling(word, vocabulary):
        return other
    return f"{word} {other}"


def _spelling(word: str, vocabulary: Vocabulary) -> tuple[int, int]:
    """How many pieces spell a word, the longest first, and the sum of their numbers; one a letter if they do not."""
    rest, pieces, numbers = word.lower(), 0, 0
    while rest and len(word) <= LONGEST:
        mark = "##" * bool(pieces)
        piece = next((rest[:size] for size in range(min(len(rest), 20), 0, -1) if mark + rest[:size] in vocabulary), "")
        if not piece:
            break
        rest, pieces, numbers = rest[len(piece) :], pieces + 1, numbers + vocabulary[mark + piece]
    return (len(word), 0) if rest else (pieces, numbers)


def _leet(text: str, vocabulary: Vocabulary) -> Iterator[Run]:
    """Words with signs for letters, where there are more than half as many as plain ones, and most are known."""
    tokens = list(_TOKEN.finditer(text))
    signed = [len(token[0]) >= 3 and not token[0].isalpha() and not _HEX.fullmatch(token[0]) for token in tokens]
    read = [_unleeted(token[0], vocabulary) if sign else "" for token, sign in zip(tokens, signed, strict=True)]
    known = [line in _COMMON or len(line) >= 4 for line in read]
    clear = [token[0].isalpha() and len(token[0]) >= 3 and token[0].lower() in vocabulary for token in tokens]
    places = range(0, len(tokens), BLOCK)
    plain = [sum(clear[at : at + BLOCK]) for at in places]
    leet = [sum(known[at : at + BLOCK]) for at in places]
    strong = [found >= 2 and found * 2 > words for found, words in zip(leet, plain, strict=True)]
    for first, last in _joined(strong, plain):
        inside = range(first * BLOCK, min((last + 1) * BLOCK, len(tokens)))
        distinct = {read[at] for at in inside if known[at]}
        evident = len(distinct) + 2 * len(distinct & _COMMON) >= 7
        if not evident or 2 * sum(known[at] for at in inside) < sum(signed[at] for at in inside):
            continue
        for at in range(max(inside.start - BLOCK, 0), min(inside.stop + BLOCK, len(tokens))):
            token, line = tokens[at], read[at] or _unleeted(tokens[at][0], vocabulary, guess=True)
            if token[0].isdigit():
                listed = text[token.end() : token.end() + 1] in (".", ")", ":")
                right = line in _SHORT and any(known[max(at - 2, 0) : at + 3]) and not listed
            else:
                right = known[at] or (line in _SHORT and token[0] not in "|+") or _better(token[0], line, vocabulary)
            if line and right:
                yield *token.span(), line


def _unleeted(word: str, vocabulary: Vocabulary, *, guess: bool = False) -> str:
    """The most common word that a word with signs for letters may be; if none, "", or a guess: what is spelt best."""
    if word.isalpha() or len(word) > LONGEST:
        return ""
    letters = [_LEET.get(letter, letter) for letter in word.lower()]
    if sum(len(choice) > 1 for choice in letters) > 4:
        letters = [choice[0] for choice in letters]
    lines = list(map("".join, product(*letters)))
    words = [line for line in lines if line in vocabulary]
    if words:
        return min(words, key=vocabulary.__getitem__)
    return min(lines, key=lambda line: _spelling(line, vocabulary)) if guess else ""


def _better(word: str, line: str, vocabulary: Vocabulary) -> bool:
    """Whether what a word in leetspeak says is spelt better than the word, or as well if the word is mostly letters.

    What the encoder knows as it stands is a name, such as mp3.
    """
    if len(word) < 3 or word.lower() in vocabulary:
        return False
    letters = 2 * sum(map(str.isalpha, word)) > len(word)
    return _spelling(line, vocabulary)[0] < _spelling(word, vocabulary)[0] + letters

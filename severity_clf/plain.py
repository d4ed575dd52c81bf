"""Tell, by bytes alone, which texts a tokenizer's steps against disguise leave as they are.

    is_plain("Put the kettle on.")       # True
    is_plain("p u t  t h e  k3ttle on")  # False: spaced letters, and a sign inside a word

Nearly all texts are plain, and the steps of `fit.normalise` take a third of a tokenizer's time. They remove or map what
is not ASCII, close up four or more single letters in a row, and read a sign that stands between letters. A text of
ASCII without the last two therefore comes out as it went in. `STEPS` says which steps that was found true of.
"""

from __future__ import annotations

from string import ascii_letters, digits

# SHA-256 of those steps, as `json.dumps(steps, sort_keys=True)` writes them.
STEPS = "38e72715592519a0152b36336daa46e649b6023820d16a442763f6f5eaee2cfa"
DROPPED = "".join(map(chr, range(33))) + "\x7f"  # the ASCII of which no token is made: whitespace and controls


def kinds(chars: dict[str, str]) -> bytes:
    """A table for `bytes.translate`: to each key the characters that it stands for, and a space for all others."""
    table = {ord(char): ord(kind) for kind, group in chars.items() for char in group}
    return bytes(table.get(code, ord(" ")) for code in range(256))


_GAPS = kinds({"a": ascii_letters, "x": digits + "_'\"!#$%&()+,/:;<=>?@[\\]^`{|}~"})
_SIGNS = kinds({"a": ascii_letters, "1": "01345@$"})


def is_plain(text: str) -> bool:
    """Whether a text is sure to pass through the steps unchanged."""
    if not text.isascii():
        return False
    raw = text.encode()
    # Of four letters in a row, a sign or up to three spaces between them, the middle two:
    gaps = raw.translate(_GAPS)
    if b" a a " in gaps or b" a  a " in gaps or b" a   a " in gaps:
        return False
    signs = raw.translate(_SIGNS)
    return not (b"a1a" in signs or b"a11a" in signs or b"a111a" in signs)

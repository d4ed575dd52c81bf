"""What a tokenizer does to a text before it splits it, so that disguised letters are read as what they stand for.

    invisible characters out -> s p a c e d words joined -> disguises marked -> characters mapped -> the encoder's own

All of it is JSON inside `tokenizer.json`: training, Python and any other host of a bundle read the same text, and
offsets still count characters of the text as given. Ordinary text passes unchanged. What could harm it asks for more
context, so Russian, Greek, formulas, file names, addresses and code keep their characters; and of Unicode's
compatibility forms only letters, digits and full-width signs are mapped, since the encoder knows an ellipsis or a half.
"""

from __future__ import annotations

import base64
import struct
import unicodedata
from collections.abc import Mapping
from typing import Any

# Characters that look like Latin ones (https://www.unicode.org/Public/security/latest/confusables.txt). Twins do so in
# every font, and a word of twins alone is a disguise too, unless its script is written around it. Cousins need a Latin
# letter beside them. Greek small letters, which stand beside Latin ones in science, need one on each side, or a word
# nearby in which scripts are mixed as no science mixes them; and so do words of cousins alone.
_TWINS = (
    dict(zip("асеорхуіјѕһԁԛԝӏү", "aceopxyijshdqwly", strict=True))
    | dict(zip("АВСЕНІЈКМОРЅТХУҮԌԜ", "ABCEHIJKMOPSTXYYGW", strict=True))
    | dict(zip("οϲϳΑΒΕΖΗΙΚΜΝΟΡΤΥΧϹͿ", "ocjABEZHIKMNOPTYXCJ", strict=True))
)
_COUSINS = (
    dict(zip("вкмнтгпѵҽѡЬѴӀꙇ", "bkmhtrnvewbVli", strict=True))
    | dict(zip("ւզգհյոռսցօքաՍՏՕ", "iqqhjnnugofwUSO", strict=True))
    | dict(zip("ⲥⲟⲣⲅⲤⲒⲎⲔⲘⲚⲞⲢⲦⲬⲨჿყ", "coprCIHKMNOPTXYoy", strict=True))
    | dict(zip("ᎪᏴᏟᎠᎬᏀᎻᎫᏦᏞᎷᏢᎡᏚᎢᏙᎳᎩᏃᏏᏧᏂᎥꮯꮪꮩꮃꮓꮁꭵ", "ABCDEGHJKLMPRSTVWYZbdhicsvwzri", strict=True))
    | dict(zip("ꓮꓐꓚꓓꓰꓝꓖꓧꓲꓙꓗꓡꓟꓠꓳꓑꓣꓢꓔꓴꓦꓪꓫꓬꓜꓒ", "ABCDEFGHIJKLMNOPRSTUVWXYZd", strict=True))
    | dict(zip("ᗅᗷᗞᗪᖴᕼᒍᒪᗰᑭᖇᑌᐯᑲᑯᕁ", "ABDDFHJLMPRUVbdx", strict=True))
)
_GREEK = dict(zip("αεικνρτυχηγ", "aeikvptuxny", strict=True))
_LEET = {"4": "a", "@": "a", "3": "e", "1": "i", "0": "o", "5": "s", "$": "s"}
_SMALL_CAPS = dict(zip("ᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢɑɡ", "abcdefghijklmnoprstuvwyzag", strict=True)) | dict(
    zip("ƅƽꞟᶃꬲꬵꞙᴑꬽᴦꭇꭈꭎꭒꭚƖꞴꞘ", "bsugeffoorrruuylBF", strict=True)
)
# Mathematical, full-width, circled, squared, raised and lowered letters and digits, ligatures, Roman numerals.
_FORMS = [
    (0x2B0, 0x2B8), (0x2E1, 0x2E3), (0x1D2C, 0x1D6A), (0x2071, 0x2071), (0x207F, 0x207F), (0x2090, 0x209C),
    (0x2102, 0x2115), (0x2119, 0x211D), (0x2124, 0x2149), (0x2160, 0x217F), (0x2460, 0x24EA), (0xFB00, 0xFB06),
    (0xFF01, 0xFF5E), (0x1D400, 0x1D7FF), (0x1F130, 0x1F149),
]  # fmt: skip
_ROUND = (0x1F150, 0x1F170)  # white letters on black, circled and squared, which Unicode does not decompose
_MARK = "\u034f"  # a combining character, put behind what a later step must map; the first step leaves none in a text

_TAGS = "\U000e0020-\U000e007e"  # invisible ASCII
# Format characters, fillers, variation selectors, and what is stacked on letters or struck through them. Tags inside a
# word only break it, and those of a flag name a region; all others are text that only a model sees.
_INVISIBLE = (
    "[\u00ad\u0300-\u036f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U000e0000-\U000e001f\U000e007f\U000e0100-\U000e01ef]"
    f"|(?<=\\w)[{_TAGS}]++(?=\\w)|(?<=\U0001f3f4)[{_TAGS}]{{1,6}}(?=\U000e007f)"
)


def _spaced() -> str:
    """Where to close up a run of four or more single letters: `h o w  t o`, `h-o-w t-o`, but not `U.S.A.`."""
    letter, start, end = r"[\p{Lu}\p{Ll}]", r"(?:\A|[^\w'’])", r"(?![\w'’])"
    places = []
    for gap, between in ((r"\p{Zs}", r"\p{Zs}{1,3}"), ("[-.*·•]", r"(?:[-.*·•]|\p{Zs}{1,3})")):
        counts = (
            f"(?<={start}{letter}{f'{between}{letter}' * before}{gap})(?={letter}{f'{between}{letter}' * after}{end})"
            for before, after in ((0, 2), (1, 1), (2, 0))
        )
        # The cheap look ahead comes first: in ordinary text it ends the search at nearly every gap.
        places.append(f"{gap}(?={letter}{end})(?:{'|'.join(counts)})")
    # A sign between a word and what ends it: `t-e-a-,`.
    places.append(rf"""{gap}(?=[,.;:!?)"'’”])(?<={start}{letter}(?:{between}{letter}){{5}}{gap})""")
    return "|".join(places)


def _disguised() -> str:
    """The place behind each character that stands for a Latin letter here, and might not elsewhere."""
    latin, other = "[\\p{Latin}\U0001d400-\U0001d6a5]", r"[^\p{L}\p{N}]"
    twin, like = f"[{''.join(_TWINS)}]", f"[{''.join(_TWINS | _COUSINS)}]"
    every = "".join(_TWINS | _COUSINS | _GREEK)
    foreign = rf"[\p{{Cyrillic}}\p{{Greek}}&&[^{every}{''.join(_SMALL_CAPS)}]]"
    alone = f"(?<!{foreign}.{{0,40}})(?!.{{0,40}}{foreign})"
    mixed = f"(?<={like})(?:(?<={latin}{like}{{1,12}})|(?={like}{{0,12}}{latin}))"
    whole = (
        rf"(?<={twin})(?<=(?:\A|{other}){twin}{{1,12}})(?={twin}{{0,12}}(?:\z|{other}))"
        f"{alone}(?:(?<={latin}.{{0,40}})|(?=.{{0,40}}{latin}))"
    )
    greek = f"(?<={latin}[{''.join(_GREEK)}])(?={latin})"
    # Two letters that stand beside each other in no word of science or any language.
    strange = f"[{''.join(x for x in _TWINS | _COUSINS if not 'Ͱ' <= x <= 'Ͽ')}]"
    letter = f"(?:{latin}|[{every}{''.join(_SMALL_CAPS)}])"
    small = f"[{''.join(_GREEK)}ο]"
    odd = f"(?:{latin}{strange}|{strange}{latin}|[a-z][a-z]{small}[a-z]|[a-z]{small}[a-z][a-z])"
    nearby = (
        rf"(?<=(?:\A|{other}){letter}{{1,16}})(?={letter}{{0,16}}(?:\z|{other}))"
        f"{alone}(?:(?<={odd}.{{0,40}})|(?=.{{0,40}}{odd}))"
    )
    # One sign between small letters, in a word that holds nothing else and stands between spaces; no name, no address.
    names = r"(?<!css3|html5|ipv4|log4|md[45]|mp[34]|python3|sha[13]|web3|\w{4}@)"
    leet = (
        rf"(?<=[01345@$])(?:(?<=\w\w.)|(?=\w\w)){names}"
        r"""(?<=(?:\A|[\s"'(“‘])[A-Za-z](?:[01345@]?[a-z]|\$\$?[a-z]){0,12}(?:[01345@]|\$\$?))"""
        r"""(?=\$?[a-z](?:[01345@]?[a-z]|\$\$?[a-z]){0,12}[.,;:!?)"'”’]{0,3}(?:\s|\z))"""
    )
    first = "".join(_TWINS | _COUSINS | _GREEK | _LEET)  # looked for first, since ordinary text has few of them
    return f"(?<=[{first}])(?:{'|'.join((mixed, whole, greek, leet))}|(?<=[{every}]){nearby})"


def normaliser(own: Mapping[str, Any] | None) -> dict[str, Any]:
    """The `normalizer` of a tokenizer.json: these steps, then the encoder's own; one that has them stays as it is."""
    steps: list[Mapping[str, Any]] = [
        _replace(_INVISIBLE, ""),
        _replace(_spaced(), ""),
        _replace(f"(?<=[^{_TAGS}])(?=[{_TAGS}])", " "),  # never at the very start, where the engine loses its offsets
        _replace(_disguised(), _MARK),
        {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(charsmap(_mapping())).decode()},
    ]
    if own and own.get("normalizers", [])[: len(steps)] == steps:
        return dict(own)
    return {"type": "Sequence", "normalizers": [*steps, own] if own else steps}


def _replace(pattern: str, content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"Regex": pattern}, "content": content}


def _mapping() -> dict[str, str]:
    """What each character becomes, the marked ones with their mark."""
    forms = (chr(code) for first, last in _FORMS for code in range(first, last + 1))
    plain = {form: unicodedata.normalize("NFKC", form) for form in forms}
    return (
        {form: text for form, text in plain.items() if text != form and text.isascii() and text[0] > " "}
        | {chr(start + place): chr(ord("A") + place) for start in _ROUND for place in range(26)}
        | {chr(0xE0000 + code): chr(code) for code in range(0x20, 0x7F)}
        | _SMALL_CAPS
        | {letter + _MARK: latin for letter, latin in (_TWINS | _COUSINS | _GREEK | _LEET).items()}
    )


def charsmap(mapping: Mapping[str, str]) -> bytes:
    """SentencePiece's form of a mapping: the size of a double-array trie, the trie, the NUL-terminated replacements.

    A unit of the trie is 32 bits: a label of 8, a flag at bit 8 that a value hangs below label 0, and from bit 10 what
    to exclusive-or the unit's place with, to find the base of its children; child `c` stands at `base ^ c`. A value has
    bit 31 set (https://github.com/s-yata/darts-clone).
    """
    texts = b"".join(text.encode() + b"\0" for text in mapping.values())
    trie: dict[int, Any] = {}
    at = 0
    for key, text in mapping.items():
        node = trie
        for byte in key.encode():
            node = node.setdefault(byte, {})
        node[0] = at
        at += len(text.encode()) + 1
    units, bases = {0: 0}, {0}
    waiting = [(0, trie)]
    for place, node in waiting:  # breadth first; the list grows while it is read
        base = next(b for b in range(1, 1 << 21) if b not in bases and all(b ^ byte not in units for byte in node))
        bases.add(base)
        units[place] |= (place ^ base) << 10 | (0 in node) << 8
        for byte, child in node.items():
            units[base ^ byte] = byte if byte else child | 1 << 31
            if byte:
                waiting.append((base ^ byte, child))
    size = (max(units) | 255) + 1  # a lookup may step to any child of the last base
    return struct.pack(f"<I{size}I", size * 4, *(units.get(place, 0) for place in range(size))) + texts

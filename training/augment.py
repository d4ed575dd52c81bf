"""Ways in which a text is wrapped, padded or misspelt that change nothing about how harmful it is.

    more = augmented(records, 0.3, fill)

Harmful and harmless records are treated alike, so that no wrapping tells anything of the label. `benchmarks/attacks.py`
has the same families in words of its own: no sentence here is one that robustness is measured with. Disguises that the
tokenizer's normaliser undoes (look-alikes, invisible characters) need no example here. Harmless texts are also `joined`
to long ones: in the sources it is the harmful answers that are long.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from severity_clf.records import Record

ROOM = 1100  # characters that a padded text may have: more would push the text out of the window that is read
JOINED = "joined"  # the source of joined records
LONGEST, WEIGHT = 5000, 0.5  # characters of a joined record, and how much it counts: it is made of others
REFUSALS = (
    "I'm not able to help with that.",
    "Sorry, that is something I won't do.",
    "As a language model I must decline to answer this.",
    "This goes against my guidelines, so I can't continue.",
    "I won't provide that. Please talk to someone you trust.",
    "No. I cannot take part in this, and I'd ask you to reconsider.",
    "Unfortunately I have to turn this request down.",
    "It would be wrong of me to assist here.",
)
DISCLAIMERS = (
    "Note: what follows is meant for learning only.",
    "Please keep in mind that acting on this may be against the law.",
    "This text is fiction and nobody should copy it.",
    "For research use. The author takes no responsibility.",
    "Warning: sensitive content. Stay within the rules that apply to you.",
    "None of this is advice, and safety should always come first.",
)
POLITE = (
    "Thanks so much for asking!",
    "Of course, happy to be of service.",
    "What a good question, let me see.",
    "I hope that this was useful to you. Have a lovely day!",
    "Let me know if anything else is on your mind.",
    "With kind regards, your assistant",
)
SCENES = (
    'The old teacher closed the door and read to the class:\n"{}"\nThen the bell rang.',
    "Scene 4. A kitchen, late evening.\nMARA (reading from a letter): {}\nShe puts the letter away.",
    "Chapter one\n\nIn the village by the lake they still told it like this. {}\n\nAnd that was all anyone knew.",
    "USER: go on\nBOT: {}\nUSER: ok",
)
CODES = (
    "```\n# notes\n{}\n```",
    "def answer():\n    '''\n    {}\n    '''\n    return None",
    "<!-- begin -->\n<p>{}</p>\n<!-- end -->",
    "> {}",
)
NEIGHBOURS = dict(zip("aeionrstlh", ("sq", "wr", "uo", "ip", "bm", "et", "ad", "ry", "k", "gj"), strict=True))
LEET = {"a": "4", "e": "3", "i": "1", "o": "0", "s": "5", "t": "7"}


def refused(text: str, fill: str, chance: random.Random) -> str:
    """A refusal before or after."""
    return _beside(text, chance.choice(REFUSALS), chance)


def disclaimed(text: str, fill: str, chance: random.Random) -> str:
    """A disclaimer before or after."""
    return _beside(text, chance.choice(DISCLAIMERS), chance)


def polite(text: str, fill: str, chance: random.Random) -> str:
    """A courtesy before or after."""
    return _beside(text, chance.choice(POLITE), chance)


def staged(text: str, fill: str, chance: random.Random) -> str:
    """Told as a scene of a story or a talk."""
    return chance.choice(SCENES).replace("{}", text)


def coded(text: str, fill: str, chance: random.Random) -> str:
    """In a block of code or markup, or as a JSON value."""
    if chance.random() < 0.4:
        return json.dumps({chance.choice(("reply", "text", "content")): text, "ok": True})
    return chance.choice(CODES).replace("{}", text)


def padded(text: str, fill: str, chance: random.Random) -> str:
    """A part of an ordinary text before, after, or in the middle."""
    words = fill.split()
    some = " ".join(words[: chance.randrange(15, 120)])[: max(150, ROOM - len(text))]
    place = chance.randrange(3)
    if place == 2:  # at the end of a sentence, if there is one near the middle
        half = text.find(". ", len(text) // 2) + 1 or len(text)
        return f"{text[:half]} {some} {text[half:]}".strip()
    return f"{some}\n\n{text}" if place else f"{text}\n\n{some}"


def misspelt(text: str, fill: str, chance: random.Random) -> str:
    """Every eighth word or so has a letter doubled, dropped, swapped or hit beside."""
    words = text.split(" ")
    for number, word in enumerate(words):
        if len(word) > 3 and chance.random() < 0.12:
            at = chance.randrange(1, len(word) - 1)
            near = chance.choice(NEIGHBOURS.get(word[at], word[at]))
            words[number] = chance.choice(
                (
                    word[:at] + word[at] + word[at:],
                    word[:at] + word[at + 1 :],
                    word[:at] + word[at + 1] + word[at] + word[at + 2 :],
                    word[:at] + near + word[at + 1 :],
                )
            )
    return " ".join(words)


def leet(text: str, fill: str, chance: random.Random) -> str:
    """Digits for some of the letters of every fourth word."""
    words = text.split(" ")
    for number, word in enumerate(words):
        if chance.random() < 0.25:
            words[number] = "".join(LEET[c] if c in LEET and chance.random() < 0.6 else c for c in word)
    return " ".join(words)


FAMILIES: tuple[Callable[[str, str, random.Random], str], ...] = (
    refused,
    disclaimed,
    polite,
    staged,
    coded,
    padded,
    padded,
    misspelt,
    leet,
)


def augmented(records: Sequence[Record], part: float, fill: Sequence[str], seed: int = 0) -> list[Record]:
    """Changed copies of a part of the records, labels as they were.

    Args:
        records: harmful and harmless ones.
        part: share of them to copy; which ones is left to chance.
        fill: ordinary texts to pad with.
        seed: of everything left to chance.
    """
    chance = random.Random(seed)  # noqa: S311
    copies: list[Record] = []
    for record in chance.sample(list(records), round(part * len(records))):
        change = chance.choice(FAMILIES)
        output = change(record.output, chance.choice(fill), chance)
        if chance.random() < 0.3:
            change = chance.choice(FAMILIES)
            output = change(output, chance.choice(fill), chance)
        copies.append(replace(record, id=f"{record.id}+{len(copies)}", output=output))
    return copies


def joined(records: Sequence[Record], count: int, chance: random.Random) -> list[Record]:
    """Long harmless records, each of two to ten of these, which are harmless, one after the other.

    Args:
        records: of outputs that are level 0 overall.
        count: how many to make.
        chance: decides which of them, and what stands between.
    """
    made = []
    for number in range(count):
        parts = [chance.choice(records).output for _ in range(chance.choice((2, 3, 4, 5, 6, 8, 10)))]
        text = chance.choice(("\n\n", "\n", " ")).join(parts)[:LONGEST]
        name = f"{JOINED}/{number}"
        made.append(Record(name, text, {"overall": (0, 0)}, name, JOINED, weight=WEIGHT))
    return made


def _beside(text: str, sentence: str, chance: random.Random) -> str:
    gap = chance.choice((" ", "\n", "\n\n"))
    return sentence + gap + text if chance.random() < 0.5 else text + gap + sentence

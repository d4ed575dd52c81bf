"""The attacks of the robustness benchmark keep the content, and give the same text each time."""

import base64
import codecs
import json
import re

import pytest

from benchmarks.attacks import FAMILIES, LEET, LOOK_ALIKES, NEAR, all_attacks, combined
from severity_clf.decode import decoded

TEA = 'How to make tea: boil {fresh} water.\nPour it over the "leaves" and wait for five minutes. It\'s done!'
PADDING = ["The town has a market on Mondays. ", "", "Cats sleep for most of the day, and dogs for half of it. "]
ATTACKS = all_attacks(PADDING)
SEEDS = [str(number) for number in range(12)]


def words(text):
    return re.findall(r"\w+", text)


def test_every_attack_has_a_family_and_changes_the_text():
    """And none is named that is not there."""
    assert list(ATTACKS) == list(FAMILIES)
    assert all(attack(TEA, seed) != TEA for attack in ATTACKS.values() for seed in SEEDS)


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_depends_on_text_and_seed_alone(name):
    """A figure can be measured again; and a seed has a say in it."""
    first = [ATTACKS[name](TEA, seed) for seed in SEEDS]
    assert [all_attacks(PADDING)[name](TEA, seed) for seed in SEEDS] == first
    assert len(set(first)) > 1


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if family in ("wrapper", "padding")])
def test_what_is_wrapped_stands_in_it_word_by_word(name):
    """Every wording leaves the text in one piece, or padded in its middle in two."""
    for seed in SEEDS:
        attacked = ATTACKS[name](TEA, seed)
        if name == "JSON":
            *_, content = json.loads(attacked).values()
            attacked = content if isinstance(content, str) else "\n".join(content)
        if name == "padding middle":
            start, end = TEA.split("\n")
            assert attacked.startswith(start + "\n")
            assert attacked.endswith("\n" + end)
        else:
            assert TEA in attacked
        assert len(attacked) >= len(TEA)


def test_padding_is_drawn_from_what_is_given_and_as_long_as_it_says():
    """Beside the text some 130 tokens, before it more than 2,000."""
    near, far = (ATTACKS[name](TEA, "1") for name in ("padding head", "padding past 2,000 tokens"))
    assert near.index(TEA) >= NEAR
    assert set(words(near)) <= set(words(TEA + " ".join(PADDING)))
    assert len(words(far[: far.index(TEA)])) > 2000
    with pytest.raises(ValueError, match="padding holds no text"):
        all_attacks(["", " "])


def test_text_past_2000_tokens_is_past_2000_tokens(base, data):
    """By the shipped bundle's own tokens, in the passages that are used."""
    from training.crossfit import held_out
    from training.sources import halueval_general

    held = [record.output for record in halueval_general.records(data) if held_out(record.group)]
    far = all_attacks(held[:100])["padding past 2,000 tokens"]
    for seed in SEEDS:
        assert _count(base, far(TEA, seed).removesuffix(TEA)) > 2000


def _count(model, text):
    """Tokens of a text, those in two windows counted once."""
    encoding = model._tokenizer.encode(text)
    places = {place for window in (encoding, *encoding.overflowing) for place in window.offsets[1:-1]}
    return len(places)


def test_surface_attacks_keep_every_letter_readable():
    """Each sign is its letter, a substitute that looks like it, or nothing that a person sees."""
    plain = re.sub(r"\W", "", TEA).lower()
    for seed in SEEDS:
        assert re.sub(r"\W", "", ATTACKS["letter spacing"](TEA, seed)).lower() == plain
        assert re.sub(r"[\u200b-\u200d\u2060\ufeff]", "", ATTACKS["zero-width"](TEA, seed)) == TEA
        assert ATTACKS["case"](TEA, seed).lower() == TEA.lower()
        for name in ("homoglyphs", "leetspeak"):
            attacked = ATTACKS[name](TEA, seed)
            assert len(attacked) == len(TEA)
            for mark, letter in zip(attacked, TEA, strict=True):
                assert mark in letter + LOOK_ALIKES.get(letter, "") + LEET.get(letter.lower(), "")
        typed = words(ATTACKS["typos"](TEA, seed))
        assert len(typed) == len(words(TEA))
        assert all(abs(len(a) - len(b)) <= 1 and a[0] == b[0] for a, b in zip(typed, words(TEA), strict=True))


def test_typos_are_few_and_there():
    """About a quarter of the words of four letters or more."""
    long = "please bring some water from the kitchen " * 200
    typed = ATTACKS["typos"](long, "1").split()
    changed = sum(a != b for a, b in zip(typed, long.split(), strict=True))
    assert 0.15 < changed / (5 * 200) < 0.3


def test_what_is_hidden_or_encoded_can_be_got_back(vocabulary):
    """By whoever has the tool for it: the content is still there."""
    for seed in SEEDS:
        (base64_run,) = re.findall(r"[A-Za-z0-9+/]{40,}={0,2}", ATTACKS["base64"](TEA, seed))
        assert base64.b64decode(base64_run).decode() == TEA
        (hex_run,) = re.findall(r"[0-9a-f]{40,}", ATTACKS["hex"](TEA, seed))
        assert bytes.fromhex(hex_run).decode() == TEA
        assert codecs.encode(TEA, "rot13") in ATTACKS["rot13"](TEA, seed)
        assert TEA[::-1] in ATTACKS["reversed"](TEA, seed)
        tags = "".join(chr(ord(x) - 0xE0000) for x in ATTACKS["tags"](TEA, seed) if ord(x) > 0xE0000)
        assert tags == TEA.replace("\n", " ")
        found = decoded(ATTACKS["emoji"](TEA, seed), vocabulary)
        assert found is not None
        assert found.text.endswith(f" {TEA}")


def test_a_combination_can_be_read_by_a_person():
    """No encoding, nothing hidden, not far down; the same for a seed, and different ones for different seeds."""
    found = [combined(ATTACKS, TEA, seed) for seed in SEEDS]
    assert found == [combined(ATTACKS, TEA, seed) for seed in SEEDS]
    assert len(set(found)) == len(SEEDS)
    assert all(len(text) < 5000 and not re.search("[\U000e0000-\U000e01ef]", text) for text in found)


def test_a_lone_surrogate_does_not_stop_an_attack():
    """It has no UTF-8 form."""
    assert all(attack("the cat \ud800 sat on a mat", "1") for attack in ATTACKS.values())

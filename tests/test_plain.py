"""Plain texts take a shorter way through the tokenizer, and nothing else about them changes."""

import hashlib
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import severity_clf as sc
from severity_clf.fit.normalise import normaliser
from severity_clf.plain import DROPPED, STEPS, is_plain

PLAIN = [
    "Put the kettle on.",
    "I am at home, and so is he: it's 4 o'clock.",
    "Call 555-0134, or write @tea (cost: $3, $$$ or 5%).",
    "def f(x):\n\treturn {x: 'y', **kw}\r\n",
    "A. Milk  B. Sugar   C. Lemon",
    "pages 10-12, mp3, H2O, x1, 2nd, 1st, 3D, B2B",
    " \x00\x1f\x7f tea \x0b",
    "",
    " \n",
]
NOT_PLAIN = [
    "the caf\u00e9",
    "t\u200bea",
    "put the k3ttle on",
    "p u t  t h e",
    "t-e-a-,",
    "p   u   t   i   t",
    "a$$et",
    "b$$$y",
]
# What the steps look for, and what keeps them from finding it.
PIECES = st.sampled_from(
    [*"aIxZ0134569@$ .-*'\"(,!_\n\t\x00\x1c", "  ", "   ", "tea", "k3ttle", "$$", "h o w", "mp3", "A.B.C"]
)


@pytest.fixture(scope="module")
def base():
    return sc.load("base", threads=1)


@pytest.fixture(scope="module")
def longer(tiny):
    """The same model, on which every text takes the longer way."""
    model = sc.load(tiny.path, threads=1)
    model._shortcut = None
    return model


def test_the_steps_are_those_that_plain_texts_pass_through_unchanged():
    """Whoever changes them must say anew which texts they leave alone."""
    steps = json.dumps(normaliser(None)["normalizers"], sort_keys=True)
    assert hashlib.sha256(steps.encode()).hexdigest() == STEPS


@pytest.mark.parametrize("text", PLAIN)
def test_a_text_without_disguise_is_plain(text):
    assert is_plain(text)


@pytest.mark.parametrize("text", NOT_PLAIN)
def test_a_text_that_the_steps_may_change_is_not_plain(text):
    assert not is_plain(text)


@settings(max_examples=2000, deadline=None)
@given(st.lists(PIECES, max_size=30).map("".join))
def test_the_steps_leave_a_plain_text_as_it_is(base, text):
    """And where they change one, it is not plain."""
    if is_plain(text):
        assert base._tokenizer.normalizer.normalize_str(text) == base._shortcut.normalizer.normalize_str(text)


@settings(max_examples=500, deadline=None)
@given(st.one_of(st.lists(PIECES, max_size=30).map("".join), st.text(st.characters(max_codepoint=127), max_size=60)))
def test_windows_are_the_same_either_way(tiny, longer, text):
    """Token ids and places, to the last."""
    assert list(tiny._cut(text)) == list(longer._cut(text))


def test_scores_are_the_same_either_way_for_long_and_short_texts_and_prompts(tiny, longer):
    chance = random.Random(0)
    words = ["cat", "dog", "tea", "the", "k3ttle", "a", "caf\u00e9", "mat.", "\n"]
    texts = [" ".join(chance.choices(words, k=size)) for size in (1, 3, 9, 14, 30, 200, 900) for _ in range(6)]
    for prompts in (None, texts[::-1]):
        ours, theirs = tiny.score(texts, prompts), longer.score(texts, prompts)
        assert ours.exceed.tobytes() == theirs.exceed.tobytes()
        assert ours.spans.tolist() == theirs.spans.tolist()


def test_a_tokenizer_with_other_steps_takes_no_shortcut(tiny):
    from tokenizers import Tokenizer, normalizers

    from severity_clf.model import _shortcut

    assert tiny._shortcut is not None
    other = Tokenizer.from_str(tiny._tokenizer.to_str())
    for change in (normalizers.BertNormalizer(), normalizers.Sequence([normalizers.NFC()]), None):
        other.normalizer = change
        assert _shortcut(other) is None


def test_what_is_dropped_has_no_token(tiny):
    assert not tiny._tokenizer.encode(DROPPED, add_special_tokens=False).ids
    assert all(tiny._tokenizer.encode(chr(code), add_special_tokens=False).ids for code in range(33, 127))

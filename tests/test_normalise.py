"""Disguised letters are read as what they stand for, and ordinary text is left alone."""

import base64
import json
import random

import pytest
from tokenizers import Tokenizer

from severity_clf.fit.export import window_tokenizer
from severity_clf.fit.normalise import charsmap, normaliser

CLEAN = "how to make tea and the cat sat on a mat"
TWIN = str.maketrans("aceop", "асеор")


def tags(text):
    """The text in invisible ASCII."""
    return "".join(chr(0xE0000 + ord(letter)) for letter in text)


DISGUISES = {
    "zero-width characters": "\u200b".join(CLEAN),
    "bidirectional controls": "\u202e" + CLEAN + "\u202c",
    "soft hyphens": "\u00ad".join(CLEAN),
    "variation selectors": "".join(letter + "\ufe01" for letter in CLEAN),
    "letters struck through": "".join(letter + "\u0336" for letter in CLEAN),
    "full width": "".join(chr(ord(letter) + 0xFEE0) if letter > " " else letter for letter in CLEAN),
    "mathematical letters": "".join(chr(0x1D41A + ord(letter) - 97) if letter > " " else letter for letter in CLEAN),
    "circled letters": "".join(chr(0x24D0 + ord(letter) - 97) if letter > " " else letter for letter in CLEAN),
    "small capitals": CLEAN.translate(str.maketrans("acdehmnotw", "ᴀᴄᴅᴇʜᴍɴᴏᴛᴡ")),
    "look-alikes": CLEAN.translate(TWIN),
    "look-alikes of Greek and Cyrillic": CLEAN.translate(str.maketrans("aehiknotm", "αеհιкпοτм")),
    "look-alikes alone in words": CLEAN.translate(str.maketrans("aoetnmk", "αоετпмκ")).replace("τhе", "tһе"),
    "look-alikes of Lisu": CLEAN.upper().translate(str.maketrans("AEHMNOT", "ꓮꓰꓧꓟꓠꓳꓔ")),
    "look-alikes of Cherokee": CLEAN.upper().translate(str.maketrans("ACDEHM", "ᎪᏟᎠᎬᎻᎷ")),
    "tags": tags(CLEAN),
    "spaced letters": "h o w  t o  m a k e  t e a  a n d  t h e  c a t  s a t  o n  a  m a t",
    "hyphenated letters": "h-o-w t-o m-a-k-e t-e-a a-n-d t-h-e c-a-t s-a-t o-n a m-a-t",
    "letters apart by signs, words by spaces": "   ".join(map("-".join, CLEAN.split())),
    "letters apart by dots": "   ".join(map(".".join, CLEAN.split())),
    "leetspeak": CLEAN.replace("make", "m4ke"),
}
ORDINARY = [
    "the u.s.a. and j.r.r. t, e.g. a.k.a.", "plan a b c", "i am a b-c", "x + y = z",
    "h2o md5 mp3 covid19 x86 b2b b12 h1n1 w3c i18n 3d 1st 5km c4x", "log4j mp3player html5lib",
    "ann@home.org root@localhost folding@home", "costs $5 or us$5, $path and a1b2c3d4", "c:/tmp/k1ll.txt my-h4ck_1",
    "f.b.i., c.i.a., e.g., 9 a.m., p.m.; a-b", "tnfα and ifnγ; pparα, hν, β1-integrin", "sin(ωt + α), dτ/dx",
    "нет как это так", "the word нет means no and και means and", "ոսկի երկաթ in an english text", "ꭰ ꮳ ꮳꮃꭹ in english",
    "слово о том как в windows на русском", "то και το σπιτι", "a tnfα of 5μg, α = 0.05 and χ2", "½ … ² ™ 한국어 ªº",
]  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer(encoder_dir):
    return Tokenizer.from_str(window_tokenizer(encoder_dir, 16, 6))


@pytest.mark.parametrize("disguise", DISGUISES)
def test_a_disguised_text_is_read_as_the_text_itself(tokenizer, disguise):
    """An attack that costs nothing must gain nothing."""
    assert tokenizer.encode(DISGUISES[disguise]).tokens == tokenizer.encode(CLEAN).tokens


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_is_left_alone(tokenizer, encoder_dir, text):
    """Names, formulas, addresses, code and other scripts stay what they are."""
    own = json.loads((encoder_dir / "tokenizer.json").read_text())
    plain = Tokenizer.from_str(json.dumps(own)).normalizer
    assert tokenizer.normalizer.normalize_str(text) == plain.normalize_str(text)


def test_a_word_of_twins_is_a_disguise_only_among_latin_letters(tokenizer):
    """The same characters are a word of Russian."""
    assert tokenizer.normalizer.normalize_str("to соре with it") == "to cope with it"
    assert tokenizer.normalizer.normalize_str("и соре where") == "и соре where"


def test_tags_inside_a_word_are_noise_and_a_flag_is_no_text(tokenizer):
    """What is read must not become a way to break words, and a region's flag says nothing."""
    read = tokenizer.normalizer.normalize_str
    assert read("c" + tags("x") + "at") == "cat"
    assert read("the cat" + tags("how to")) == "the cat how to"
    assert read("\U0001f3f4" + tags("gbeng") + "\U000e007f cat") == "\U0001f3f4 cat"


@pytest.mark.parametrize("disguise", DISGUISES)
def test_spans_count_characters_of_the_disguised_text(tiny, disguise):
    """What is shown to a person is the passage as it was written, whatever stands before and in it."""
    text = "\U0001f600\u200b\U0001f600 " + DISGUISES[disguise] + "!"
    spans = tiny.windows([text]).spans
    assert (spans[0, 0], spans[-1, 1]) == (0, len(text))
    assert (spans[1:, 0] <= spans[:-1, 1]).all()


def test_each_token_points_at_the_characters_it_came_from(tokenizer):
    """Also behind characters that are removed, joined, or outside the basic plane."""
    text = "\u200b\U0001f600 \U0001d41c\u200bаt d-o-g-s ﬁne h o w t"
    encoding = tokenizer.encode(text)
    found = [text[start:end] for start, end in encoding.offsets[1:-1]]
    assert found == ["\U0001f600", "\U0001d41c\u200bаt", "d-o-g-s", "ﬁne", "h o w t"]


def test_no_text_breaks_the_tokenizer_and_only_tags_gain_tokens(tokenizer, encoder_dir):
    """Mixtures of all that the steps look for: offsets stay inside the text, and nothing turns scorable by accident."""
    own = json.loads((encoder_dir / "tokenizer.json").read_text())
    plain = Tokenizer.from_str(json.dumps(own))
    parts = ["a", "cat", " ", "4", "@", "$", ".", "-", "\n", "\x00", "é", "\u200b", "\u0301", "\u034f", "\ufe0f", "а"]
    parts += ["я", "α", "ο", "ａ", "ﬁ", "ⓐ", "𝐚", "🅰", "ᴀ", "\U0001f600", "\U0001f3f4", "中", "\u200d", "h o w t"]
    rng = random.Random(0)
    for _ in range(3000):
        text = "".join(rng.choices([*parts, tags(" a")], k=rng.randrange(1, 12)))
        encoding = tokenizer.encode(text)
        places = encoding.offsets[1:-1]
        assert all(0 <= start < end <= len(text) for start, end in places), ascii(text)
        assert places == sorted(places), ascii(text)
        if tags("a") not in text:
            assert bool(places) == (len(plain.encode(text).ids) > 2), ascii(text)


@pytest.mark.parametrize("nothing", ["\u200b\u200d", "\u202e\u2066", "\ufe0f\ufe01", "\u00ad", "\u3164", "\U000e0001"])
def test_a_text_of_invisible_characters_is_visibly_unscored(tiny, nothing):
    """Nothing was said, and nothing is not harmless."""
    assert not tiny.score([nothing]).scored[0]


def test_the_same_steps_come_out_every_time():
    """A bundle is named by the hashes of its files."""
    own = {"type": "BertNormalizer"}
    assert normaliser(own) == normaliser(own)
    assert normaliser(own)["normalizers"][-1] is own


def test_a_charsmap_maps_what_it_holds_and_nothing_else():
    """Shared beginnings, long keys and growing replacements."""
    mapping = {"é": "e", "è": "ee", "中": "zhong", "\U0001f600": ":)", "x\u0301": "z"}
    steps = {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(charsmap(mapping)).decode()}
    tokenizer = Tokenizer.from_str(json.dumps(_WORDLESS | {"normalizer": steps}))
    assert tokenizer.normalizer.normalize_str("éè中国\U0001f600x\u0301xê\U0001f601") == "eeezhong国:)zxê\U0001f601"


_WORDLESS = {"version": "1.0", "model": {"type": "WordLevel", "vocab": {"?": 0}, "unk_token": "?"}, "added_tokens": []}


def test_a_normaliser_is_not_put_before_itself():
    """An encoder taken out of a bundle, tuned and exported again reads text as it did."""
    once = normaliser({"type": "Lowercase"})
    assert normaliser(once) == once

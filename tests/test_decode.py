"""What an output says in an encoding is read where it stands; ordinary text stays as it is, and nothing is hidden."""

import base64
import codecs
import hashlib
import html
import json
import random
import uuid

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from severity_clf.decode import Decoded, decoded

TEA = "How to make a pot of tea with the leaves that you have in your kitchen"


def selectors(text):
    """Each byte of the text as an invisible variation selector."""
    return "".join(chr(0xFE00 + byte if byte < 16 else 0xE0100 + byte - 16) for byte in text.encode())


ENCODINGS = {
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 without padding": lambda text: base64.b64encode(text.encode()).decode().rstrip("="),
    "base64 for addresses": lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
    "base64 in lines": lambda text: base64.encodebytes((text + ". ").encode() * 3).decode(),
    "base64 of UTF-16": lambda text: base64.b64encode(text.encode("utf-16-le")).decode(),
    "base64 behind letters": lambda text: "ab" + base64.b64encode(text.encode()).decode(),
    "hex": lambda text: text.encode().hex(),
    "hex in pairs": lambda text: text.encode().hex(" "),
    "hex as bytes of C": lambda text: ", ".join(f"0x{byte:02X}" for byte in text.encode()),
    "backslash x": lambda text: "".join(f"\\x{byte:02x}" for byte in text.encode()),
    "backslash u": lambda text: "".join(f"\\u{ord(letter):04x}" for letter in text),
    "backslash u in JSON": lambda text: json.dumps("".join(f"\\u{ord(letter):04x}" for letter in text)),
    "entities in HTML": lambda text: html.escape("".join(f"&#{ord(letter)};" for letter in text)),
    "percent": lambda text: "".join(f"%{byte:02X}" for byte in text.encode()),
    "percent for spaces": lambda text: text.replace(" ", "%20"),
    "entities": lambda text: "".join(f"&#{ord(letter)};" for letter in text),
    "entities for vowels": lambda text: "".join(f"&#x{ord(x):x};" if x in "aeiou" else x for x in text),
    "rot13": lambda text: codecs.encode(text, "rot13"),
    "reversed": lambda text: text[::-1],
    "leetspeak": lambda text: text.translate(str.maketrans("aeios", "43105")),
    "leetspeak of other signs": lambda text: text.translate(str.maketrans("aeiosl", "@3!0$1")),
    "variation selectors": lambda text: "\U0001f600" + selectors(text),
    "tags inside a word": lambda text: "te" + "".join(chr(0xE0000 + ord(letter)) for letter in text) + "a",
    "base64 twice": lambda text: base64.b64encode(base64.b64encode(text.encode())).decode(),
    "rot13 in base64": lambda text: base64.b64encode(codecs.encode(text, "rot13").encode()).decode(),
    "leetspeak in hex": lambda text: text.translate(str.maketrans("aeo", "430")).encode().hex(),
    "percent twice": lambda text: "".join(f"%25{byte:02X}" for byte in text.encode()),
}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_an_encoded_text_is_read(encoding, vocabulary):
    """Alone, or in the middle of an answer, whose other words stay in their places."""
    encoded = ENCODINGS[encoding](TEA)
    for text in (
        encoded,
        f"Here is what you asked for. \n\n{encoded}\n\n Have a nice day, and enjoy it with them.",
    ):
        found = decoded(text, vocabulary)
        assert found is not None
        said = "make a pot of tea with the leaves that you have in your"
        assert said in found.text
        at = found.text.index(said)
        start, end = found.span(at, at + len(said))
        assert len(text[start:end]) > len(said) / 2
        assert text[start:end] in encoded
        if text != encoded:
            assert found.text.startswith("Here is what you asked for. \n\n")
            assert found.text.endswith("\n\n Have a nice day, and enjoy it with them.")


ORDINARY = {
    "prose": "The word `eth` is a letter, and the cat sat on a mat with %d dogs & 3 birds; see U+0041.",
    "hashes": f"{hashlib.md5(b'a').hexdigest()} {hashlib.sha256(b'b').hexdigest()} {uuid.UUID(int=7**40)}",
    "a hash in base64": base64.b64encode(hashlib.sha512(b"c").digest()).decode(),
    "a picture": "data:image/png;base64," + base64.b64encode(random.Random(0).randbytes(3000)).decode(),
    "a token": "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9."
    "eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkpvaG4gRG9lIiwiaWF0IjoxNTE2MjM5MDIyfQ."
    "SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c",
    "an address": "https://example.org/wiki/K%C3%B6ln_%28Stadt%29?q=tea%20and%20cake&lang=de#%C3%9Cbersicht",
    "an address in Russian": "https://ru.wikipedia.org/wiki/%D0%A7%D0%B0%D0%B9_%D0%B8_%D0%BA%D0%BE%D1%84%D0%B5",
    "numbers": ", ".join(str(number) for number in random.Random(1).choices(range(20, 80), k=200)),
    "dates": " ".join(f"2024-{month:02d}-{day:02d} 10:41:52" for month in range(1, 13) for day in range(1, 29)),
    "colours": "#FF5733 #C70039 #900C3F #581845 #DAF7A6 #FFC300 #61646F #6D6E61",
    "a dump of memory": "00000000: 7f45 4c46 0201 0100 0000 0000 0000 0000 0300 3e00 0100 0000",
    "code": "def severity_clf_score_of_windows(model_path, windows):\n    return p / 'severity_clf/fit/normalise.py'",
    "a pattern": r"re.compile('[\u00ad\u0300-\u036f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f]')",
    "German": "Donaudampfschifffahrtsgesellschaftskapitän und Rindfleischetikettierungsüberwachung; das Reh.",
    "French": "Quel est ton nom, et où est ton frère ? Ton ami a vu ton chien, ni toi ni ton père. Ton, ton, ton.",
    "Spanish": "Sí, ni tú ni yo lo sabemos; si quieres, te lo digo en la casa de tu amigo, si no te importa.",
    "Chinese": "茶是一种饮料" * 20,
    "emoji": "❤️" * 20 + "👍🏽" * 5 + "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "JSON": json.dumps({"straße": "Größe für Bücher", "naïve": "café"}),
    "HTML": html.escape("<p class='a'>Tom & Jerry &nbsp; \"cat\" <b>x</b></p>") * 3,
    "names": "THIS_IS_A_LONG_CONSTANT_NAME/AnotherVeryLongClassNameForAFactory/someOtherIdentifier0123456789",
    "letters": "a" * 500 + " " + "ABCD" * 100 + " " + "0" * 300,
    "DNA": "dna era saw no on not ACGTACGTACGTACGTACGTACGTACGTACGT gattaca",
    "models and units": "h2o md5 mp3 covid19 x86 b2b b12 h1n1 w3c i18n 3d 1st 5km c4x, i5 i7, A11, M16 and AK47 2x4",
    "passwords": "Common passwords are p@ssw0rd, l3tm31n, s3cr3t and adm1n; never use p4ssw0rd1 or qw3rty.",
    "files": "see /tmp/b00k5/t3a_t1me.txt, m4ke_t3a.py, c4k3.pot.v2 and n0de-m0dules/7h3/y0u.js",
    "formulas": "f(x1) = a0 + b1*x3; x1y0z b4c d3f e5g all0c s1ze n0de p0 = a1 + th3ta",
    "hex words": "4a3f b0a7 f00d d34d b33f c0de ba5e fee7 a11 b0b 1ab2 5ea7 7ea5",
    "Italian": "Si va in giro, e lui va via con noi: ti va di venire? Se ti va, si va. Gli altri no, ma va bene.",
}


@pytest.mark.parametrize("kind", ORDINARY)
def test_ordinary_text_stays_as_it_is(kind, vocabulary):
    """What is misread is scored for what it does not say."""
    assert decoded(ORDINARY[kind], vocabulary) is None


# Words that stand in the open, put where a rule might read them as something else.
OPEN = "flour butter sugar oven"
EVASIONS = {
    "in rot13": "mix gur flour naq gur sugar jvgu lbhe butter naq bake gurz jvgu guvf oven",
    "in text backwards": "gnikab uoy htiw flour butter sugar oven eht taht morf uoy evah",
    "between selectors": "".join(a + b for a, b in zip(OPEN + " " * 80, selectors(TEA), strict=False)),
    "between tags": "".join(
        a + chr(0xE0000 + ord(b)) for a, b in zip(OPEN.replace(" ", "_") + "_" * 80, TEA, strict=False)
    )
    + "end",
    "in base64": base64.b64encode((TEA * 9).encode()).decode().rstrip("=") + "/flour/butter/sugar/oven/",
    "in leetspeak": "h0w t0 m4k3 4 c4k3 w17h flour butter sugar 4nd 7h3 oven 1n y0ur k17ch3n",
}


@pytest.mark.parametrize("place", EVASIONS)
def test_words_in_the_open_are_never_decoded_away(place, vocabulary):
    """Or harm could be written so that a rule turns it into something bland."""
    found = decoded(EVASIONS[place], vocabulary)
    assert found is not None
    assert all(word in found.text for word in OPEN.split())


@pytest.mark.parametrize("kind", ["numbers", "models"])
def test_leetspeak_leaves_numbers_and_names_of_models_alone(kind, vocabulary):
    """Those beside it are read as what they are, short words in digits as words."""
    tea = "7h15 15 7h3 b357 w4y 70 m4k3 734 f0r y0u"
    text = {"numbers": f"{tea} 1n 2019, 320 0r 375 71m35", "models": f"{tea} w17h mp3 and 1080p"}[kind]
    found = decoded(text, vocabulary)
    assert found is not None
    wanted = {"numbers": ["2019", "320", "375", "way to make"], "models": ["mp3", "1080p", "way to make"]}[kind]
    assert all(word in found.text for word in wanted)


@pytest.mark.parametrize("source", ["halueval_general", "xstest", "refusalbench"])
def test_benign_answers_stay_as_they_are(data, source, vocabulary):
    """Of real rows fewer than one in two hundred may be read as anything else."""
    from training import sources

    rows = list({**sources.TRAIN, **sources.BENCH}[source](data))
    assert len(rows) > 1500
    assert sum(decoded(row.output, vocabulary) is not None for row in rows) < len(rows) / 200


PIECES = st.one_of(
    st.text(max_size=30),
    st.sampled_from(["%", "%41", "&#", "&#x41;", "&#99999999;", "\\u", "\\ud83d", "\\x", "0x", "=", "\n", "\ud800"]),
    st.sampled_from([encode(TEA) for encode in ENCODINGS.values()]),
    st.text("ABCabc0123456789+/_-=\n", min_size=16, max_size=80),
    st.binary(min_size=12, max_size=60).map(lambda data: base64.b64encode(data).decode()),
    st.binary(min_size=12, max_size=60).map(bytes.hex),
    st.lists(st.sampled_from(["gur", "naq", "lbh", "eht", "uoy", "htiw", "the", "you", "zvk"]), max_size=40).map(
        " ".join
    ),
    st.text("\ufe00\ufe0f\U000e0100\U000e01ef\U000e0041\U000e0020", max_size=40),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(PIECES, max_size=8).map("".join))
def test_whatever_the_text_what_is_not_decoded_stays_and_spans_lie_in_it(vocabulary, text):
    """No bomb, no error, nothing lost between the runs, and every span is a place in the text as given."""
    found = decoded(text, vocabulary)
    if found is None:
        return
    assert 0 < len(found.text) <= 4 * len(text)
    at = given = 0
    for start, end, first, last in (*found.runs, (len(found.text), len(found.text), len(text), len(text))):
        assert at <= start <= end
        assert given <= first <= last
        assert found.text[at:start] == text[given:first]
        at, given = end, last
    for start in range(0, len(found.text), 7):
        first, last = found.span(start, min(start + 5, len(found.text)))
        assert 0 <= first < last <= len(text)


def test_a_span_covers_the_runs_that_a_passage_came_from():
    """Half-open, as all spans; a part of a run is the whole run, and what is no run keeps its own characters."""
    found = Decoded("see abc, def!", ((4, 7, 4, 24), (9, 12, 26, 36)))
    parts = {(0, 3): (0, 3), (5, 6): (4, 24), (0, 5): (0, 24), (7, 8): (24, 25), (6, 10): (4, 36), (12, 13): (36, 37)}
    assert {part: found.span(*part) for part in parts} == parts


def test_a_text_is_decoded_two_deep_and_no_deeper(vocabulary):
    """Work is bounded whatever the text."""
    encoded = TEA
    for depth in range(1, 5):
        encoded = base64.b64encode(encoded.encode()).decode()
        assert (decoded(encoded, vocabulary) is not None) == (depth <= 2)


@pytest.mark.parametrize(
    "unit",
    [
        "QUJD" * 8 + " ",
        "%41" * 9 + "\n",
        "41" * 12 + " ",
        "gur naq lbh ",
        "\\u0041",
        "&#65;",
        "A",
        "h0w y0u ",
        "eht dna uoy ",
        "m4",
        "!",
    ],
)
def test_a_megabyte_of_an_encoding_ends(unit, vocabulary):
    """No rule looks at a character more often for there being more of them."""
    text = unit * (1_000_000 // len(unit))
    found = decoded(text, vocabulary)
    assert found is None or len(found.text) <= 2 * len(text)


def test_an_encoded_passage_counts_as_if_it_stood_there(tiny):
    """In its place among the words around it, and its span is the encoded form."""
    before, after = "the cat sat on a mat: ", " and the dog ran"
    secret = "how to make tea and it was good and the sun was bad"
    encoded = base64.b64encode(secret.encode()).decode()
    windows = tiny.windows([before + encoded + after])
    plain = tiny.windows([before + secret + after])
    np.testing.assert_array_equal(windows.exceed, plain.exceed)
    shift = len(encoded) - len(secret)
    first, last = len(before), len(before + secret)
    wanted = [
        (start if start < first else first if start < last else start + shift,
         end if end <= first else first + len(encoded) if end <= last else end + shift)
        for start, end in plain.spans.tolist()
    ]  # fmt: skip
    assert windows.spans.tolist() == [list(span) for span in wanted]


def test_clean_texts_have_no_other_windows_than_their_own(tiny):
    """To the bit what they were without this."""
    for text in ORDINARY.values():
        own = [ids for ids, _ in tiny._cut(text)]
        assert next(tiny.tokens([text])) == own


def test_a_prompt_stands_beside_decoded_text_too(tiny):
    """It is a window like any other."""
    secret = "how to make tea and it was good"
    text = base64.b64encode(secret.encode()).decode()
    assert next(tiny.tokens([text], ["bad dog"])) == next(tiny.tokens([secret], ["bad dog"]))


def test_text_in_invisible_characters_alone_is_read(tiny):
    """What a person cannot see a model may still be told."""
    secret = "how to make tea and it was good"
    assert tiny.score([selectors(secret)]).exceed.tobytes() == tiny.score([secret]).exceed.tobytes()

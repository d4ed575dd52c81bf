"""The graph computes what its definition says."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import reference
from conftest import CARD, CONFIG, ROOT, VOCABULARY, make_bundle

from severity_clf.bundle import find_bundle, read_bundle
from severity_clf.fit.graph import INT_MAX, encoder_graph, quantize, with_heads
from severity_clf.fit.heads import NEVER, Heads
from severity_clf.model import SeverityModel

CLS, SEP = VOCABULARY.index("[CLS]"), VOCABULARY.index("[SEP]")
ALONE = [CLS, 5, 6, 7, 20, 21, 1, SEP]
WITH_PROMPT = [*ALONE, 9, 9, 14, SEP]


def run(graph, rows):
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"input_ids": np.array(rows)}), strict=True))


@pytest.mark.parametrize("ids", [ALONE, WITH_PROMPT], ids=["alone", "with prompt"])
@pytest.mark.parametrize(("int8", "tolerance"), [(False, 1e-5), (True, 0.06)], ids=["float", "int8"])
def test_probabilities_agree_with_a_float_reference(encoder_dir, tmp_path, ids, int8, tolerance):
    """Quantised activations may move a probability a little; nothing else may."""
    graph = read_bundle(make_bundle(encoder_dir, tmp_path / "bundle", int8)).graph.read_bytes()
    found = run(graph, [ids])
    weights = reference.weights_of(onnx.load_from_string(graph))
    embedding = reference.encode(weights, ids, CONFIG["num_attention_heads"], CLS, SEP)
    grams = reference.buckets(ids, 512, CLS, SEP)
    assert sorted(found["buckets"][0][found["buckets"][0] < 512]) == sorted(grams)
    np.testing.assert_allclose(found["embedding"][0], embedding, atol=tolerance)
    np.testing.assert_allclose(found["exceed"][0], reference.exceed(weights, embedding, grams), atol=tolerance)


def test_shipped_probabilities_agree_with_a_float_reference(base):
    """Eight bits of activation move a probability by a hundredth or two, on real outputs of up to a window."""
    weights = reference.weights_of(onnx.load(find_bundle("base") / "model.onnx"))
    cls, sep = 101, 102
    gaps = []
    for line in (ROOT / "examples" / "outputs.jsonl").read_text(encoding="utf-8").splitlines()[::3]:
        output = json.loads(line)["output"]
        ids = base._tokenizer.encode(output).ids
        embedding = reference.encode(weights, ids, 12, cls, sep)
        wanted = reference.exceed(weights, embedding, reference.buckets(ids, 2**16, cls, sep))
        gaps.append(np.abs(base.windows([output]).exceed[0] - wanted).max())
    assert np.mean(gaps) < 0.03
    assert max(gaps) < 0.15


def test_windows_of_one_length_may_share_a_run_in_float(encoder_dir, tmp_path):
    """Nothing but the scale of int8 activations ties a window to its neighbours."""
    graph = read_bundle(make_bundle(encoder_dir, tmp_path / "bundle", int8=False)).graph.read_bytes()
    other = [CLS, 9, 14, 9, 20, 21, 6, SEP]
    alone, together = run(graph, [ALONE]), run(graph, [other, ALONE])
    np.testing.assert_allclose(together["exceed"][1], alone["exceed"][0], atol=1e-6)
    assert np.abs(together["exceed"][0] - together["exceed"][1]).max() > 1e-3


def test_the_prompt_is_context_and_not_content(encoder_dir, tmp_path):
    """A prompt may change what the output means; its own words are not counted as the output's."""
    graph = read_bundle(make_bundle(encoder_dir, tmp_path / "bundle")).graph.read_bytes()
    alone, with_prompt = run(graph, [ALONE]), run(graph, [WITH_PROMPT])
    counted = [sorted(found["buckets"][found["buckets"] < 512]) for found in (alone, with_prompt)]
    assert counted[0] == counted[1]
    assert np.abs(alone["embedding"] - with_prompt["embedding"]).max() > 1e-3


def test_overall_is_never_below_a_domain(tiny):
    """`overall` is the severity whatever the domain."""
    exceed = tiny.score(["the cat sat", "bad dog", "how to make tea"]).exceed
    assert (exceed[:, :1] >= exceed).all()


def test_new_heads_replace_the_old(encoder_dir, tiny_bundle):
    """Heads are cut off and joined again without a trace of the ones before."""
    threshold = np.array([[0.0], [NEVER], [1.0]], np.float32)
    heads = Heads(np.zeros((32, 3), np.float32), np.zeros((512, 3), np.int8), np.ones(3, np.float32), threshold)
    encoder = encoder_graph(encoder_dir, buckets=512)
    fresh = with_heads(encoder, heads)
    again = with_heads(onnx.load(read_bundle(tiny_bundle).graph), heads)
    assert again.SerializeToString() == fresh.SerializeToString()
    assert run(again.SerializeToString(), [ALONE])["exceed"][0].tolist() == [[0.5], [pytest.approx(0.5 * 0.26894143)]]


def test_weights_leave_room_for_sixteen_bit_sums():
    """Two products of u8 x s8 fit in 16 bits, so CPUs with and without VNNI agree."""
    weight = np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32)
    integers, scale = quantize(weight, axis=0)
    assert 2 * 255 * INT_MAX < 2**15
    assert np.abs(integers).max() == INT_MAX
    np.testing.assert_allclose(integers * scale, weight, atol=scale.max() / 2 + 1e-6)


def test_another_architecture_is_refused(encoder_dir, tmp_path):
    """The graph is written for BERT; anything else would be silently wrong."""
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(ValueError, match="got gpt2 with None and absolute positions, want a bert encoder"):
        encoder_graph(tmp_path)


def test_a_bundle_without_heads_embeds_but_does_not_score(encoder_dir, tmp_path):
    """No default head: an encoder alone has no opinion."""
    from severity_clf.bundle import BundleError, write_bundle
    from severity_clf.fit.export import export_encoder

    write_bundle(tmp_path / "bare", *export_encoder(encoder_dir, window=16, overlap=6), CARD)
    model = SeverityModel(tmp_path / "bare")
    embedding, text = model.embed(["the cat", "the dog"])
    assert embedding.shape == (2, 32)
    assert text.tolist() == [0, 1]
    with pytest.raises(BundleError, match="without heads"):
        model.score(["the cat"])

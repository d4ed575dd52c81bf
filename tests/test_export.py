"""From a sentence-transformers folder to a bundle and back, or one error that says what was wanted."""

import inspect
import json
import shutil

import numpy as np
import onnx
import pytest
import reference
from conftest import CARD, CONFIG, TAXONOMY, VOCABULARY, make_bundle

from severity_clf.bundle import BundleError, read_bundle, write_bundle
from severity_clf.cli import export
from severity_clf.fit.export import (
    FILES,
    OVERLAP_TOKENS,
    WINDOW_TOKENS,
    encoder_directory,
    export_bundle,
    window_tokenizer,
)
from severity_clf.fit.graph import POOLINGS, encoder_graph, encoder_weights, heads_of, pooling_of, with_heads
from severity_clf.fit.heads import Heads
from severity_clf.model import SeverityModel

TEXTS = ["the cat sat on a mat", "bad dog", "rain and sun " * 20, "unkindly", "zzz"]
POOLED = {
    "mean": {"pooling_mode": "mean"},
    "cls": {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False},
    "max": {"pooling_mode": ["max"]},
    "mean, by the root of the length": {"pooling_mode_mean_sqrt_len_tokens": True},
}


@pytest.fixture
def folder(encoder_dir, tmp_path):
    """A copy of the encoder's folder, to damage."""
    return shutil.copytree(encoder_dir, tmp_path / "encoder")


@pytest.fixture
def bare(encoder_dir, tmp_path):
    """An encoder bundle."""
    export_bundle(encoder_dir, tmp_path / "bare", TAXONOMY, window=16, overlap=6)
    return tmp_path / "bare"


def test_a_bundle_without_heads_embeds_and_does_not_score(bare, tiny):
    """No default head: `fit heads first`."""
    model = SeverityModel(bare, threads=1)
    np.testing.assert_array_equal(model.embed(TEXTS)[0], tiny.embed(TEXTS)[0])
    assert {domain.evidence for domain in model.taxonomy.domains} == {"none"}
    with pytest.raises(BundleError, match=r"model\.onnx: an encoder without heads cannot score; fit heads first"):
        model.score(TEXTS)


@pytest.mark.parametrize("int8", [True, False])
def test_an_encoder_comes_back_out_of_a_graph(encoder_dir, int8):
    """Every weight by its name and shape, up to the rounding to integers; every size of the configuration."""
    graph = encoder_graph(encoder_dir, int8=int8)
    weights, config = encoder_weights(graph)
    assert {key: config[key] for key in CONFIG} == pytest.approx(CONFIG)
    from safetensors.numpy import load_file

    stored = load_file(encoder_dir / "model.safetensors")
    assert weights.keys() == stored.keys()
    for name, weight in stored.items():
        np.testing.assert_allclose(weights[name], weight, atol=0.013 if int8 else 0, err_msg=name)


def test_exporting_what_came_out_of_a_bundle_gives_its_embeddings(tiny, tiny_bundle, tmp_path):
    """Rounding a second time changes nothing: fine-tuning may start from what ships."""
    encoder_directory(tiny_bundle, tmp_path / "encoder")
    export_bundle(tmp_path / "encoder", tmp_path / "again", TAXONOMY, window=16, overlap=6)
    again = SeverityModel(tmp_path / "again", threads=1)
    for prompts in (None, ["how to make tea"] * len(TEXTS)):
        np.testing.assert_allclose(again.embed(TEXTS, prompts)[0], tiny.embed(TEXTS, prompts)[0], atol=1e-6)


def test_the_folder_is_one_of_sentence_transformers(tiny_bundle, tmp_path):
    """Its pooling is the graph's, and its tokenizer has the special tokens back and cuts no windows."""
    encoder_directory(tiny_bundle, tmp_path)
    files = {path.name: json.loads(path.read_text()) for path in tmp_path.rglob("*.json") if path.name != "config.json"}
    modules = [module["type"].rpartition(".")[2] for module in files["modules.json"]]
    assert modules == ["Transformer", "Pooling", "Normalize"]
    assert json.loads((tmp_path / "1_Pooling" / "config.json").read_text())["pooling_mode_mean_tokens"]
    assert files["sentence_bert_config.json"]["max_seq_length"] == 16
    assert files["tokenizer.json"]["truncation"] is None
    assert [token["content"] for token in files["tokenizer.json"]["added_tokens"]][2:4] == ["[CLS]", "[SEP]"]


def pool(folder, config):
    """Have an encoder's folder pool as this configuration says."""
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("prompts", [None, ["how to make tea"] * len(TEXTS)], ids=["alone", "with prompt"])
@pytest.mark.parametrize(("mode", "config"), POOLED.items(), ids=POOLED)
def test_a_text_is_pooled_as_the_folder_says(folder, tmp_path, mode, config, prompts):
    """Of what the encoder makes of its tokens, by a float reference; the prompt's own take no part."""
    pool(folder, config)
    graph = encoder_graph(folder, int8=False)
    write_bundle(tmp_path / "bundle", graph.SerializeToString(), window_tokenizer(folder, 16, 6), CARD)
    model, weights = SeverityModel(tmp_path / "bundle", threads=1), reference.weights_of(graph)
    heads, special = CONFIG["num_attention_heads"], (VOCABULARY.index("[CLS]"), VOCABULARY.index("[SEP]"))
    wanted = [
        reference.encode(weights, ids, heads, *special, pooling=mode.split(",")[0])
        for windows in model.tokens(TEXTS, prompts)
        for ids in windows
    ]
    np.testing.assert_allclose(model.embed(TEXTS, prompts)[0], wanted, atol=1e-5)


@pytest.mark.parametrize("mode", POOLINGS)
def test_a_pooling_comes_back_out_of_a_bundle(folder, tmp_path, mode):
    """What is tuned further pools as before."""
    pool(folder, POOLED[mode])
    export_bundle(folder, tmp_path / "bundle", TAXONOMY, window=16, overlap=6)
    encoder_directory(tmp_path / "bundle", tmp_path / "again")
    assert pooling_of(tmp_path / "again") == mode


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({"pooling_mode": "lasttoken"}, "lasttoken"),
        ({"pooling_mode": ["cls", "mean"]}, "cls and mean"),
        ({"pooling_mode_cls_token": True, "pooling_mode_max_tokens": True}, "cls_token and max_tokens"),
        ({"pooling_mode_weightedmean_tokens": True}, "weightedmean_tokens"),
    ],
)
def test_another_pooling_is_refused(folder, tmp_path, config, found):
    """An embedding that the encoder was not trained to give would be silently worse."""
    pool(folder, config)
    with pytest.raises(ValueError, match=rf"1_Pooling/config\.json: pools by {found}; want one of mean, cls, max"):
        export_bundle(folder, tmp_path / "bundle", TAXONOMY, window=16, overlap=6)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(folder, tmp_path, name):
    """And nothing is written."""
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"encoder: no {name}; want a sentence-transformers folder with "):
        export_bundle(folder, tmp_path / "bundle", TAXONOMY)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("config.json", {"model_type": "roberta"}, "got roberta with gelu and absolute positions, want a bert encoder"),
        ("config.json", {"hidden_act": "relu"}, "got bert with relu and absolute positions, want a bert encoder"),
        ("config.json", {"position_embedding_type": "relative_key"}, "got bert with gelu and relative_key positions"),
        ("config.json", {"num_hidden_layers": 3}, "no encoder.layer.2.output.dense.weight; want the weights of a Bert"),
        ("tokenizer.json", {"model": {"type": "BPE", "vocab": {}}}, "got BPE, want WordPiece with"),
    ],
)
def test_another_architecture_is_refused(folder, tmp_path, file, change, message):
    """Named with what is supported; weights that are not there are no random weights."""
    (folder / file).write_text(json.dumps({**json.loads((folder / file).read_text()), **change}))
    with pytest.raises(ValueError, match=message):
        export_bundle(folder, tmp_path / "bundle", TAXONOMY, window=16, overlap=6)


def test_windows_that_the_positions_cannot_hold_are_refused(folder, tmp_path):
    """The default window is for 512 positions, and this encoder has 64."""
    with pytest.raises(ValueError, match="window 128 and overlap 32 must satisfy"):
        export_bundle(folder, tmp_path / "bundle", TAXONOMY)


@pytest.mark.parametrize("name", ["base", "fast"])
def test_windows_are_by_default_those_of_the_shelf(name):
    """In Python and on the command line: one size was measured, and what is exported to be fitted on has the same."""
    bundle = read_bundle(SeverityModel(name, threads=1).path)
    cut = json.loads(bundle.tokenizer)["truncation"]
    assert (cut["max_length"], cut["stride"]) == (WINDOW_TOKENS, OVERLAP_TOKENS)
    assert bundle.card["prompt_tokens"] == OVERLAP_TOKENS
    options = inspect.signature(export).parameters
    assert (options["window"].default, options["overlap"].default) == (WINDOW_TOKENS, OVERLAP_TOKENS)


def test_the_widest_windows_still_hold_a_prompt_and_its_end(folder, tmp_path):
    """A window, as much of the prompt as it may have, and one more [SEP]: 64 places, not 65."""
    export_bundle(folder, tmp_path / "bundle", TAXONOMY, window=40, overlap=24)
    model = SeverityModel(tmp_path / "bundle", threads=1)
    assert np.isfinite(model.embed(["the cat " * 100], ["a dog " * 100])[0]).all()


def test_heads_come_back_out_of_a_graph(encoder_dir, tmp_path):
    """To the last bit, and None where there are none."""
    graph = onnx.load(read_bundle(make_bundle(encoder_dir, tmp_path / "bundle")).graph)
    heads = heads_of(graph)
    again = heads_of(with_heads(encoder_graph(encoder_dir, buckets=512), heads))
    for part in ("weight", "table", "scale", "threshold"):
        np.testing.assert_array_equal(getattr(again, part), getattr(heads, part))
    assert again.table.shape == (512, 4)
    assert heads_of(encoder_graph(encoder_dir)) is None


@pytest.mark.parametrize(("dim", "buckets"), [(31, 512), (32, 511)])
def test_heads_of_another_encoder_are_refused(encoder_dir, dim, buckets):
    """Width and n-gram table are an encoder's own."""
    heads = Heads(np.zeros((dim, 3)), np.zeros((buckets, 3), np.int8), np.ones(3), np.zeros((3, 2), np.float32))
    wanted = (
        f"heads are for an encoder of width {dim} with {buckets} n-gram buckets, this one has 32 and 512; fit heads"
    )
    with pytest.raises(ValueError, match=wanted):
        with_heads(encoder_graph(encoder_dir, buckets=512), heads)

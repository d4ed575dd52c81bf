"""Fixtures: a tiny bundle made on the spot, the shipped one, and the folder of labelled data if it is there."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from severity_clf.bundle import find_bundle, read_bundle, write_bundle
from severity_clf.model import SeverityModel
from severity_clf.taxonomy import Domain, Level, Taxonomy

ROOT = Path(__file__).parents[1]
WORDS = [
    "the",
    "cat",
    "sat",
    "on",
    "a",
    "mat",
    "and",
    "it",
    "was",
    "good",
    "bad",
    "worse",
    "fine",
    "day",
    "rain",
    "sun",
    "dog",
    "ran",
    "far",
    "un",
    "##kind",
    "##ly",
    "how",
    "to",
    "make",
    "tea",
]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
CONFIG = {
    "model_type": "bert", "hidden_act": "gelu", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "vocab_size": len(VOCABULARY), "num_attention_heads": 4, "max_position_embeddings": 64, "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
}  # fmt: skip
TAXONOMY = Taxonomy(
    tuple(Level(name, name) for name in ("none", "low", "high")),
    tuple(Domain(name, name) for name in ("overall", "rude", "wet")),
)
CARD = {
    "name": "tiny", "version": "1", "taxonomy": TAXONOMY.to_dict(), "thresholds": {"overall": 1.0}, "prompt_tokens": 4,
}  # fmt: skip


@pytest.fixture(scope="session")
def encoder_dir(tmp_path_factory):
    """A sentence-transformers directory with random BERT weights, a vocabulary of 30 words and windows of 16 tokens."""
    from safetensors.numpy import save_file

    directory = tmp_path_factory.mktemp("encoder")
    rng = np.random.default_rng(0)
    dim, wide = CONFIG["hidden_size"], CONFIG["intermediate_size"]
    shapes = {
        "embeddings.word_embeddings.weight": (len(VOCABULARY), dim),
        "embeddings.position_embeddings.weight": (CONFIG["max_position_embeddings"], dim),
        "embeddings.token_type_embeddings.weight": (2, dim),
        **{f"embeddings.LayerNorm.{part}": (dim,) for part in ("weight", "bias")},
    }
    for layer in range(CONFIG["num_hidden_layers"]):
        key = f"encoder.layer.{layer}"
        for part, out, into in (
            *((f"attention.self.{name}", dim, dim) for name in ("query", "key", "value")),
            ("attention.output.dense", dim, dim), ("intermediate.dense", wide, dim), ("output.dense", dim, wide),
        ):  # fmt: skip
            shapes |= {f"{key}.{part}.weight": (out, into), f"{key}.{part}.bias": (out,)}
        for part in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes |= {f"{key}.{part}.weight": (dim,), f"{key}.{part}.bias": (dim,)}
    weights = {name: rng.normal(size=shape).astype(np.float32) / 4 for name, shape in shapes.items()}
    save_file(weights, directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps(CONFIG))
    vocabulary = {token: number for number, token in enumerate(VOCABULARY)}
    special = {token: {"id": token, "ids": [vocabulary[token]], "tokens": [token]} for token in ("[CLS]", "[SEP]")}
    pieces = [
        {"SpecialToken": {"id": "[CLS]", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
    ]
    model = {
        "type": "WordPiece",
        "vocab": vocabulary,
        "unk_token": "[UNK]",
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100,
    }
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [],
        "normalizer": {
            "type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"}, "decoder": None, "model": model,
        "post_processor": {"type": "TemplateProcessing", "single": pieces, "pair": pieces, "special_tokens": special},
    }  # fmt: skip
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))
    return directory


@pytest.fixture(scope="session")
def tiny_bundle(encoder_dir, tmp_path_factory):
    """The path of a whole bundle on the random encoder: three domains, three levels, windows of 16 tokens."""
    return make_bundle(encoder_dir, tmp_path_factory.mktemp("bundles") / "tiny")


def make_bundle(encoder_dir, path, int8=True):
    """A bundle with random heads, strong enough that texts differ."""
    import onnx

    from severity_clf.fit.export import window_tokenizer
    from severity_clf.fit.graph import encoder_graph, with_heads
    from severity_clf.fit.heads import Heads

    rng = np.random.default_rng(1)
    latents, size = len(TAXONOMY.domains) + 1, 512
    heads = Heads(
        rng.normal(size=(CONFIG["hidden_size"], latents)).astype(np.float32),
        rng.integers(-127, 128, (size, latents)).astype(np.int8),
        np.full(latents, 0.01, np.float32),
        np.sort(rng.normal(size=(latents, TAXONOMY.top)), axis=1).astype(np.float32),
    )
    model: onnx.ModelProto = with_heads(encoder_graph(encoder_dir, int8=int8, buckets=size), heads)
    card = {
        **CARD, "encoder": {"source": "random"}, "training": {"records": 0, "sources": []}, "calibration": {},
    }  # fmt: skip
    write_bundle(path, model.SerializeToString(), window_tokenizer(encoder_dir, 16, 6), card)
    return path


@pytest.fixture(scope="session")
def tiny(tiny_bundle):
    """The tiny bundle, loaded, on two threads."""
    return SeverityModel(tiny_bundle, threads=2)


@pytest.fixture(scope="session")
def vocabulary():
    """The shipped encoder's words and pieces of words, the common ones first."""
    return json.loads(read_bundle(find_bundle("base")).tokenizer)["model"]["vocab"]


@pytest.fixture(scope="session")
def base():
    """The shipped bundle."""
    return SeverityModel("base")


@pytest.fixture(scope="session")
def data():
    """The folder of labelled data sets, named by SEVERITY_CLF_DATA."""
    folder = Path(os.environ.get("SEVERITY_CLF_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("no labelled data: name its folder in SEVERITY_CLF_DATA")
    return folder

"""Turn a sentence-transformers folder into an encoder bundle, a graph without heads and a tokenizer; and back."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

from severity_clf.bundle import check_target, find_bundle, read_bundle, write_bundle
from severity_clf.fit.graph import encoder_graph, encoder_weights, pooling_in, static_graph
from severity_clf.fit.normalise import normaliser
from severity_clf.taxonomy import Taxonomy

WINDOW_TOKENS = 128  # of all-MiniLM-L6-v2's 512: see docs/ablations.md for what wider ones cost
OVERLAP_TOKENS = 32
FILES = ("config.json", "model.safetensors", "tokenizer.json")
MODES = ("cls_token", "mean_tokens", "max_tokens")  # as sentence-transformers writes them
SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}


def export_encoder(
    directory: str | Path, *, window: int = WINDOW_TOKENS, overlap: int = OVERLAP_TOKENS
) -> tuple[bytes, str]:
    """The graph's bytes and the tokenizer's JSON, ready for `write_bundle`.

    Args:
        directory: holds `config.json`, `model.safetensors` and `tokenizer.json` of a BERT encoder: `model_type` bert,
            gelu, absolute positions, a WordPiece vocabulary. Its `1_Pooling/config.json` says how an output's tokens
            are pooled, by mean, maximum or [CLS]; the mean if there is none. The result is scaled to unit length.
        window: tokens in a window, its [CLS] and [SEP] included.
        overlap: tokens that neighbouring windows share.

    Raises:
        FileNotFoundError: one of these files is missing.
        ValueError: another architecture or pooling, or windows that the encoder's positions cannot hold.
    """
    directory = Path(directory)
    for name in FILES:
        if not (directory / name).is_file():
            raise FileNotFoundError(
                f"{directory}: no {name}; want a sentence-transformers folder with {', '.join(FILES)}"
            )
    return encoder_graph(directory).SerializeToString(), window_tokenizer(directory, window, overlap)


def export_static(
    directory: str | Path, *, window: int = WINDOW_TOKENS, overlap: int = OVERLAP_TOKENS
) -> tuple[bytes, str]:
    """As `export_encoder`, of a directory that `static.train_static` left.

    Raises:
        ValueError: the directory holds another architecture.
    """
    return static_graph(directory).SerializeToString(), window_tokenizer(Path(directory), window, overlap)


def export_bundle(
    directory: str | Path,
    path: Path,
    taxonomy: Taxonomy,
    *,
    window: int = WINDOW_TOKENS,
    overlap: int = OVERLAP_TOKENS,
    source: Mapping[str, Any] | None = None,
    extras: Mapping[str, str] | None = None,
) -> None:
    """Write an encoder bundle: all that a fit needs, and no heads.

    Args:
        directory, window, overlap: as `export_encoder`.
        path: the bundle's folder.
        taxonomy: what heads will be fitted for, unless they bring their own.
        source: where the encoder came from, as the card says it; the folder's name by default.
        extras: further text files by name, such as the licence of the weights.

    Raises:
        FileExistsError: `path` exists and is not a bundle; nothing has been done then.
        FileNotFoundError, ValueError: as `export_encoder`.
    """
    check_target(path)
    graph, tokenizer = export_encoder(directory, window=window, overlap=overlap)
    places = json.loads((Path(directory) / "config.json").read_text(encoding="utf-8"))["max_position_embeddings"]
    unfitted = tuple(replace(domain, evidence="none") for domain in taxonomy.domains)
    card = {
        "name": path.resolve().name,
        "version": "1",
        "taxonomy": replace(taxonomy, domains=unfitted).to_dict(),
        "thresholds": {"overall": taxonomy.top / 2},
        "prompt_tokens": min(overlap, places - window - 1),  # a prompt, and the [SEP] behind it
        "encoder": dict(source or {"source": Path(directory).resolve().name}),
    }
    write_bundle(path, graph, tokenizer, card, extras)


def encoder_directory(bundle: str | Path, directory: Path) -> None:
    """The inverse of `export_encoder`: a bundle's encoder as a sentence-transformers folder, to be tuned further.

    Its weights are the graph's, so exporting it again gives the same embeddings, up to rounding. Heads stay behind.

    Args:
        bundle: name or path.
        directory: where to write; made if it is missing.

    Raises:
        BundleError: the bundle cannot be read.
        ValueError: its encoder is static: there is no such folder for it.
    """
    from safetensors.numpy import save_file

    found = read_bundle(find_bundle(bundle))
    graph = onnx.load(found.graph)
    weights, config = encoder_weights(graph)
    tokenizer = json.loads(found.tokenizer)
    window, vocabulary = tokenizer["truncation"]["max_length"], tokenizer["model"]["vocab"]
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    added = [
        {"id": vocabulary[word], "content": word, **flags, "special": True}
        for word in sorted(SPECIAL.values(), key=lambda word: vocabulary.get(word, -1))
        if word in vocabulary
    ]
    module = "sentence_transformers.models"
    files = {
        "config.json": config,
        "tokenizer.json": {**tokenizer, "truncation": None, "added_tokens": added},
        "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": window, **SPECIAL},
        "sentence_bert_config.json": {"max_seq_length": window, "do_lower_case": False},
        "modules.json": [
            {"idx": 0, "name": "0", "path": "", "type": f"{module}.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": f"{module}.Pooling"},
            {"idx": 2, "name": "2", "path": "2_Normalize", "type": f"{module}.Normalize"},
        ],
        "1_Pooling/config.json": {
            "word_embedding_dimension": config["hidden_size"],
            **{f"pooling_mode_{mode}": mode.startswith(pooling_in(graph)) for mode in MODES},
        },
    }
    for folder in ("1_Pooling", "2_Normalize"):
        (directory / folder).mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (directory / name).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    save_file(weights, directory / "model.safetensors", {"format": "pt"})


def window_tokenizer(directory: Path, window: int, overlap: int) -> str:
    """The encoder's own tokenizer, cut into windows, in which disguised letters are read as what they stand for (see
    `normalise`) and no text can spell a special token.

    A tokenizer matches its `added_tokens` in any text, so an output that says "[SEP]" would end itself there. The
    template holds the special tokens' numbers, and nothing else needs them.
    """
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    places = config.get("max_position_embeddings", math.inf)  # a static encoder has none
    if not 0 <= overlap < window - 2 or window + overlap > places:
        raise ValueError(
            f"window {window} and overlap {overlap} must satisfy overlap < window - 2 and window + overlap <= {places}"
        )
    tokenizer = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))
    cut = {"direction": "Right", "max_length": window, "strategy": "LongestFirst", "stride": overlap}
    changes: dict[str, Any] = {
        "normalizer": normaliser(tokenizer["normalizer"]),
        "added_tokens": [],
        "padding": None,
        "truncation": cut,
    }
    return json.dumps({**tokenizer, **changes}, ensure_ascii=False)

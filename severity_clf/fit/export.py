"""Turn a sentence-transformers directory into an encoder bundle: a graph without heads, and a tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from severity_clf.fit.graph import encoder_graph
from severity_clf.fit.normalise import normaliser

WINDOW_TOKENS = 256
OVERLAP_TOKENS = 64


def export_encoder(
    directory: str | Path, *, window: int = WINDOW_TOKENS, overlap: int = OVERLAP_TOKENS
) -> tuple[bytes, str]:
    """The graph's bytes and the tokenizer's JSON, ready for `write_bundle`.

    Args:
        directory: holds `config.json`, `model.safetensors` and `tokenizer.json` of a BERT encoder.
        window: tokens in a window, its [CLS] and [SEP] included.
        overlap: tokens that neighbouring windows share.

    Raises:
        ValueError: another architecture, or windows that the encoder's positions cannot hold.
    """
    directory = Path(directory)
    return encoder_graph(directory).SerializeToString(), window_tokenizer(directory, window, overlap)


def window_tokenizer(directory: Path, window: int, overlap: int) -> str:
    """The encoder's own tokenizer, cut into windows, in which disguised letters are read as what they stand for (see
    `normalise`) and no text can spell a special token.

    A tokenizer matches its `added_tokens` in any text, so an output that says "[SEP]" would end itself there. The
    template holds the special tokens' numbers, and nothing else needs them.
    """
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    places = config["max_position_embeddings"]
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

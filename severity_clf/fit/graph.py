"""Build a bundle's ONNX graph: a BERT encoder, hashed n-grams, ordinal heads, from token ids to probabilities.

    input_ids [window, token] -> embedding [window, dim], buckets [window, gram], exceed [window, domain, level-1]

The graph is written node by node, straight from the weights: no tracing, no torch. Its operators are the quickest of
onnxruntime's that compute the same (docs/engine.md). A window is `[CLS] output [SEP]` or `[CLS] output [SEP] prompt
[SEP]`. Only the output is pooled and counted; the prompt is context that attention may look at. There is no mask: a run
holds one window, or windows of one length.

Weights are 7-bit integers, one scale a column. The eighth bit is left out on purpose: x86 without VNNI adds pairs of
u8 x s8 products in 16 bits, and full-range weights overflow there, so the same bundle would score differently on
another machine.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.utils
from onnx import TensorProto, helper, numpy_helper

from severity_clf.fit.heads import Heads

BUCKETS = 2**16
INT_MAX = 64  # 255 * 64 * 2 < 2**15
# How a window's tokens become its embedding: the name, and the operator that says so in the graph.
POOLINGS = {"mean": "Squeeze", "cls": "Gather", "max": "ReduceMax"}
HEADS = "heads/"  # prefix of every node and weight that belongs to the heads, so that they can be replaced
_BIGRAM = (0x9E3779B1, 0x85EBCA6B)  # odd 32-bit constants: their products with token ids fit in int64
_FUSED = "com.microsoft"

Float = npt.NDArray[np.float32]


class _Builder:
    """Collects nodes and weights; each method adds one operation and returns the name of its result."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def weight(self, name: str, values: npt.ArrayLike, dtype: npt.DTypeLike = np.float32) -> str:
        self.weights.append(numpy_helper.from_array(np.asarray(values, dtype, order="C"), name))
        return name

    def op(self, kind: str, inputs: list[str], output: str, domain: str = "", **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, domain=domain, **attributes))
        return output

    def dense(self, x: str, name: str, weight: Float, bias: str, int8: bool) -> str:
        """`x @ weight + bias`, weight [in, out]."""
        if not int8:
            return self.op("Add", [self.op("MatMul", [x, self._float(name, weight)], f"{name}/product"), bias], name)
        return self.op("DynamicQuantizeMatMul", [x, *self._integers(name, weight), "", bias], name, _FUSED)

    def attention(self, x: str, name: str, weight: Float, bias: str, heads: int, int8: bool) -> str:
        """Self-attention before its output projection; query, key and value side by side in weight [dim, 3 * dim]."""
        if not int8:
            return self.op("Attention", [x, self._float(name, weight), bias], name, _FUSED, num_heads=heads)
        parts = [f"{name}/{part}" for part in ("input", "input_scale", "input_zero")]
        self.nodes.append(helper.make_node("DynamicQuantizeLinear", [x], parts, name=parts[0]))
        integers, scale = self._integers(name, weight)
        inputs = [parts[0], integers, bias, parts[1], scale, "", parts[2]]
        return self.op("QAttention", inputs, name, _FUSED, num_heads=heads)

    def _float(self, name: str, weight: Float) -> str:
        return self.weight(f"{name}/weight", weight)

    def _integers(self, name: str, weight: Float) -> tuple[str, str]:
        integers, scale = quantize(weight, axis=0)
        return self.weight(f"{name}/weight", integers, np.int8), self.weight(f"{name}/scale", scale)


def quantize(weight: Float, axis: int) -> tuple[npt.NDArray[np.int8], Float]:
    """Symmetric 7-bit integers with one scale for each slice along `axis` that is reduced away.

    Returns:
        integers of the weight's shape in [-64, 64], and float32 scales such that `integers * scale` is the weight.
    """
    peak = np.abs(weight).max(axis=axis)
    scale = np.where(peak > 0, peak, 1).astype(np.float32) / np.float32(INT_MAX)
    return np.rint(weight / np.expand_dims(scale, axis)).astype(np.int8), scale


def encoder_graph(directory: str | Path, *, int8: bool = True, buckets: int = BUCKETS) -> onnx.ModelProto:
    """The encoder without heads, from a sentence-transformers directory with BERT weights.

    Args:
        directory: holds `config.json`, `model.safetensors` and `tokenizer.json`; pooled as `pooling_of` says.
        int8: quantise the encoder; False keeps float32, the reference.
        buckets: rows of the n-gram table that heads will bring.

    Raises:
        ValueError: the directory holds another architecture, or another pooling.
    """
    from safetensors.numpy import load_file

    directory = Path(directory)
    pooling = pooling_of(directory)
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    places = config.get("position_embedding_type", "absolute")
    if config.get("model_type") != "bert" or config.get("hidden_act") != "gelu" or places != "absolute":
        found = f"{config.get('model_type')} with {config.get('hidden_act')} and {places} positions"
        raise ValueError(f"{directory}/config.json: got {found}, want a bert encoder with gelu and absolute positions")
    model = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    if model.get("type") != "WordPiece" or not {"[CLS]", "[SEP]"} <= model["vocab"].keys():
        raise ValueError(f"{directory}/tokenizer.json: got {model.get('type')}, want WordPiece with [CLS] and [SEP]")
    vocabulary = model["vocab"]
    stored = load_file(directory / "model.safetensors")
    weights = {name.removeprefix("bert."): value.astype(np.float32) for name, value in stored.items()}
    absent = {f"encoder.layer.{layer}.output.dense.weight" for layer in range(config["num_hidden_layers"])} - set(
        weights
    )
    if absent:
        raise ValueError(f"{directory}/model.safetensors: no {min(absent)}; want the weights of a BertModel")

    graph = _Builder()
    text, word = _segments(graph, vocabulary["[CLS]"], vocabulary["[SEP]"])
    _ngrams(graph, word, buckets)
    hidden = _embeddings(graph, weights, config, int8)
    for layer in range(config["num_hidden_layers"]):
        hidden = _layer(graph, weights, config, layer, hidden, int8)
    _pool(graph, hidden, text, pooling)
    dim = config["hidden_size"]
    return _model(
        graph, [("embedding", TensorProto.FLOAT, ["window", dim]), ("buckets", TensorProto.INT64, ["window", "gram"])]
    )


def static_graph(directory: str | Path, *, buckets: int = BUCKETS) -> onnx.ModelProto:
    """A static encoder without heads, from a directory that `static.train_static` left.

    Its tables are int8 with one scale a column, and scales are folded into the layer that reads them: all sums and
    maxima over tokens are of whole numbers, so exact in any order.

    Raises:
        ValueError: the directory holds another architecture.
    """
    from safetensors.numpy import load_file

    directory = Path(directory)
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    if config.get("model_type") != "static":
        raise ValueError(f"{directory}/config.json: got model_type {config.get('model_type')!r}, want 'static'")
    vocabulary = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    stored = load_file(directory / "model.safetensors")
    bag, scale = _rounded(stored["bag"])
    sides, pair_scale = _rounded(np.concatenate([stored["left"], stored["right"]]))
    left, right = np.split(sides, 2)
    mix = stored["mix.weight"].T * np.concatenate([scale, scale, pair_scale])[:, None]

    graph = _Builder()
    op, weight = graph.op, graph.weight
    _, word = _segments(graph, vocabulary["[CLS]"], vocabulary["[SEP]"])
    _ngrams(graph, word, buckets)
    op("Greater", ["segment", "zero"], "in_prompt")
    op("And", ["in_prompt", "is_word"], "prompt_word")
    weight("axis2", [2], np.int64)
    for name in (word, "prompt_word"):
        op("Cast", [name], f"{name}_float", to=TensorProto.FLOAT)
        op("Unsqueeze", [f"{name}_float", "axis1"], f"{name}_row")
    op("Concat", [f"{word}_row", "prompt_word_row"], "kinds", axis=1)  # [window, 2, token]
    op("ReduceSum", ["kinds", "axis2"], "words", keepdims=1)
    op("Max", ["words", weight("at_least", 1)], "some_words")
    op("Sqrt", ["some_words"], "root")
    op("MatMul", ["kinds", _looked_up(graph, "bag", bag, "input_ids")], "sums")
    op("Div", ["sums", "root"], "bags")  # [window, 2, bag]
    op("Add", [_looked_up(graph, "left", left, "left_ids"), _looked_up(graph, "right", right, "right_ids")], "pairs")
    op("Cast", ["pair_word"], "pair_float", to=TensorProto.FLOAT)
    op("Unsqueeze", ["pair_float", "axis2"], "pair_column")
    op("Mul", ["pairs", "pair_column"], "word_pairs")
    op("ReduceMax", ["word_pairs"], "highest", axes=[1], keepdims=0)
    op("Relu", ["highest"], "pair")
    op("Reshape", ["bags", weight("flat", [0, -1], np.int64)], "flat_bags")
    op("Concat", ["flat_bags", "pair"], "features", axis=1)
    op("MatMul", ["features", weight("mix/weight", mix)], "mixed")
    op("Add", ["mixed", weight("mix/bias", stored["mix.bias"])], "mixed_biased")
    op("Relu", ["mixed_biased"], "hidden")
    op("MatMul", ["hidden", weight("out/weight", stored["out.weight"].T)], "out")
    op("Add", ["out", weight("out/bias", stored["out.bias"])], "out_biased")
    op("LpNormalization", ["out_biased"], "embedding", axis=1, p=2)
    dim = len(stored["out.bias"])
    return _model(
        graph, [("embedding", TensorProto.FLOAT, ["window", dim]), ("buckets", TensorProto.INT64, ["window", "gram"])]
    )


def _rounded(table: Float) -> tuple[npt.NDArray[np.int8], Float]:
    """All eight bits, one scale a column: what is only looked up and added is never multiplied in integers."""
    peak = np.abs(table).max(axis=0)
    scale = (np.where(peak > 0, peak, 1) / 127).astype(np.float32)
    return np.rint(table / scale).astype(np.int8), scale


def _looked_up(graph: _Builder, name: str, table: npt.NDArray[np.int8], ids: str) -> str:
    graph.op("Gather", [graph.weight(f"{name}/weight", table, np.int8), ids], f"{name}_integers")
    return graph.op("Cast", [f"{name}_integers"], f"{name}_rows", to=TensorProto.FLOAT)


def _segments(graph: _Builder, cls: int, sep: int) -> tuple[str, str]:
    """Bool [window, token] twice: what is pooled, the output with its [CLS] and [SEP], and which of it are words."""
    op, weight = graph.op, graph.weight
    op("Equal", ["input_ids", weight("sep_id", sep, np.int64)], "is_sep")
    op("Cast", ["is_sep"], "sep_count", to=TensorProto.INT32)
    op("CumSum", ["sep_count", weight("token_axis", 1, np.int64)], "seps_before", exclusive=1)
    op("Min", ["seps_before", weight("one", 1, np.int32)], "segment")
    text = op("Equal", ["segment", weight("zero", 0, np.int32)], "text")
    op("Equal", ["input_ids", weight("cls_id", cls, np.int64)], "is_cls")
    op("Or", ["is_cls", "is_sep"], "is_special")
    op("Not", ["is_special"], "is_word")
    return text, op("And", [text, "is_word"], "word")


def _ngrams(graph: _Builder, word: str, buckets: int) -> None:
    """`buckets` [window, 2 * token - 1]: the table row of every token and of every pair, or the empty row."""
    op, weight = graph.op, graph.weight
    weight("first", [0], np.int64)
    weight("second", [1], np.int64)
    weight("last", [-1], np.int64)
    weight("end", [np.iinfo(np.int64).max], np.int64)
    weight("axis1", [1], np.int64)
    for side, (start, stop) in {"left": ("first", "last"), "right": ("second", "end")}.items():
        op("Slice", ["input_ids", start, stop, "axis1"], f"{side}_ids")
        op("Slice", [word, start, stop, "axis1"], f"{side}_word")
        op("Mul", [f"{side}_ids", weight(f"{side}_factor", _BIGRAM[side == "right"], np.int64)], f"{side}_hash")
    op("Add", ["left_hash", "right_hash"], "pair_hash")
    op("And", ["left_word", "right_word"], "pair_word")
    op("Concat", ["input_ids", "pair_hash"], "gram_hash", axis=1)
    op("Concat", [word, "pair_word"], "gram_word", axis=1)
    op("Mod", ["gram_hash", weight("bucket_count", buckets, np.int64)], "gram_bucket")
    op("Where", ["gram_word", "gram_bucket", "bucket_count"], "buckets")


def gram_buckets(
    encoder: onnx.ModelProto, windows: Sequence[Sequence[int]], batch: int = 256
) -> Iterator[npt.NDArray[np.int64]]:
    """The n-gram table's rows of each window of token ids, by the graph's own nodes, without running the encoder."""
    from onnx.reference import ReferenceEvaluator

    part = onnx.utils.Extractor(encoder).extract_model(["input_ids"], ["buckets"])
    size = next(numpy_helper.to_array(w).item() for w in encoder.graph.initializer if w.name == "bucket_count")
    evaluator = ReferenceEvaluator(part)
    for start in range(0, len(windows), batch):
        some = windows[start : start + batch]
        ids = np.zeros((len(some), max(map(len, some))), np.int64)
        for row, tokens in zip(ids, some, strict=True):
            row[: len(tokens)] = tokens  # what stands behind the output's [SEP] is not counted
        found: Any = evaluator.run(None, {"input_ids": ids})
        yield from (row[row < size] for row in found[0])


def _embeddings(graph: _Builder, weights: dict[str, Float], config: dict[str, int], int8: bool) -> str:
    op, weight = graph.op, graph.weight
    table = weights["embeddings.word_embeddings.weight"]
    if int8:
        peak = np.abs(table).max(axis=1, keepdims=True)
        scale = np.where(peak > 0, peak, 1) / 127  # only looked up, never multiplied in integers: all eight bits
        op("Gather", [weight("tokens/weight", np.rint(table / scale), np.int8), "input_ids"], "tokens/integers")
        op("Cast", ["tokens/integers"], "tokens/float", to=TensorProto.FLOAT)
        op("Gather", [weight("tokens/scale", scale), "input_ids"], "tokens/row_scale")
        op("Mul", ["tokens/float", "tokens/row_scale"], "tokens")
    else:
        op("Gather", [weight("tokens/weight", table), "input_ids"], "tokens")
    op("Shape", ["input_ids"], "token_count", start=1, end=2)
    positions = weight("positions/weight", weights["embeddings.position_embeddings.weight"])
    op("Slice", [positions, "first", "token_count", weight("axis0", [0], np.int64)], "positions")
    op("Gather", [weight("segments/weight", weights["embeddings.token_type_embeddings.weight"]), "segment"], "segments")
    op("Add", ["segments", "positions"], "places")
    return _normalize(graph, weights, config, "embeddings.LayerNorm", "tokens", "places", "embedded")


def _normalize(
    graph: _Builder, weights: dict[str, Float], config: dict[str, int], key: str, x: str, skip: str, name: str
) -> str:
    """LayerNorm(x + skip), as two nodes: the fused one takes four times as long."""
    inputs = [
        graph.op("Add", [x, skip], f"{name}/sum"),
        graph.weight(f"{name}/gamma", weights[f"{key}.weight"]),
        graph.weight(f"{name}/beta", weights[f"{key}.bias"]),
    ]
    return graph.op("LayerNormalization", inputs, name, axis=-1, epsilon=float(config["layer_norm_eps"]))


def _layer(graph: _Builder, weights: dict[str, Float], config: dict[str, int], layer: int, x: str, int8: bool) -> str:
    key, name = f"encoder.layer.{layer}", f"layer{layer}"
    parts = [f"{key}.attention.self.{part}" for part in ("query", "key", "value")]
    weight = np.concatenate([weights[f"{part}.weight"].T for part in parts], axis=1)
    bias = graph.weight(f"{name}/qkv/bias", np.concatenate([weights[f"{part}.bias"] for part in parts]))
    context = graph.attention(x, f"{name}/qkv", weight, bias, config["num_attention_heads"], int8)

    def dense(x: str, short: str, part: str) -> str:
        bias = graph.weight(f"{name}/{part}.dense/bias", weights[f"{key}.{part}.dense.bias"])
        return graph.dense(x, f"{name}/{short}", weights[f"{key}.{part}.dense.weight"].T, bias, int8)

    mixed = dense(context, "mixed", "attention.output")
    attended = _normalize(graph, weights, config, f"{key}.attention.output.LayerNorm", mixed, x, f"{name}/attended")
    active = graph.op("Gelu", [dense(attended, "wide", "intermediate")], f"{name}/active", _FUSED)
    narrow = dense(active, "narrow", "output")
    return _normalize(graph, weights, config, f"{key}.output.LayerNorm", narrow, attended, name)


def pooling_of(directory: Path) -> str:
    """How a sentence-transformers directory pools the tokens of a text: a name of `POOLINGS`; mean if it does not say.

    Raises:
        ValueError: it pools in a way that the graph has not.
    """
    path = next(iter(sorted(directory.glob("*_Pooling/config.json"))), None)
    if path is None:
        return "mean"
    config = json.loads(path.read_text(encoding="utf-8"))
    flag = "pooling_mode_"  # sentence-transformers before 6 has one for each way
    flags = [name.removeprefix(flag) for name, on in config.items() if name.startswith(flag) and on]
    found = config.get("pooling_mode", flags or "mean")
    modes = [found] if isinstance(found, str) else list(found)
    mode = modes[0].split("_")[0]  # at unit length the mean_sqrt_len is the mean
    if len(modes) > 1 or mode not in POOLINGS:
        raise ValueError(f"{path}: pools by {' and '.join(modes)}; want one of {', '.join(POOLINGS)}")
    return mode


def pooling_in(graph: onnx.ModelProto) -> str:
    """The pooling that a graph of `encoder_graph` was built with."""
    end = next(node.op_type for node in graph.graph.node if node.name == "pooled")
    return next(name for name, operator in POOLINGS.items() if operator == end)


def _pool(graph: _Builder, hidden: str, text: str, pooling: str) -> None:
    """The output's tokens as one embedding, scaled to unit length."""
    op, ends = graph.op, POOLINGS[pooling]
    if pooling == "cls":
        op(ends, [hidden, graph.weight("cls", 0, np.int64)], "pooled", axis=1)
    elif pooling == "mean":
        op("Cast", [text], "text_float", to=TensorProto.FLOAT)
        op("Unsqueeze", ["text_float", "axis1"], "text_row")  # [window, 1, token]
        op("MatMul", ["text_row", hidden], "pooled_row")  # the norm takes the place of the mean's divisor
        op(ends, ["pooled_row", "axis1"], "pooled")
    else:
        op("Unsqueeze", [text, graph.weight("axis2", [2], np.int64)], "text_column")
        op("Where", ["text_column", hidden, graph.weight("lowest", np.finfo(np.float32).min)], "text_hidden")
        op(ends, ["text_hidden"], "pooled", axes=[1], keepdims=0)
    op("LpNormalization", ["pooled"], "embedding", axis=1, p=2)


def _model(graph: _Builder, outputs: list[tuple[str, int, list[str | int]]]) -> onnx.ModelProto:
    inputs = [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["window", "token"])]
    infos = [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in outputs]
    body = helper.make_graph(graph.nodes, "severity_clf", inputs, infos, initializer=graph.weights)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(_FUSED, 1)]
    return helper.make_model(body, opset_imports=opsets, ir_version=8, producer_name="severity_clf")


def bucket_count(graph: onnx.ModelProto) -> int:
    """Rows of the n-gram table that a graph wants from its heads."""
    return int(_weights(graph, ["bucket_count"])[0].item())


def heads_of(graph: onnx.ModelProto) -> Heads | None:
    """The heads that `with_heads` put into a graph; None where it has none."""
    if not any(weight.name == HEADS + "weight" for weight in graph.graph.initializer):
        return None
    weight, table, scale, threshold = _weights(
        graph, [HEADS + name for name in ("weight", "table", "scale", "threshold")]
    )
    return Heads(weight, table[:-1], scale, threshold)  # the last row is that of no gram


def _weights(graph: onnx.ModelProto, names: list[str]) -> list[npt.NDArray[Any]]:
    found = {weight.name: weight for weight in graph.graph.initializer if weight.name in names}
    return [np.array(numpy_helper.to_array(found[name])) for name in names]


def encoder_weights(graph: onnx.ModelProto) -> tuple[dict[str, Float], dict[str, Any]]:
    """What `encoder_graph` was built from, its integers turned back into floats.

    Returns:
        the weights by their names in a BertModel, and the sizes that a `config.json` holds.

    Raises:
        ValueError: the encoder is a static one.
    """
    known = {weight.name: numpy_helper.to_array(weight) for weight in graph.graph.initializer}
    if "positions/weight" not in known:
        raise ValueError("a static encoder is not a sentence-transformers model; fine-tune base instead")

    def dense(name: str) -> Float:
        weight = known[f"{name}/weight"].astype(np.float32)
        return np.asarray(weight * known[f"{name}/scale"] if f"{name}/scale" in known else weight, np.float32)

    def norm(key: str, name: str) -> dict[str, Float]:
        return {f"{key}.LayerNorm.weight": known[f"{name}/gamma"], f"{key}.LayerNorm.bias": known[f"{name}/beta"]}

    weights = {
        "embeddings.word_embeddings.weight": dense("tokens"),
        "embeddings.position_embeddings.weight": known["positions/weight"],
        "embeddings.token_type_embeddings.weight": known["segments/weight"],
        **norm("embeddings", "embedded"),
    }
    layers = sum(name.endswith("/qkv/weight") for name in known)
    for layer in range(layers):
        key, name = f"encoder.layer.{layer}", f"layer{layer}"
        columns, biases = np.split(dense(f"{name}/qkv"), 3, axis=1), np.split(known[f"{name}/qkv/bias"], 3)
        for part, column, bias in zip(("query", "key", "value"), columns, biases, strict=True):
            weights |= {f"{key}.attention.self.{part}.weight": column.T, f"{key}.attention.self.{part}.bias": bias}
        for part, short in (("attention.output", "mixed"), ("intermediate", "wide"), ("output", "narrow")):
            weights[f"{key}.{part}.dense.weight"] = dense(f"{name}/{short}").T
            weights[f"{key}.{part}.dense.bias"] = known[f"{name}/{part}.dense/bias"]
        weights |= norm(f"{key}.attention.output", f"{name}/attended") | norm(f"{key}.output", name)
    attributes = {
        attribute.name: helper.get_attribute_value(attribute)
        for node in graph.graph.node
        for attribute in node.attribute
        if attribute.name in {"num_heads", "epsilon"}
    }
    words, dim = weights["embeddings.word_embeddings.weight"].shape
    config = {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_act": "gelu",
        "hidden_size": dim,
        "intermediate_size": len(weights["encoder.layer.0.intermediate.dense.bias"]),
        "num_hidden_layers": layers,
        "num_attention_heads": attributes["num_heads"],
        "max_position_embeddings": len(known["positions/weight"]),
        "type_vocab_size": len(known["segments/weight"]),
        "vocab_size": words,
        "layer_norm_eps": float(np.float32(attributes["epsilon"])),
        "pad_token_id": 0,
    }
    return {name: np.ascontiguousarray(weight, np.float32) for name, weight in weights.items()}, config


def with_heads(encoder: onnx.ModelProto, heads: Heads) -> onnx.ModelProto:
    """A copy of the graph whose heads are these, in place of any it had.

    latent = embedding @ weight + sum of table[buckets] * scale / sqrt(grams)   # [window, latent]
    each = sigmoid(latent - threshold)                                          # [window, latent, level-1]
    overall = each[:, harm] * each[:, grade]
    exceed = overall, then overall * each[:, relevance]                         # [window, domain, level-1]

    Raises:
        ValueError: heads of another encoder: its width, or its number of n-gram buckets, is not theirs.
    """
    embedding = next(output for output in encoder.graph.output if output.name == "embedding")
    wanted = (embedding.type.tensor_type.shape.dim[1].dim_value, bucket_count(encoder))
    found = (len(heads.weight), len(heads.table))
    if found != wanted:
        raise ValueError(
            f"heads are for an encoder of width {found[0]} with {found[1]} n-gram buckets, "
            f"this one has {wanted[0]} and {wanted[1]}; fit heads on it"
        )
    graph = _Builder()
    op, weight = graph.op, graph.weight

    weight(HEADS + "axis1", [1], np.int64)
    empty = np.zeros((1, heads.table.shape[1]), np.int8)
    op("Gather", [weight(HEADS + "table", np.concatenate([heads.table, empty]), np.int8), "buckets"], HEADS + "rows")
    op("Cast", [HEADS + "rows"], HEADS + "rows_float", to=TensorProto.FLOAT)
    op("ReduceSum", [HEADS + "rows_float", HEADS + "axis1"], HEADS + "sum", keepdims=0)
    op("Less", ["buckets", weight(HEADS + "buckets", len(heads.table), np.int64)], HEADS + "is_gram")
    op("Cast", [HEADS + "is_gram"], HEADS + "is_gram_float", to=TensorProto.FLOAT)
    op("ReduceSum", [HEADS + "is_gram_float", HEADS + "axis1"], HEADS + "grams", keepdims=1)
    op("Max", [HEADS + "grams", weight(HEADS + "one", 1)], HEADS + "at_least_one")
    op("Sqrt", [HEADS + "at_least_one"], HEADS + "root")
    op("Mul", [HEADS + "sum", weight(HEADS + "scale", heads.scale)], HEADS + "scaled")
    op("Div", [HEADS + "scaled", HEADS + "root"], HEADS + "lexical")
    op("MatMul", ["embedding", weight(HEADS + "weight", heads.weight)], HEADS + "dense")
    op("Add", [HEADS + "dense", HEADS + "lexical"], HEADS + "latent")
    op("Unsqueeze", [HEADS + "latent", weight(HEADS + "axis2", [2], np.int64)], HEADS + "latent_column")
    op("Sub", [HEADS + "latent_column", weight(HEADS + "threshold", heads.threshold)], HEADS + "logits")
    op("Sigmoid", [HEADS + "logits"], HEADS + "each")
    places = {
        name: weight(HEADS + name, [value], np.int64) for name, value in (("0", 0), ("1", 1), ("2", 2), ("end", 2**31))
    }
    for name, start, stop in (("harm", "0", "1"), ("grade", "1", "2"), ("relevance", "2", "end")):
        op("Slice", [HEADS + "each", places[start], places[stop], HEADS + "axis1"], HEADS + name)
    op("Mul", [HEADS + "harm", HEADS + "grade"], HEADS + "overall")
    op("Mul", [HEADS + "relevance", HEADS + "overall"], HEADS + "domains")
    op("Concat", [HEADS + "overall", HEADS + "domains"], "exceed", axis=1)

    model = onnx.ModelProto()
    model.CopyFrom(encoder)
    body = model.graph
    for field, added in ((body.node, graph.nodes), (body.initializer, graph.weights)):
        kept = [item for item in field if not item.name.startswith(HEADS) and item.name != "exceed"]
        del field[:]
        field.extend([*kept, *added])
    for index, output in reversed(list(enumerate(body.output))):
        if output.name == "exceed":
            del body.output[index]
    latents, steps = heads.threshold.shape
    shape: list[str | int] = ["window", latents - 1, steps]
    body.output.append(helper.make_tensor_value_info("exceed", TensorProto.FLOAT, shape))
    onnx.checker.check_model(model)
    return model

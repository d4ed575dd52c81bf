"""What each choice in the encoder's graph costs, and how near the machine's own limit the graph is.

    python -m benchmarks.engine

Other operators are put into the graph that ships, one change at a time, and every form runs the same windows of the
examples' outputs in turn, on one thread: the processor time of each run is divided by that of the shipped form beside
it, so that other work on the machine weighs on both. The limit is onnxruntime's own matrix product at its best shape.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.utils
import onnxruntime
import typer
from onnx import TensorProto, helper, numpy_helper

from benchmarks import results
from benchmarks.products import product_peak
from severity_clf.fit.export import encoder_directory
from severity_clf.fit.graph import encoder_graph, encoder_weights
from severity_clf.model import load

LENGTHS = (20, 60, 128, 256)  # tokens in a window
WINDOWS, ROUNDS = 6, 6
FUSED = "com.microsoft"
Graph = onnx.ModelProto
Array = npt.NDArray[Any]


def rewritten(model: Graph, replace: Callable[[onnx.NodeProto, dict[str, Array]], Sequence[Any] | None]) -> Graph:
    """A copy in which nodes give way to others; `replace` gives nodes and new weights; None keeps the node."""
    copy = Graph()
    copy.CopyFrom(model)
    known = {weight.name: numpy_helper.to_array(weight) for weight in copy.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        given = replace(node, known)
        for part in [node] if given is None else given:
            if isinstance(part, onnx.NodeProto):
                nodes.append(part)
            else:
                copy.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(part[1]), part[0]))
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    return copy


def node(kind: str, inputs: Sequence[str], outputs: Sequence[str], domain: str = "", **attributes: Any) -> Any:
    """One node, named after what it gives."""
    return helper.make_node(kind, inputs, outputs, name=outputs[0], domain=domain, **attributes)


def fused_norm(model: Graph) -> Graph:
    """`SkipLayerNormalization` in place of `Add` and `LayerNormalization`."""
    sums = {one.output[0]: one for one in model.graph.node if one.op_type == "Add" and one.output[0].endswith("/sum")}

    def replace(one: onnx.NodeProto, _: dict[str, Array]) -> Sequence[Any] | None:
        if one.op_type != "LayerNormalization":
            return [] if one.name in sums else None
        inputs = [*sums[one.input[0]].input, *one.input[1:]]
        return [node("SkipLayerNormalization", inputs, one.output, FUSED, epsilon=1e-12)]

    return rewritten(model, replace)


def tanh_gelu(model: Graph) -> Graph:
    """`FastGelu`, the approximation by a hyperbolic tangent."""
    return rewritten(
        model, lambda one, _: [node("FastGelu", one.input, one.output, FUSED)] if one.op_type == "Gelu" else None
    )


def float_attention(model: Graph, masked: bool = False) -> Graph:
    """A quantised product, then `MultiHeadAttention`; masked, with the number of tokens it need not look beyond."""

    def replace(one: onnx.NodeProto, _: dict[str, Array]) -> Sequence[Any] | None:
        if one.name.endswith("/qkv/input"):
            return []
        if one.op_type != "QAttention":
            return None
        name = one.output[0]
        quantised = next(other for other in model.graph.node if one.input[0] in other.output)
        inputs = [quantised.input[0], one.input[1], one.input[4], "", one.input[2]]
        parts = [f"{name}/{part}" for part in ("query", "key", "value")]
        lengths = [node("Cast", ["token_count"], [f"{name}/length"], to=TensorProto.INT32)] if masked else []
        attended = [*parts, "", f"{name}/length"] if masked else parts
        return [
            node("DynamicQuantizeMatMul", inputs, [f"{name}/product"], FUSED),
            node("Split", [f"{name}/product"], parts, axis=2),
            *lengths,
            node("MultiHeadAttention", attended, [name], FUSED, num_heads=heads_of(model)),
        ]

    return rewritten(model, replace)


def static_scales(model: Graph, windows: Sequence[Array]) -> Graph:
    """Activations rounded by scales that were fixed on some windows, in place of each run's own."""
    kinds = ("DynamicQuantizeMatMul", "DynamicQuantizeLinear")
    places = sorted({one.input[0] for one in model.graph.node if one.op_type in kinds})
    watched = Graph()
    watched.CopyFrom(model)
    watched.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in places)
    session = started(watched)
    runs = [session.run(places, {"input_ids": ids}) for ids in windows]
    ranges = {
        name: (min(run[at].min() for run in runs), max(run[at].max() for run in runs)) for at, name in enumerate(places)
    }

    def fixed(name: str, x: str) -> list[Any]:
        low, high = (float(bound) for bound in ranges[x])
        scale = (max(high, 0) - min(low, 0)) / 255
        zero = np.array(round(-min(low, 0) / scale), np.uint8)
        return [(f"{name}/s", np.array(scale, np.float32)), (f"{name}/z", zero)]

    def replace(one: onnx.NodeProto, _: dict[str, Array]) -> Sequence[Any] | None:
        name, x = one.output[0], one.input[0]
        if one.op_type == "DynamicQuantizeLinear":
            scale, zero = fixed(name, x)
            return [
                (one.output[1], scale[1]),
                (one.output[2], zero[1]),
                node("QuantizeLinear", [x, *one.output[1:]], [name]),
            ]
        if one.op_type != "DynamicQuantizeMatMul":
            return None
        inputs = [f"{name}/q", one.input[1], f"{name}/s", one.input[2], f"{name}/z", "", one.input[4]]
        rounded = node("QuantizeLinear", [x, f"{name}/s", f"{name}/z"], [f"{name}/q"])
        return [*fixed(name, x), rounded, node("MatMulIntegerToFloat", inputs, [name], FUSED)]

    return rewritten(model, replace)


def weight_only(model: Graph, bits: int, block: int = 32) -> Graph:
    """Of the float graph: `MatMulNBits`, weights alone rounded, activations in int8 blocks of their own."""

    def packed(name: str, x: str, weight: Array, out: str) -> list[Any]:
        inner, columns = weight.shape
        parts = weight.T.reshape(columns, inner // block, block)
        peak = np.abs(parts).max(axis=2, keepdims=True)
        half = 2 ** (bits - 1)
        scale = np.where(peak > 0, peak, 1) / (half - 1)
        integers = np.clip(np.rint(parts / scale) + half, 0, 2 * half - 1).astype(np.uint8)
        if bits == 4:
            integers = integers[..., ::2] | integers[..., 1::2] << 4
        sizes = {"K": inner, "N": columns, "bits": bits, "block_size": block, "accuracy_level": 4}
        scales = scale[..., 0].astype(np.float32)
        product = node("MatMulNBits", [x, f"{name}/b", f"{name}/s"], [out], FUSED, **sizes)
        return [(f"{name}/b", integers), (f"{name}/s", scales), product]

    def replace(one: onnx.NodeProto, known: dict[str, Array]) -> Sequence[Any] | None:
        name = one.output[0]
        if one.op_type == "MatMul" and name.endswith("/product"):
            return packed(name, one.input[0], known[one.input[1]], name)
        if one.op_type != "Attention":
            return None
        parts = [f"{name}/{part}" for part in ("query", "key", "value")]
        return [
            *packed(name, one.input[0], known[one.input[1]], f"{name}/product"),
            node("Add", [f"{name}/product", one.input[2]], [f"{name}/added"]),
            node("Split", [f"{name}/added"], parts, axis=2),
            node("MultiHeadAttention", parts, [name], FUSED, num_heads=heads_of(model)),
        ]

    return rewritten(model, replace)


def first_layers(model: Graph, layers: int) -> Graph:
    """The encoder cut off early."""
    last = encoder_weights(model)[1]["num_hidden_layers"] - 1

    def replace(one: onnx.NodeProto, _: dict[str, Array]) -> Sequence[Any] | None:
        inputs = [f"layer{layers - 1}" if name == f"layer{last}" else name for name in one.input]
        return [node(one.op_type, inputs, one.output)] if inputs != list(one.input) else None

    shorter = rewritten(model, replace)
    return onnx.utils.Extractor(shorter).extract_model(["input_ids"], ["embedding", "buckets"])


def heads_of(model: Graph) -> int:
    """Attention heads of the encoder."""
    return int(encoder_weights(model)[1]["num_attention_heads"]) if "positions/weight" in _names(model) else 1


def _names(model: Graph) -> set[str]:
    return {weight.name for weight in model.graph.initializer}


def started(model: Graph, profile: str = "") -> Any:
    """A session on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, profile
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def examples_windows(length: int, count: int) -> list[Array]:
    """Windows of exactly so many tokens, cut out of the examples' outputs laid end to end."""
    lines = (results.ROOT / "examples" / "outputs.jsonl").read_text(encoding="utf-8").splitlines()
    words: list[int] = []
    for windows in load("base", threads=1).tokens([json.loads(line)["output"] for line in lines]):
        words += [token for ids in windows for token in ids[1:-1]]
        cls, sep = windows[0][0], windows[0][-1]
    starts = np.linspace(0, len(words) - length, count).astype(int)
    return [np.array([[cls, *words[start : start + length - 2], sep]]) for start in starts]


def timed(sessions: dict[str, Any], windows: Sequence[Array]) -> dict[str, dict[str, float]]:
    """Milliseconds of each form for a window, in the median, and its median share of the first form's time."""
    took: dict[str, list[float]] = {name: [] for name in sessions}
    for turn in range(ROUNDS + 1):
        for ids in windows:
            for name in list(sessions)[:: 1 if turn % 2 else -1]:
                start = time.thread_time()
                sessions[name].run(["embedding"], {"input_ids": ids})
                if turn:  # the first turn allocates
                    took[name].append(time.thread_time() - start)
    first = np.array(next(iter(took.values())))
    return {
        name: {
            "milliseconds": round(1e3 * float(np.median(each)), 3),
            "ratio": round(float(np.median(each / first)), 3),
        }
        for name, each in ((name, np.array(each)) for name, each in took.items())
    }


def profiled(model: Graph, windows: Sequence[Array]) -> dict[str, float]:
    """Microseconds that each kind of operator takes for a window, by onnxruntime's profiler."""
    with tempfile.TemporaryDirectory() as folder:
        session = started(model, f"{folder}/profile")
        for _ in range(ROUNDS + 1):
            for ids in windows:
                session.run(["embedding"], {"input_ids": ids})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    took: dict[tuple[str, str], list[float]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            took.setdefault((event["args"]["op_name"], event["name"]), []).append(event["dur"])
    kinds: dict[str, float] = {}
    for (kind, _), each in took.items():
        kinds[kind] = kinds.get(kind, 0) + float(np.median(each))
    return dict(sorted(kinds.items(), key=lambda item: -item[1])[:8])


def limits(model: Graph, times: dict[str, dict[str, dict[str, float]]], found: dict[str, float]) -> dict[str, Any]:
    """The shipped form's products of whole numbers, beside the peak: in their own operators, and in all of the time."""
    weights = {weight.name: weight.dims for weight in model.graph.initializer if weight.data_type == TensorProto.INT8}
    dense = {name: int(np.prod(dims)) for name, dims in weights.items() if name.startswith("layer")}
    alone = sum(size for name, size in dense.items() if not name.endswith("/qkv/weight"))
    shares = {}
    for length in LENGTHS:
        kinds = profiled(model, examples_windows(length, WINDOWS))
        in_products = 2e-3 * alone * length / kinds["DynamicQuantizeMatMul"]
        overall = 2e-6 * sum(dense.values()) * length / times[str(length)]["shipped"]["milliseconds"]
        shares[str(length)] = {
            "microseconds": kinds,
            "products_gops": round(in_products, 1),
            "products_share": round(in_products / found["int8"], 3),
            "graph_gops": round(overall, 1),
            "graph_share": round(overall / found["int8"], 3),
        }
    return shares


def main(
    encoder: Annotated[
        Path | None, typer.Option(help="A float sentence-transformers folder. [default: base's own weights]")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where to write the results.")] = results.FOLDER / "engine.json",
) -> None:
    """Time every form of the graph beside the one that ships, one to two minutes on an idle core."""
    stamp = results.stamp(results.command_line("benchmarks.engine"), packages=("onnx",))
    with tempfile.TemporaryDirectory() as folder:
        directory = encoder or Path(folder)
        if encoder is None:
            encoder_directory("base", directory)
        shipped, floats = encoder_graph(directory), encoder_graph(directory, int8=False)
    calibration = [ids for length in LENGTHS for ids in examples_windows(length, 3 * WINDOWS)]
    forms = {
        "shipped": shipped,
        "SkipLayerNormalization": fused_norm(shipped),
        "FastGelu": tanh_gelu(shipped),
        "float attention": float_attention(shipped),
        "float attention, masked": float_attention(shipped, masked=True),
        "fixed scales": static_scales(shipped, calibration),
        "8-bit weights alone": weight_only(floats, 8),
        "4-bit weights alone": weight_only(floats, 4),
        "the first three layers": first_layers(shipped, 3),
        "float32": floats,
    }
    sessions = {name: started(model) for name, model in forms.items()}
    windows = {length: examples_windows(length, WINDOWS) for length in LENGTHS}
    times = {str(length): timed(sessions, some) for length, some in windows.items()}
    seen = {
        name: np.concatenate(
            [session.run(["embedding"], {"input_ids": ids})[0] for some in windows.values() for ids in some]
        )
        for name, session in sessions.items()
    }
    cosine = {name: (found * seen["float32"]).sum(axis=1) for name, found in seen.items()}
    found = {
        kind: round(statistics.median(product_peak(kind == "int8", 1, ROUNDS)[0]), 1) for kind in ("int8", "float32")
    }
    results.write(
        out,
        {
            "stamp": stamp,
            "forms": times,
            "cosine": {
                name: {"mean": round(float(each.mean()), 4), "min": round(float(each.min()), 4)}
                for name, each in cosine.items()
            },
            "peak_gops": found,
            "limits": limits(shipped, times, found),
        },
    )


if __name__ == "__main__":
    typer.run(main)

"""The most that onnxruntime gets out of a machine: one product of matrices, over a few shapes."""

from __future__ import annotations

import statistics
import time

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

Shape = tuple[int, int, int]  # rows, inner, columns
SHAPES: tuple[Shape, ...] = ((256, 384, 1536), (256, 1536, 384), (1024, 1024, 1024))
LEAST = 4e9  # operations that are timed together


def product(int8: bool, shape: Shape) -> bytes:
    """A graph of one product of matrices, the second of them a weight: uint8 by int8, or float32."""
    rows, inner, columns = shape
    rng = np.random.default_rng(0)
    kind, into, out = (
        ("MatMulInteger", TensorProto.UINT8, TensorProto.INT32)
        if int8
        else ("MatMul", TensorProto.FLOAT, TensorProto.FLOAT)
    )
    weight = rng.integers(-64, 64, (inner, columns)).astype(np.int8 if int8 else np.float32)
    graph = helper.make_graph(
        [helper.make_node(kind, ["x", "weight"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", into, [rows, inner])],
        [helper.make_tensor_value_info("y", out, [rows, columns])],
        [numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def product_peak(int8: bool, threads: int, rounds: int) -> tuple[list[float], Shape]:
    """Billions of operations a second in each round, a product and a sum being two, and the shape that is quickest."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    rates: dict[Shape, list[float]] = {}
    for shape in SHAPES:
        session = onnxruntime.InferenceSession(product(int8, shape), options, providers=["CPUExecutionProvider"])
        x = np.ones(shape[:2], np.uint8 if int8 else np.float32)
        operations = 2 * int(np.prod(shape))
        repeats = max(1, int(LEAST // operations))
        took = []
        for _ in range(rounds + 1):
            start = time.perf_counter()
            for _ in range(repeats):
                session.run(None, {"x": x})
            took.append(time.perf_counter() - start)
        rates[shape] = [repeats * operations / one / 1e9 for one in took[1:]]  # the first allocates
    best = max(rates, key=lambda shape: statistics.median(rates[shape]))
    return rates[best], best

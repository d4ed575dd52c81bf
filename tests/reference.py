"""A plain float reference of the graph, in numpy: slow, obvious, written from the definitions, not from the builder."""

import math
from itertools import pairwise

import numpy as np
from onnx import numpy_helper

GELU = np.vectorize(lambda x: 0.5 * x * (1 + math.erf(x / math.sqrt(2))), otypes=[np.float64])


def weights_of(model):
    """Every weight of a graph as float64, integers times their scale."""
    raw = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    return {
        name: value.astype(np.float64) * raw[name.replace("/weight", "/scale")]
        if name.endswith("/weight") and value.dtype == np.int8
        else value
        for name, value in raw.items()
    }


def layer_norm(x, gamma, beta, epsilon=1e-12):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon) * gamma + beta


def encode(weights, ids, heads, cls, sep, pooling="mean"):
    """The unit-length embedding of one window of token ids."""
    segment = np.minimum(np.cumsum(np.array(ids) == sep) - (np.array(ids) == sep), 1)
    x = weights["tokens/weight"][ids] + weights["positions/weight"][: len(ids)] + weights["segments/weight"][segment]
    x = layer_norm(x, weights["embedded/gamma"], weights["embedded/beta"])
    layer = 0
    while f"layer{layer}/qkv/weight" in weights:
        name = f"layer{layer}"

        def w(part, name=name):
            return weights[f"{name}/{part}"]

        query, key, value = np.split(x @ w("qkv/weight") + w("qkv/bias"), 3, axis=1)
        context = []
        for q, k, v in zip(*(np.split(part, heads, axis=1) for part in (query, key, value)), strict=True):
            logits = q @ k.T / np.sqrt(q.shape[1])
            attention = np.exp(logits - logits.max(1, keepdims=True))
            context.append(attention / attention.sum(1, keepdims=True) @ v)
        mixed = np.concatenate(context, axis=1) @ w("mixed/weight") + w("attention.output.dense/bias")
        x = layer_norm(x + mixed, w("attended/gamma"), w("attended/beta"))
        wide = GELU(x @ w("wide/weight") + w("intermediate.dense/bias"))
        x = layer_norm(x + wide @ w("narrow/weight") + w("output.dense/bias"), w("gamma"), w("beta"))
        layer += 1
    pooled = {"mean": np.mean, "max": np.max, "cls": lambda rows, axis: rows[0]}[pooling](x[segment == 0], axis=0)
    return pooled / np.linalg.norm(pooled)


def buckets(ids, size, cls, sep):
    """The n-gram table rows of one window: each word of the output, and each pair of neighbours."""
    words = [token for token in ids[: ids.index(sep)] if token != cls]
    pairs = [(a * 0x9E3779B1 + b * 0x85EBCA6B) % size for a, b in pairwise(words)]
    return [token % size for token in words] + pairs


def exceed(weights, embedding, grams):
    """P(severity >= k) [domain, level-1] of one window."""
    lexical = (
        weights["heads/table"].astype(np.float64)[grams].sum(0) * weights["heads/scale"] / np.sqrt(max(len(grams), 1))
    )
    latent = embedding @ weights["heads/weight"] + lexical
    each = 1 / (1 + np.exp(weights["heads/threshold"] - latent[:, None]))
    overall = each[0] * each[1]
    return np.concatenate([overall[None], overall * each[2:]])

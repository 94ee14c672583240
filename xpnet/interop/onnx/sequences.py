"""Layers of sequences in operators of ONNX: recurrent layers, attention, positions. Sequences may have any length."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from xpnet import layers
from xpnet.extras import import_extra
from xpnet.interop.onnx.builder import GraphBuilder, converter
from xpnet.interop.onnx.layers import row
from xpnet.interop.recurrent import hidden_bias, is_one_layer
from xpnet.layers import Layer
from xpnet.layers.positions import BASE
from xpnet.layers.recurrent import Recurrent

__all__: list[str] = []

GATES: dict[type[Layer], tuple[int, ...]] = {layers.RNN: (0,), layers.LSTM: (0, 3, 1, 2), layers.GRU: (1, 0, 2)}
"""Our gates in ONNX's order, by the class that is an operator of the same name.

Its LSTM has i, o, f, c, and its GRU z, r, h.
"""

ENDS = np.iinfo("int64")
"""A Slice from the largest index down to the smallest takes a whole axis."""


@converter(layers.RNN)
@converter(layers.LSTM)
@converter(layers.GRU)
def recurrent(graph: GraphBuilder, layer: Recurrent, x: str) -> str:
    return recurrent_operator(graph, x, layer)


@converter(layers.Bidirectional)
def bidirectional(graph: GraphBuilder, layer: layers.Bidirectional, x: str, padding: str | None = None) -> str:
    if padding is None and is_one_layer(layer) and type(layer.ahead) in GATES:
        return recurrent_operator(graph, x, *layer.parts.values())
    first = graph.apply(layer.ahead, x)
    second = graph.apply(layer.back, graph.like(backwards(graph, x, padding), x))
    return graph.op("Concat", first, backwards(graph, second, padding), axis=-1)


def recurrent_operator(graph: GraphBuilder, x: str, *directions: Any) -> str:
    """Add ONNX's operator for a layer, or for one in each direction. It has time first, and a state of zeros."""
    cls = type(directions[0])
    attributes: dict[str, Any] = {"hidden_size": len(directions[0].Wh)}
    if len(directions) == 2:
        attributes["direction"] = "bidirectional"
    if cls is layers.GRU:
        attributes["linear_before_reset"] = 1  # r times the product, as in cuDNN
    arrays = {
        "W": [by_gates(layer, layer.Wx).T for layer in directions],
        "R": [by_gates(layer, layer.Wh).T for layer in directions],
        "B": [
            np.concatenate([by_gates(layer, bias) for bias in (layer.b, hidden_bias(layer))]) for layer in directions
        ],
    }
    constants = [graph.constant(np.stack(each), name) for name, each in arrays.items()]
    y = graph.op(cls.__name__, graph.op("Transpose", x, perm=[1, 0, 2]), *constants, **attributes)  # (T, 2, N, H)
    return graph.op("Reshape", graph.op("Transpose", y, perm=[2, 0, 1, 3]), width(sum(len(d.Wh) for d in directions)))


def by_gates(layer: Recurrent, array: np.ndarray) -> np.ndarray:
    """Return the columns of an array in the order of ONNX's gates."""
    parts = np.split(array, layer.gates, axis=-1)
    return np.concatenate([parts[gate] for gate in GATES[type(layer)]], axis=-1)


def backwards(graph: GraphBuilder, x: str, padding: str | None = None) -> str:
    """Add nodes that reverse sequences (N, T, D) in time, up to the padding behind their ends."""
    if padding is not None:
        return graph.op("ReverseSequence", x, lengths(graph, padding), batch_axis=0, time_axis=1)
    return graph.op("Slice", x, *(np.array([i]) for i in (ENDS.max, ENDS.min, 1, -1)))


def lengths(graph: GraphBuilder, padding: str) -> str:
    """Add nodes for the lengths (N,) of padded sequences, at least 1."""
    counted = graph.cast(graph.op("Not", padding), "int64")
    number = graph.op("ReduceSum", counted, np.array([1]), keepdims=0)
    return graph.op("Max", number, np.array(1))


@converter(layers.PaddedMean)
def padded_mean(graph: GraphBuilder, layer: layers.PaddedMean, x: str) -> str:
    op = graph.op
    padding = op("Equal", x, np.array(layer.padding_id, graph.sample(x).dtype))
    y = row(graph, layer, x, padding)
    dtype = graph.sample(y).dtype
    number = graph.cast(op("Unsqueeze", lengths(graph, padding), np.array([1, 2])), dtype)
    terms = op("Where", op("Unsqueeze", padding, np.array([2])), np.zeros((), dtype), op("Div", y, number))
    return op("ReduceSum", terms, np.array([1]), keepdims=0)


def width(*sizes: int) -> np.ndarray:
    """Return a shape for Reshape: batch and time as they are, then these sizes."""
    return np.array([0, 0, *sizes])


@converter(layers.MultiHeadAttention)
def attention(graph: GraphBuilder, layer: layers.MultiHeadAttention, x: str, padding: str | None = None) -> str:
    q, k, v = heads(graph, layer, x, graph.array(layer, "W"), graph.array(layer, "b"), 3)
    if layer.rotary:
        cosines, sines = rotations(graph, layer, x)
        other = np.arange(len(layer.W) // layer.num_heads) ^ 1
        q, k = (rotated(graph, part, cosines, sines, other) for part in (q, k))
    return attention_output(graph, layer, q, k, v, padding)


@converter(layers.CrossAttention)
def cross_attention(graph: GraphBuilder, layer: layers.CrossAttention, x: str, memory: str) -> str:
    (Wq, Wkv), (bq, bkv) = (np.split(array, [len(layer.W)], axis=-1) for array in (layer.W, layer.b))
    (q,) = heads(graph, layer, x, graph.constant(Wq, "W_q"), graph.constant(bq, "b_q"), 1)
    k, v = heads(graph, layer, memory, graph.constant(Wkv, "W_kv"), graph.constant(bkv, "b_kv"), 2)
    return attention_output(graph, layer, q, k, v)


def heads(graph: GraphBuilder, layer: layers.MultiHeadAttention, x: str, W: str, b: str, parts: int) -> list[str]:
    """Add nodes from x (N, T, D) to the `parts` of x W + b, each (N, h, T, d)."""
    op, h = graph.op, layer.num_heads
    rows = op("Reshape", op("Add", op("MatMul", x, W), b), width(parts, h, len(layer.W) // h))
    stacks = op("Transpose", rows, perm=[2, 0, 3, 1, 4])
    return [op("Gather", stacks, np.array(i), axis=0) for i in range(parts)]


def attention_output(
    graph: GraphBuilder, layer: layers.MultiHeadAttention, q: str, k: str, v: str, padding: str | None = None
) -> str:
    """Add nodes from queries, keys and values to the output (N, T, D)."""
    op, D = graph.op, len(layer.W)
    scores = op("MatMul", op("Mul", q, 1.0 / math.sqrt(D / layer.num_heads)), op("Transpose", k, perm=[0, 1, 3, 2]))
    if layer.causal:
        scores = op("Add", scores, op("Trilu", hidden(graph, op("Shape", scores, start=2)), np.array(1), upper=1))
    if padding is not None:
        scores = op("Where", op("Unsqueeze", padding, np.array([1, 2])), np.array(-math.inf, graph.dtype), scores)
    o = op("MatMul", op("Softmax", scores, axis=-1), v)
    merged = op("Reshape", op("Transpose", o, perm=[0, 2, 1, 3]), width(D))
    return op("Add", op("MatMul", merged, graph.array(layer, "Wo")), graph.array(layer, "bo"))


def hidden(graph: GraphBuilder, shape: str) -> str:
    """Add a node for an array of -inf, the score of a key that a query does not see."""
    value = import_extra("onnx.numpy_helper", "onnx").from_array(np.array([-math.inf], graph.dtype))
    return graph.op("ConstantOfShape", shape, value=value)


def rotations(graph: GraphBuilder, layer: layers.MultiHeadAttention, x: str) -> tuple[str, str]:
    """Add nodes for the cosines and sines (T, d) of the rotation of each feature, of opposite signs in a pair."""
    pairs = frequencies(len(layer.W) // layer.num_heads // 2)
    angles = graph.op("Mul", positions(graph, x), np.stack([-pairs, pairs], axis=-1).ravel())
    cosines, sines = (graph.cast(graph.op(operator, angles), graph.dtype) for operator in ("Cos", "Sin"))
    return cosines, sines


def rotated(graph: GraphBuilder, x: str, cosines: str, sines: str, other: np.ndarray) -> str:
    """Add nodes that rotate pairs of features of x (N, h, T, d), given the index of the other one of each pair."""
    turned = graph.op("Mul", graph.op("Gather", x, other, axis=-1), sines)
    return graph.op("Add", graph.op("Mul", x, cosines), turned)


@converter(layers.PositionalEncoding)
def positional_encoding(graph: GraphBuilder, layer: layers.PositionalEncoding, x: str) -> str:
    features = graph.shape(x)[-1]
    if not isinstance(features, int):
        raise ValueError(
            f"{layer.name} is exported for a fixed number of features; got the axis {features} in their place"
        )
    even = np.arange(features) % 2 == 0
    angles = graph.op("Mul", positions(graph, x), np.repeat(frequencies((features + 1) // 2), 2)[:features])
    sines = graph.op("Sin", graph.op("Add", angles, np.where(even, 0.0, math.pi / 2)))  # cos a = sin(a + pi / 2)
    return graph.op("Add", x, graph.cast(sines, graph.sample(x).dtype))


@converter(layers.LearnedPositionalEncoding)
def learned_positional_encoding(graph: GraphBuilder, layer: layers.LearnedPositionalEncoding, x: str) -> str:
    length = graph.op("Shape", x, start=1, end=2)
    first = graph.op("Slice", graph.array(layer, "W"), np.array([0]), length, np.array([0]))
    return graph.op("Add", x, first)


@converter(layers.Unembedding)
def unembedding(graph: GraphBuilder, layer: layers.Unembedding, x: str) -> str:
    return graph.op("MatMul", x, graph.op("Transpose", graph.array(layer.embedding, "W"), perm=[1, 0]))


def positions(graph: GraphBuilder, x: str) -> str:
    """Add nodes for the column of positions 0 ... T - 1 of x (N, T, D), in float64: angles of late ones need it."""
    length = graph.op("Squeeze", graph.op("Shape", x, start=1, end=2), np.array([0]))
    column = graph.op("Unsqueeze", graph.op("Range", np.array(0), length, np.array(1)), np.array([1]))
    return graph.cast(column, "float64")


def frequencies(pairs: int) -> np.ndarray:
    """Return the angle from one position to the next of each pair of features."""
    return np.power(BASE, -np.arange(pairs) / max(pairs, 1))

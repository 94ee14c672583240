"""Each layer in operators of ONNX, in prediction mode."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from xpnet import layers
from xpnet.interop.onnx.builder import GraphBuilder, converter
from xpnet.layers import Layer
from xpnet.layers.row import Row

__all__: list[str] = []


@converter(layers.Affine)
def affine(graph: GraphBuilder, layer: layers.Affine, x: str) -> str:
    W, b = graph.array(layer, "W"), graph.array(layer, "b")
    if len(graph.shape(x)) == 1:
        return graph.op("Gemm", x, W, b)
    if layer.axis == -1:
        return graph.op("Add", graph.op("MatMul", x, W), b)
    return graph.op("Gemm", graph.op("Flatten", x), W, b)


@converter(layers.Convolution)
def convolution(graph: GraphBuilder, layer: layers.Convolution, x: str) -> str:
    W, b = graph.array(layer, "W"), graph.array(layer, "b")
    return graph.op("Conv", x, W, b, dilations=layer.windows.dilation, group=layer.groups, **windows(graph, layer, x))


@converter(layers.Pooling)
def pooling(graph: GraphBuilder, layer: layers.Pooling, x: str) -> str:
    return graph.op("MaxPool", x, **windows(graph, layer, x))


@converter(layers.AveragePooling)
def average_pooling(graph: GraphBuilder, layer: layers.AveragePooling, x: str) -> str:
    return graph.op("AveragePool", x, count_include_pad=1, **windows(graph, layer, x))


def windows(graph: GraphBuilder, layer: Any, x: str) -> dict[str, tuple[int, ...]]:
    """Return the attributes of sliding windows. ONNX pads each side by itself: top, left, bottom, right."""
    shape = graph.shape(x)
    if not all(
        isinstance(length, int) for length in shape
    ):  # with strides, two lengths do not show the number of windows
        raise ValueError(f"{layer.name} is exported for images of one size; input_shape must be numbers, got {shape}")
    size, stride, pad = layer.windows.size, layer.windows.stride, layer.windows.pad
    return {"kernel_shape": size, "strides": stride, "pads": (*pad, *pad)}


@converter(layers.GlobalAveragePooling)
def global_average_pooling(graph: GraphBuilder, layer: Layer, x: str) -> str:
    return graph.op("ReduceMean", x, np.array([2, 3]), keepdims=0)


@converter(layers.Flatten)
def flatten(graph: GraphBuilder, layer: Layer, x: str) -> str:
    return graph.op("Flatten", x)


@converter(layers.Embedding)
def embedding(graph: GraphBuilder, layer: layers.Embedding, x: str) -> str:
    return graph.op("Gather", graph.array(layer, "W"), x)


@converter(layers.BatchNormalization)
def batch_normalization(graph: GraphBuilder, layer: layers.BatchNormalization, x: str) -> str:
    arrays = [graph.array(layer, name) for name in ("gamma", "beta", "running_mean", "running_var")]
    shape = graph.shape(x)
    if len(shape) == 1 or (len(shape) == 3 and shape[0] == len(layer.gamma)):  # per feature, or per channel
        return graph.op("BatchNormalization", x, *arrays, epsilon=layer.eps)
    y = graph.op("BatchNormalization", graph.op("Flatten", x), *arrays, epsilon=layer.eps)
    return graph.op("Reshape", y, graph.op("Shape", x), allowzero=1)  # a batch may be empty


@converter(layers.LayerNorm)
def layer_norm(graph: GraphBuilder, layer: layers.LayerNorm, x: str) -> str:
    gamma, beta = graph.array(layer, "gamma"), graph.array(layer, "beta")
    return graph.op("LayerNormalization", x, gamma, beta, axis=-layer.gamma.ndim, epsilon=layer.eps)


@converter(layers.Dropout)
def dropout(graph: GraphBuilder, layer: layers.Dropout, x: str) -> str:
    return graph.op("Mul", x, 1.0 - layer.dropout_ratio) if layer.scale_at_test else graph.op("Identity", x)


@converter(layers.Normalize)
def normalize(graph: GraphBuilder, layer: layers.Normalize, x: str) -> str:
    sample, D = graph.sample(x), len(layer.mean)
    per_value = sample.shape[1:] if math.prod(sample.shape[1:]) == D else (D, 1, 1)  # or per channel
    mean, std = (
        graph.constant(getattr(layer, name).astype(sample.dtype).reshape(per_value if D > 1 else ()), name)
        for name in ("mean", "std")
    )
    return graph.op("Div", graph.op("Sub", x, mean), std)


@converter(Row)
def row(graph: GraphBuilder, layer: Row, x: str, padding: str | None = None) -> str:
    for part in layer.parts.values():
        x = graph.apply(part, x, padding=padding)
    return x


@converter(layers.Residual)
def residual(graph: GraphBuilder, layer: layers.Residual, x: str, padding: str | None = None) -> str:
    return graph.op("Add", row(graph, layer, x, padding), x)


@converter(layers.LeakyRelu)
def leaky_relu(graph: GraphBuilder, layer: layers.LeakyRelu, x: str) -> str:
    return graph.op("LeakyRelu", x, alpha=layer.negative_slope)


@converter(layers.Elu)
def elu(graph: GraphBuilder, layer: layers.Elu, x: str) -> str:
    return graph.op("Elu", x, alpha=layer.alpha)


@converter(layers.Silu)
def silu(graph: GraphBuilder, layer: layers.Silu, x: str) -> str:
    return graph.op("Mul", x, graph.op("Sigmoid", x))


@converter(layers.Gelu)
def gelu(graph: GraphBuilder, layer: layers.Gelu, x: str) -> str:
    op = graph.op  # the operator Gelu is of opset 20
    if layer.approximate == "none":
        g = op("Erf", op("Mul", x, math.sqrt(0.5)))
    else:
        cubic = op("Add", op("Mul", op("Mul", x, x), 0.044715), 1.0)
        g = op("Tanh", op("Mul", op("Mul", x, math.sqrt(2 / math.pi)), cubic))
    return op("Mul", x, op("Mul", op("Add", g, 1.0), 0.5))


@converter(layers.SoftmaxWithLoss)
@converter(layers.Softmax)
def softmax(graph: GraphBuilder, layer: Layer, x: str) -> str:
    return graph.op("Softmax", x, axis=-1)


def same(cls: type[Layer], operator: str) -> None:
    """Declare a layer that is one operator without attributes."""
    converter(cls)(lambda graph, layer, *inputs: graph.op(operator, *inputs))


def reduction(cls: type[Layer], operator: str) -> None:
    """Declare a layer that reduces axes, by default all."""

    def reduce(graph: GraphBuilder, layer: Any, x: str) -> str:
        axes = () if layer.axis is None else (np.atleast_1d(np.array(layer.axis, "int64")),)
        return graph.op(operator, x, *axes, keepdims=int(layer.keepdims), noop_with_empty_axes=int(bool(axes)))

    converter(cls)(reduce)


same(layers.Relu, "Relu")
same(layers.Sigmoid, "Sigmoid")
same(layers.SigmoidWithLoss, "Sigmoid")
same(layers.Tanh, "Tanh")
same(layers.Softplus, "Softplus")
same(layers.ExpLayer, "Exp")
same(layers.LogLayer, "Log")
same(layers.AddLayer, "Add")
same(layers.SubLayer, "Sub")
same(layers.MulLayer, "Mul")
same(layers.DivLayer, "Div")
same(layers.PowLayer, "Pow")
same(layers.MatMulLayer, "MatMul")
reduction(layers.SumLayer, "ReduceSum")
reduction(layers.MeanLayer, "ReduceMean")
reduction(layers.MaxLayer, "ReduceMax")

"""A description of each layer and loss, from which the tests of all of them follow."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from xpnet.functions import one_hot
from xpnet.layers import (
    GRU,
    LSTM,
    RNN,
    AddLayer,
    Affine,
    AveragePooling,
    BatchNormalization,
    Bidirectional,
    Convolution,
    CrossAttention,
    DivLayer,
    Dropout,
    Elu,
    Embedding,
    ExpLayer,
    Flatten,
    Gelu,
    GlobalAveragePooling,
    HingeWithLoss,
    HuberWithLoss,
    IdentityWithLoss,
    LayerNorm,
    LeakyRelu,
    LearnedPositionalEncoding,
    LogLayer,
    MatMulLayer,
    MaxLayer,
    MeanLayer,
    MulLayer,
    MultiHeadAttention,
    Normalize,
    PaddedMean,
    PoissonWithLoss,
    Pooling,
    PositionalEncoding,
    PowLayer,
    Relu,
    Residual,
    Sigmoid,
    SigmoidWithLoss,
    Silu,
    Softmax,
    SoftmaxWithLoss,
    Softplus,
    SubLayer,
    SumLayer,
    Tanh,
    TransformerBlock,
    Unembedding,
)
from xpnet.testing import check_layer, check_loss


@dataclass
class Case:
    """A layer, and arguments for its forward."""

    make: object
    inputs: object
    labels: dict[str, np.ndarray] = field(default_factory=dict)


def away_from_zero(x):
    """Keep ReLU's inputs off its kink, where a central difference is no derivative."""
    return x + np.copysign(0.01, x)


def distinct(rng, shape):
    """Keep maxima apart, where a central difference would see two of them."""
    return rng.permutation(np.prod(shape, dtype=int)).reshape(shape) * 0.1


def affine(rng, dtype, D=6, M=4, **settings):
    return Affine(rng.standard_normal((D, M)).astype(dtype), rng.standard_normal(M).astype(dtype), **settings)


def recurrent(kind, D=3, H=2):
    def make(rng, dtype):
        layer = kind.from_sizes(D, H, std=0.5, rng=rng, dtype=dtype)
        for name in kind.parameter_names[2:]:
            setattr(layer, name, rng.standard_normal(getattr(layer, name).shape).astype(dtype))
        return layer

    return make


def attention(kind=MultiHeadAttention, D=4, heads=2, **settings):
    def make(rng, dtype):
        layer = kind.from_sizes(D, heads, std=0.7, rng=rng, dtype=dtype, **settings)
        layer.b, layer.bo = rng.standard_normal(3 * D).astype(dtype), rng.standard_normal(D).astype(dtype)
        return layer

    return make


def some_padding(T):
    """All of the second sequence is padding, and the end of the others."""
    return {"padding": lambda rng, n: (np.arange(T) > T // 2) | (np.arange(n) == 1)[:, None]}


def sequences(T=4, D=3):
    return lambda rng, n: [rng.standard_normal((n, T, D))]


def convolution(C=2, F=3, size=(3, 2), **settings):
    def make(rng, dtype):
        W, b = rng.standard_normal((F, C // settings.get("groups", 1), *size)), rng.standard_normal(F)
        return Convolution(W.astype(dtype), b.astype(dtype), **settings)

    return make


def images(C=2, H=5, W=4):
    return lambda rng, n: [distinct(rng, (n, C, H, W)) - 1.0]


def normalization(kind, *shape, **settings):
    def make(rng, dtype):
        return kind(
            1 + 0.1 * rng.standard_normal(shape).astype(dtype), rng.standard_normal(shape).astype(dtype), **settings
        )

    return make


def fixed_normalization(D):
    return lambda rng, dtype: Normalize(rng.standard_normal(D).astype(dtype), 0.5 + rng.random(D).astype(dtype))


CASES = {
    "batch normalization": Case(normalization(BatchNormalization, 5), lambda rng, n: [rng.standard_normal((n, 5))]),
    "batch normalization per channel": Case(
        normalization(BatchNormalization, 3, momentum=0.5), lambda rng, n: [rng.standard_normal((n, 3, 2, 4))]
    ),
    "batch normalization per feature": Case(
        normalization(BatchNormalization, 12, eps=0.1), lambda rng, n: [rng.standard_normal((n, 3, 2, 2))]
    ),
    "layer norm": Case(normalization(LayerNorm, 5), lambda rng, n: [rng.standard_normal((n, 5))]),
    "layer norm over two axes": Case(
        normalization(LayerNorm, 3, 4), lambda rng, n: [rng.standard_normal((n, 2, 3, 4))]
    ),
    "normalize": Case(fixed_normalization(5), lambda rng, n: [rng.standard_normal((n, 5))]),
    "normalize per channel": Case(fixed_normalization(3), lambda rng, n: [rng.standard_normal((n, 3, 2, 4))]),
    "normalize per value of images": Case(fixed_normalization(12), lambda rng, n: [rng.standard_normal((n, 3, 2, 2))]),
    "normalize all values": Case(fixed_normalization(1), lambda rng, n: [rng.standard_normal((n, 3, 2))]),
    "dropout": Case(lambda rng, dtype: Dropout(0.4, seed=3), lambda rng, n: [rng.standard_normal((n, 6))]),
    "dropout of the book": Case(
        lambda rng, dtype: Dropout(scale_at_test=True, seed=3),
        lambda rng, n: [rng.standard_normal((n, 2, 3))],
    ),
    "mul": Case(lambda rng, dtype: MulLayer(), lambda rng, n: [rng.standard_normal((n, 3)) for _ in range(2)]),
    "mul broadcast": Case(
        lambda rng, dtype: MulLayer(), lambda rng, n: [rng.standard_normal((n, 1, 3)), rng.standard_normal((2, 1))]
    ),
    "add": Case(lambda rng, dtype: AddLayer(), lambda rng, n: [rng.standard_normal((n, 3)) for _ in range(2)]),
    "add broadcast": Case(
        lambda rng, dtype: AddLayer(), lambda rng, n: [rng.standard_normal((n, 1, 3)), rng.standard_normal((2, 1))]
    ),
    "sub": Case(lambda rng, dtype: SubLayer(), lambda rng, n: [rng.standard_normal((n, 3)) for _ in range(2)]),
    "sub broadcast": Case(
        lambda rng, dtype: SubLayer(), lambda rng, n: [rng.standard_normal((n, 1, 3)), rng.standard_normal((2, 1))]
    ),
    "div": Case(lambda rng, dtype: DivLayer(), lambda rng, n: [rng.standard_normal((n, 3)), 0.5 + rng.random((n, 3))]),
    "div broadcast": Case(
        lambda rng, dtype: DivLayer(), lambda rng, n: [rng.standard_normal((n, 1, 3)), 0.5 + rng.random((2, 1))]
    ),
    "pow": Case(lambda rng, dtype: PowLayer(), lambda rng, n: [0.5 + rng.random((n, 3)), rng.standard_normal((n, 3))]),
    "pow broadcast": Case(
        lambda rng, dtype: PowLayer(), lambda rng, n: [0.5 + rng.random((n, 1, 3)), rng.standard_normal((2, 1))]
    ),
    "matmul": Case(
        lambda rng, dtype: MatMulLayer(), lambda rng, n: [rng.standard_normal((n, 4)), rng.standard_normal((4, 2))]
    ),
    "exp": Case(lambda rng, dtype: ExpLayer(), lambda rng, n: [rng.standard_normal((n, 5))]),
    "log": Case(lambda rng, dtype: LogLayer(), lambda rng, n: [0.5 + rng.random((n, 5))]),
    "sum": Case(lambda rng, dtype: SumLayer(), lambda rng, n: [rng.standard_normal((n, 5))]),
    "sum of an axis": Case(lambda rng, dtype: SumLayer(-1), lambda rng, n: [rng.standard_normal((n, 2, 5))]),
    "sum of axes, kept": Case(
        lambda rng, dtype: SumLayer((1, 2), keepdims=True), lambda rng, n: [rng.standard_normal((n, 2, 5))]
    ),
    "mean of an axis": Case(lambda rng, dtype: MeanLayer(1), lambda rng, n: [rng.standard_normal((n, 2, 5))]),
    "max of an axis": Case(lambda rng, dtype: MaxLayer(-1), lambda rng, n: [distinct(rng, (n, 5))]),
    "max of axes, kept": Case(
        lambda rng, dtype: MaxLayer((1, 2), keepdims=True), lambda rng, n: [distinct(rng, (n, 2, 5))]
    ),
    "relu": Case(lambda rng, dtype: Relu(), lambda rng, n: [away_from_zero(rng.standard_normal((n, 5)))]),
    "relu 4-D": Case(lambda rng, dtype: Relu(), lambda rng, n: [away_from_zero(rng.standard_normal((n, 2, 3, 3)))]),
    "sigmoid": Case(lambda rng, dtype: Sigmoid(), lambda rng, n: [rng.standard_normal((n, 5))]),
    "leaky relu": Case(
        lambda rng, dtype: LeakyRelu(0.2), lambda rng, n: [away_from_zero(rng.standard_normal((n, 2, 4)))]
    ),
    "elu": Case(lambda rng, dtype: Elu(), lambda rng, n: [away_from_zero(rng.standard_normal((n, 5)))]),
    "elu, 0.5": Case(lambda rng, dtype: Elu(0.5), lambda rng, n: [away_from_zero(rng.standard_normal((n, 2, 4)))]),
    "tanh": Case(lambda rng, dtype: Tanh(), lambda rng, n: [rng.standard_normal((n, 2, 4))]),
    "softplus": Case(lambda rng, dtype: Softplus(), lambda rng, n: [3.0 * rng.standard_normal((n, 2, 4))]),
    "silu": Case(lambda rng, dtype: Silu(), lambda rng, n: [3.0 * rng.standard_normal((n, 2, 4))]),
    "gelu": Case(lambda rng, dtype: Gelu(), lambda rng, n: [2.0 * rng.standard_normal((n, 2, 4))]),
    "gelu, tanh": Case(lambda rng, dtype: Gelu("tanh"), lambda rng, n: [2.0 * rng.standard_normal((n, 2, 4))]),
    "softmax": Case(lambda rng, dtype: Softmax(), lambda rng, n: [rng.standard_normal((n, 5))]),
    "softmax 3-D": Case(lambda rng, dtype: Softmax(), lambda rng, n: [rng.standard_normal((n, 2, 4))]),
    "affine": Case(affine, lambda rng, n: [rng.standard_normal((n, 6))]),
    "affine 4-D": Case(affine, lambda rng, n: [rng.standard_normal((n, 1, 2, 3))]),
    "affine of each position": Case(
        lambda rng, dtype: affine(rng, dtype, 3, 4, axis=-1), lambda rng, n: [rng.standard_normal((n, 2, 2, 3))]
    ),
    "rnn": Case(recurrent(RNN), sequences()),
    "lstm": Case(recurrent(LSTM), sequences()),
    "gru": Case(recurrent(GRU), sequences()),
    "lstm from a state": Case(recurrent(LSTM), sequences(), {"state": lambda rng, n: rng.standard_normal((2, n, 2))}),
    "lstm in both directions": Case(
        lambda rng, dtype: Bidirectional(recurrent(LSTM)(rng, dtype), recurrent(GRU)(rng, dtype)), sequences()
    ),
    "attention": Case(attention(), sequences(3, 4)),
    "causal attention, all scores at once": Case(attention(causal=True, block_size=None), sequences(4, 4)),
    "causal attention in blocks, rotary": Case(attention(causal=True, rotary=True, block_size=2), sequences(5, 4)),
    "attention with padding": Case(attention(block_size=None), sequences(3, 4), some_padding(3)),
    "attention with padding, in blocks": Case(attention(causal=True, block_size=2), sequences(5, 4), some_padding(5)),
    "cross attention": Case(
        attention(CrossAttention), lambda rng, n: [rng.standard_normal((n, 3, 4)), rng.standard_normal((n, 2, 4))]
    ),
    "cross attention with padding, in blocks": Case(
        attention(CrossAttention, block_size=2),
        lambda rng, n: [rng.standard_normal((n, 2, 4)), rng.standard_normal((n, 5, 4))],
        some_padding(5),
    ),
    "positional encoding": Case(lambda rng, dtype: PositionalEncoding(), sequences(3, 5)),
    "learned positional encoding": Case(
        lambda rng, dtype: LearnedPositionalEncoding.from_sizes(4, 2, rng=rng, dtype=dtype), sequences(3, 2)
    ),
    "convolution": Case(convolution(), images()),
    "convolution strided and padded": Case(convolution(stride=(2, 1), pad=(0, 2)), images()),
    "convolution dilated": Case(convolution(size=(2, 2), dilation=(3, 2), pad=1), images()),
    "convolution in groups": Case(convolution(C=4, F=6, groups=2, size=(2, 3), stride=2), images(C=4)),
    "convolution of each channel": Case(convolution(C=3, F=3, groups=3, pad=1), images(C=3)),
    "pooling": Case(lambda rng, dtype: Pooling(2, 2), images()),
    "pooling with overlap": Case(lambda rng, dtype: Pooling(3, 2, stride=(2, 1), pad=(1, 0)), images()),
    "pooling with gaps": Case(lambda rng, dtype: Pooling(1, 2, stride=3), images()),
    "average pooling": Case(lambda rng, dtype: AveragePooling(2, 2), images()),
    "average pooling with overlap": Case(lambda rng, dtype: AveragePooling(3, 2, stride=(2, 1), pad=(1, 1)), images()),
    "global average pooling": Case(lambda rng, dtype: GlobalAveragePooling(), images()),
    "flatten": Case(lambda rng, dtype: Flatten(), images()),
    "embedding": Case(
        lambda rng, dtype: Embedding(rng.standard_normal((5, 3)).astype(dtype)),
        lambda rng, n: [rng.integers(0, 5, n)],
    ),
    "padded mean": Case(
        lambda rng, dtype: PaddedMean(
            Embedding(rng.standard_normal((4, 3)).astype(dtype)),
            Bidirectional(*(RNN.from_sizes(3, 2, rng=rng, dtype=dtype) for _ in range(2))),
            padding_id=0,
        ),
        lambda rng, n: [np.sort(rng.integers(0, 4, (n, 3)))[:, ::-1].copy()],
    ),
    "embedding of sequences": Case(
        lambda rng, dtype: Embedding(rng.standard_normal((3, 4)).astype(dtype)),
        lambda rng, n: [rng.integers(0, 3, (n, 2, 2)).astype("uint16")],
    ),
    "unembedding": Case(
        lambda rng, dtype: Unembedding(Embedding(rng.standard_normal((5, 3)).astype(dtype))), sequences(2, 3)
    ),
    "transformer block": Case(
        lambda rng, dtype: TransformerBlock.from_sizes(4, 2, causal=True, std=0.5, rng=rng, dtype=dtype),
        sequences(3, 4),
    ),
    "transformer block with dropout": Case(
        lambda rng, dtype: TransformerBlock.from_sizes(
            4, 2, hidden_size=3, rotary=True, dropout=0.3, rng=rng, dtype=dtype
        ),
        sequences(2, 4),
    ),
    "residual": Case(
        lambda rng, dtype: Residual(affine(rng, dtype, 5, 4), Tanh(), affine(rng, dtype, 4, 5)),
        lambda rng, n: [rng.standard_normal((n, 5))],
    ),
    "residual with normalization and dropout": Case(
        lambda rng, dtype: Residual(
            normalization(BatchNormalization, 5)(rng, dtype),
            LeakyRelu(0.2),
            Dropout(0.3, seed=1),
            Residual(affine(rng, dtype, 5, 5)),
        ),
        lambda rng, n: [rng.standard_normal((n, 5))],
    ),
    "residual of images": Case(
        lambda rng, dtype: Residual(
            convolution(F=3, pad=1, size=(3, 3))(rng, dtype), Sigmoid(), convolution(C=3, F=2, size=(1, 1))(rng, dtype)
        ),
        images(),
    ),
    "softmax one-hot": Case(
        lambda rng, dtype: SoftmaxWithLoss(),
        lambda rng, n: [rng.standard_normal((n, 4))],
        {"t": lambda rng, n: one_hot(rng.integers(0, 4, n), 4, "float64")},
    ),
    "softmax labels": Case(
        lambda rng, dtype: SoftmaxWithLoss(),
        lambda rng, n: [rng.standard_normal((n, 4))],
        {"t": lambda rng, n: rng.integers(0, 4, n)},
    ),
    "softmax smoothed and weighted": Case(
        lambda rng, dtype: SoftmaxWithLoss(0.1, rng.random(4).astype(dtype)),
        lambda rng, n: [rng.standard_normal((n, 4))],
        {"t": lambda rng, n: rng.integers(0, 4, n)},
    ),
    "softmax smoothed probabilities": Case(
        lambda rng, dtype: SoftmaxWithLoss(0.2),
        lambda rng, n: [rng.standard_normal((n, 4))],
        {"t": lambda rng, n: one_hot(rng.integers(0, 4, n), 4, "float64")},
    ),
    "softmax labels of sequences": Case(
        lambda rng, dtype: SoftmaxWithLoss(),
        lambda rng, n: [rng.standard_normal((n, 3, 4))],
        {"t": lambda rng, n: rng.integers(0, 4, (n, 3))},
    ),
    "softmax weighted sequences": Case(
        lambda rng, dtype: SoftmaxWithLoss(0.1, rng.random(4).astype(dtype)),
        lambda rng, n: [rng.standard_normal((n, 3, 4))],
        {"t": lambda rng, n: rng.integers(0, 4, (n, 3))},
    ),
    "sigmoid with loss": Case(
        lambda rng, dtype: SigmoidWithLoss(),
        lambda rng, n: [rng.standard_normal((n, 4))],
        {"t": lambda rng, n: rng.integers(0, 2, (n, 4))},
    ),
    "sigmoid with loss, one column": Case(
        lambda rng, dtype: SigmoidWithLoss(),
        lambda rng, n: [rng.standard_normal((n, 1))],
        {"t": lambda rng, n: rng.random(n)},
    ),
    "identity with loss": Case(
        lambda rng, dtype: IdentityWithLoss(),
        lambda rng, n: [rng.standard_normal((n, 3))],
        {"t": lambda rng, n: rng.standard_normal((n, 3))},
    ),
    "poisson with loss": Case(
        lambda rng, dtype: PoissonWithLoss(),
        lambda rng, n: [rng.standard_normal((n, 3))],
        {"t": lambda rng, n: rng.poisson(2.0, (n, 3))},
    ),
    "huber with loss": Case(
        lambda rng, dtype: HuberWithLoss(0.7),
        lambda rng, n: [rng.standard_normal((n, 2, 3))],
        {"t": lambda rng, n: rng.standard_normal((n, 2, 3))},
    ),
    "hinge labels": Case(
        lambda rng, dtype: HingeWithLoss(),
        lambda rng, n: [1.03 * distinct(rng, (n, 4))],
        {"t": lambda rng, n: rng.integers(0, 4, n)},
    ),
    "hinge one-hot": Case(
        lambda rng, dtype: HingeWithLoss(0.5),
        lambda rng, n: [distinct(rng, (n, 4)) * 1.3],
        {"t": lambda rng, n: one_hot(rng.integers(0, 4, n), 4, "float64")},
    ),
    "softmax unnormalized labels": Case(
        lambda rng, dtype: SoftmaxWithLoss(),
        lambda rng, n: [rng.standard_normal((n, 4))],
        {"t": lambda rng, n: rng.random((n, 4))},
    ),
}


def build(case, rng, n=3):
    """Return the layer, its inputs (to be differentiated) and what else forward takes, on the host."""
    return case.make(rng, "float64"), case.inputs(rng, n), {key: make(rng, n) for key, make in case.labels.items()}


def check_case(name, check, device, rng, n=3):
    layer, inputs, arguments = build(CASES[name], rng, n)
    if "t" in arguments:
        return check_loss(layer, *inputs, arguments["t"], device=device, checks=[check])
    return check_layer(layer, *inputs, arguments=arguments, device=device, checks=[check])

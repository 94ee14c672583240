"""What holds for every layer, from one description of each: see CASES."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xpnet import asnumpy
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
    Layer,
    LayerNorm,
    LeakyRelu,
    LearntPositionalEncoding,
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
from xpnet.testing.layer import LAYER_CHECKS
from xpnet.testing.loss import LOSS_CHECKS


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
    "learnt positional encoding": Case(
        lambda rng, dtype: LearntPositionalEncoding.from_sizes(4, 2, rng=rng, dtype=dtype), sequences(3, 2)
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
    "softmax unnormalised labels": Case(
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


@pytest.mark.parametrize(
    ("name", "check"),
    [(name, check) for name, case in CASES.items() for check in (LOSS_CHECKS if "t" in case.labels else LAYER_CHECKS)],
)
def test_every_layer(name, check, device, rng):
    outcome = check_case(name, check, device, rng).checks[check]
    if outcome.outcome == "not applicable":
        pytest.skip(outcome.reason)


@given(st.integers(0, 2**32), st.integers(1, 6), st.sampled_from(sorted(CASES)))
@settings(max_examples=60)
def test_backward_is_the_derivative_of_forward_anywhere(seed, n, name):
    check_case(name, "gradient", "cpu", np.random.default_rng(seed), n)


def test_dout_of_another_shape_is_refused(device, rng):
    for name in (
        "mul",
        "add",
        "relu",
        "sigmoid",
        "affine",
        "convolution",
        "pooling",
        "average pooling",
        "flatten",
        "residual",
    ):
        layer, inputs, _ = build(CASES[name], rng)
        layer.to(device)
        y = layer.forward(*(device.asarray(x) for x in inputs))
        with pytest.raises(ValueError, match=r"backward expected dout of its output's shape \(3, \d.*, got \(3, 1"):
            layer.backward(y[:, :1])


def test_relu_is_off_at_zero_and_for_nan(device):
    layer = Relu()
    y = layer.forward(device.asarray([[-1.0, 0.0, 2.0, np.nan]]))
    np.testing.assert_array_equal(asnumpy(y), [[0.0, 0.0, 2.0, np.nan]])
    dx = layer.backward(device.asarray([[5.0, 5.0, 5.0, 5.0]]))
    np.testing.assert_array_equal(asnumpy(dx), [[0.0, 0.0, 5.0, 0.0]])


def test_apple_graph_of_the_book():
    price, tax = MulLayer(), MulLayer()
    assert tax.forward(price.forward(100, 2), 1.1) == pytest.approx(220)
    dprice, dtax = tax.backward(1)
    assert (*price.backward(dprice), dtax) == pytest.approx((2.2, 110, 200))


def test_a_layer_leaves_a_call_to_an_input_that_applies_layers():
    class Recorder:
        def apply_layer(self, layer, inputs):
            return self, layer, inputs

    add, first, second = AddLayer(), Recorder(), Recorder()
    assert add(1, 2) == 3
    assert add(1, first) == (first, add, (1, first))
    assert add(first, second) == (first, add, (first, second))


class TestAffine:
    def test_keeps_the_very_arrays_it_is_given(self, device):
        W, b = device.xp.zeros((2, 3)), device.xp.zeros(3)
        layer = Affine(W, b)
        assert layer.W is W
        assert layer.b is b
        W += 1.0
        b += 2.0
        np.testing.assert_array_equal(asnumpy(layer.forward(device.asarray([[1.0, 1.0]]))), [[4.0, 4.0, 4.0]])

    def test_flattens_the_axes_of_a_sample_and_restores_them(self, device, rng):
        layer = affine(rng, "float64")
        layer.to(device)
        x = device.asarray(rng.standard_normal((2, 1, 2, 3)))
        y = layer.forward(x)
        np.testing.assert_array_equal(asnumpy(y), asnumpy(layer.forward(x.reshape(2, 6))))
        layer.forward(x)
        assert layer.backward(y).shape == x.shape

    def test_says_which_shape_it_expected(self, device):
        layer = Affine.from_sizes(784, 10, rng=0)
        layer.to(device)
        x = device.xp.zeros((100, 28, 27), "float32")
        with pytest.raises(ValueError, match=r"Affine expected x of shape \(N, 784\).*got \(N, 28, 27\)"):
            layer.forward(x)
        with pytest.raises(ValueError, match=r"a single sample needs a batch axis: x\[None\]"):
            layer.forward(device.xp.zeros(784, "float32"))

    def test_refuses_parameters_that_do_not_fit(self):
        with pytest.raises(ValueError, match=r"expected W to be an array of shape \(D, M\), got shape \(3,\)"):
            Affine(np.zeros(3), np.zeros(3))
        with pytest.raises(ValueError, match=r"expected b of shape \(3,\) to go with W \(2, 3\), got shape \(2,\)"):
            Affine(np.zeros((2, 3)), np.zeros(2))
        with pytest.raises(ValueError, match=r"expected W to be an array of shape \(D, M\), got list"):
            Affine([[1.0]], [1.0])

    def test_from_sizes_draws_from_the_generator(self):
        a, b = Affine.from_sizes(50, 40, std=0.5, rng=3), Affine.from_sizes(50, 40, std=0.5, rng=3)
        np.testing.assert_array_equal(a.W, b.W)
        assert a.W.dtype == a.b.dtype == "float32"
        assert a.W.std() == pytest.approx(0.5, rel=0.1)
        assert not a.b.any()
        assert Affine.from_sizes(50, 400, std="he", rng=3).W.std() == pytest.approx(0.2, rel=0.1)
        assert Affine.from_sizes(100, 400, std="xavier", rng=3).W.std() == pytest.approx(0.1, rel=0.1)
        for std in ("hee", -1.0, float("nan")):
            with pytest.raises(ValueError, match="std must be"):
                Affine.from_sizes(2, 2, std=std)


class TestSoftmaxWithLoss:
    @pytest.mark.parametrize("scale", [1e4, -1e4, 1.0])
    def test_is_exact_for_scores_of_any_size(self, device, scale):
        x = device.asarray([[scale, 0.0], [0.0, scale]])
        layer = SoftmaxWithLoss()
        loss = float(layer.forward(x, device.asarray([0, 0])))
        expected = (np.logaddexp(0, -scale) + np.logaddexp(0, scale)) / 2
        assert loss == pytest.approx(expected, rel=1e-12)
        assert np.isfinite(asnumpy(layer.backward())).all()

    def test_gradient_is_y_minus_t_exactly(self, device, rng):
        x, t = device.asarray(rng.standard_normal((4, 3))), device.asarray([2, 0, 1, 1])
        layer = SoftmaxWithLoss()
        layer.forward(x, t)
        error = asnumpy(layer.y) - np.eye(3)[[2, 0, 1, 1]]
        np.testing.assert_array_equal(asnumpy(layer.backward()), error * 0.25)
        np.testing.assert_array_equal(asnumpy(layer.backward(4.0)), error)

    def test_one_hot_and_class_ids_agree(self, device, rng):
        x, t = device.asarray(rng.standard_normal((4, 3))), device.asarray([2, 0, 1, 1])
        a, b = SoftmaxWithLoss(), SoftmaxWithLoss()
        assert float(a.forward(x, t)) == pytest.approx(float(b.forward(x, one_hot(t, 3, "float64"))), rel=1e-14)
        np.testing.assert_allclose(asnumpy(a.backward()), asnumpy(b.backward()), atol=1e-16)

    def test_takes_a_single_sample(self, device):
        layer = SoftmaxWithLoss()
        x = device.asarray([1.0, 2.0, 3.0])
        assert float(layer.forward(x, device.asarray(1))) == pytest.approx(1.4076059644)
        assert layer.backward().shape == (3,)

    @pytest.mark.parametrize("bad", [-1, 3])
    def test_a_class_id_out_of_range_never_passes_for_a_loss(self, device, bad):
        x, t = device.asarray(np.zeros((2, 3))), device.asarray([0, bad])
        if device.name == "cpu":
            with pytest.raises(ValueError, match=r"class ids must lie in \[0, 3\)"):
                SoftmaxWithLoss().forward(x, t)
        else:
            assert np.isnan(float(SoftmaxWithLoss().forward(x, t)))


def test_a_layer_is_moved_by_the_device_or_its_name(second):
    layer = Affine.from_sizes(3, 2, rng=0)
    layer.to(second.name, "float64")
    assert layer.W.device.id == layer.b.device.id == 1
    layer.to("cpu")
    assert type(layer.W) is np.ndarray
    assert layer.W.dtype == "float64"


def test_a_layer_says_what_it_lacks():
    class Unfinished(Layer):
        pass

    with pytest.raises(NotImplementedError, match=r"Unfinished must define forward\(x, train=True\)"):
        Unfinished().forward(np.zeros(1))
    with pytest.raises(AttributeError, match="'Relu' object has no attribute 'maks'"):
        Relu().maks  # noqa: B018


EVERYWHERE = {
    "leaky relu": (LeakyRelu, lambda x: x if x > 0 else 0.01 * x),
    "elu": (Elu, lambda x: x if x > 0 else math.expm1(x)),
    "tanh": (Tanh, math.tanh),
    "softplus": (Softplus, lambda x: x if x > 700 else math.log1p(math.exp(x))),
    "silu": (Silu, lambda x: x / (1 + math.exp(-x)) if x > -700 else 0.0),
    "gelu": (Gelu, lambda x: x * math.erfc(-x / math.sqrt(2)) / 2),
    "gelu, tanh": (lambda: Gelu("tanh"), None),
}


@pytest.mark.parametrize(("make", "formula"), EVERYWHERE.values(), ids=EVERYWHERE)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_activations_take_numbers_of_any_size(device, make, formula, dtype):
    x = np.array([-np.inf, -1e30, -1e4, -40.0, -1.0, 0.0, 1.0, 40.0, 1e4, 1e30, np.inf], dtype)
    layer = make()
    y = asnumpy(layer.forward(device.asarray(x)))
    dx = asnumpy(layer.backward(device.asarray(np.ones_like(x))))
    assert y.dtype == dx.dtype == dtype
    assert np.isfinite(y[1:-1]).all()
    assert np.isfinite(dx).all()
    assert not np.isnan(y).any()
    if formula is not None:
        expected = [formula(float(value)) for value in x[1:-1]]
        np.testing.assert_allclose(y[1:-1], expected, rtol=1e-6 if dtype == "float32" else 1e-14, atol=1e-7)


@pytest.mark.parametrize("make", [Relu, *(make for make, _ in EVERYWHERE.values()), Sigmoid])
@pytest.mark.parametrize("x", [1.5, -0.5])
def test_activations_take_numbers_as_graphs_have_them(make, x):
    number, array = make(), make()
    assert float(number.forward(x)) == pytest.approx(float(array.forward(np.array([x]))[0]), rel=1e-14)
    assert float(number.backward(2.0)) == pytest.approx(float(array.backward(np.array([2.0]))[0]), rel=1e-14)


@pytest.mark.parametrize("make", [Relu, *(make for make, _ in EVERYWHERE.values()), Sigmoid])
def test_activations_keep_nan(device, make):
    assert np.isnan(asnumpy(make().forward(device.asarray(np.full((1, 2), np.nan))))).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LeakyRelu(-0.1), r"negative_slope must lie in \(0, 1\] .*, got -0.1"),
        (lambda: LeakyRelu(0), "a slope of 0 is Relu"),
        (lambda: Elu(-1), "alpha must be finite and not negative, got -1"),
        (lambda: Elu(np.inf), "alpha must be finite"),
        (lambda: Gelu("erf"), "approximate must be one of 'none', 'tanh', got 'erf'"),
    ],
)
def test_activations_refuse_what_they_are_not(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_leaky_unit_shows_the_side_of_its_kink_and_a_smooth_one_none(device):
    x = device.asarray(np.array([[-1.0, 2.0]]))
    for layer, pattern in [(LeakyRelu(), [[False, True]]), (Elu(0.5), [[False, True]]), (Elu(), None), (Tanh(), None)]:
        layer.forward(x)
        found = layer.activation_pattern()
        assert found is None if pattern is None else asnumpy(found).tolist() == pattern

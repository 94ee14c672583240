"""What holds for every layer of layer_cases.py, and what single layers promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from layer_cases import CASES, affine, build, check_case

from xpnet import asnumpy
from xpnet.functions import one_hot
from xpnet.layers import (
    AddLayer,
    Affine,
    Elu,
    Gelu,
    Layer,
    LeakyRelu,
    MulLayer,
    Relu,
    Sigmoid,
    Silu,
    SoftmaxWithLoss,
    Softplus,
    Tanh,
)
from xpnet.testing.layer import LAYER_CHECKS
from xpnet.testing.loss import LOSS_CHECKS


@pytest.mark.parametrize(
    ("name", "check"),
    [(name, check) for name, case in CASES.items() for check in (LOSS_CHECKS if "t" in case.labels else LAYER_CHECKS)],
)
def test_every_layer(name, check, device, rng):
    outcome = check_case(name, check, device, rng).checks[check]
    if outcome.outcome == "not applicable":
        pytest.skip(outcome.reason)


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

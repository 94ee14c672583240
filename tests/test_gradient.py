import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from xpnet import asnumpy
from xpnet.datasets import load_mnist
from xpnet.gradient import gradient_check, numerical, numerical_gradient
from xpnet.layers import Affine, Relu
from xpnet.nets import Sequential, TwoLayerNet


def test_value_of_the_book(device):
    gradient = numerical_gradient(lambda x: (x**2).sum(), device.asarray([3.0, 4.0]))
    np.testing.assert_allclose(asnumpy(gradient), [6.0, 8.0], rtol=1e-9)


@given(hnp.arrays(np.float64, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0), elements=st.floats(-10, 10)))
def test_any_shape_and_exact_restoration(x):
    before = x.copy()
    gradient = numerical_gradient(lambda x: (x**3).sum(), x)
    assert gradient.shape == x.shape
    np.testing.assert_allclose(gradient, 3 * x**2, rtol=1e-6, atol=1e-5)  # f may be 1e5: its rounding, over h
    np.testing.assert_array_equal(x, before)


def test_works_on_views_and_keeps_the_dtype(device):
    base = device.asarray(np.arange(12.0).reshape(3, 4))
    gradient = numerical_gradient(lambda _: (base[:, 0] ** 2).sum(), base[:, ::2])
    np.testing.assert_allclose(asnumpy(gradient), [[0.0, 0.0], [8.0, 0.0], [16.0, 0.0]], atol=1e-7)
    x = device.asarray([1.0, 2.0], "float32")
    gradient = numerical_gradient(lambda x: (x * 3.0).sum(), x, 1e-2)
    assert gradient.dtype == "float32"
    np.testing.assert_allclose(asnumpy(gradient), [3.0, 3.0], rtol=1e-3)


def test_f_may_read_the_array_elsewhere_and_return_a_python_float(device):
    x = device.asarray([1.0, 2.0])
    gradient = numerical_gradient(lambda _: float(x[0] * x[1]), x)
    np.testing.assert_allclose(asnumpy(gradient), [2.0, 1.0], rtol=1e-9)


def test_a_vectorized_f_gives_the_same_and_leaves_x_alone(device, monkeypatch):
    x = device.asarray(np.arange(1.0, 7.0).reshape(2, 3))
    before, shapes = asnumpy(x).copy(), []

    def f(stack):
        shapes.append(stack.shape)
        return (stack**2 * stack[:, :1]).sum(axis=(1, 2))

    alone = numerical_gradient(lambda x: (x**2 * x[:1]).sum(), x)
    together = numerical_gradient(f, x, vectorized=True)
    np.testing.assert_allclose(asnumpy(together), asnumpy(alone), rtol=1e-9)
    np.testing.assert_array_equal(asnumpy(x), before)
    assert shapes == [(12, 2, 3)]
    monkeypatch.setattr(numerical, "MEMORY", 8 * 4 * 2 * x.nbytes)  # room for four coordinates
    np.testing.assert_allclose(asnumpy(numerical_gradient(f, x, vectorized=True)), asnumpy(together), rtol=1e-12)
    assert shapes[1:] == [(8, 2, 3), (4, 2, 3)]


def test_a_vectorized_f_must_return_a_value_for_each_copy(device):
    x = device.asarray([1.0, 2.0])
    message = r"expected f to return 4 values, one for each copy in a stack of shape \(4, 2\), got an array of shape"
    for f in (lambda stack: stack.sum(), lambda stack: stack, lambda stack: stack.sum(axis=0)):
        with pytest.raises(ValueError, match=message):
            numerical_gradient(f, x, vectorized=True)
    with pytest.raises(ValueError, match="got float"):
        numerical_gradient(lambda _: 1.0, x, vectorized=True)
    assert numerical_gradient(lambda stack: stack.sum(axis=1), x[:0], vectorized=True).shape == (0,)
    frozen = np.ones(2)
    frozen.flags.writeable = False
    np.testing.assert_allclose(numerical_gradient(lambda s: s.sum(axis=1), frozen, vectorized=True), [1.0, 1.0])


def test_x_is_restored_when_f_raises(device):
    x = device.asarray([0.1, 0.2, 0.3])
    calls = []

    def f(_):
        calls.append(1)
        if len(calls) == 4:
            raise ArithmeticError("from f")
        return 0.0

    with pytest.raises(ArithmeticError, match="from f"):
        numerical_gradient(f, x)
    np.testing.assert_array_equal(asnumpy(x), [0.1, 0.2, 0.3])


def test_what_cannot_be_differentiated_is_refused(device):
    def f(x):
        return x.sum()

    with pytest.raises(TypeError, match=r"got dtype int64: adding h = 0.0001 to it would be rounded away"):
        numerical_gradient(f, device.asarray([3, 4]))
    for dtype in (bool, complex):
        with pytest.raises(TypeError, match="expected x to hold floats"):
            numerical_gradient(f, np.ones(2, dtype))
    with pytest.raises(TypeError, match="array of floats, got list"):
        numerical_gradient(f, [1.0])
    with pytest.raises(ValueError, match=r"return a scalar, got an array of shape \(2,\)"):
        numerical_gradient(lambda x: x * 2, device.asarray([1.0, 2.0]))
    with pytest.raises(ValueError, match="h must be finite and positive"):
        numerical_gradient(f, device.asarray([1.0]), h=0.0)
    with pytest.raises(ValueError, match="lost in the rounding of x in float32; use a larger h, or float64"):
        numerical_gradient(f, device.asarray([1e6], "float32"))
    frozen = np.ones(2)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="x is read-only"):
        numerical_gradient(f, frozen)


@pytest.fixture(scope="module")
def first_three_images():
    (x, t), _ = load_mnist()
    return x[:3], t[:3]


@pytest.mark.slow
def test_the_books_check_on_mnist(first_three_images):
    """Section 5.7.3: 784-50-10, all 39,760 coordinates, with the mean differences of the book or better."""
    report = gradient_check(TwoLayerNet(784, 50, 10, seed=0), *first_three_images)
    book = {"W1": 4e-10, "b1": 3e-9, "W2": 6e-9, "b2": 1.4e-7}
    assert report.ok
    assert {name: p.size for name, p in report.parameters.items()} == {"W1": 39200, "b1": 50, "W2": 500, "b2": 10}
    for name, bound in book.items():
        assert report.parameters[name].mean_difference < bound
    assert report.speedup > 100


@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_right_network_passes_whatever_its_dtype(device, rng, activation, dtype):
    net = TwoLayerNet(6, 5, 3, 0.5, activation=activation, device=device, dtype=dtype, seed=3)
    before = asnumpy(net.params.flat).copy()
    report = gradient_check(net, device.asarray(rng.standard_normal((3, 6))), device.asarray([0, 1, 2]))
    assert report.ok
    assert all(p.max_relative_difference < 1e-7 for p in report.parameters.values())
    assert net.dtype == dtype
    np.testing.assert_array_equal(asnumpy(net.params.flat), before)


def test_gradients_lost_in_the_rounding_of_the_loss_are_not_called_ok(device):
    # All that reaches the loss from W1 passes a weight of 1e-12.
    layers = [Affine(np.ones((2, 2)), np.zeros(2)), Relu(), Affine(np.array([[1e-12, 0.0], [0.0, 0.0]]), np.zeros(2))]
    report = gradient_check(Sequential(layers, device=device), device.asarray([[1.0, 2.0]]), device.asarray([0]))
    assert {p.name: p.verdict for p in report.parameters.values()} == {
        "W1": "too small",
        "b1": "too small",
        "W2": "ok",
        "b2": "ok",
    }


class WrongBackward(Affine):
    def backward(self, dout):
        return super().backward(dout) * 1.01


class WrongBias(Affine):
    def backward_parameters(self, dout):
        super().backward_parameters(dout)
        self.db *= 1.01


class WrongForward(Affine):
    """Forgets b in the forward, as its backward does not know."""

    def forward(self, x, train=True):
        return super().forward(x, train) - self.b


@pytest.mark.parametrize(
    ("kind", "wrong"), [(WrongBackward, {"W1", "b1"}), (WrongBias, {"b2"}), (WrongForward, {"b2"})]
)
def test_a_wrong_layer_is_caught_and_located(device, rng, kind, wrong):
    layers = [
        Affine.from_sizes(6, 5, std=0.5, rng=1, dtype="float64"),
        Relu(),
        kind.from_sizes(5, 3, std=0.5, rng=2, dtype="float64"),
    ]
    net = Sequential(layers, device=device)
    x, t = device.asarray(rng.standard_normal((3, 6))), device.asarray([0, 1, 2])
    report = gradient_check(net, x, t)
    assert not report.ok
    assert {p.name for p in report.parameters.values() if not p.ok} == wrong
    assert "WRONG" in str(report)


def test_a_gradient_that_is_not_finite_fails(rng):
    class NotFinite(Affine):
        def backward_parameters(self, dout):
            super().backward_parameters(dout)
            self.dW[0, 0] = np.nan

    net = Sequential([NotFinite.from_sizes(4, 3, std=0.5, rng=1)])
    assert not gradient_check(net, rng.standard_normal((2, 4)), [0, 1]).ok


def test_coordinates_that_straddle_a_kink_are_set_apart(device):
    layers = [Affine(np.eye(2), np.zeros(2)), Relu(), Affine(np.array([[1.0, -1.0], [0.5, 2.0]]), np.zeros(2))]
    net = Sequential(layers, device=device)
    x = device.asarray([[0.0, 1.0]])  # the first unit is exactly at its kink: W1[1, 0] and b1[0] move it across
    report = gradient_check(net, x, device.asarray([0]))
    assert {name: p.kinks for name, p in report.parameters.items()} == {"W1": 1, "b1": 1, "W2": 0, "b2": 0}
    assert report.ok
    x = device.asarray([[0.5, 1.0]])
    assert sum(p.kinks for p in gradient_check(net, x, device.asarray([0])).parameters.values()) == 0


def test_the_report_is_a_table(rng):
    report = gradient_check(TwoLayerNet(4, 3, 2, seed=0), rng.standard_normal((2, 4)), [0, 1])
    lines = str(report).splitlines()
    assert lines[0].split() == [
        "parameter",
        "size",
        "compared",
        "mean",
        "|diff|",
        "max",
        "|diff|",
        "max",
        "relative",
        "kinks",
        "verdict",
    ]
    assert [line.split()[0] for line in lines[2:6]] == ["W1", "b1", "W2", "b2"]
    assert "times faster" in lines[-1]
    assert report.numerical_seconds > 0
    assert report.backprop_seconds > 0

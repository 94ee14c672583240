"""Batched differences of a network: the same values as the loop, for right layers and for wrong ones."""

import copy
import itertools
import re
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpnet import asnumpy
from xpnet.datasets import load_mnist
from xpnet.functions import sigmoid
from xpnet.gradient import batched, gradient_check
from xpnet.gradient.differences import network_differences
from xpnet.layers import Affine, AveragePooling, Convolution, Layer, Pooling, Relu, Sigmoid, SoftmaxWithLoss
from xpnet.nets import Sequential, TwoLayerNet


def assert_same_as_loop(net, x, t, **settings):
    """Compare at every coordinate, relative to each parameter's largest component; return the batched result."""
    together = network_differences(net, x, t, method="batched", **settings)
    alone = network_differences(net, x, t, method="loop")
    for name, loop in alone.items():
        found, expected = asnumpy(together[name].values), asnumpy(loop.values)
        assert found.shape == expected.shape
        np.testing.assert_array_equal(asnumpy(together[name].straddles), asnumpy(loop.straddles))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9 * np.abs(expected).max(initial=0.0) + 1e-11)
    return together


def affine(*sizes, **settings):
    return Affine.from_sizes(*sizes, std=0.5, dtype="float64", rng=sizes[0], **settings)


def assert_all_batched(together):
    assert {(name, d.method, d.reason) for name, d in together.items()} == {(name, "batched", "") for name in together}


@pytest.mark.parametrize("activation", [Relu, Sigmoid])
@pytest.mark.parametrize("labels", ["class ids", "one-hot"])
def test_a_five_layer_network_gives_the_values_of_the_loop(device, rng, activation, labels):
    net = Sequential(
        [
            affine(7, 6),
            activation(),
            affine(6, 5),
            activation(),
            affine(5, 4),
            activation(),
            affine(4, 5),
            affine(5, 3),
        ],
        device=device,
    )
    t = rng.integers(0, 3, 4)
    t = device.asarray(np.eye(3)[t] if labels == "one-hot" else t)
    assert_all_batched(assert_same_as_loop(net, device.asarray(rng.standard_normal((4, 7))), t))


@given(st.lists(st.integers(1, 5), min_size=2, max_size=4), st.integers(1, 4), st.integers(0, 2**31))
def test_any_sizes_and_batches(sizes, batch, seed):
    rng, sizes = np.random.default_rng(seed), [*sizes[:-1], sizes[-1] + 1]  # two classes at least
    layers = []
    for before, behind in itertools.pairwise(sizes):
        layers += [Affine(rng.standard_normal((before, behind)), rng.standard_normal(behind)), Relu()]
    net = Sequential(layers[:-1])
    x = rng.standard_normal((batch, sizes[0])) * rng.integers(0, 2, sizes[0])  # some inputs are 0, as many pixels are
    assert_all_batched(assert_same_as_loop(net, x, rng.integers(0, sizes[-1], batch)))


def convolutional(**settings):
    """Return a network whose every layer's gradients can be computed many coordinates at a time."""
    layers = [
        Convolution.from_sizes(1, 3, 3, pad=1, rng=1, dtype="float64"),
        Relu(),
        Pooling(2, 2),
        Convolution.from_sizes(3, 4, 2, rng=2, dtype="float64", **settings),
        Relu(),
        AveragePooling(2, 1, stride=1),
        Affine.from_sizes(8, 3, std=0.5, rng=3, dtype="float64"),
    ]
    return Sequential(layers)


def test_convolutions_and_poolings_give_the_values_of_the_loop(device, rng):
    net = convolutional().to(device)
    x, t = device.asarray(rng.standard_normal((2, 1, 6, 7))), device.asarray([0, 2])
    assert_all_batched(assert_same_as_loop(net, x, t))
    assert gradient_check(net, x, t).ok


def test_kinks_of_max_pooling_are_found(device):
    layers = [
        Convolution(np.ones((1, 1, 1, 1)), np.zeros(1)),
        Pooling(1, 2),
        Affine(np.array([[1.0, -1.0]]), np.zeros(2)),
    ]
    net = Sequential(layers, device=device)
    x = device.asarray([[[[1.0, 1.0]]]])  # W decides nothing between the two, b neither; W1 moved by h moves both
    assert not any(asnumpy(d.straddles).any() for d in assert_same_as_loop(net, x, device.asarray([0])).values())
    x = device.asarray([[[[1e-9, -1e-9]]]])
    net.params["W1"] = np.zeros((1, 1, 1, 1))  # W + h takes the first, W - h the second
    together = assert_same_as_loop(net, x, device.asarray([0]))
    assert {name: int(asnumpy(d.straddles).sum()) for name, d in together.items()} == {
        "W1": 1,
        "b1": 0,
        "W2": 0,
        "b2": 0,
    }


@pytest.mark.slow
def test_the_books_network_on_mnist():
    (x, t), _ = load_mnist()
    assert_all_batched(assert_same_as_loop(TwoLayerNet(784, 5, 10, seed=0), x[:3], t[:3]))


@pytest.mark.parametrize("memory", [1, 10_000, 100_000])
def test_the_memory_changes_the_chunks_and_not_the_values(device, rng, memory):
    net = Sequential([affine(9, 8), Relu(), affine(8, 3)], device=device)
    x, t = device.asarray(rng.standard_normal((3, 9))), device.asarray([0, 1, 2])
    assert_all_batched(assert_same_as_loop(net, x, t, memory=memory))


def affine_network(activation):
    return Sequential([affine(40, 100), activation(), affine(100, 100), activation(), affine(100, 10)]), (40,)


def convolutional_network(pool):
    def convolution(C, F):
        return Convolution.from_sizes(C, F, 3, pad=1, rng=1, dtype="float64")

    return Sequential([convolution(1, 8), Relu(), pool(2, 2), convolution(8, 8), pool(2, 2), affine(128, 10)]), (
        1,
        16,
        16,
    )


@pytest.mark.parametrize(
    ("network", "sample"),
    [
        affine_network(Relu),
        affine_network(Sigmoid),
        convolutional_network(Pooling),
        convolutional_network(AveragePooling),
    ],
    ids=["relu", "sigmoid", "max pooling", "average pooling"],
)
def test_the_copies_stay_within_the_memory(rng, monkeypatch, network, sample):
    monkeypatch.setattr(batched, "CACHE", 1 << 40)  # so that the memory given is what limits the chunks
    net = network.copy()
    x, t = rng.standard_normal((3, *sample)), rng.integers(0, 10, 3)
    memory = 16 * 2**20
    net.numerical_gradient(x, t, memory=memory)
    tracemalloc.start()
    try:
        net.numerical_gradient(x, t, memory=memory)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    parameters = 20 * net.params.flat.nbytes  # copies of the network, steps and results, at most
    assert 0.3 * memory < peak < memory + parameters


def test_the_network_and_its_arguments_are_left_alone(device, rng):
    net = TwoLayerNet(6, 5, 3, 0.5, device=device, seed=1)
    x, t = device.asarray(rng.standard_normal((3, 6)), "float32"), device.asarray([0, 1, 2])
    copies = [asnumpy(a).copy() for a in (net.params.flat, x, t)]
    gradient = net.numerical_gradient(x, t)
    assert gradient.dtype == net.dtype == "float32"
    for array, before in zip((net.params.flat, x, t), copies, strict=True):
        np.testing.assert_array_equal(asnumpy(array), before)


def test_an_unknown_method_is_refused(rng):
    net = TwoLayerNet(2, 2, 2)
    with pytest.raises(ValueError, match="method must be one of 'batched', 'loop', got 'fast'"):
        net.numerical_gradient(rng.standard_normal((1, 2)), [0], method="fast")
    with pytest.raises(ValueError, match="method must be one of 'batched', 'loop', 'directional', got 'fast'"):
        gradient_check(net, rng.standard_normal((1, 2)), [0], method="fast")


def test_kinks_are_found(device):
    layers = [Affine(np.eye(2), np.zeros(2)), Relu(), Affine(np.array([[1.0, -1.0], [0.5, 2.0]]), np.zeros(2))]
    net = Sequential(layers, device=device)
    together = assert_same_as_loop(net, device.asarray([[0.0, 1.0]]), device.asarray([0]))
    assert_all_batched(together)
    assert {name: int(asnumpy(d.straddles).sum()) for name, d in together.items()} == {
        "W1": 1,
        "b1": 1,
        "W2": 0,
        "b2": 0,
    }


class Centered(Layer):
    """Subtracts the batch's mean: samples are mixed, and nothing is declared."""

    def forward(self, x, train=True):
        return x - x.sum(axis=0) * (1 / len(x))

    def backward(self, dout):
        return dout - dout.sum(axis=0) * (1 / len(dout))


class DeclaredSamplewise(Centered):
    samplewise = True


class Undeclared(Affine):
    reach = {}  # noqa: RUF012


class Mixing(Affine):
    """Each weight reaches two units, which is more than Affine declares."""

    def forward(self, x, train=True):
        y = super().forward(x, train)
        return y + y[:, ::-1]

    def backward_parameters(self, dout):
        super().backward_parameters(dout + dout[:, ::-1])


class Transposed(Affine):
    reach = {"W": {0: -1}, "b": {0: -1}}  # noqa: RUF012 - of another length than the output's last axis


class WrongAxis(Affine):
    reach = {"W": {0: -1}, "b": {0: 0}}  # noqa: RUF012 - of the right length, for a square matrix and batch


@pytest.mark.parametrize(
    ("layers", "by_the_loop", "reason"),
    [
        (
            [affine(4, 5), Centered(), affine(5, 3)],
            {"W1", "b1"},
            "Centered1 behind it does not declare to treat samples",
        ),
        ([affine(4, 5), DeclaredSamplewise(), affine(5, 3)], {"W1", "b1"}, "or a layer behind does not treat samples"),
        ([Undeclared(*affine(4, 5).parameters().values()), affine(5, 3)], {"W1", "b1"}, "does not declare what [Wb]"),
        ([Mixing(*affine(4, 5).parameters().values()), affine(5, 3)], {"W1", "b1"}, "Mixing1 declares a wrong reach"),
        ([Transposed(*affine(4, 5).parameters().values()), affine(5, 3)], {"W1"}, r"axis 0 of W \(4, 5\) reaches axis"),
        ([WrongAxis(*affine(4, 4).parameters().values()), affine(4, 3)], {"W1", "b1"}, "WrongAxis1 declares a wrong"),
    ],
)
def test_what_does_not_apply_is_left_to_the_loop_and_said(device, rng, layers, by_the_loop, reason):
    net = Sequential(copy.deepcopy(layers), device=device)
    x, t = device.asarray(rng.standard_normal((4, 4))), device.asarray([0, 1, 2, 0])
    together = assert_same_as_loop(net, x, t)
    assert {name for name, d in together.items() if d.method == "loop"} == by_the_loop
    report = gradient_check(net, x, t)
    assert report.ok
    assert f"W1: one coordinate after the other, since {together['W1'].reason}" in str(report)
    assert all(re.search(reason, together[name].reason) for name in by_the_loop)


def test_a_network_that_is_no_row_of_layers_is_left_to_the_loop(rng):
    class Skipping(Sequential):
        """Adds its input to its scores."""

        def predict(self, x, train=False):
            return super().predict(x, train) + self.as_input(x)

    net = Skipping([affine(3, 3)])
    together = assert_same_as_loop(net, rng.standard_normal((2, 3)), [0, 1])
    assert {d.method for d in together.values()} == {"loop"}


# Wrong layers: the batched differences must be those of the forward that is there, not of one that is meant.


class ForgetsBias(Affine):
    def forward(self, x, train=True):
        return super().forward(x, train) - self.b


class WrongRelu(Relu):
    def forward(self, x, train=True):
        return super().forward(x, train) * 1.01


class WrongSigmoid(Sigmoid):
    def forward(self, x, train=True):
        super().forward(x, train)
        return sigmoid(1.01 * x)


class WrongLoss(SoftmaxWithLoss):
    def forward(self, x, t):
        return super().forward(x, t) * 1.01


def wrong_backward(kind):
    class Wrong(kind):
        def backward(self, *dout):
            return super().backward(*dout) * 1.01

    return Wrong


def row(first=Affine, activation=Relu, second=Affine, loss=SoftmaxWithLoss):
    layers = [
        first.from_sizes(6, 5, std=0.5, rng=1, dtype="float64"),
        activation(),
        second.from_sizes(5, 3, std=0.5, rng=2, dtype="float64"),
    ]
    return Sequential(layers, loss())


@pytest.mark.parametrize("method", ["batched", "loop", "directional"])
@pytest.mark.parametrize(
    "wrong",
    [
        {"first": ForgetsBias},
        {"second": ForgetsBias},
        {"activation": WrongRelu},
        {"activation": WrongSigmoid},
        {"loss": WrongLoss},
        {"second": wrong_backward(Affine)},
        {"activation": wrong_backward(Relu)},
        {"activation": wrong_backward(Sigmoid)},
        {"loss": wrong_backward(SoftmaxWithLoss)},
    ],
    ids=lambda wrong: " ".join(f"{place} {kind.__name__} {kind.__base__.__name__}" for place, kind in wrong.items()),
)
def test_a_wrong_forward_and_a_wrong_backward_are_caught(device, rng, wrong, method):
    net = row(**wrong).to(device)
    x, t = device.asarray(rng.standard_normal((3, 6))), device.asarray([0, 1, 2])
    report = gradient_check(net, x, t, method=method)
    assert not report.ok
    right = gradient_check(row().to(device), x, t, method=method)
    assert right.ok


def test_a_loss_without_a_batched_form_is_asked_one_batch_after_the_other(device, rng):
    class Plain(SoftmaxWithLoss):
        forward_each = SoftmaxWithLoss.__mro__[1].forward_each

    net = row(loss=Plain).to(device)
    x, t = device.asarray(rng.standard_normal((3, 6))), device.asarray([0, 1, 2])
    assert_all_batched(assert_same_as_loop(net, x, t))


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_that_share_the_chunks_find_the_same_differences(rng, threads):
    threadpoolctl = pytest.importorskip("threadpoolctl", reason="threadpoolctl is not installed")
    net = TwoLayerNet(20, 7, 3, 0.5, seed=0)
    x, t = rng.standard_normal((3, 20)), rng.integers(0, 3, 3)
    expected = network_differences(net, x, t)
    with threadpoolctl.threadpool_limits(threads):
        found = network_differences(net, x, t, memory=2**15)  # several chunks
    for name, differences in found.items():
        assert differences.method == "batched"
        np.testing.assert_allclose(differences.values, expected[name].values, rtol=1e-9, atol=1e-9)

"""Residual blocks in networks: their parameters, buffers and state are the network's, wherever it goes."""

import copy
import pickle

import numpy as np
import pytest

from xpnet import asnumpy
from xpnet.gradient import gradient_check
from xpnet.gradient.differentiable import deterministic_copy
from xpnet.graph import Graph, Input
from xpnet.layers import (
    AddLayer,
    Affine,
    BatchNormalization,
    Convolution,
    Dropout,
    Layer,
    LayerNorm,
    MulLayer,
    Relu,
    Residual,
    Sigmoid,
    SoftmaxWithLoss,
    Tanh,
)
from xpnet.nets import GraphNetwork, Sequential
from xpnet.optimizers import SGD


def affine(n, m, dtype="float64"):
    return Affine.from_sizes(n, m, std="xavier", rng=n + m, dtype=dtype)


def smooth(device="cpu"):
    """Return a network whose samples do not depend on each other."""
    inner = Residual(Tanh(), affine(4, 4))
    return Sequential([affine(5, 6), Residual(Relu(), affine(6, 4), inner, affine(4, 6)), affine(6, 3)], device=device)


def everything(device="cpu", dtype="float64"):
    norm = BatchNormalization(np.ones(6, dtype), np.zeros(6, dtype))
    block = Residual(norm, Relu(), affine(6, 6, dtype), Dropout(0.3, seed=2))
    return Sequential([affine(5, 6, dtype), block, affine(6, 3, dtype)], device=device)


def batch(device, rng, n=8, dtype="float64"):
    return device.asarray(rng.standard_normal((n, 5)).astype(dtype)), device.asarray(rng.integers(0, 3, n))


def test_a_network_numbers_the_parameters_of_blocks_among_its_own(device):
    net = smooth(device)
    assert list(net.params) == ["W1", "b1", "W2", "b2", "W3", "b3", "W4", "b4", "W5", "b5"]
    inner = net.layers["Residual1"].parts["Residual1"].parts["Affine1"]
    assert inner.name == "Residual1.Residual1.Affine1"
    assert inner.W is net.params["W3"]
    assert list(net.layers["Residual1"].parameters()) == [
        *("Affine1.W", "Affine1.b", "Residual1.Affine1.W", "Residual1.Affine1.b", "Affine2.W", "Affine2.b")
    ]
    row = next(line for line in net.summary().splitlines() if line.startswith("Residual1"))
    assert row.split() == ["Residual1", "(N,", "6)", str(6 * 4 + 4 + 4 * 4 + 4 + 4 * 6 + 6)]
    assert list(everything().buffers()) == [
        *(f"Residual1.BatchNormalization1.{name}" for name in ("running_mean", "running_var")),
        "Residual1.Dropout1.state",
    ]


def test_the_input_is_added_as_it_was(device, rng):
    x = device.asarray(rng.standard_normal((3, 4)))
    y = Residual(Relu(), Sigmoid(), Tanh()).forward(x)
    a = asnumpy(x)
    np.testing.assert_allclose(asnumpy(y), np.tanh(1 / (1 + np.exp(-np.maximum(a, 0)))) + a, rtol=1e-12)


@pytest.mark.parametrize("method", ["batched", "loop", "directional"])
@pytest.mark.parametrize("build", [smooth, everything])
def test_gradients_are_right(device, rng, build, method):
    report = gradient_check(build(device), *batch(device, rng), method=method)
    assert report.ok, str(report)


def test_batched_differences_reach_into_blocks_and_through_them(device, rng):
    report = gradient_check(smooth(device), *batch(device, rng))
    assert {check.note for check in report.parameters.values()} == {""}
    notes = {
        name: check.note for name, check in gradient_check(everything(device), *batch(device, rng)).parameters.items()
    }
    assert notes["W3"] == ""
    assert "Residual1 behind it does not declare to treat samples one by one" in notes["W1"]
    assert "Residual1.Dropout1 behind it does not declare" in notes["W2"]


def test_kinks_within_a_block_are_found(device):
    net = Sequential([Affine(np.eye(2), np.zeros(2)), Residual(Relu()), Affine(np.eye(2), np.zeros(2))], device=device)
    report = gradient_check(net, device.asarray([[0.0, 1.0]]), device.asarray([0]))
    assert {name: check.kinks for name, check in report.parameters.items()} == {"W1": 1, "b1": 1, "W2": 0, "b2": 0}


class Twice(Layer):
    """A layer of a user's that is made of another one."""

    samplewise = True

    def __init__(self, layer):
        self.parts = {"half": layer}

    def forward(self, x, train=True):
        return 2.0 * self.parts["half"].forward(x, train)

    def backward(self, dout):
        return self.parts["half"].backward(2.0 * dout)


def test_other_layers_of_layers_work_too_one_coordinate_after_the_other(device, rng):
    net = Sequential([affine(5, 4), Twice(affine(4, 3))], device=device)
    report = gradient_check(net, *batch(device, rng))
    assert report.ok, str(report)
    assert report.parameters["W1"].note == ""
    assert "Twice1.half is a part of a layer that is not known to be a row" in report.parameters["W2"].note


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_compiled_steps_are_the_plain_ones(device, rng, dtype):
    x, t = batch(device, rng, 30, dtype)
    indices = device.asarray(rng.integers(0, 30, (12, 6)))
    plain, fast = everything(device, dtype), everything(device, dtype)
    optimizer, losses = SGD(0.1), []
    for index in indices:
        loss, grads = plain.loss_and_gradient(x[index], t[index])
        optimizer.update(plain.params, grads)
        losses.append(float(loss))
    found = asnumpy(fast.compile(SGD(0.1), 6).run(x, t, indices))
    np.testing.assert_allclose(found, losses, rtol=1e-4 if dtype == "float32" else 1e-10)
    for ours, theirs in ((fast.params, plain.params), (fast.buffers(), plain.buffers())):
        for name in theirs:
            np.testing.assert_allclose(asnumpy(ours[name]), asnumpy(theirs[name]), rtol=1e-3, atol=1e-5)


def test_prediction_leaves_out_what_is_for_training(device, rng):
    net = everything(device)
    x, _ = batch(device, rng)
    buffers = {name: asnumpy(buffer).copy() for name, buffer in net.buffers().items()}
    np.testing.assert_array_equal(asnumpy(net.predict(x)), asnumpy(net.predict(x)))
    for name, buffer in net.buffers().items():
        np.testing.assert_array_equal(asnumpy(buffer), buffers[name])
    net.predict(x, train=True)
    assert not np.array_equal(asnumpy(net.buffers()["Residual1.Dropout1.state"]), buffers["Residual1.Dropout1.state"])
    fixed = deterministic_copy(net, "float64")
    first, second = (asnumpy(fixed.predict(x, train=True)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda net: net.copy(), lambda net: pickle.loads(pickle.dumps(net))]
)
def test_copies_are_networks_of_their_own(device, rng, duplicate):
    net = everything(device)
    x, t = batch(device, rng)
    twin = duplicate(net)
    scores = asnumpy(net.predict(x))
    np.testing.assert_array_equal(asnumpy(twin.predict(x)), scores)
    twin.compile(SGD(0.5), 8).run(x, t, device.asarray(np.arange(8)[None]))
    assert twin.layers["Residual1"].parts["Affine1"].W is twin.params["W2"]
    assert not np.array_equal(asnumpy(twin.predict(x)), scores)
    np.testing.assert_array_equal(asnumpy(net.predict(x)), scores)


def test_it_is_saved_and_loaded_and_moved(device, rng, tmp_path):
    net = everything(device)
    x, t = batch(device, rng)
    net.compile(SGD(0.1), 8).run(x, t, device.asarray(np.tile(np.arange(8), (3, 1))))
    net.save_params(tmp_path / "net.npz")
    other = everything()
    other.load_params(tmp_path / "net.npz")
    expected = asnumpy(net.predict(x))
    np.testing.assert_allclose(other.predict(asnumpy(x)), expected, rtol=1e-10)
    other.to(device, "float32")
    assert all(
        device.holds(array) for array in (*other.buffers().values(), *other.layers["Residual1"].parameters().values())
    )
    assert other.predict(x).dtype == other.buffers()["Residual1.BatchNormalization1.running_var"].dtype == "float32"
    np.testing.assert_allclose(asnumpy(other.predict(x)), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="holds parameters"):
        smooth().load_params(tmp_path / "net.npz")


def test_a_block_that_a_graph_uses_twice_has_one_set_of_parameters_and_two_states(device, rng):
    x, t = Input("x"), Input("t")
    block = Residual(affine(5, 5), Sigmoid())
    net = GraphNetwork(SoftmaxWithLoss()(AddLayer()(block(block(x)), x), t), device=device)
    x_, t_ = batch(device, rng)
    assert list(net.params) == ["W1", "b1"]
    assert gradient_check(net, x_, t_).ok
    by_hand, z = Residual(Affine(np.eye(2), np.zeros(2))), Input("z")
    graph = Graph(by_hand(by_hand(z)).sum())
    graph.forward(z=np.array([[1.0, 2.0]]))
    graph.backward()
    # y = W x + x twice, at W = I: dW = x^T (W + I)^T + (2 x)^T, times ones.
    np.testing.assert_allclose(by_hand.parts["Affine1"].dW, [[4.0, 4.0], [8.0, 8.0]])
    assert "Residual" in graph.to_html()


def test_what_does_not_fit_is_named(device, rng):
    x = device.asarray(rng.standard_normal((3, 4)))
    block = Residual(affine(4, 1))
    block.to(device)
    with pytest.raises(
        ValueError, match=r"Residual adds its input .* x has the shape \(3, 4\) and y \(3, 1\); let its"
    ):
        block.forward(x)
    with pytest.raises(
        ValueError, match=r"Affine1 does not fit Residual1: Residual\S* adds .* \(N, 4\) and y \(N, 3\)"
    ):
        Sequential([affine(2, 4), Residual(affine(4, 3))])
    with pytest.raises(ValueError, match=r"in Residual, Affine1 does not fit Affine2: .* expected x of shape \(N, 5\)"):
        Sequential([affine(2, 4), Residual(affine(4, 3), affine(5, 4))])
    image = Residual(Convolution.from_sizes(1, 1, 3))
    with pytest.raises(ValueError, match=r"\(N, 1, 5, 5\) and y \(N, 1, 3, 3\)"):
        Sequential([image], input_shape=(1, 5, 5))
    with pytest.raises(ValueError, match="a Residual needs at least one layer"):
        Residual()
    with pytest.raises(ValueError, match="MulLayer1 takes 2 inputs; a layer of a Residual gets one"):
        Residual(MulLayer())
    with pytest.raises(TypeError, match=r"must be an xpnet.layers.Layer, got list"):
        Residual([Relu()])


def test_layers_have_one_place_each():
    relu = Relu()
    with pytest.raises(ValueError, match="layer 'Relu2' belongs to a network already"):
        Residual(relu, relu)
    block = Residual(relu)
    for again in (lambda: Residual(relu), lambda: Sequential([affine(2, 2), relu])):
        with pytest.raises(ValueError, match="belongs to a network already"):
            again()
    Sequential([affine(2, 2), block])


def test_a_block_may_come_first_or_be_all(device, rng):
    x, t = batch(device, rng)
    for layers in ([Residual(affine(5, 5), Tanh())], [Residual(LayerNorm(np.ones(5), np.zeros(5))), affine(5, 3)]):
        assert gradient_check(Sequential(layers, device=device), x, t).ok

"""The check along random directions: no false alarms, and no small error that escapes it."""

import numpy as np
import pytest

from xpnet import asnumpy
from xpnet.gradient import gradient_check
from xpnet.layers import Affine, IdentityWithLoss, Relu, Sigmoid, SoftmaxWithLoss
from xpnet.nets import Sequential, TwoLayerNet
from xpnet.training import Trainer


class Scaled(Affine):
    """Its gradients are wrong by a factor."""

    factor = 1.0

    def backward_parameters(self, dout):
        super().backward_parameters(dout)
        self.dW *= self.factor
        self.db *= self.factor


def deep_net(rng, activation=Relu, wrong=None, factor=1.01):
    """Six affine layers; the backward of one of them is wrong by a factor, if so wanted."""
    layers = []
    for i in range(6):
        std = "he" if activation is Relu else "xavier"
        layers += [Scaled.from_sizes(12, 12, std=std, rng=rng, dtype="float64"), activation()]
        if i == wrong:
            layers[-2].factor = factor
    return Sequential(layers[:-1])


def batch(rng, samples=4):
    return rng.standard_normal((samples, 12)), rng.integers(0, 12, samples)


@pytest.mark.slow
@pytest.mark.parametrize("activation", [Relu, Sigmoid])
def test_no_false_alarm_in_three_hundred_seeds(activation):
    alarms = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        net = TwoLayerNet(12, 8, 5, "he", activation="relu" if activation is Relu else "sigmoid", seed=rng)
        x, t = rng.standard_normal((4, 12)), rng.integers(0, 5, 4)
        if not gradient_check(net, x, t, method="directional", samples=2, seed=seed).ok:
            alarms.append(seed)
    assert alarms == []


@pytest.mark.parametrize("activation", [Relu, Sigmoid])
def test_a_deep_network_passes(rng, activation):
    report = gradient_check(deep_net(rng, activation), *batch(rng), method="directional")
    assert report.ok
    assert {p.verdict for p in report.parameters.values()} == {"ok"}
    assert {p.compared + p.kinks for p in report.parameters.values()} == {8}


@pytest.mark.parametrize("factor", [1.01, 0.99, 0.0, -1.0])
@pytest.mark.parametrize("wrong", range(6))
def test_an_error_of_one_percent_in_any_layer_is_caught_and_located(rng, wrong, factor):
    net = deep_net(rng, wrong=wrong, factor=factor)
    report = gradient_check(net, *batch(rng), method="directional")
    assert {p.name for p in report.parameters.values() if not p.ok} == {f"W{wrong + 1}", f"b{wrong + 1}"}


def test_an_error_that_leaves_the_gradients_length_alone_is_caught(rng):
    class Swapped(Affine):
        def backward_parameters(self, dout):
            super().backward_parameters(dout)
            self.dW[...] = self.dW[::-1].copy()

    net = Sequential([Swapped.from_sizes(12, 12, std=0.5, rng=rng, dtype="float64")])
    report = gradient_check(net, *batch(rng), method="directional")
    assert {p.name for p in report.parameters.values() if not p.ok} == {"W1"}


def test_a_trained_network_that_is_sure_of_itself_raises_no_alarm(rng):
    """The loss is far smaller than the scores whose rounding it carries."""
    x, t = rng.standard_normal((20, 12)), rng.integers(0, 3, 20)
    net = TwoLayerNet(12, 30, 3, "he", dtype="float64", seed=1)
    Trainer(net, x, t, x, t, mini_batch_size=20, steps=4000, optimizer_param={"lr": 1.0}, verbose=False, seed=0).train()
    net.params["W2"] *= 5.0
    assert float(net.loss(x, t)) < 1e-6
    for method in ("directional", "batched", "loop"):
        assert gradient_check(net, x, t, method=method).ok


def test_directions_that_cannot_avoid_a_kink_are_set_apart(device):
    layers = [Affine(np.eye(2), np.zeros(2)), Relu(), Affine(np.array([[1.0, -1.0], [0.5, 2.0]]), np.zeros(2))]
    net = Sequential(layers, device=device)
    x, t = device.asarray([[0.0, 1.0]]), device.asarray([0])  # the first unit is exactly at its kink
    report = gradient_check(net, x, t, method="directional", samples=5)
    assert {name: (p.compared, p.kinks) for name, p in report.parameters.items()} == {
        "W1": (0, 5),
        "b1": (0, 5),
        "W2": (5, 0),
        "b2": (5, 0),
    }
    assert [p.verdict for p in report.parameters.values()] == ["unchecked", "unchecked", "ok", "ok"]
    assert report.ok


def test_the_step_is_made_smaller_near_a_kink(device):
    # A unit 1e-5 above its kink: a step of 1e-4 crosses it, and one of 1e-6 does not.
    layers = [Affine(np.ones((1, 1)), np.full(1, 1e-5)), Relu(), Affine(np.array([[1.0, -1.0]]), np.zeros(2))]
    net = Sequential(layers, device=device)
    report = gradient_check(net, device.asarray([[0.0]]), device.asarray([0]), method="directional")
    assert report.parameters["b1"].kinks == 0
    assert report.parameters["b1"].verdict == "ok"


def test_the_directions_come_from_the_seed_and_the_network_is_left_alone(device, rng):
    net = TwoLayerNet(6, 5, 3, 0.5, device=device, seed=1)
    x, t = device.asarray(rng.standard_normal((3, 6))), device.asarray([0, 1, 2])
    before = asnumpy(net.params.flat).copy()
    first, again, other = (gradient_check(net, x, t, method="directional", seed=seed) for seed in (1, 1, 2))
    assert first.parameters == again.parameters
    assert first.parameters != other.parameters
    np.testing.assert_array_equal(asnumpy(net.params.flat), before)


def test_no_direction_is_refused(rng):
    with pytest.raises(ValueError, match="samples must be a positive integer, got 0"):
        gradient_check(TwoLayerNet(2, 2, 2), rng.standard_normal((1, 2)), [0], method="directional", samples=0)


def test_more_directions_than_parameters_are_refused(rng):
    net, x = TwoLayerNet(2, 2, 2, seed=0), rng.standard_normal((1, 2))
    assert gradient_check(net, x, [0], method="directional", samples=net.params.size).ok
    with pytest.raises(ValueError, match="number of directions, must be at most 12, got 13; lower it, or pass "):
        gradient_check(net, x, [0], method="directional", samples=13)
    small = Sequential([Affine.from_sizes(1, 1, rng=0)], IdentityWithLoss())
    assert gradient_check(small, x[:, :1], [[0.5]], method="directional").ok  # the default, for two parameters


def test_a_wrong_loss_is_caught(rng):
    class WrongLoss(SoftmaxWithLoss):
        def backward(self, dout=1.0):
            return super().backward(dout) * 1.01

    net = Sequential([Affine.from_sizes(12, 12, std=0.5, rng=rng)], WrongLoss())
    assert not gradient_check(net, *batch(rng), method="directional").ok

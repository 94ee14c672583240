"""Computational graphs as networks: GraphNetwork."""

import copy

import numpy as np
import pytest

from xpnet import asnumpy
from xpnet.gradient import gradient_check
from xpnet.graph import Input
from xpnet.layers import Affine, BatchNormalization, Relu, SoftmaxWithLoss
from xpnet.nets import GraphNetwork, Sequential, TwoLayerNet
from xpnet.optimizers import SGD
from xpnet.training import Trainer


def affine(n, m, seed=0):
    return Affine.from_sizes(n, m, std=0.5, rng=seed, dtype="float64")


def residual_net(device="cpu", dtype=None):
    x, t = Input("x"), Input("t")
    h = Relu()(affine(6, 5, 1)(x))
    h = h + Relu()(affine(5, 5, 2)(h)) * 0.5
    return GraphNetwork(SoftmaxWithLoss()(affine(5, 3, 3)(h), t), device=device, dtype=dtype)


def batch(device, rng, n=4):
    return device.asarray(rng.standard_normal((n, 6))), device.asarray(rng.integers(0, 3, n))


class TestNetwork:
    def test_a_straight_line_gives_the_bits_of_the_two_layer_net(self, device, rng):
        net = TwoLayerNet(6, 5, 3, device=device, seed=0)
        x, t = Input("x"), Input("t")
        value = x
        for layer in copy.deepcopy(list(net.layers.values())):
            layer.place = None
            value = layer(value)
        graph = GraphNetwork(SoftmaxWithLoss()(value, t), device=device)
        assert list(graph.layers) == list(net.layers)
        x, t = batch(device, rng)
        for ours, theirs in ((graph.predict(x), net.predict(x)), (graph.gradient(x, t).flat, net.gradient(x, t).flat)):
            np.testing.assert_array_equal(asnumpy(ours), asnumpy(theirs))
        indices = device.asarray(rng.integers(0, 4, (5, 2)))
        losses = [n.compile(SGD(0.1), 2).run(x, t, indices) for n in (graph, net)]
        np.testing.assert_array_equal(asnumpy(losses[0]), asnumpy(losses[1]))
        np.testing.assert_array_equal(asnumpy(graph.params.flat), asnumpy(net.params.flat))

    @pytest.mark.parametrize("method", ["batched", "loop", "directional"])
    def test_a_residual_network_passes_the_gradient_check(self, device, rng, method):
        report = gradient_check(residual_net(device), *batch(device, rng), method=method)
        assert report.ok
        assert list(report.parameters) == ["W1", "b1", "W2", "b2", "W3", "b3"]

    def test_shared_weights_pass_the_gradient_check(self, device, rng):
        x, t = Input("x"), Input("t")
        shared, relu = affine(6, 6), Relu()
        h = relu(shared(relu(shared(x))))
        net = GraphNetwork(SoftmaxWithLoss()(affine(6, 3)(h), t), device=device)
        assert list(net.layers) == ["Affine1", "Relu1", "Affine2"]
        assert net.params.size == 6 * 6 + 6 + 6 * 3 + 3
        x, t = batch(device, rng)
        assert gradient_check(net, x, t).ok
        moved = net.copy().to(dtype="float32")
        before = asnumpy(moved.predict(x))
        moved.params["W1"] *= 2.0  # of both uses
        assert np.abs(asnumpy(moved.predict(x)) - before).max() > 1e-3
        indices = device.asarray(rng.integers(0, 4, (5, 2)))
        plain = net.copy()
        for index in indices:
            _, grads = plain.loss_and_gradient(x[index], t[index])
            SGD(0.1).update(plain.params, grads)
        net.compile(SGD(0.1), 2).run(x, t, indices)
        np.testing.assert_allclose(asnumpy(net.params.flat), asnumpy(plain.params.flat), rtol=1e-12)

    def test_a_layer_used_twice_keeps_one_set_of_buffers(self, device, rng, tmp_path):
        """Also when the network is moved, copied, saved or loaded."""

        def network():
            x, t, norm = Input("x"), Input("t"), BatchNormalization(np.ones(6), np.zeros(6))
            return GraphNetwork(SoftmaxWithLoss()(affine(6, 3)(norm(Relu()(norm(x)))), t), dtype="float64")

        net, x, t = network(), rng.standard_normal((8, 6)), rng.integers(0, 3, 8)
        moved = network().to(device, "float32").to(dtype="float64").copy()
        for _ in range(3):
            net.loss_and_gradient(x, t)
            moved.loss_and_gradient(device.asarray(x), device.asarray(t))
        np.testing.assert_allclose(asnumpy(moved.predict(device.asarray(x))), net.predict(x), rtol=1e-4, atol=1e-6)
        loaded = network().to("cpu", "float64")
        net.save_params(tmp_path / "params.npz")
        loaded.load_params(tmp_path / "params.npz")
        np.testing.assert_array_equal(loaded.predict(x), net.predict(x))

    def test_training_reaches_what_a_row_of_layers_cannot_express(self, device, rng):
        x = rng.standard_normal((300, 6))
        t = (x[:, 0] * x[:, 1] > 0).astype(int)
        value, labels = Input("x"), Input("t")
        a, b = affine(6, 8, 1)(value), affine(6, 8, 2)(value)
        net = GraphNetwork(SoftmaxWithLoss()(affine(8, 2, 3)(a * b), labels), device=device)
        trainer = Trainer(net, x, t, x, t, steps=400, verbose=False, optimizer_param={"lr": 0.1}, seed=0)
        trainer.train()
        assert trainer.test_acc_list[-1] > 0.95

    def test_the_gradient_of_the_input_is_not_computed(self, rng):
        x, t = Input("x"), Input("t")
        layer = affine(6, 3)
        layer.backward = None  # not called: only its parameters' gradients are
        net = GraphNetwork(SoftmaxWithLoss()(layer(x * 2), t))
        net.gradient(rng.standard_normal((2, 6)), [0, 1])

    def test_constants_follow_the_network(self, device, rng):
        x, t = Input("x"), Input("t")
        net = GraphNetwork(SoftmaxWithLoss()(affine(6, 3)(x * rng.standard_normal(6)), t)).to(device, "float32")
        x, t = batch(device, rng)
        assert net.predict(x).dtype == net.gradient(x, t).dtype == "float32"

    def test_what_is_no_network_is_refused(self):
        x, t, other = Input("x"), Input("t"), Input("other")
        loss = SoftmaxWithLoss()
        with pytest.raises(ValueError, match="loss must be a loss layer applied to graph values"):
            GraphNetwork(Relu()(x))
        with pytest.raises(ValueError, match="loss must be a loss layer"):
            GraphNetwork(loss)
        with pytest.raises(ValueError, match="the labels of SoftmaxWithLoss must be an Input"):
            GraphNetwork(loss(x, Relu()(t)))
        with pytest.raises(ValueError, match="one Input besides the labels, found 'x', 'other'"):
            GraphNetwork(SoftmaxWithLoss()(x + other, t))
        with pytest.raises(ValueError, match="one Input besides the labels, found 't'"):
            GraphNetwork(SoftmaxWithLoss()(Relu()(t), t))

    def test_a_layer_of_another_network_is_refused(self):
        layer = affine(6, 3)
        Sequential([layer])
        with pytest.raises(ValueError, match="belongs to a network already"):
            GraphNetwork(SoftmaxWithLoss()(layer(Input("x")), Input("t")))

"""The profile of a training step: every part is there, what it counts is right, and nothing is changed by it."""

import numpy as np
import pytest

from xpnet import kernels
from xpnet.layers import Affine, Convolution, Flatten, Layer, Relu
from xpnet.nets import Sequential, TwoLayerNet
from xpnet.optimizers import SGD
from xpnet.training.profile import Part, StepProfile, profile_step


@pytest.fixture
def data(device, rng):
    return device.asarray(rng.random((40, 6), dtype="float32")), device.asarray(rng.integers(0, 3, 40))


def test_every_part_of_the_step_is_timed(device, data):
    net = TwoLayerNet(6, 5, 3, device=device, seed=0)
    profile = profile_step(net, SGD(0.1), *data, batch_size=8, steps=4)
    parts = {part.name: part for part in profile.parts}
    assert list(parts) == ["gather", "Affine1", "Relu1", "Affine2", "loss", "update"]
    assert all(part.forward > 0 for part in parts.values())
    assert [name for name, part in parts.items() if part.backward == 0] == ["gather", "update"]
    assert [name for name, part in parts.items() if part.products > 0] == ["Affine1", "Affine2"]
    assert profile.step > 0
    assert profile.products == parts["Affine1"].products + parts["Affine2"].products


def test_its_table_has_a_row_for_each_part_and_the_share_of_the_products(device, data):
    profile = profile_step(TwoLayerNet(6, 5, 3, device=device), SGD(0.1), *data, batch_size=8, steps=4)
    lines = str(profile).splitlines()
    assert [line.split()[0] for line in lines[2:8]] == [part.name for part in profile.parts]
    assert lines[9].split() == ["together", *lines[9].split()[1:]]
    assert f"8 samples on {device}" in lines[-1]
    assert ("as a CUDA graph" in lines[-1]) == (device.name != "cpu")


@pytest.mark.parametrize(
    ("products", "words"),
    [
        (2e-4, "100.0 µs, less than its matrix products by the BLAS, 200.0 µs"),
        (4e-5, "100.0 µs, of which its matrix products alone are 40%"),
    ],
)
def test_a_step_may_take_less_than_its_products_by_the_blas(products, words):
    profile = StepProfile((Part("Affine1", 1e-5, 1e-5, products),), 1e-4, 8, "cpu", "by two threads")
    assert str(profile).endswith(words)


def test_network_and_optimizer_are_left_as_they_are(device, data):
    net = TwoLayerNet(6, 5, 3, device=device, seed=0)
    before = device.asnumpy(net.params.flat.copy())
    optimizer = SGD(0.1)
    profile_step(net, optimizer, *data, batch_size=8, steps=4)
    np.testing.assert_array_equal(device.asnumpy(net.params.flat), before)
    assert "update" not in vars(optimizer)
    assert all("forward" not in vars(layer) for layer in net.layers.values())


def test_products_are_counted_once_for_each_pass_that_has_one(device, data, monkeypatch):
    from xpnet.training import profile as module

    counted = []
    monkeypatch.setattr(module, "median_seconds", lambda call, *_, **__: counted.append(call) or 1.0)
    layers = [Affine.from_sizes(6, 5, rng=0), Relu(), Affine.from_sizes(5, 4, rng=0), Affine.from_sizes(4, 3, rng=0)]
    profile = profile_step(Sequential(layers, device=device), SGD(0.1), *data, batch_size=8, steps=4)
    assert [part.products for part in profile.parts] == [0, 2, 0, 3, 3, 0, 0]  # the first needs no input gradient
    assert len(counted) == 1 + 8


def test_products_of_a_convolution_in_blocks_are_all_counted(device, rng, monkeypatch):
    from xpnet.training import profile as module

    monkeypatch.setattr(module, "median_seconds", lambda call, *_, **__: 1.0)
    monkeypatch.setattr(kernels, "scratch_size", lambda x: 2 * 9 * 4 * 5 * x.itemsize)  # the columns of a row of places
    layers = [Convolution.from_sizes(1, 2, 3, pad=1), Convolution.from_sizes(2, 3, 3, rng=0), Flatten()]
    net = Sequential([*layers, Affine.from_sizes(27, 3, rng=0)], input_shape=(1, 5, 5), device=device)
    x = device.asarray(rng.random((10, 1, 5, 5), dtype="float32"))
    t = device.asarray(rng.integers(0, 3, 10))
    products = {part.name: part.products for part in profile_step(net, SGD(0.1), x, t, batch_size=5, steps=4).parts}
    # In 3 blocks of a row each: forward, dx and dW; and db, once. The first has half the channels.
    assert products["Convolution2"] == 3 * 3 + 1
    assert products["Affine1"] == 3


def test_a_layer_of_ones_own_is_timed(device, data):
    class Double(Layer):
        def forward(self, x, train=True):
            return x * 2.0

        def backward(self, dout):
            return dout * 2.0

    net = Sequential([Affine.from_sizes(6, 3, rng=0), Double()], device=device)
    parts = {part.name: part for part in profile_step(net, SGD(0.1), *data, batch_size=8, steps=4).parts}
    assert parts["Double1"].forward > 0
    assert parts["Double1"].backward > 0

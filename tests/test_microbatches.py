"""Minibatches in microbatches: the update of the whole minibatch, the memory of a part."""

import copy

import numpy as np
import pytest

from xpnet import asnumpy
from xpnet.layers import Affine, BatchNormalization, Dropout, IdentityWithLoss, Layer, Relu, Residual, SoftmaxWithLoss
from xpnet.nets import DeepConvNet, MultiLayerNet, Sequential
from xpnet.optimizers import SGD, Adam
from xpnet.training import Trainer

SAMPLES = 40


def perceptron(last=SoftmaxWithLoss, dtype="float64", device="cpu"):
    layers = [Affine.from_sizes(6, 8, std=0.5, rng=0), Relu(), Affine.from_sizes(8, 3, std=0.5, rng=1)]
    return Sequential(layers, last(), dtype=dtype, device=device)


def with_dropout(dtype="float64", device="cpu"):
    block = Residual(Affine.from_sizes(8, 8, rng=1), Dropout(0.3, seed=5))
    layers = [Affine.from_sizes(6, 8, std=0.5, rng=0), Relu(), Dropout(0.4, seed=3), block]
    return Sequential([*layers, Affine.from_sizes(8, 3, std=0.5, rng=2)], dtype=dtype, device=device)


NETWORKS = {
    "plain": perceptron,
    "weight decay": lambda **place: MultiLayerNet(6, [8, 8], 3, weight_decay_lambda=0.1, seed=0, **place),
    "dropout": with_dropout,
    "ignored labels": lambda **place: perceptron(lambda: SoftmaxWithLoss(ignore_index=2), **place),
    "class weights": lambda **place: perceptron(lambda: SoftmaxWithLoss(class_weight=[1.0, 2.0, 0.5]), **place),
    "regression": lambda **place: perceptron(IdentityWithLoss, **place),
}
"""Networks of six inputs and three outputs, by name."""


def data_of(name, rng):
    t = rng.random((SAMPLES, 3)) if name == "regression" else rng.integers(0, 3, SAMPLES)
    if name == "ignored labels":
        t[:30] = 2  # of some microbatches no sample counts
    return rng.standard_normal((SAMPLES, 6)), t


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shares", [1, 2])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_update_is_that_of_the_whole_minibatch(rng, name, shares, weighted):
    if shares > 1:
        pytest.importorskip("threadpoolctl", reason="threadpoolctl is not installed")
    (x, t), w = data_of(name, rng), rng.random(SAMPLES) if weighted else None
    steps = [
        NETWORKS[name](dtype="float64").compile(Adam(0.01), 20, "numpy", shares=n, microbatch=m)
        for n, m in ((1, None), (shares, 3), (shares, 20))
    ]
    for size in (20, 7, 1):
        indices = rng.integers(0, SAMPLES, (4, size))
        expected, *found = (step.run(x, t, indices, sample_weight=w) for step in steps)
        for losses in found:
            np.testing.assert_allclose(losses, expected, rtol=1e-10)
    for step in steps[1:]:
        np.testing.assert_allclose(step.net.params.flat, steps[0].net.params.flat, rtol=1e-10, atol=1e-10)


def test_of_images(rng):
    x, t = rng.random((8, 1, 28, 28)), rng.integers(0, 10, 8)
    nets = [DeepConvNet(seed=0, dtype="float64") for _ in range(2)]
    for net, microbatch in zip(nets, (None, 3), strict=True):
        net.compile(SGD(0.01), 8, shares=1, microbatch=microbatch).run(x, t, np.arange(8)[None])
    np.testing.assert_allclose(nets[0].params.flat, nets[1].params.flat, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_on_cuda_they_are_captured(cuda, rng, name, weighted):
    """Nothing in a step waits for the device, weights neither: a wait would end the capture with a warning."""
    x, t, indices = *data_of(name, rng), rng.integers(0, SAMPLES, (30, 7))
    w = rng.random(SAMPLES) if weighted else None
    losses = []
    for device, microbatch in (("cpu", None), (cuda, 3)):
        net = NETWORKS[name](dtype="float64", device=device)
        step = net.compile(Adam(0.01), 7, "numpy", shares=1, microbatch=microbatch)
        place = net.device.asarray
        weights = None if w is None else place(w)
        losses.append(asnumpy(step.run(place(x), place(t), place(indices), sample_weight=weights)))
    assert step.runners[0].graphs
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-8)


def test_no_layer_gets_more_samples_than_a_microbatch(rng):
    sizes = set()

    class Noting(Relu):
        samplewise = True

        def forward(self, x, train=True):
            sizes.add(len(x))
            return super().forward(x, train)

    net = Sequential([Affine.from_sizes(6, 8), Noting(), Affine.from_sizes(8, 3)])
    x, t = data_of("plain", rng)
    net.compile(SGD(0.1), 20, microbatch=6, shares=1).run(x, t, np.arange(20)[None])
    assert sizes == {5}


def test_a_trainer_takes_as_many_steps_and_a_copy_goes_on(rng):
    x, t = data_of("plain", rng)
    trainers = [
        Trainer(with_dropout(), x, t, epochs=3, mini_batch_size=10, seed=0, verbose=False, microbatch=m, shares=1)
        for m in (None, 4)
    ]
    for trainer in trainers:
        trainer.train()
    assert trainers[0].current_iter == trainers[1].current_iter == 12
    np.testing.assert_allclose(trainers[1].train_loss_list, trainers[0].train_loss_list, rtol=1e-10)
    step = with_dropout().compile(SGD(0.1), 10, microbatch=4)
    indices = rng.integers(0, SAMPLES, (3, 10))
    step.run(x, t, indices)
    twin = copy.deepcopy(step)
    np.testing.assert_array_equal(twin.run(x, t, indices), step.run(x, t, indices))
    np.testing.assert_array_equal(twin.net.params.flat, step.net.params.flat)


def test_what_microbatches_do_not_fit_is_refused():
    class Center(Layer):
        def forward(self, x, train=True):
            return x - x.mean(axis=0)

        def backward(self, dout):
            return dout - dout.mean(axis=0)

    normalized = Sequential([BatchNormalization(np.ones(6), np.zeros(6)), Affine.from_sizes(6, 3)], dtype="float64")
    with pytest.raises(ValueError, match="microbatch must be None for this network, got 2: BatchNormalization1 mixes"):
        normalized.compile(SGD(0.1), 4, microbatch=2)
    with pytest.raises(ValueError, match="got 2: Center1 mixes the samples"):
        Sequential([Center(), Affine.from_sizes(6, 3)]).compile(SGD(0.1), 4, microbatch=2)
    with pytest.raises(ValueError, match="microbatch must be None with precision float16, got 2"):
        perceptron(dtype="float32").compile(SGD(0.1), 4, precision="float16", microbatch=2)
    with pytest.raises(ValueError, match="microbatch"):
        perceptron().compile(SGD(0.1), 4, microbatch=0)

"""Half precision: networks that compute in float16, and training steps of float32 networks that do."""

import copy

import numpy as np
import pytest

from xpnet import asnumpy
from xpnet.layers import Affine, BatchNormalization, Convolution, Dropout, IdentityWithLoss, Pooling, Relu, Residual
from xpnet.nets import (
    DeepConvNet,
    GraphNetwork,
    LeNet5,
    MultiLayerNet,
    MultiLayerNetExtend,
    Sequential,
    SimpleConvNet,
    TwoLayerNet,
)
from xpnet.optimizers import SGD, Adam, AdamW, Momentum, Optimizer
from xpnet.steps import cuda_graph, mixed
from xpnet.training import Trainer

IMAGE = (1, 28, 28)

NETWORKS = {
    "two-layer": ((784,), lambda **k: TwoLayerNet(784, 50, 10, "he", **k)),
    "mlp": ((784,), lambda **k: Sequential.mlp([784, 30, 30, 10], "gelu", **k)),
    "multi-layer": ((784,), lambda **k: MultiLayerNet(784, [30, 30], 10, "sigmoid", **k)),
    "extended": ((784,), lambda **k: MultiLayerNetExtend(784, [30], 10, use_dropout=True, use_batchnorm=True, **k)),
    "simple-convnet": (IMAGE, lambda **k: SimpleConvNet(weight_init_std="he", **k)),
    "lenet5": (IMAGE, LeNet5),
    "deep-convnet": (IMAGE, DeepConvNet),
}


@pytest.mark.parametrize(("sample", "build"), NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("of_data", ["float32", "uint8"])
def test_predictions_in_float16_are_those_of_float32_to_three_digits(device, rng, sample, build, of_data):
    x = rng.integers(0, 256, (8, *sample)).astype("uint8")
    x = device.asarray(x if of_data == "uint8" else (x / 255).astype(of_data))
    single, half = build(seed=0, device=device), build(seed=0, device=device, dtype="float16")
    expected, found = asnumpy(single.predict(x)), asnumpy(half.predict(x))
    assert found.dtype == "float16"
    assert np.abs(found - expected).max() < 4e-3 * np.abs(expected).max()
    assert half.accuracy(x, device.asarray(expected.argmax(axis=1))) >= 7 / 8
    moved = single.to(dtype="float16")  # whose parameters have been rounded twice, where half's have once
    np.testing.assert_allclose(asnumpy(moved.predict(x)), found, atol=4e-3 * np.abs(expected).max())


def everything(device, dtype="float32"):
    """Return a network with all that has a state, or a share in the loss."""
    rng = np.random.default_rng(0)
    norm = BatchNormalization(np.ones(4, dtype), np.zeros(4, dtype))
    layers = [
        Convolution.from_sizes(1, 4, 3, pad=1, rng=rng, dtype=dtype),
        Residual(norm, Relu(), Convolution.from_sizes(4, 4, 3, pad=1, rng=rng, dtype=dtype)),
        Pooling(2, 2),
        Dropout(0.2, seed=1),
        Affine.from_sizes(36, 3, std="he", rng=rng, dtype=dtype),
    ]
    net = Sequential(layers, input_shape=(1, 6, 6), device=device)
    net.weight_decay_lambda = 1e-2
    return net


def problem(device, rng, n=40):
    """Return images, brighter at the left, at the right, or nowhere."""
    t = rng.integers(0, 3, n)
    x = rng.standard_normal((n, 1, 6, 6)).astype("float32")
    x[t == 0, :, :, :3] += 1
    x[t == 1, :, :, 3:] += 1
    return device.asarray(x), device.asarray(t)


def scale_of(step, value):
    step.load_state(step.state() | {"loss_scale": value})


RULES = {
    "sgd": lambda: SGD(0.05),
    "momentum": lambda: Momentum(0.02, clip_norm=1.0),
    "adam": lambda: Adam(0.005),
    "adamw": lambda: AdamW(0.005, weight_decay=0.1),
}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_training_in_mixed_precision_follows_float32(device, rng, rule):
    x, t = problem(device, rng)
    indices = device.asarray(rng.integers(0, 40, (60, 8)))
    single, half = everything(device), everything(device)
    expected = asnumpy(single.compile(rule(), 8).run(x, t, indices))
    step = half.compile(rule(), 8, precision="float16")
    scale_of(step, 2**10)  # the first is for larger batches, and would be halved
    found = asnumpy(step.run(x, t, indices))
    assert (step.precision, step.backend, step.steps) == ("float16", "numpy", 60)
    assert found.dtype == half.dtype == half.params.flat.dtype == "float32"
    assert expected[-10:].mean() < 0.8 * expected[:10].mean()
    np.testing.assert_allclose(found[:8], expected[:8], rtol=0.03)
    assert found[-10:].mean() == pytest.approx(expected[-10:].mean(), rel=0.1)
    assert step.state()["loss_scale"] == 2**10
    for name, buffer in single.buffers().items():
        assert half.buffers()[name].dtype == buffer.dtype
        np.testing.assert_allclose(
            asnumpy(half.buffers()[name]), asnumpy(buffer), rtol=0.1 if buffer.dtype.kind == "f" else 0, atol=0.05
        )
    if device.name != "cpu":
        assert step.runners[0].graphs.keys() == {(1, 8), (cuda_graph.STEPS_PER_EXECUTION, 8)}


def test_small_gradients_reach_the_parameters_thanks_to_the_scale(device, rng):
    x, t = device.asarray(rng.random((8, 5), dtype="float32")), device.asarray(rng.random((8, 2), dtype="float32"))
    moved = {}
    for precision, scale in (("float32", 1), ("float16", 1), ("float16", 2**16)):
        W = (1e-8 * rng.standard_normal((5, 2))).astype("float32")  # lost in float16, and its gradient as well
        net = Sequential([Affine(0 * W, W[0] * 0)], IdentityWithLoss(), device=device)
        step = net.compile(SGD(1.0), 8, precision=precision)
        if precision == "float16":
            scale_of(step, scale)
        step.run(x, 1e-7 * t, device.asarray(np.arange(8)[None]))
        moved[precision, scale] = asnumpy(net.params["W1"]).copy()
    assert np.abs(moved["float32", 1]).max() > 1e-8
    np.testing.assert_allclose(moved["float16", 2**16], moved["float32", 1], rtol=2e-2)
    assert not np.allclose(moved["float16", 1], moved["float32", 1], rtol=0.5, atol=0)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_a_gradient_that_is_too_large_halves_the_scale_and_changes_nothing_else(device, rng, rule):
    x, t = problem(device, rng)
    indices = device.asarray(rng.integers(0, 40, (4, 8)))
    net, optimizer = everything(device), rule()
    step = net.compile(optimizer, 8, precision="float16")
    step.run(x, t, indices)
    params = asnumpy(net.params.flat).copy()
    state = {name: asnumpy(kept.flat).copy() for name, kept in optimizer.state.items()}
    scale_of(step, 2.0**60)
    losses = asnumpy(step.run(x, t, indices))
    assert np.isfinite(losses).all()
    assert step.state()["loss_scale"] == 2.0**56
    np.testing.assert_array_equal(asnumpy(net.params.flat), params)
    for name, kept in optimizer.state.items():
        np.testing.assert_array_equal(asnumpy(kept.flat), state[name])
    step.run(x, t, device.asarray(rng.integers(0, 40, (50, 8))))
    assert 2.0**10 < step.state()["loss_scale"] < 2.0**40
    assert np.isfinite(asnumpy(net.params.flat)).all()
    assert not np.array_equal(asnumpy(net.params.flat), params)


def test_a_skipped_update_does_not_count(device, rng, monkeypatch):
    """Neither for a schedule of learning rates nor for Adam's bias correction, whatever runs the steps."""
    monkeypatch.setattr(cuda_graph, "STEPS_PER_EXECUTION", 3)
    x, t = problem(device, rng)
    indices = device.asarray(rng.integers(0, 40, (14, 8)))

    def run(graphed):
        net, optimizer = everything(device), Adam(lambda step: 0.01 / (1 + step))
        step = net.compile(optimizer, 8, precision="float16")
        if not graphed:
            step.runners = step.runners[-1:]
        updates = 0
        for part in (indices[:1], indices[1:9], indices[9:]):
            scale_of(step, 2.0**20)  # some updates of each run are skipped, until the scale is small enough
            step.run(x, t, part)
            scales = step.state()["loss_scale"]
            updates += len(part) - round(np.log2(2.0**20 / scales))
        return updates, optimizer.steps, asnumpy(net.params.flat)

    (updates, steps, params), (_, again, plain) = run(True), run(False)
    assert 0 < updates == steps == again < 13
    np.testing.assert_array_equal(params, plain)


def test_good_steps_double_the_scale(device, rng, monkeypatch):
    monkeypatch.setattr(mixed, "GROWTH_INTERVAL", 3)
    x, t = problem(device, rng)
    step = everything(device).compile(SGD(0.01), 8, precision="float16")
    scale_of(step, 4)
    found = []
    for _ in range(8):
        step.run(x, t, device.asarray(rng.integers(0, 40, (1, 8))))
        found.append(step.state()["loss_scale"])
    assert found == [4, 4, 8, 8, 8, 16, 16, 16]


def test_steps_go_on_from_a_saved_state(device, rng, monkeypatch):
    monkeypatch.setattr(mixed, "GROWTH_INTERVAL", 5)
    x, t = problem(device, rng)
    indices = device.asarray(rng.integers(0, 40, (14, 8)))
    net, optimizer = everything(device), Momentum(0.01)
    first = net.compile(optimizer, 8, precision="float16")
    first.run(x, t, indices[:7])
    state, other, rule = first.state(), net.copy(), copy.deepcopy(optimizer)
    assert 0 < state["good_steps"] < 5
    again = other.compile(rule, 8, precision="float16")
    again.load_state(state)
    np.testing.assert_array_equal(asnumpy(again.run(x, t, indices[7:])), asnumpy(first.run(x, t, indices[7:])))
    np.testing.assert_array_equal(asnumpy(other.params.flat), asnumpy(net.params.flat))
    assert again.state() == first.state() != state


def test_graphs_are_the_steps_one_by_one(cuda, rng, monkeypatch):
    monkeypatch.setattr(cuda_graph, "STEPS_PER_EXECUTION", 3)
    monkeypatch.setattr(mixed, "GROWTH_INTERVAL", 4)
    device = cuda
    x, t = problem(device, rng)
    indices = device.asarray(rng.integers(0, 40, (14, 8)))
    results = []
    for graphed in (True, False):
        net = everything(device)
        step = net.compile(Adam(0.01), 8, precision="float16")
        if not graphed:
            step.runners = step.runners[1:]
        losses = [asnumpy(step.run(x, t, part)) for part in (indices[:1], indices[1:9], indices[9:])]
        results.append([np.concatenate(losses), asnumpy(net.params.flat), step.state()["loss_scale"]])
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_any_network_and_its_trainer_take_it(device, rng):
    from xpnet.graph import Input
    from xpnet.layers import SoftmaxWithLoss

    x, t = Input("x"), Input("t")
    shared = Affine.from_sizes(36, 36, std="he", rng=1)
    scores = Affine.from_sizes(36, 3, std="he", rng=2)(shared(Relu()(shared(x))) + x)
    net = GraphNetwork(SoftmaxWithLoss()(scores, t), device=device)
    samples, labels = problem(device, rng)
    samples = samples.reshape(40, 36)
    trainer = Trainer(
        net, samples, labels, samples, labels, epochs=10, mini_batch_size=8, precision="float16", verbose=False,
        optimizer_param={"lr": 0.02},
    )  # fmt: skip
    assert trainer.train().evaluations[-1].train_accuracy > 0.8
    assert net.dtype == "float32"


def test_all_uses_of_a_layer_share_its_running_averages(device, rng):
    from xpnet.graph import Input
    from xpnet.layers import SoftmaxWithLoss

    x, t = Input("x"), Input("t")
    norm = BatchNormalization(np.ones(36, "float32"), np.zeros(36, "float32"))
    scores = Affine.from_sizes(36, 3, std="he", rng=2)(norm(Relu()(norm(x))))
    net = GraphNetwork(SoftmaxWithLoss()(scores, t), device=device)
    other = net.copy()
    samples, labels = problem(device, rng)
    indices = device.asarray(rng.integers(0, 40, (3, 8)))
    for n, precision in ((net, "float32"), (other, "float16")):
        step = n.compile(SGD(1e-3), 8, precision=precision)
        if precision == "float16":
            scale_of(step, 1.0)
        step.run(samples.reshape(40, 36), labels, indices)
    for name, buffer in net.buffers().items():
        np.testing.assert_allclose(asnumpy(other.buffers()[name]), asnumpy(buffer), rtol=2e-2, atol=1e-2)


def test_what_cannot_be_done_is_refused(device):
    with pytest.raises(ValueError, match="precision 'float16' is for steps of a float32 network, got float64"):
        TwoLayerNet(2, 2, 2, dtype="float64", device=device).compile(SGD(0.1), 2, precision="float16")
    for net, precision in ((TwoLayerNet(2, 2, 2), "float16"), (TwoLayerNet(2, 2, 2, dtype="float16"), "float32")):
        with pytest.raises(ValueError, match="'numba' computes in float32 and float64, got float16; use 'numpy'"):
            net.compile(SGD(0.1), 2, "numba", precision)
        assert net.compile(SGD(0.1), 2, precision=precision).backend == "numpy"

    class Own(Optimizer):
        def update(self, params, grads):
            pass

    with pytest.raises(TypeError, match="must be able to take an update back, which Own, with an update of its own"):
        TwoLayerNet(2, 2, 2).compile(Own(0.1), 2, precision="float16")


def test_networks_of_float16_train_without_a_scale(device, rng):
    x, t = problem(device, rng)
    net = everything(device, "float16")
    losses = asnumpy(net.compile(SGD(0.05), 8).run(x, t, device.asarray(rng.integers(0, 40, (40, 8)))))
    assert losses.dtype == net.params.flat.dtype == "float16"
    assert losses[-10:].mean() < 0.9 * losses[:10].mean()
    assert copy.deepcopy(net).predict(x).dtype == "float16"

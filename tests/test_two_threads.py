"""A perceptron's steps on two cores: the numbers of the plain path, whatever the number of threads, and no hanging."""

import copy
import importlib
import threading
from unittest import mock

import numpy as np
import pytest

from xpnet.blas import blas
from xpnet.layers import Affine, HingeWithLoss, Relu, Sigmoid, SigmoidWithLoss, SoftmaxWithLoss
from xpnet.nets import Sequential, TwoLayerNet
from xpnet.optimizers import SGD, Adam, AdamW, CosineAnnealing, Momentum, Nesterov, RMSprop, StepLR
from xpnet.steps.step import OneByOne
from xpnet.steps.two_threads import LARGEST, UNINTERRUPTED_STEPS, TwoThreads
from xpnet.training.profile import profile_step

for module in ("numba", "scipy"):
    pytest.importorskip(module, reason=f"{module} is not installed")
threadpoolctl = pytest.importorskip("threadpoolctl", reason="threadpoolctl is not installed")

SAMPLES = 40


def data(rng, inputs=6, dtype="float32"):
    x = rng.integers(0, 256, (SAMPLES, inputs)) if dtype == "uint8" else rng.standard_normal((SAMPLES, inputs))
    return x.astype(dtype), rng.integers(0, 3, SAMPLES)


def net_of(*sizes, activation="relu", dtype="float32"):
    return Sequential.mlp(sizes, activation, std=0.5, dtype=dtype, seed=0)


def compiled(net, rule, batch_size=4):
    step = net.compile(rule, batch_size, backend="numba")
    assert isinstance(step.runners[0], TwoThreads)
    return step


def train_plainly(net, rule, x, t, indices):
    losses = []
    for index in indices:
        loss, grads = net.loss_and_gradient(x[index], t[index])
        rule.update(net.params, grads)
        losses.append(loss)
    return np.array(losses)


def assert_same_training(net, step, plain, rule, x, t, indices):
    dtype = net.dtype
    expected = train_plainly(plain, rule, x, t, indices)
    found = np.concatenate([step.run(x, t, part) for part in (indices[:1], indices[1:])])
    assert found.dtype == dtype
    assert step.steps == step.optimizer.steps == len(indices)
    tolerance = {"rtol": 1e-3, "atol": 1e-5} if dtype == "float32" else {"rtol": 1e-9, "atol": 1e-12}
    np.testing.assert_allclose(found, expected, **tolerance)
    np.testing.assert_allclose(net.params.flat, plain.params.flat, **tolerance)


RULES = {
    "descent": lambda: SGD(0.1),
    "a schedule": lambda: SGD(StepLR(0.1, 3)),
    "momentum": lambda: Momentum(0.05),
    "Nesterov's": lambda: Nesterov(0.05, weight_decay=0.01),
    "weight decay": lambda: SGD(0.1, weight_decay=0.1),
    "clipped by norm": lambda: SGD(0.1, clip_norm=0.1),
    "clipped by value": lambda: SGD(0.1, clip_value=0.01),
    "Adam": lambda: Adam(0.01),
    "Adam with weight decay": lambda: Adam(CosineAnnealing(0.01, 40), weight_decay=0.01),
    "RMSprop": lambda: RMSprop(0.001),
    "AdamW": lambda: AdamW(0.01),
}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_takes_the_steps_of_the_plain_path(rng, dtype, rule):
    x, t = data(rng, dtype=dtype)
    net, plain = net_of(6, 8, 3, dtype=dtype), net_of(6, 8, 3, dtype=dtype)
    indices = rng.integers(0, SAMPLES, (UNINTERRUPTED_STEPS + 3, 5))
    assert_same_training(net, compiled(net, rule(), 5), plain, rule(), x, t, indices)


@pytest.mark.parametrize("rule", [RULES["descent"], RULES["Adam"], RULES["RMSprop"], RULES["clipped by norm"]])
@pytest.mark.parametrize("are_weighted", [False, True])
def test_weight_decay_of_the_network_as_on_the_plain_path(rng, rule, are_weighted):
    """Its strength may depend on the size of the minibatch."""

    class Penalized(Sequential):
        def weight_decay_of(self, samples):
            return 0.7 / samples

    x, t = data(rng, dtype="float64")
    weights = rng.random(SAMPLES) if are_weighted else None
    layers = list(net_of(6, 8, 3, dtype="float64").layers.values())
    nets = [Penalized(copy.deepcopy(layers)) for _ in range(2)]
    steps = [net.compile(rule(), 5, backend) for net, backend in zip(nets, ("numba", "numpy"), strict=True)]
    assert [step.runners[0].name for step in steps] == ["by two threads", "one by one"]
    for size in (5, 3, 2):
        indices = rng.integers(0, SAMPLES, (4, size))
        found, expected = (step.run(x, t, indices, sample_weight=weights) for step in steps)
        np.testing.assert_allclose(found, expected, rtol=1e-12)
        np.testing.assert_allclose(nets[0].params.flat, nets[1].params.flat, rtol=1e-9, atol=1e-12)


def binary_net(dtype="float64"):
    return Sequential.mlp([6, 8, 1], std=0.5, loss=SigmoidWithLoss(), dtype=dtype, seed=0)


@pytest.mark.parametrize("rule", [RULES["descent"], RULES["Adam"], RULES["RMSprop"]])
@pytest.mark.parametrize("are_weighted", [False, True])
@pytest.mark.parametrize("labels", ["int64", "bool", "float32", "column"])
def test_two_classes_with_one_output(rng, rule, are_weighted, labels):
    x, t = rng.standard_normal((SAMPLES, 6)) * 20.0, rng.integers(0, 2, SAMPLES)  # scores of all sizes
    t = t[:, None] if labels == "column" else t.astype(labels)
    weights = rng.random(SAMPLES) if are_weighted else None
    nets = [binary_net(), binary_net()]
    steps = [net.compile(rule(), 5, backend) for net, backend in zip(nets, ("numba", "numpy"), strict=True)]
    assert [step.runners[0].name for step in steps] == ["by two threads", "one by one"]
    indices = rng.integers(0, SAMPLES, (7, 5))
    with mock.patch.object(OneByOne, "run", side_effect=AssertionError("not by two threads")):
        found = steps[0].run(x, t, indices, sample_weight=weights)
    np.testing.assert_allclose(found, steps[1].run(x, t, indices, sample_weight=weights), rtol=1e-11)
    np.testing.assert_allclose(nets[0].params.flat, nets[1].params.flat, rtol=1e-9, atol=1e-12)
    expected = nets[0].evaluate(x, t)
    assert steps[0].evaluate(x, t) == pytest.approx(expected, rel=1e-12)
    assert steps[0].accuracy(x, t) == nets[0].accuracy(x, t)


def test_targets_between_two_classes_are_left_to_the_plain_path(rng):
    x, t = rng.standard_normal((SAMPLES, 6)), rng.random(SAMPLES)
    nets, indices = [binary_net(), binary_net()], rng.integers(0, SAMPLES, (3, 5))
    losses = [net.compile(SGD(), 5, b).run(x, t, indices) for net, b in zip(nets, ("numba", "numpy"), strict=True)]
    np.testing.assert_allclose(*losses, rtol=1e-12)
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        binary_net().compile(SGD(), 5, "numba").run(x, t + 5.0, indices)
    assert binary_net().compile(SGD(), 5, "numba").evaluate(x, t) == pytest.approx(binary_net().evaluate(x, t))


def test_the_first_product_is_split_only_where_small_ones_are_faster(monkeypatch):
    def width(sizes, batch_size):
        return compiled(net_of(*sizes), SGD(), batch_size).runners[0].perceptron(batch_size // 2).block_width

    monkeypatch.setattr(blas, "small", 10**6)
    assert [width((784, 50, 10), batch_size) for batch_size in (2, 50, 100, 1000)] == [784, 784, 392, 784]
    monkeypatch.setattr(blas, "small", 0)
    assert width((784, 50, 10), 100) == 784


@pytest.mark.parametrize("rule", [lambda: SGD(0.1), lambda: Momentum(0.1)])
def test_one_thread_and_two_take_the_same_steps_to_the_bit(rng, rule):
    x, t = data(rng, 30)
    indices = rng.integers(0, SAMPLES, (20, 16))
    nets = [net_of(30, 20, 3), net_of(30, 20, 3)]
    losses = []
    for net, threads in zip(nets, (1, 2), strict=True):
        step = compiled(net, rule(), 16)
        with threadpoolctl.threadpool_limits(threads):
            losses.append(step.run(x, t, indices))
    np.testing.assert_array_equal(*losses)
    np.testing.assert_array_equal(*(net.params.flat for net in nets))


@pytest.mark.parametrize("build", RULES.values(), ids=RULES)
def test_a_rule_in_the_compiled_function_takes_its_own_steps_to_the_bit(rng, build):
    known, rule = build(), build()
    rule.__class__ = type("Own", (type(rule),), {})  # which is not known there
    x, t = data(rng)
    nets, indices = [net_of(6, 8, 3), net_of(6, 8, 3)], rng.integers(0, SAMPLES, (20, 4))
    for net, optimizer in zip(nets, (known, rule), strict=True):
        step = compiled(net, optimizer)
        step.run(x, t, indices[:5])
        step.run(x, t, indices[5:])
    np.testing.assert_array_equal(*(net.params.flat for net in nets))
    assert known.state.keys() == rule.state.keys()
    for quantity in known.state:
        np.testing.assert_array_equal(known.state[quantity].flat, rule.state[quantity].flat)


def test_a_rule_goes_on_from_what_it_remembers_and_from_new_settings(rng):
    x, t = data(rng)
    nets, indices = [net_of(6, 8, 3), net_of(6, 8, 3)], rng.integers(0, SAMPLES, (20, 4))
    first, again = Adam(0.01), Adam(0.01)
    step = compiled(nets[0], first)
    step.run(x, t, indices[:9])
    first.lr, first.beta1 = 0.002, 0.5
    step.run(x, t, indices[9:])
    compiled(nets[1], again).run(x, t, indices[:9])
    new = Adam(0.002, beta1=0.5)
    new.steps, new.state = again.steps, {name: dict(kept) for name, kept in again.state.items()}
    compiled(nets[1], new).run(x, t, indices[9:])
    np.testing.assert_array_equal(*(net.params.flat for net in nets))


class OwnAffine(Affine):
    def forward(self, x, train=True):
        return 2 * super().forward(x, train)


class Shifted(Sequential):
    def predict(self, x, train=False):
        return super().predict(x, train) + 1


def test_is_there_for_perceptrons_that_fit_a_cores_cache():
    def is_in_two_threads(net, batch_size=10, **settings):
        return net.compile(SGD(), batch_size, **settings).runners[0].name == "by two threads"

    assert is_in_two_threads(net_of(6, 8, 3))
    assert is_in_two_threads(net_of(6, 8, 8, 8, 3, dtype="float64"))
    assert is_in_two_threads(net_of(6, 3))
    assert is_in_two_threads(TwoLayerNet(6, 8, 3))
    assert not is_in_two_threads(net_of(6, 8, 3), backend="numpy")
    assert not is_in_two_threads(net_of(6, 8, 3), precision="float16")
    assert not is_in_two_threads(net_of(6, 8, 3), batch_size=1)
    assert not is_in_two_threads(net_of(6, 8, 3, dtype="float16"))
    assert not is_in_two_threads(net_of(LARGEST // 12, 3))
    assert is_in_two_threads(Sequential.mlp([6, 8, 8, 3], "sigmoid"))
    assert not is_in_two_threads(Sequential.mlp([6, 8, 3], "gelu"))
    assert not is_in_two_threads(Sequential.mlp([6, 8, 3], loss=HingeWithLoss()))
    assert not is_in_two_threads(Sequential([Affine.from_sizes(6, 3), Relu()]))
    assert not is_in_two_threads(Sequential([Relu(), Affine.from_sizes(6, 3)]))
    assert not is_in_two_threads(Sequential([Affine.from_sizes(6, 3), Sigmoid(), Sigmoid(), Affine.from_sizes(3, 3)]))
    assert not is_in_two_threads(Sequential([OwnAffine.from_sizes(6, 3)]))
    assert not is_in_two_threads(Shifted([Affine.from_sizes(6, 3)]))


def test_a_profile_says_so(rng):
    assert " on cpu, by two threads: " in str(profile_step(net_of(6, 8, 3), SGD(), *data(rng), 4, steps=4))


@pytest.mark.parametrize("missing", ["scipy", "threadpoolctl"])
def test_numba_alone_computes_layer_by_layer(rng, monkeypatch, missing):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else find_spec(name))
    net, plain = net_of(6, 8, 3), net_of(6, 8, 3)
    assert net.compile(SGD(), 5).backend == "numpy"
    step = net.compile(SGD(0.1), 5, backend="numba")
    assert [runner.name for runner in step.runners] == ["one by one"]
    assert_same_training(net, step, plain, SGD(0.1), *data(rng), rng.integers(0, SAMPLES, (5, 5)))


def shared_out(net, x, t):
    shares = np.eye(3, dtype="float32")[t]
    shares[5] = 0.5, 0.25, 0.25
    return x, shares


def not_quite_one_hot(net, x, t):
    shares = np.eye(3, dtype="float32")[t]
    shares[6], shares[7] = shares[6] + shares[7], 0
    return x, shares


def smoothed(net, x, t):
    net.last_layer = SoftmaxWithLoss(label_smoothing=0.1)
    return x, t


def weighted(net, x, t):
    net.last_layer = SoftmaxWithLoss(class_weight=np.array([1, 2, 3], "float32"))
    return x, t


def strided(net, x, t):
    return np.repeat(x, 2, axis=1)[:, ::2], t


def integers(net, x, t):
    return x.astype("int16"), t


def watched(net, x, t):
    forward = net.layers["Relu1"].forward
    net.layers["Relu1"].forward = lambda *args: 0.5 * forward(*args)
    return x, t


@pytest.mark.parametrize("dtype", ["float32", "int64", "bool"])
def test_one_hot_labels_are_class_ids(rng, dtype):
    x, t = data(rng)
    nets, indices = [net_of(6, 8, 3), net_of(6, 8, 3)], rng.integers(0, SAMPLES, (20, 4))
    losses = [
        compiled(net, SGD(0.1)).run(x, labels, indices)
        for net, labels in zip(nets, (t, np.eye(3)[t].astype(dtype)), strict=True)
    ]
    np.testing.assert_array_equal(*losses)


def test_a_label_of_several_classes_ends_it_where_it_comes(rng):
    x, t = data(rng)
    net, plain, (_, shares) = net_of(6, 8, 3), net_of(6, 8, 3), shared_out(None, x, t)
    indices = rng.integers(6, SAMPLES, (3 * UNINTERRUPTED_STEPS, 4))
    indices[2 * UNINTERRUPTED_STEPS - 1, 0] = 5
    assert_same_training(net, compiled(net, SGD(0.1)), plain, SGD(0.1), x, shares, indices)


@pytest.mark.parametrize("change", [shared_out, not_quite_one_hot, smoothed, weighted, strided, integers, watched])
def test_what_the_compiled_function_does_not_know_goes_layer_by_layer(rng, change):
    net, plain = net_of(6, 8, 3), net_of(6, 8, 3)
    step = compiled(net, SGD(0.1), 5)  # and what is set behind this is seen
    x, t = data(rng)
    change(net, x, t)
    x, t = change(plain, x, t)
    assert_same_training(net, step, plain, SGD(0.1), x, t, rng.integers(0, SAMPLES, (5, 5)))


def test_samples_may_be_images_and_read_only(rng):
    x, t = data(rng)
    x.flags.writeable = False
    nets = [net_of(6, 8, 3), net_of(6, 8, 3)]
    indices = rng.integers(0, SAMPLES, (5, 4))
    expected = compiled(nets[0], SGD(0.1)).run(x, t, indices)
    found = compiled(nets[1], SGD(0.1)).run(x.reshape(-1, 1, 2, 3), t.astype("uint8"), indices.astype("int32"))
    np.testing.assert_array_equal(found, expected)


def test_networks_train_side_by_side_and_the_blas_has_its_threads_back(rng):
    libraries = threadpoolctl.ThreadpoolController().select(user_api="blas").lib_controllers
    before = [library.num_threads for library in libraries]
    (x, t), indices = data(rng, 30), rng.integers(0, SAMPLES, (300, 8))
    nets = [net_of(30, 20, 3) for _ in range(4)]
    steps = [compiled(net, SGD(0.1), 8) for net in nets]
    threads = [threading.Thread(target=step.run, args=(x, t, indices)) for step in steps[1:]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    steps[0].run(x, t, indices)
    for net in nets[1:]:
        np.testing.assert_array_equal(net.params.flat, nets[0].params.flat)
    assert [library.num_threads for library in libraries] == before


def test_minibatches_may_be_smaller_and_one_sample_is_left_to_the_next_runner(rng):
    x, t = data(rng)
    net, plain = net_of(6, 8, 3), net_of(6, 8, 3)
    step, rule = compiled(net, Momentum(0.05), 9), Momentum(0.05)
    for size in (9, 4, 9, 1, 2, 3):
        indices = rng.integers(0, SAMPLES, (4, size))
        np.testing.assert_allclose(step.run(x, t, indices), train_plainly(plain, rule, x, t, indices), rtol=1e-4)
    np.testing.assert_allclose(net.params.flat, plain.params.flat, rtol=1e-3, atol=1e-5)

"""The compiled training step: the numbers of the plain one, without its allocations, and nothing left behind."""

import copy
import gc
import pickle
import signal
import threading
import tracemalloc

import numpy as np
import pytest

from xpnet import Device, DeviceError, asnumpy, get_array_module
from xpnet.layers import (
    Affine,
    Elu,
    Gelu,
    Layer,
    LeakyRelu,
    Relu,
    Residual,
    Sigmoid,
    Silu,
    Softmax,
    Softplus,
    Tanh,
)
from xpnet.nets import Sequential, TwoLayerNet
from xpnet.optimizers import SGD, AdaGrad, Adam
from xpnet.steps import step as step_module

ACTIVATIONS = [Relu, LeakyRelu, Elu, Sigmoid, Tanh, Softplus, Silu, Gelu, lambda: Gelu("tanh"), Softmax]


class Doubled(Layer):
    """A layer of a user's, which knows nothing of arrays to write into."""

    parameter_names = ("s",)
    saved = ("x",)

    def __init__(self, s):
        self.s = s

    def forward(self, x, train=True):
        self.x = x
        return self.s * x

    def backward(self, dout):
        self.ds = (dout * self.x).sum(axis=0)
        return dout * self.s


class Same(Layer):
    """Hands on the very array that it gets."""

    def forward(self, x, train=True):
        return x

    def backward(self, dout):
        return dout


def deep_net(device, dtype, activation):
    def affine(n, m):
        return Affine.from_sizes(n, m, std=0.5, rng=n, dtype=dtype)

    layers = [affine(6, 8), activation(), Same(), affine(8, 8), Doubled(np.full(8, 1.5, dtype)), activation()]
    return Sequential([*layers, affine(8, 3)], device=device)


def data(device, rng, dtype="float32", labels="class ids"):
    x, t = rng.standard_normal((50, 6)), rng.integers(0, 3, 50)
    if dtype == "uint8":
        x = rng.integers(0, 256, (50, 6))
    return device.asarray(x.astype(dtype)), device.asarray(np.eye(3, dtype="float32")[t] if labels == "one-hot" else t)


@pytest.mark.parametrize("labels", ["class ids", "one-hot"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(
    ("dtype", "of_data"), [("float32", "float32"), ("float64", "float32"), ("float32", "uint8"), ("float64", "int16")]
)
def test_takes_the_very_steps_of_the_plain_path(device, rng, activation, dtype, of_data, labels):
    x, t = data(device, rng, of_data, labels)
    indices = device.asarray(rng.integers(0, 50, (7, 4)))
    plain, fast = deep_net(device, dtype, activation), deep_net(device, dtype, activation)
    optimizer, losses = SGD(0.1), []
    for index in indices:
        loss, grads = plain.loss_and_gradient(x[index], t[index])
        optimizer.update(plain.params, grads)
        losses.append(float(loss))
    step = fast.compile(SGD(0.1), batch_size=4, backend="numpy")
    found = [asnumpy(step.run(x, t, part)) for part in (indices[:1], indices[1:5], indices[5:])]
    np.testing.assert_array_equal(np.concatenate(found), np.array(losses, dtype))
    np.testing.assert_array_equal(asnumpy(fast.params.flat), asnumpy(plain.params.flat))
    assert step.steps == 7


class Normalized(Layer):
    """A layer of a user's that reads in backward what forward returned: y = x / |x|, row by row."""

    saved = ("y", "norm")

    def forward(self, x, train=True):
        xp = get_array_module(x)
        self.norm = xp.sqrt((x * x).sum(axis=1, keepdims=True))
        self.y = xp.divide(x, self.norm, out=self.out.get("y"))
        return self.y

    def backward(self, dout):
        xp = get_array_module(dout)
        across = dout - self.y * (dout * self.y).sum(axis=1, keepdims=True)
        return xp.divide(across, self.norm, out=self.out.get("dx"))


@pytest.mark.parametrize(
    "layer", [Normalized, Tanh, Same, Relu, lambda: Residual(Relu(), Affine.from_sizes(6, 6, rng=2))]
)
def test_relu_writes_over_no_array_that_another_layer_reads(device, rng, layer):
    def build():
        first, last = Affine.from_sizes(6, 6, std=0.5, rng=0), Affine.from_sizes(6, 3, std=0.5, rng=1)
        return Sequential([first, layer(), Relu(), layer(), last], device=device)

    x, t = data(device, rng)
    indices = device.asarray(rng.integers(0, 50, (6, 4)))
    plain, fast, optimizer = build(), build(), SGD(0.1)
    for index in indices:
        optimizer.update(plain.params, plain.gradient(x[index], t[index]))
    fast.compile(SGD(0.1), batch_size=4, backend="numpy").run(x, t, indices)
    np.testing.assert_array_equal(asnumpy(fast.params.flat), asnumpy(plain.params.flat))


def test_relu_behind_an_affine_layer_has_no_arrays_of_its_own_but_its_mask(rng):
    units, batch = 10_000, 4
    net = Sequential([Affine.from_sizes(6, units, rng=0), Relu(), Affine.from_sizes(units, 3, rng=1)])
    step = net.compile(SGD(0.1), batch, backend="numpy")
    tracemalloc.start()
    try:
        step.run(*data(net.device, rng), rng.integers(0, 50, (5, batch)))
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    scores_and_gradient, mask, optimizers = 2 * 4 * batch * units, batch * units, 2 * net.params.flat.nbytes
    assert size < scores_and_gradient + mask + optimizers + 50_000


def test_the_samples_of_many_steps_may_be_gathered_at_a_time_or_of_one(device, rng, monkeypatch):
    x, t = data(device, rng)
    indices = device.asarray(rng.integers(0, 50, (7, 4)))
    found = []
    for size in (1, 2 * 4 * 6 * 4, 2**20):
        monkeypatch.setattr(step_module, "GATHERED", size)
        found.append(asnumpy(deep_net(device, "float32", Relu).compile(SGD(0.1), 4).run(x, t, indices)))
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_plain_calls_between_steps_get_arrays_of_their_own(device, rng):
    x, t = data(device, rng)
    net = deep_net(device, "float32", Relu)
    step = net.compile(SGD(0.1), 4)
    step.run(x, t, device.asarray(rng.integers(0, 50, (3, 4))))
    scores = net.predict(x[:4])
    layer = net.layers["Relu1"]
    y, grads = layer.forward(x), net.gradient(x[:4], t[:4])
    copies = [asnumpy(a).copy() for a in (scores, y, grads.flat)]
    net.predict(x[4:8])
    layer.forward(-x)
    step.run(x, t, device.asarray(rng.integers(0, 50, (3, 4))))
    for array, before in zip((scores, y, grads.flat), copies, strict=True):
        np.testing.assert_array_equal(asnumpy(array), before)


def test_the_data_are_left_alone(device, rng):
    x, t = data(device, rng)
    before = asnumpy(x).copy(), asnumpy(t).copy()
    net = Sequential([Same(), Relu(), Affine.from_sizes(6, 3, rng=0)], device=device)
    net.compile(SGD(0.1), 50).run(x, t, device.asarray(np.arange(50)[None]))
    np.testing.assert_array_equal(asnumpy(x), before[0])
    np.testing.assert_array_equal(asnumpy(t), before[1])


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_memory_does_not_grow_with_the_steps(rng, backend):
    pytest.importorskip(backend, reason=f"{backend} is not installed")
    net = TwoLayerNet(20, 10, 3, seed=0)
    x, t = rng.standard_normal((100, 20)).astype("float32"), rng.integers(0, 3, 100)
    step, indices = net.compile(SGD(0.1), 10, backend), rng.integers(0, 100, (200, 10))
    losses = step.run(x, t, indices)
    tracemalloc.start()
    try:
        for _ in range(20):  # what is looked up once and remembered is found in the first of them
            step.run(x, t, indices, losses)
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(10):
            step.run(x, t, indices, losses)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 4096


def test_a_step_that_fails_leaves_the_layers_as_they_were(rng):
    net = TwoLayerNet(6, 4, 3, seed=0)
    step = net.compile(SGD(0.1), 2)
    for _ in range(2):  # the first step records, the second does not
        with pytest.raises(ValueError, match=r"class ids must lie in \[0, 3\), got ids from 0 to 9"):
            step.run(rng.standard_normal((2, 6)), np.array([0, 9]), np.array([[0, 1]]))
        assert all(not layer.out for layer in (*net.layers.values(), net.last_layer))
    assert step.steps == 0


def interrupted_updates(step, monkeypatch, times):
    """Send Ctrl-C in the midst of the third update, so many times."""
    rule, calls = step.optimizer.rule, []

    def interrupting(*args):
        calls.append(1)
        if len(calls) == 3:
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)
        rule(*args)

    monkeypatch.setattr(step.optimizer, "rule", interrupting)


def test_ctrl_c_in_the_midst_of_an_update_waits_for_its_end(device, rng, monkeypatch):
    x, t = data(device, rng)
    indices = device.asarray(rng.integers(0, 50, (5, 4)))
    whole, broken = (deep_net(device, "float32", Relu).compile(Adam(), 4) for _ in range(2))
    whole.run(x, t, indices[:3])
    interrupted_updates(broken, monkeypatch, 1)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        broken.run(x, t, indices)
    assert (broken.steps, broken.optimizer.steps) == (3, 3)
    np.testing.assert_array_equal(asnumpy(broken.net.params.flat), asnumpy(whole.net.params.flat))
    broken.run(x, t, indices[3:])
    whole.run(x, t, indices[3:])
    np.testing.assert_array_equal(asnumpy(broken.net.params.flat), asnumpy(whole.net.params.flat))
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_second_ctrl_c_does_not_wait(rng, monkeypatch):
    x, t = data(Device("cpu"), rng)
    step = deep_net("cpu", "float32", Relu).compile(SGD(), 4)
    interrupted_updates(step, monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        step.run(x, t, rng.integers(0, 50, (5, 4)))
    assert step.steps == 2


def test_steps_may_be_taken_in_a_thread(rng):
    x, t = data(Device("cpu"), rng)
    step = deep_net("cpu", "float32", Relu).compile(SGD(), 4)
    thread = threading.Thread(target=step.run, args=(x, t, rng.integers(0, 50, (5, 4))))
    thread.start()
    thread.join()
    assert step.steps == 5


def test_what_does_not_fit_is_refused(device, rng):
    net = TwoLayerNet(6, 4, 3, device=device, seed=0)
    x, t = data(device, rng)
    step = net.compile(SGD(0.1), 4)
    with pytest.raises(ValueError, match=r"indices must have the shape \(S, 4\), got \(4,\)"):
        step.run(x, t, device.asarray(np.arange(4)))
    with pytest.raises(ValueError, match="batch_size must be a positive integer, got 0"):
        net.compile(SGD(0.1), 0)
    net.to(dtype="float64")
    with pytest.raises(RuntimeError, match="compile its step again"):
        step.run(x, t, device.asarray(np.arange(4)[None]))


def test_data_on_another_device_are_refused(rng, cuda):
    net = TwoLayerNet(6, 4, 3, device=cuda, seed=0)
    with pytest.raises(DeviceError, match="but x is on the host"):
        net.compile(SGD(0.1), 4).run(rng.standard_normal((8, 6)), np.zeros(8, int), np.zeros((1, 4), int))


def test_pixels_are_scaled_on_every_way_into_a_network(device, rng):
    net = TwoLayerNet(6, 4, 3, device=device, seed=0)
    pixels, t = data(device, rng, "uint8")
    scaled = device.asarray(np.divide(asnumpy(pixels), 255.0, dtype="float32"))
    np.testing.assert_array_equal(asnumpy(net.predict(pixels)), asnumpy(net.predict(scaled)))
    np.testing.assert_array_equal(asnumpy(net.gradient(pixels, t).flat), asnumpy(net.gradient(scaled, t).flat))
    assert net.accuracy(pixels, t) == net.accuracy(scaled, t)


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_minibatches_may_be_smaller_each_size_with_arrays_of_its_own(device, rng, precision):
    x, t = data(device, rng)
    sizes = [4, 4, 2, 4, 1, 2, 4, 1, 4, 4, 4, 2]
    minibatches = [device.asarray(rng.integers(0, 50, (3, size))) for size in sizes]
    plain, fast = deep_net(device, "float32", Relu), deep_net(device, "float32", Relu)
    one_size = {size: plain.compile(SGD(0.1), size, "numpy", precision) for size in set(sizes)}
    step = fast.compile(SGD(0.1), 4, "numpy", precision)
    for size, indices in zip(sizes, minibatches, strict=True):
        if precision == "float16":  # each of them adapts its own
            one_size[size].load_state(step.state())
        expected = one_size[size].run(x, t, indices)
        np.testing.assert_array_equal(asnumpy(step.run(x, t, indices)), asnumpy(expected))
    np.testing.assert_array_equal(asnumpy(fast.params.flat), asnumpy(plain.params.flat))
    assert step.steps == 3 * len(sizes)


def test_minibatches_that_are_larger_or_empty_are_refused(device, rng):
    x, t = data(device, rng)
    step = deep_net(device, "float32", Relu).compile(SGD(0.1), 4)
    for size in (5, 0):
        with pytest.raises(ValueError, match=rf"indices must have the shape \(S, 4\), got \(3, {size}\)"):
            step.run(x, t, device.asarray(np.zeros((3, size), int)))


class Backwards(Sequential):
    """A network of a user's that calls its layers itself."""

    def predict(self, x, train=False):
        x = self.as_input(x)
        for layer in self.layers.values():
            x = layer.forward(x, train)
        return x

    def backward(self, dout):
        for layer in reversed(self.layers.values()):
            dout = layer.backward(dout)


def test_a_network_that_calls_its_layers_itself_takes_the_same_steps(device, rng):
    x, t = data(device, rng)
    indices = device.asarray(rng.integers(0, 50, (9, 4)))
    nets = [cls([Affine.from_sizes(6, 8, rng=0), Relu(), Affine.from_sizes(8, 3, rng=1)], device=device)
            for cls in (Backwards, Sequential)]  # fmt: skip
    for net in nets:
        net.compile(SGD(0.1), 4, "numpy").run(x, t, indices)
    np.testing.assert_array_equal(asnumpy(nets[0].params.flat), asnumpy(nets[1].params.flat))


def test_steps_in_full_precision_have_no_state():
    step = deep_net("cpu", "float32", Relu).compile(SGD(0.1), 4)
    assert step.state() == {}
    step.load_state({})
    with pytest.raises(ValueError, match=r"steps in float32 has the entries \[\], got \['loss_scale'\]"):
        step.load_state({"loss_scale": 1.0})


class Penalized(Affine):
    """Reads in backward what forward returned, which its base class does not."""

    def forward(self, x, train=True):
        self.kept = super().forward(x, train)
        return self.kept

    def backward_parameters(self, dout):
        super().backward_parameters(dout + 0.1 * self.kept)


class Doubling(Relu):
    """Returns another array than the one that its base class writes over."""

    def forward(self, x, train=True):
        self.x = x
        return 2.0 * super().forward(x, train)

    def backward(self, dout):
        return 2.0 * super().backward(dout) + 0.1 * self.x


@pytest.mark.parametrize(("affine", "relu"), [(Penalized, Relu), (Affine, Doubling)])
def test_what_a_class_declares_does_not_hold_for_a_subclass_with_passes_of_its_own(device, rng, affine, relu):
    x, t = data(device, rng)
    indices = device.asarray(rng.integers(0, 50, (20, 10)))
    plain, fast = (
        Sequential([affine.from_sizes(6, 5, rng=0, std="he"), relu(), Affine.from_sizes(5, 3, rng=1, std="he")],
                   device=device)
        for _ in range(2)
    )  # fmt: skip
    optimizer = SGD(0.1)
    for index in indices:
        optimizer.update(plain.params, plain.gradient(x[index], t[index]))
    fast.compile(SGD(0.1), 10, "numpy").run(x, t, indices)
    np.testing.assert_array_equal(asnumpy(fast.params.flat), asnumpy(plain.params.flat))


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_indices_and_labels_are_checked_on_the_host(rng, backend):
    pytest.importorskip(backend, reason=f"{backend} is not installed")
    x, t = data(Device("cpu"), rng)
    step = TwoLayerNet(6, 4, 3, seed=0).compile(SGD(0.1), 4, backend)
    for wrong in (50, -1):
        with pytest.raises(IndexError, match=rf"indices must lie in \[0, 50\), got {min(wrong, 0)} to {max(wrong, 2)}"):
            step.run(x, t, np.array([[0, 1, 2, wrong]]))
    with pytest.raises(TypeError, match="indices must be integers, got dtype float64"):
        step.run(x, t, np.array([[0.0, 1.0, 2.0, 3.0]]))
    with pytest.raises(ValueError, match="x and t must be equally many, got 50 and 40"):
        step.run(x, t[:40], np.array([[0, 1, 2, 3]]))
    assert step.steps == 0


RULES = {
    "sgd": lambda: SGD(0.1),
    "adam": lambda: Adam(0.01),
    "clipped": lambda: SGD(0.1, clip_norm=1.0),
    "adagrad": lambda: AdaGrad(0.05),
}


@pytest.mark.parametrize("way", [copy.deepcopy, lambda step: pickle.loads(pickle.dumps(step))], ids=["copy", "pickle"])
@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_copied_step_goes_on_by_itself(rng, way, backend, rule, precision):
    pytest.importorskip(backend, reason=f"{backend} is not installed")
    if (backend, precision) == ("numba", "float16"):
        pytest.skip("Numba computes in float32 and float64")
    x, t = data(Device("cpu"), rng)
    indices = rng.integers(0, 50, (12, 4))
    step = TwoLayerNet(6, 5, 3, "he", seed=0).compile(rule(), 4, backend, precision)
    step.run(x, t, indices[:5])
    other = way(step)
    before = step.net.params.flat.copy()
    losses = other.run(x, t, indices[5:])
    np.testing.assert_array_equal(step.net.params.flat, before)
    np.testing.assert_array_equal(step.run(x, t, indices[5:]), losses)
    np.testing.assert_array_equal(other.net.params.flat, step.net.params.flat)
    assert not np.array_equal(step.net.params.flat, before)


def test_a_copied_step_on_cuda_captures_its_own_graphs(cuda, rng):
    device = cuda
    x, t = data(device, rng)
    indices = device.asarray(rng.integers(0, 50, (9, 4)))
    step = TwoLayerNet(6, 5, 3, "he", device=device, seed=0).compile(Adam(0.01), 4)
    step.run(x, t, indices)
    other = copy.deepcopy(step)
    losses = asnumpy(other.run(x, t, indices))
    np.testing.assert_array_equal(asnumpy(step.run(x, t, indices)), losses)
    np.testing.assert_array_equal(asnumpy(other.net.params.flat), asnumpy(step.net.params.flat))

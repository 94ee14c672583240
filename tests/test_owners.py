"""State belongs to one owner: layers, losses and optimizers to one network, what a call computes to that call."""

import copy
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from xpnet import asnumpy
from xpnet.graph import Input
from xpnet.layers import Affine, Layer, Pooling, Relu, Residual, SoftmaxWithLoss
from xpnet.nets import GraphNetwork, LeNet5, Sequential, SimpleConvNet, TwoLayerNet
from xpnet.optimizers import SGD, Adam
from xpnet.training import Trainer


@pytest.mark.parametrize("rule", [SGD, Adam])
@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_an_optimizer_serves_one_network(rng, rule, backend):
    if backend == "numba":
        pytest.importorskip("numba")
    optimizer, first, second = rule(), TwoLayerNet(6, 5, 3, seed=0), TwoLayerNet(6, 5, 3, seed=0)
    x, t, indices = rng.standard_normal((20, 6)), rng.integers(0, 3, 20), rng.integers(0, 20, (3, 4))
    first.compile(optimizer, 4, backend).run(x, t, indices)
    for way in (
        lambda: second.compile(optimizer, 4, backend),
        lambda: Trainer(second, x, t, x, t, optimizer=optimizer, backend=backend),
        lambda: optimizer.update(second.params, second.gradient(x, t)),
    ):
        with pytest.raises(ValueError, match="updates another network already; each network needs an optimizer of its"):
            way()
    first.compile(optimizer, 4, backend).run(x, t, indices)  # the same network, once more
    first.to(dtype="float64").compile(optimizer, 4, backend).run(x, t, indices)
    second.compile(copy.deepcopy(optimizer), 4, backend).run(x, t, indices)


@pytest.mark.parametrize("make", [lambda x, t: copy.deepcopy((x, t)), lambda x, t: pickle.loads(pickle.dumps((x, t)))])
def test_copies_of_network_and_optimizer_belong_together(rng, make):
    net, optimizer = TwoLayerNet(6, 5, 3, seed=0), Adam()
    x, t, indices = rng.standard_normal((20, 6)), rng.integers(0, 3, 20), rng.integers(0, 20, (3, 4))
    net.compile(optimizer, 4).run(x, t, indices)
    other, its_optimizer = make(net, optimizer)
    for n, rule in ((net, optimizer), (other, its_optimizer)):
        n.compile(rule, 4).run(x, t, indices)
    np.testing.assert_array_equal(net.params.flat, other.params.flat)


def test_a_loss_ends_one_network():
    loss = SoftmaxWithLoss()
    Sequential.mlp([4, 3], loss=loss)
    with pytest.raises(ValueError, match="layer 'loss' belongs to a network already"):
        Sequential.mlp([4, 3], loss=loss)
    assert Sequential.mlp([4, 3], loss=copy.deepcopy(loss)).last_layer.name == "SoftmaxWithLoss"


def places(net):
    return {name: layer.place for name, layer in net.modules().items()}


@pytest.mark.parametrize("duplicate", [copy.deepcopy, copy.copy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copy_of_a_layer_has_no_place_and_serves_another_network(duplicate, rng):
    block = Residual(Affine.from_sizes(6, 6, rng=0), Relu())
    net = Sequential([block, Affine.from_sizes(6, 3, rng=1)])
    layer = duplicate(net.layers["Residual1"])
    assert layer.place is None
    assert {name: part.place for name, part in layer.parts.items()} == {"Affine1": "Affine1", "Relu1": "Relu1"}
    other = Sequential([layer, Affine.from_sizes(6, 2, rng=2)])
    np.testing.assert_array_equal(other.params["W1"], net.params["W1"])
    other.params["W1"] += 1.0
    assert not np.shares_memory(other.params.flat, net.params.flat)
    assert places(net) == {name: name for name in net.modules()}
    with pytest.raises(ValueError, match=r"belongs to a network already.* or a copy \(copy.deepcopy\)"):
        Sequential([net.layers["Residual1"]])


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda net: net.copy(), lambda x: pickle.loads(pickle.dumps(x))])
@pytest.mark.parametrize("make", [lambda: TwoLayerNet(6, 5, 3), LeNet5, lambda: shared_weights()])  # noqa: PLW0108
def test_a_copied_networks_layers_have_their_places(make, duplicate):
    net = duplicate(make())
    assert places(net) == {name: name for name in net.modules()}
    name, layer = next((name, layer) for name, layer in net.layers.items() if hasattr(layer, "W"))
    layer.W = np.zeros(layer.W.shape)  # writes into the parameter
    assert not net.params["W1"].any(), name


def shared_weights():
    x, t = Input("x"), Input("t")
    shared = Affine.from_sizes(6, 6, rng=0)
    return GraphNetwork(SoftmaxWithLoss()(shared(Relu()(shared(x))), t))


class Numbered(Layer):
    """A layer whose parameter's name ends with a number."""

    parameter_names = ("W1",)

    def __init__(self):
        self.W1 = np.ones(3, "float32")

    def forward(self, x, train=True):
        return x * self.W1

    def backward(self, dout):
        self.dW1 = dout.sum(axis=0)
        return dout * self.W1


def test_no_two_parameters_share_a_name():
    """W1 of the first layer would be W11, like W of the eleventh."""
    net = Sequential([Numbered(), *(Affine.from_sizes(3, 3, rng=i) for i in range(12))])
    assert len({slot.name for slot in net.slots}) == len(net.slots) == len(net.params) == 25
    assert list(net.params)[:3] == ["W11", "W1", "b1"]
    assert {"W10", "W12"} <= set(net.params)
    for i, slot in enumerate(net.slots):
        getattr(slot.layer, slot.attribute)[...] = i
    assert [float(values.reshape(-1)[0]) for values in net.params.values()] == list(range(25))


class OwnLoss(TwoLayerNet):
    def loss(self, x, t, train=False):
        return super().loss(x, t, train) + 1.0


class OwnGradient(TwoLayerNet):
    def gradient(self, x, t, out=None):
        return super().gradient(2 * x, t, out)


class OwnLossOf(TwoLayerNet):
    """A network that overrides what training steps call, and `loss` with it."""

    def loss(self, x, t, train=False):
        return super().loss(x, t, train)

    def loss_of(self, scores, t):
        return super().loss_of(scores, t) + 1.0


@pytest.mark.parametrize(("cls", "name"), [(OwnLoss, "loss"), (OwnGradient, "gradient")])
def test_a_loss_or_gradient_that_training_steps_do_not_call_is_no_silent_choice(cls, name):
    with pytest.raises(TypeError, match=rf"{cls.__name__} overrides {name}, which training steps do not call"):
        cls(6, 5, 3).compile(SGD(), 4)
    net = TwoLayerNet(6, 5, 3)
    setattr(net, name, lambda x, t: None)
    with pytest.raises(TypeError, match=f"TwoLayerNet overrides {name}"):
        net.compile(SGD(), 4)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_what_training_steps_call_can_be_overridden(rng, backend):
    if backend == "numba":
        pytest.importorskip("numba")
    x, t, indices = rng.standard_normal((20, 6)), rng.integers(0, 3, 20), rng.integers(0, 20, (3, 4))
    losses = [cls(6, 5, 3, seed=0).compile(SGD(), 4, backend).run(x, t, indices) for cls in (OwnLossOf, TwoLayerNet)]
    np.testing.assert_allclose(losses[0], losses[1] + 1.0, rtol=1e-5)


def test_an_index_out_of_range_makes_the_loss_nan_on_a_cuda_device(device, rng):
    """On the host it is an error. On the device a check would wait for the queue."""
    if device.name == "cpu":
        pytest.skip("on the host it is an error (tests/test_step.py)")
    samples = {"float32": rng.standard_normal((20, 6)), "uint8": rng.integers(0, 256, (20, 6))}
    for dtype, x in samples.items():
        for wrong in (20, -1, 10**9):
            net = TwoLayerNet(6, 5, 3, device=device)
            step = net.compile(SGD(), 4)
            indices = device.asarray([[0, 1, 2, 3], [0, wrong, 2, 3]])
            losses = step.run(device.asarray(x, dtype), device.asarray(rng.integers(0, 3, 20)), indices)
            assert np.isnan(asnumpy(losses)).tolist() == [False, True]


@pytest.mark.parametrize("make", [lambda: SimpleConvNet(seed=0), lambda: LeNet5(seed=0)])
def test_predictions_in_several_threads_do_not_mix(make, rng):
    net = make()
    batches = [rng.random((n, 1, 28, 28), dtype="float32") for n in (1, 2, 5)]
    expected = [net.predict(x) for x in batches]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def work(first):
        return all(np.array_equal(net.predict(batches[i % 3]), expected[i % 3]) for i in range(first, first + 60))

    try:
        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(work, range(4)))
    finally:
        sys.setswitchinterval(interval)


def test_the_books_loop_gives_the_gradient_of_the_input(rng):
    """Saliency maps and adversarial examples: for convolutional networks too, where training steps reorder layers."""
    net = SimpleConvNet((1, 8, 8), {"filter_num": 3, "filter_size": 3}, hidden_size=5, seed=0, dtype="float64")
    assert any(isinstance(layer, Pooling) for layer in net.layers.values())
    x, t = rng.random((2, 1, 8, 8)), np.array([3, 5])
    net.compile(SGD(1e-3), 2).run(x, t, [[0, 1]])
    net.accuracy(x, t)
    net.loss(x, t, train=True)
    dx = net.last_layer.backward()
    for layer in reversed(net.layers.values()):
        dx = layer.backward(dx)
    for place in ((0, 0, 3, 4), (1, 0, 7, 0)):
        h = np.zeros_like(x)
        h[place] = 1e-5
        slope = (net.loss(x + h, t) - net.loss(x - h, t)) / 2e-5
        assert dx[place] == pytest.approx(slope, rel=1e-5, abs=1e-9)


def test_a_network_of_a_cuda_device_is_unpickled_where_there_is_none(cuda, tmp_path, rng):
    net = Sequential([Residual(Affine.from_sizes(6, 6, rng=0), Relu()), Affine.from_sizes(6, 3, rng=1)], device=cuda)
    x = rng.standard_normal((4, 6)).astype("float32")
    expected = asnumpy(net.predict(cuda.asarray(x)))  # the layers have saved arrays now
    (tmp_path / "net.pickle").write_bytes(pickle.dumps(net))
    np.save(tmp_path / "x.npy", x)
    code = """if True:
        import pickle, sys, numpy, xpnet
        sys.modules["cupy"] = None
        stored = open("net.pickle", "rb").read()
        try:
            pickle.loads(stored)
        except xpnet.DeviceError as error:
            print(error)
        with xpnet.map_location("cpu"):
            net = pickle.loads(stored)
        numpy.save("y.npy", net.predict(numpy.load("x.npy")))
    """
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("this is a pickle of cuda:0: CuPy is not installed; install it")
    assert done.stdout.endswith("load it within `with xpnet.map_location('cpu'):`\n")
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), expected, rtol=1e-5, atol=1e-6)
    again = pickle.loads(pickle.dumps(net))
    assert again.device == cuda
    np.testing.assert_array_equal(asnumpy(again.predict(cuda.asarray(x))), expected)


def test_training_threads_outlive_the_main_thread_and_forks_find_no_lock():
    pytest.importorskip("numba")
    code = """if True:
        import os, threading, numpy as np
        from xpnet.nets import TwoLayerNet
        from xpnet.optimizers import SGD
        x = np.random.default_rng(0).standard_normal((200, 20)).astype("f4")
        t, indices = (x[:, 0] > 0).astype(int), np.random.default_rng(0).integers(0, 200, (4000, 20))
        started, ended = threading.Event(), threading.Event()

        def compiled():
            return TwoLayerNet(20, 10, 2, "he", seed=0).compile(SGD(0.1), 20, "numba")

        def train():
            step = compiled()
            while not ended.is_set():
                step.run(x, t, indices[:50])
                started.set()
            losses = step.run(x, t, indices)  # the main thread has ended by now, or does soon
            print("trained", bool(np.isfinite(losses).all()), flush=True)

        threading.Thread(target=train).start()
        started.wait()
        for _ in range(5):
            child = os.fork()
            if child == 0:
                compiled().run(x, t, indices[:50])
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
        ended.set()
    """
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "trained True\n", "")

"""Shares of a minibatch on threads: the numbers of the plain path, the same bits on any number of threads."""

import copy
import pickle
import signal
import threading

import numpy as np
import pytest

from xpnet.layers import (
    Affine,
    BatchNormalization,
    Dropout,
    Embedding,
    Flatten,
    HingeWithLoss,
    HuberWithLoss,
    IdentityWithLoss,
    Layer,
    LayerNorm,
    Relu,
    Residual,
    SigmoidWithLoss,
    SoftmaxWithLoss,
)
from xpnet.nets import DeepConvNet, LeNet5, MultiLayerNet, Sequential, SimpleConvNet, TwoLayerNet, evaluation
from xpnet.optimizers import SGD, Adam, Momentum

threadpoolctl = pytest.importorskip("threadpoolctl", reason="threadpoolctl is not installed")

SAMPLES = 40
NAME = "by replicas on threads"


def with_dropout():
    block = Residual(Affine.from_sizes(8, 8, rng=1), Dropout(0.3, seed=5))
    layers = [
        Affine.from_sizes(6, 8, std=0.5, rng=0),
        Relu(),
        Dropout(0.4, seed=3),
        block,
        LayerNorm(np.ones(8), np.zeros(8)),
    ]
    return Sequential([*layers, Affine.from_sizes(8, 3, std=0.5, rng=2)], dtype="float32")


def of_images(cls):
    return lambda: cls(seed=0, dtype="float64")


NETWORKS = {
    "two layers": (lambda: TwoLayerNet(6, 8, 3, 0.5, seed=0), (6,)),
    "weight decay": (lambda: MultiLayerNet(6, [8, 8], 3, weight_decay_lambda=0.1, seed=0), (6,)),
    "dropout, a residual and a layer norm": (with_dropout, (6,)),
    "LeNet-5": (of_images(LeNet5), (1, 28, 28)),
    "SimpleConvNet": (of_images(SimpleConvNet), (1, 28, 28)),
    "DeepConvNet": (of_images(DeepConvNet), (1, 28, 28)),
}


def in_double(build):
    return build().to(dtype="float64")


def compiled(net, rule=None, batch_size=9, shares=2, backend="numpy", **settings):
    step = net.compile(rule or SGD(0.1), batch_size, backend, shares=shares, **settings)
    assert (NAME in [runner.name for runner in step.runners]) == (shares > 1)
    return step


def assert_same_training(build, x, t, batches, rule=SGD, lr=0.1, weights=None, **settings):
    """Check that shares take the steps of the plain path."""
    steps = [compiled(build(), rule(lr), shares=shares, **settings) for shares in (1, 2, 3)]
    for indices in batches:
        expected, *found = (step.run(x, t, indices, sample_weight=weights) for step in steps)
        for losses in found:
            np.testing.assert_allclose(losses, expected, rtol=1e-12, atol=1e-12)
    for step in steps[1:]:
        np.testing.assert_allclose(step.net.params.flat, steps[0].net.params.flat, rtol=1e-12, atol=1e-12)
        for name, buffer in step.net.buffers().items():
            np.testing.assert_array_equal(buffer, steps[0].net.buffers()[name])


@pytest.mark.parametrize("name", NETWORKS)
def test_takes_the_steps_of_the_plain_path(rng, name):
    build, shape = NETWORKS[name]
    x, t = rng.standard_normal((SAMPLES, *shape)), rng.integers(0, 3, SAMPLES)
    batches = [rng.integers(0, SAMPLES, (2, size)) for size in (9, 4, 9)]
    assert_same_training(lambda: in_double(build), x, t, batches, lr=1e-3)


@pytest.mark.parametrize("backend", ["numba"])
def test_numbas_kernels_run_in_the_threads(rng, backend):
    pytest.importorskip("numba", reason="Numba is not installed")
    x, t = rng.standard_normal((SAMPLES, 1, 28, 28)), rng.integers(0, 3, SAMPLES)
    assert_same_training(of_images(LeNet5), x, t, [rng.integers(0, SAMPLES, (3, 9))], backend=backend)


def test_minibatches_of_any_size_may_have_fewer_samples_than_shares(rng):
    x, t = rng.standard_normal((SAMPLES, 6)), rng.integers(0, 3, SAMPLES)
    batches = [rng.integers(0, SAMPLES, (2, size)) for size in (9, 1, 2, 5, 1, 9)]
    assert_same_training(lambda: in_double(with_dropout), x, t, batches, Momentum)


LOSSES = {
    "softmax": SoftmaxWithLoss,
    "smoothed": lambda: SoftmaxWithLoss(label_smoothing=0.1),
    "ignored": lambda: SoftmaxWithLoss(ignore_index=2),
    "weighted classes": lambda: SoftmaxWithLoss(class_weight=np.array([1.0, 2.0, 5.0])),
    "both": lambda: SoftmaxWithLoss(class_weight=np.array([1.0, 2.0, 5.0]), ignore_index=1),
    "sigmoid": SigmoidWithLoss,
    "identity": IdentityWithLoss,
    "Huber": HuberWithLoss,
    "hinge": HingeWithLoss,
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("weighted", [False, True])
def test_of_every_loss_and_weights(rng, name, weighted):
    def build():
        return Sequential([Affine.from_sizes(6, 3, std=0.5, rng=0)], LOSSES[name](), dtype="float64")

    x, t = rng.standard_normal((SAMPLES, 6)), rng.integers(0, 3, SAMPLES)
    if name in ("sigmoid", "identity", "Huber"):
        t = rng.random((SAMPLES, 3))
    weights = rng.random(SAMPLES) * rng.integers(0, 2, SAMPLES) if weighted else None
    assert_same_training(build, x, t, [rng.integers(0, SAMPLES, (9, 7))], weights=weights)


def test_of_sequences_with_padded_places(rng):
    def build():
        layers = [Embedding.from_sizes(7, 3, rng=0)]
        return Sequential(layers, SoftmaxWithLoss(ignore_index=-1), dtype="float64")

    x, t = rng.integers(0, 7, (SAMPLES, 5)), rng.integers(-1, 3, (SAMPLES, 5))
    t[:5] = -1
    batches = [rng.integers(0, SAMPLES, (5, 6)), np.array([[0, 1, 2, 3, 4, 9]])]
    assert_same_training(build, x, t, batches)
    step = compiled(build())
    before = step.net.params.flat.copy()
    assert np.isnan(step.run(x, t, np.array([[0, 1, 2]]))).all()  # no sample counts
    np.testing.assert_array_equal(step.net.params.flat, before)


@pytest.mark.parametrize("shares", [2, 3])
@pytest.mark.parametrize("build", [lambda: TwoLayerNet(6, 400, 3, 0.5, seed=0), with_dropout, lambda: LeNet5(seed=0)])
def test_the_number_of_threads_does_not_change_a_bit(rng, build, shares):
    shape = build().input_shape or (6,)
    x, t = rng.standard_normal((SAMPLES, *shape)).astype("float32"), rng.integers(0, 3, SAMPLES)
    indices = rng.integers(0, SAMPLES, (5, 9))
    found = []
    for threads in (1, 2, 4, 8):
        step = compiled(build(), Adam(0.01), shares=shares, threads=threads)
        found.append((step.run(x, t, indices), step.net.params.flat))
    for losses, params in found[1:]:
        np.testing.assert_array_equal(losses, found[0][0])
        np.testing.assert_array_equal(params, found[0][1])


def test_settings_that_change_between_runs_are_seen(rng):
    x, t = rng.standard_normal((SAMPLES, 6)), rng.integers(0, 3, SAMPLES)
    steps = [compiled(in_double(with_dropout), shares=shares) for shares in (1, 2)]
    for step in steps:
        step.run(x, t, np.arange(9)[None])
        step.net.layers["Dropout1"].dropout_ratio = 0.1
        step.net.last_layer = SoftmaxWithLoss(label_smoothing=0.1)
        step.net.weight_decay_lambda = 0.01
    indices = rng.integers(0, SAMPLES, (3, 9))
    np.testing.assert_allclose(steps[1].run(x, t, indices), steps[0].run(x, t, indices), rtol=1e-12)
    np.testing.assert_allclose(steps[1].net.params.flat, steps[0].net.params.flat, rtol=1e-12, atol=1e-14)


def test_batch_normalization_is_left_to_the_plain_path():
    net = Sequential(
        [
            Affine.from_sizes(6, 8),
            BatchNormalization(np.ones(8, "float32"), np.zeros(8, "float32")),
            Relu(),
            Affine.from_sizes(8, 3),
        ]
    )
    assert [runner.name for runner in net.compile(SGD(), 1000, threads=2).runners] == ["one by one"]
    with pytest.raises(ValueError, match="shares must be 1 for this network, got 2"):
        net.compile(SGD(), 9, shares=2)


def test_a_layer_with_a_method_of_its_own_is_left_to_the_plain_path(rng):
    net, plain = (TwoLayerNet(6, 8, 3, 0.5, dtype="float64", seed=0) for _ in range(2))
    step, calls = compiled(net), []
    forward = net.layers["Relu1"].forward
    net.layers["Relu1"].forward = lambda *args: calls.append(1) or forward(*args)
    x, t, indices = rng.standard_normal((SAMPLES, 6)), rng.integers(0, 3, SAMPLES), rng.integers(0, SAMPLES, (3, 9))
    np.testing.assert_array_equal(step.run(x, t, indices), compiled(plain, shares=1).run(x, t, indices))
    assert len(calls) == 3


def test_is_chosen_by_itself_for_large_steps_on_several_threads():
    def shares(net, batch_size, **settings):
        return net.compile(SGD(), batch_size, "numpy", **settings).shares

    with threadpoolctl.threadpool_limits(2):
        assert shares(SimpleConvNet(seed=0), 100) == 2
        assert shares(SimpleConvNet(seed=0), 100, threads=1) == 1
        assert shares(SimpleConvNet(seed=0), 2) == 1
        assert shares(TwoLayerNet(784, 50, 10), 100) == 1
        assert shares(TwoLayerNet(784, 2000, 10), 1000) == 1  # the BLAS divides its products
        assert shares(TwoLayerNet(784, 50, 10), 100, shares=3) == 3
        assert shares(Sequential([Flatten(), Affine.from_sizes(9, 3)]), 10**6) == 1  # samples of any shape
    with threadpoolctl.threadpool_limits(1):
        assert shares(SimpleConvNet(seed=0), 100) == 1


class Failing(Relu):
    """Fails in the share that has a sample of ones."""

    def forward(self, x, train=True):
        if (x == 1).all(axis=1).any():
            raise ZeroDivisionError
        return super().forward(x, train)


@pytest.mark.parametrize("place", [0, 8])
def test_an_error_in_any_thread_ends_the_step_in_all(rng, place):
    x, t = rng.standard_normal((SAMPLES, 6)), rng.integers(0, 3, SAMPLES)
    x[7] = 1
    net = Sequential([Failing(), Affine.from_sizes(6, 3, rng=0)], dtype="float64")
    step, threads = compiled(net, threads=2), threading.active_count()
    indices = rng.integers(8, SAMPLES, (5, 9))
    indices[3, place] = 7
    libraries = threadpoolctl.ThreadpoolController().select(user_api="blas").lib_controllers
    before = [library.num_threads for library in libraries]
    with pytest.raises(ZeroDivisionError):
        step.run(x, t, indices)
    assert step.steps == step.optimizer.steps == 3
    assert threading.active_count() == threads
    assert [library.num_threads for library in libraries] == before
    assert np.isfinite(step.run(x, t, indices[:3])).all()


def test_interrupted_it_is_left_as_after_a_whole_step(rng):
    class Interrupting(SGD):
        def rule(self, *args):
            super().rule(*args)
            if self.steps == 3:
                signal.raise_signal(signal.SIGINT)

    x, t = rng.standard_normal((SAMPLES, 6)), rng.integers(0, 3, SAMPLES)
    indices = rng.integers(0, SAMPLES, (20, 9))
    step, plain = compiled(in_double(with_dropout), Interrupting(0.1)), compiled(in_double(with_dropout))
    with pytest.raises(KeyboardInterrupt):
        step.run(x, t, indices)
    assert step.steps == step.optimizer.steps == 4
    plain.run(x, t, indices[:4])
    np.testing.assert_array_equal(step.net.params.flat, plain.net.params.flat)
    step.run(x, t, indices[4:])
    plain.run(x, t, indices[4:])
    np.testing.assert_array_equal(step.net.params.flat, plain.net.params.flat)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda step: pickle.loads(pickle.dumps(step))])
def test_a_copy_goes_on_with_its_own_network(rng, duplicate):
    x, t = rng.standard_normal((SAMPLES, 6)), rng.integers(0, 3, SAMPLES)
    step = compiled(in_double(with_dropout), Momentum(0.1))
    step.run(x, t, rng.integers(0, SAMPLES, (3, 9)))
    twin, indices = duplicate(step), rng.integers(0, SAMPLES, (3, 9))
    before = step.net.params.flat.copy()
    found = twin.run(x, t, indices)
    np.testing.assert_array_equal(step.net.params.flat, before)
    np.testing.assert_array_equal(step.run(x, t, indices), found)


def test_the_state_has_the_number_of_shares_and_another_step_takes_it_over(rng):
    x, t = rng.standard_normal((SAMPLES, 6)).astype("float32"), rng.integers(0, 3, SAMPLES)
    indices = rng.integers(0, SAMPLES, (9, 9))
    build = lambda: TwoLayerNet(6, 8, 3, 0.5, seed=0)  # noqa: E731
    first, second = compiled(build(), shares=3), compiled(build(), shares=1)
    assert first.state() == {"shares": 3}
    assert second.state() == {}
    second.load_state(first.state())
    assert second.shares == 3
    np.testing.assert_array_equal(first.run(x, t, indices), second.run(x, t, indices))
    np.testing.assert_array_equal(first.net.params.flat, second.net.params.flat)
    first.load_state({})
    assert [runner.name for runner in first.runners] == ["one by one"]
    normalized = Sequential(
        [BatchNormalization(np.ones(6, "float32"), np.zeros(6, "float32")), Affine.from_sizes(6, 3)]
    ).compile(SGD(), 9)
    normalized.load_state({"shares": 2})
    assert normalized.shares == 1


@pytest.mark.parametrize("loss", [SoftmaxWithLoss, lambda: SoftmaxWithLoss(ignore_index=2), IdentityWithLoss])
@pytest.mark.parametrize("samples", [0, 1, 7, 2100])
def test_evaluations_on_threads_are_the_networks(rng, loss, samples):
    net = Sequential([Affine.from_sizes(6, 3, std=0.5, rng=0), Dropout(0.5)], loss(), dtype="float64")
    x, t = rng.standard_normal((samples, 6)), rng.integers(0, 3, samples)
    if not net.last_layer.classifies:
        t = rng.random((samples, 3))
    expected = net.evaluate(x, t)
    for threads in (1, 2, 4):
        step = net.compile(SGD(), 9, "numpy", threads=threads)
        assert step.evaluate(x, t) == pytest.approx(expected, rel=1e-12, nan_ok=True)
        if net.last_layer.classifies:
            assert step.accuracy(x, t) == pytest.approx(net.accuracy(x, t), nan_ok=True)


def test_a_networks_own_evaluation_is_asked(rng):
    class Own(Sequential):
        def accuracy(self, x, t):
            return 0.25

        def evaluate(self, x, t):
            return {"own": 1.0}

    step = Own([Affine.from_sizes(6, 3)]).compile(SGD(), 9, "numpy", shares=2)
    assert (step.accuracy(None, None), step.evaluate(None, None)) == (0.25, {"own": 1.0})


class Keeping(Layer):
    """A custom layer that computes with an attribute, which another thread could change meanwhile."""

    def forward(self, x, train=True):
        self.x = x
        np.sort(np.arange(20_000.0)[::-1])  # others come in between
        return self.x * 2.0

    def backward(self, dout):
        return dout * 2.0


def test_each_thread_evaluates_by_layers_of_its_own(rng, monkeypatch):
    monkeypatch.setattr(evaluation, "SHARED", 0)
    x = rng.standard_normal((400, 6))
    net = Sequential([Affine(rng.standard_normal((6, 3)), np.zeros(3)), Keeping()])
    scores = 2.0 * (x @ net.params["W1"])
    t = scores.argmax(axis=1)
    with threadpoolctl.threadpool_limits(4):
        assert net.accuracy(x, t) == 1.0
        assert net.evaluate(x, t)["accuracy"] == 1.0
        np.testing.assert_allclose(evaluation.predict(net, x), scores)
        assert evaluation.predict(net, x[:0]).shape == (0, 3)


def test_few_samples_are_evaluated_without_threads(rng):
    net = TwoLayerNet(6, 5, 3, seed=0)
    with evaluation.team_for(net, rng.random((100, 6))) as team:
        assert team is None

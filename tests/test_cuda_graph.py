"""Steps as a CUDA graph: N launches are N steps, whatever changes between them, and ask nothing else of the host."""

import gc

import numpy as np
import pytest

from xpnet import asnumpy
from xpnet.layers import Affine, BatchNormalization, Convolution, Dropout, LayerNorm, Normalize, Relu, Residual, Sigmoid
from xpnet.nets import LeNet5, MultiLayerNet, MultiLayerNetExtend, Sequential, SimpleConvNet, TwoLayerNet
from xpnet.optimizers import SGD, AdaGrad, Adam, AdamW, Lion, Momentum, Nesterov, RMSprop, schedules
from xpnet.steps import cuda_graph
from xpnet.steps import step as step_module

OPTIMIZERS = {
    "sgd": lambda: SGD(0.1),
    "momentum": lambda: Momentum(0.1),
    "nesterov": lambda: Nesterov(0.05, weight_decay=0.01),
    "adagrad": lambda: AdaGrad(0.1),
    "rmsprop": lambda: RMSprop(0.01),
    "adam": lambda: Adam(0.02),
    "adamw": lambda: AdamW(0.02, weight_decay=0.1),
    "lion": lambda: Lion(0.01, weight_decay=0.1),
    "clipped": lambda: SGD(0.5, clip_norm=0.1),
    "clipped by value": lambda: SGD(0.5, clip_value=0.01),
    "scheduled": lambda: Adam(schedules.CosineAnnealing(0.1, 20)),
}


def normalized():
    def affine(n, m):
        return Affine.from_sizes(n, m, std=0.5, rng=n)

    def ones(n):
        return np.ones(n, "float32"), np.zeros(n, "float32")

    hidden = [affine(12, 8), BatchNormalization(*ones(8)), Relu(), affine(8, 6), LayerNorm(*ones(6)), Sigmoid()]
    front = Normalize(np.full(12, 0.5, "float32"), np.full(12, 2.0, "float32"))
    return Sequential([front, *hidden, Dropout(0.3, seed=1), affine(6, 3)])


def residual():
    def affine(n, m):
        return Affine.from_sizes(n, m, std=0.5, rng=n)

    norm = BatchNormalization(np.ones(8, "float32"), np.zeros(8, "float32"))
    block = Residual(norm, Relu(), affine(8, 6), Dropout(0.3, seed=1), Residual(Sigmoid()), affine(6, 8))
    return Sequential([affine(12, 8), block, Residual(Relu()), affine(8, 3)])


def residual_images():
    convolutions = [Convolution.from_sizes(n, 4, 3, pad=1, rng=n) for n in (1, 4)]
    block = Residual(Relu(), convolutions[1])
    return Sequential([convolutions[0], block, Affine.from_sizes(4 * 36, 3, rng=0)], input_shape=(1, 6, 6))


NETS = {
    "two layers": ((12,), lambda: TwoLayerNet(12, 8, 3, 0.5, seed=0)),
    "float64": ((12,), lambda: TwoLayerNet(12, 8, 3, 0.5, seed=0, dtype="float64")),
    "weight decay": ((12,), lambda: MultiLayerNet(12, [8, 8], 3, weight_decay_lambda=0.1, seed=0)),
    "normalization and dropout": ((12,), normalized),
    "residual": ((12,), residual),
    "residual images": ((1, 6, 6), residual_images),
    "images": ((1, 28, 28), lambda: SimpleConvNet(seed=0)),
    "LeNet-5": ((1, 28, 28), lambda: LeNet5(seed=0)),
}


@pytest.fixture(autouse=True)
def short_graphs(monkeypatch):
    monkeypatch.setattr(cuda_graph, "STEPS_PER_EXECUTION", 3)
    monkeypatch.setattr(step_module, "STEPS_PER_EXECUTION", 3)


def plain_steps(net, optimizer, x, t, indices):
    """Return the losses of steps by the public path."""
    losses = []
    for index in indices:
        loss, grads = net.loss_and_gradient(x[index], t[index])
        optimizer.update(net.params, grads)
        losses.append(float(loss))
    return np.array(losses, net.dtype)


def check_equal(device, rng, build, sample, optimizer, pixels=False):
    """Compare steps of a compiled step, in calls of various lengths, with as many plain ones."""
    x = rng.integers(0, 256, (30, *sample)).astype("uint8") if pixels else rng.standard_normal((30, *sample))
    x, t = device.asarray(x if pixels else x.astype("float32")), device.asarray(rng.integers(0, 3, 30))
    indices = device.asarray(rng.integers(0, 30, (14, 5)))
    plain, fast = (build().to(device) for _ in range(2))
    expected = plain_steps(plain, optimizer(), x, t, indices)
    compiled = optimizer()
    step = fast.compile(compiled, 5, backend="numpy")
    losses = [asnumpy(step.run(x, t, part)) for part in (indices[:1], indices[1:9], indices[9:])]
    np.testing.assert_array_equal(np.concatenate(losses), expected)
    np.testing.assert_array_equal(asnumpy(fast.params.flat), asnumpy(plain.params.flat))
    for name, buffer in plain.buffers().items():
        np.testing.assert_array_equal(asnumpy(fast.buffers()[name]), asnumpy(buffer))
    assert step.steps == compiled.steps == 14
    return step


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_launches_are_the_plain_steps_with_every_rule(device, rng, optimizer):
    check_equal(device, rng, NETS["two layers"][1], (12,), optimizer)


@pytest.mark.parametrize(("sample", "build"), NETS.values(), ids=NETS)
@pytest.mark.parametrize("pixels", [False, True], ids=["floats", "pixels"])
def test_launches_are_the_plain_steps_of_every_kind_of_layer(device, rng, sample, build, pixels):
    check_equal(device, rng, build, sample, lambda: Momentum(0.01), pixels)


def test_steps_are_captured_once_and_launched(cuda, rng, counted):
    with counted() as work:
        step = check_equal(cuda, rng, NETS["two layers"][1], (12,), OPTIMIZERS["adam"])
    assert {n for n, _ in step.runners[0].graphs} == {1, 3}
    assert work["graph_launches"] == 2 + 3  # and three steps to warm up


def test_a_run_takes_the_largest_graphs_that_fit(cuda, rng, counted, monkeypatch):
    for module in (cuda_graph, step_module):
        monkeypatch.setattr(module, "STEPS_PER_EXECUTION", 10)
    x, t = cuda.asarray(rng.standard_normal((30, 12), "float32")), cuda.asarray(rng.integers(0, 3, 30))
    indices = cuda.asarray(rng.integers(0, 30, (19, 5)))
    step = TwoLayerNet(12, 8, 3, 0.5, device=cuda, seed=0).compile(SGD(0.1), 5)
    step.run(x, t, indices[:2])  # to warm up
    with counted() as work:
        step.run(x, t, indices[2:])
    assert work["graph_launches"] == 1 + 3 + 1
    assert {n for n, _ in step.runners[0].graphs} == {10, 2, 1}


def test_a_change_of_the_settings_is_not_missed(device, rng):
    x, t = device.asarray(rng.standard_normal((30, 12))), device.asarray(rng.integers(0, 3, 30))
    more_x, more_t = device.asarray(rng.standard_normal((40, 12))), device.asarray(rng.integers(0, 3, 40))
    indices = device.asarray(rng.integers(0, 30, (9, 5)))
    plain, fast = (TwoLayerNet(12, 8, 3, 0.5, seed=0, device=device) for _ in range(2))
    rules = Momentum(0.1), Momentum(0.1)
    step = fast.compile(rules[1], 5, backend="numpy")
    for data in ((x, t), (x, t), (more_x, more_t), (x, t)):
        expected = plain_steps(plain, rules[0], *data, indices)
        np.testing.assert_array_equal(asnumpy(step.run(*data, indices)), expected)
        for rule in rules:
            rule.lr *= 0.5
            rule.momentum *= 0.9
            rule.weight_decay += 0.01
    for rule in rules:  # as after reading a checkpoint
        rule.state = {"v": {name: np.zeros(shape, "float32") for name, shape in plain.params.shapes.items()}}
    expected = plain_steps(plain, rules[0], x, t, indices)
    np.testing.assert_array_equal(asnumpy(step.run(x, t, indices)), expected)


class Looking(Relu):
    """A layer of a user's that looks at a value, and so waits for the GPU."""

    def forward(self, x, train=True):
        self.largest = float(x.max())
        return super().forward(x, train)


def test_a_layer_that_cannot_be_captured_is_named_once(cuda, rng):
    def build():
        return Sequential([Affine.from_sizes(12, 8, rng=0), Looking(), Affine.from_sizes(8, 3, rng=1)])

    with pytest.warns(
        RuntimeWarning, match=r"without a CUDA graph: Looking1 cannot be captured \(RuntimeError"
    ) as all_:
        step = check_equal(cuda, rng, build, (12,), lambda: SGD(0.1))
    assert len(all_) == 1
    assert not step.runners[0]._stream.is_capturing()


def test_a_thousand_launches_with_all_free_memory_overwritten(device, rng):
    x, t = device.asarray(rng.standard_normal((30, 12))), device.asarray(rng.integers(0, 3, 30))
    indices = device.asarray(rng.integers(0, 30, (10, 5)))
    plain, fast = (TwoLayerNet(12, 8, 3, seed=0, device=device) for _ in range(2))
    rule, step = Momentum(0.01), fast.compile(Momentum(0.01), 5, backend="numpy")
    for _ in range(100):
        expected = plain_steps(plain, rule, x, t, indices)
        np.testing.assert_array_equal(asnumpy(step.run(x, t, indices)), expected)
        with device.activate():  # from the pool that all but the graphs allocate from, and back to it
            garbage = [device.xp.empty(2**n, "float32") for n in range(4, 16)]
            for array in garbage:
                array.fill(np.nan)
    np.testing.assert_array_equal(asnumpy(fast.params.flat), asnumpy(plain.params.flat))


def test_results_stay_what_they_were(device, rng):
    x, t = device.asarray(rng.standard_normal((30, 12))), device.asarray(rng.integers(0, 3, 30))
    indices = device.asarray(rng.integers(0, 30, (8, 5)))
    step = TwoLayerNet(12, 8, 3, seed=0, device=device).compile(SGD(0.1), 5)
    losses = [step.run(x, t, indices) for _ in range(3)]
    before = [asnumpy(loss).copy() for loss in losses]
    step.run(x, t, indices)
    for loss, values in zip(losses, before, strict=True):
        np.testing.assert_array_equal(asnumpy(loss), values)


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_nothing_lies_in_the_free_memory_of_graphs(cuda, rng, monkeypatch, precision):
    def poison(runner):
        """Fill what is free in the runner's pool with NaN."""
        with runner._own_stream():
            free, total = runner._pool.free_bytes(), runner._pool.total_bytes()
            blocks = [cuda.xp.full(128, np.nan, "float32") for _ in range(free // 512)]  # of the pool's smallest size
            assert blocks
            assert (runner._pool.free_bytes(), runner._pool.total_bytes()) == (0, total)

    def poisoned_launch(graph, *args):
        if poisoned:
            poison(poisoned[0])
            in_use.append(poisoned[0]._pool.used_bytes())
        launch(graph, *args)

    launch, poisoned, in_use = cuda_graph._Graph.launch, [], []
    monkeypatch.setattr(cuda_graph._Graph, "launch", poisoned_launch)
    x, t = cuda.asarray(rng.standard_normal((30, 12), "float32")), cuda.asarray(rng.integers(0, 3, 30))
    indices = cuda.asarray(rng.integers(0, 30, (9, 5)))
    results = []
    for with_poison in (False, True):
        net = MultiLayerNet(12, [8], 3, weight_decay_lambda=0.01, device=cuda, seed=0)  # the penalty has temporaries
        step = net.compile(Adam(schedules.CosineAnnealing(0.1, 40)), 5, precision=precision)
        poisoned.clear()
        losses = [step.run(x, t, indices)]
        if with_poison:
            poisoned.append(step.runners[0])
        losses += [step.run(x, t, indices) for _ in range(3)]
        results.append([*map(asnumpy, losses), asnumpy(net.params.flat)])
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert len(in_use) == 9
    if precision == "float32":  # float16 takes the numbers of the next updates from those of the run, in between
        assert set(in_use) == {step.runners[0]._pool.used_bytes()}


def test_the_memory_of_graphs_goes_back_to_the_device_with_the_step(cuda, rng):
    x, t = cuda.asarray(rng.standard_normal((30, 12), "float32")), cuda.asarray(rng.integers(0, 3, 30))
    step = TwoLayerNet(12, 8, 3, device=cuda, seed=0).compile(SGD(0.1), 5)
    step.run(x, t, cuda.asarray(rng.integers(0, 30, (9, 5))))
    pool = step.runners[0]._pool
    assert pool.total_bytes() > 0
    del step
    gc.collect()  # the arrays of the step go back to the pool after its graphs
    TwoLayerNet(12, 8, 3, device=cuda, seed=0).compile(SGD(0.1), 5)
    assert pool.total_bytes() == 0


def test_garbage_is_collected_before_a_capture_and_not_within(cuda, rng):
    seen = []

    class Noting(Relu):
        def forward(self, x, train=True):
            seen.append(gc.isenabled())
            return super().forward(x, train)

    net = Sequential([Affine.from_sizes(12, 8, rng=0), Noting(), Affine.from_sizes(8, 3, rng=1)]).to(cuda)
    x, t = cuda.asarray(rng.standard_normal((30, 12), "float32")), cuda.asarray(rng.integers(0, 3, 30))
    net.compile(SGD(0.1), 5).run(x, t, cuda.asarray(rng.integers(0, 30, (9, 5))))
    assert seen == [True] * 2 + [False] * 4  # two steps to warm up, graphs of three and of one
    assert gc.isenabled()


def mlp_with_normalization_and_dropout():
    return MultiLayerNetExtend(784, [100, 100], 10, use_batchnorm=True, use_dropout=True, seed=0)


@pytest.mark.parametrize(
    ("build", "sample", "precision", "most"),
    [
        (lambda: TwoLayerNet(784, 50, 10, seed=0), (784,), "float32", 40),
        (lambda: TwoLayerNet(784, 50, 10, seed=0), (784,), "float16", 78),
        (mlp_with_normalization_and_dropout, (784,), "float32", 116),
        (lambda: SimpleConvNet(seed=0), (1, 28, 28), "float32", 72),
        (lambda: LeNet5(seed=0), (1, 28, 28), "float32", 124),
    ],
    ids=["784-50-10", "784-50-10 in float16", "normalization and dropout", "SimpleConvNet", "LeNet-5"],
)
def test_four_captured_steps_have_so_many_nodes_at_most(cuda, rng, counted, build, sample, precision, most):
    x, t = cuda.asarray(rng.random((40, *sample), "float32")), cuda.asarray(rng.integers(0, 10, 40))
    step = build().to(cuda).compile(SGD(0.1), 10, precision=precision)
    with counted() as work:
        step.run(x, t, cuda.asarray(rng.integers(0, 40, (6, 10))))  # two steps to warm up, a graph of three, one of one
    assert {n for n, _ in step.runners[0].graphs} == {1, 3}
    assert work["graph_nodes"] <= most

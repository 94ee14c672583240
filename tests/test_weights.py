"""Weights of samples and ignored labels: in losses, networks and training steps."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xpnet import Device, asnumpy
from xpnet.gradient import gradient_check, numerical_gradient
from xpnet.graph import Input
from xpnet.layers import (
    Affine,
    HingeWithLoss,
    HuberWithLoss,
    IdentityWithLoss,
    PoissonWithLoss,
    SigmoidWithLoss,
    SoftmaxWithLoss,
)
from xpnet.layers.base import Loss
from xpnet.nets import GraphNetwork, Sequential
from xpnet.optimizers import SGD, Adam, RMSprop

HOST = Device("cpu")
CLASS_WEIGHT = np.array([1.0, 2.0, 0.5])
LOSSES = {
    "softmax": (SoftmaxWithLoss, "ids"),
    "probabilities": (SoftmaxWithLoss, "shares"),
    "smoothing": (lambda: SoftmaxWithLoss(0.2), "ids"),
    "class weights": (lambda: SoftmaxWithLoss(0.1, CLASS_WEIGHT), "ids"),
    "class weights of probabilities": (lambda: SoftmaxWithLoss(0.1, CLASS_WEIGHT), "shares"),
    "sigmoid": (SigmoidWithLoss, "shares"),
    "identity": (IdentityWithLoss, "shares"),
    "poisson": (PoissonWithLoss, "shares"),
    "huber": (lambda: HuberWithLoss(0.5), "shares"),
    "hinge": (HingeWithLoss, "ids"),
}
each_loss = pytest.mark.parametrize(("make", "kind"), LOSSES.values(), ids=LOSSES)


def problem(kind, n=6, rows=(), seed=0):
    """Return scores (n, *rows, 3), labels and weights (n,), of which one is 0."""
    rng = np.random.default_rng(seed)
    x, w = 2 * rng.standard_normal((n, *rows, 3)), rng.random(n) + 0.1
    w[1] = 0.0
    return x, rng.integers(0, 3, (n, *rows)) if kind == "ids" else rng.dirichlet(np.ones(3), (n, *rows)), w


def loss_and_gradient(loss, device, *arrays):
    value = loss.forward(*map(device.asarray, arrays))
    return float(value), asnumpy(loss.backward())


def network(device, loss=None, **settings):
    return Sequential.mlp([4, 8, 3], "tanh", std=0.5, loss=loss or SoftmaxWithLoss(), device=device, seed=0, **settings)


def samples(device, rng, n=30, labels=(0, 3)):
    x, t = rng.standard_normal((n, 4)).astype("float32"), rng.integers(*labels, n)
    return device.asarray(x), device.asarray(t), device.asarray(rng.integers(0, 4, n) * 0.5)


class TestLosses:
    @each_loss
    @pytest.mark.parametrize("rows", [(), (2,)])
    def test_the_gradient_is_that_of_central_differences(self, device, make, kind, rows):
        x, t, w = problem(kind, rows=rows)
        loss = make()
        if device.name != "cpu":
            loss.to(device)
        x, t, w = map(device.asarray, (x, t, w))
        loss.forward(x, t, sample_weight=w)
        dx = asnumpy(loss.backward())
        numerical = numerical_gradient(lambda scores: loss.forward(scores, t, sample_weight=w), x)
        np.testing.assert_allclose(dx, asnumpy(numerical), atol=1e-7)
        assert not dx[1].any()

    @each_loss
    @pytest.mark.parametrize("rows", [(), (2,)])
    def test_equal_weights_give_the_plain_mean(self, make, kind, rows):
        x, t, _ = problem(kind, rows=rows)
        plain, weighted = make(), make()
        expected = float(plain.forward(x, t))
        for w in (np.full(6, 0.25), np.full((6, *rows), 3)):
            assert float(weighted.forward(x, t, sample_weight=w)) == pytest.approx(expected, rel=1e-12)
            np.testing.assert_allclose(weighted.backward(2.0), plain.backward(2.0), rtol=1e-12, atol=1e-15)

    @each_loss
    @given(counts=st.lists(st.integers(0, 3), min_size=6, max_size=6).filter(any), seed=st.integers(0, 9))
    @settings(max_examples=20, deadline=None)
    def test_whole_weights_are_numbers_of_copies(self, make, kind, counts, seed):
        x, t, _ = problem(kind, seed=seed)
        repeated, weighted = make(), make()
        expected = float(repeated.forward(np.repeat(x, counts, axis=0), np.repeat(t, counts, axis=0)))
        assert float(weighted.forward(x, t, sample_weight=counts)) == pytest.approx(expected, rel=1e-12)
        dx = weighted.backward()
        first = np.cumsum(counts)[np.array(counts) > 0] - 1
        share = np.array([count for count in counts if count])[:, None]
        np.testing.assert_allclose(dx[np.array(counts) > 0], repeated.backward()[first] * share, rtol=1e-12, atol=1e-15)
        assert not dx[np.array(counts) == 0].any()

    @each_loss
    def test_batches_of_scores_have_the_loss_of_each(self, make, kind):
        x, t, w = problem(kind)
        several = np.stack([x, 2 * x, x - 1])
        loss = make()
        expected = [float(loss.forward(scores, t, w)) for scores in several]
        np.testing.assert_allclose(loss.forward_each(several, t, w), expected, rtol=1e-12)

    @each_loss
    def test_weights_of_zero_alone_give_nan_and_no_gradient(self, device, make, kind):
        x, t, w = problem(kind)
        loss = make()
        loss.to(device)
        value, dx = loss_and_gradient(loss, device, x.astype("float32"), t, 0 * w)
        assert np.isnan(value)
        assert dx.dtype == "float32"
        assert not dx.any()

    @each_loss
    @pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
    def test_a_weight_that_is_none_never_passes(self, device, make, kind, bad):
        x, t, w = problem(kind)
        w[2] = bad
        loss = make()
        loss.to(device)
        x, t, w = map(device.asarray, (x, t, w))
        if device.name == "cpu":
            with pytest.raises(ValueError, match="sample_weight must be finite and not negative, got weights from"):
                loss.forward(x, t, sample_weight=w)
        else:
            assert np.isnan(float(loss.forward(x, t, sample_weight=w)))

    @each_loss
    @pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
    def test_the_dtype_is_that_of_the_scores(self, device, make, kind, dtype):
        x, t, w = problem(kind)
        loss = make()
        loss.to(device)
        value = loss.forward(device.asarray(x.astype(dtype)), device.asarray(t), device.asarray(w))
        assert (value.dtype, value.shape, loss.backward().dtype) == (dtype, (), dtype)

    def test_weights_of_another_shape_are_refused(self):
        x, t, _ = problem("ids", rows=(2,))
        for shape in [(5,), (6, 1), (6, 2, 1), ()]:
            with pytest.raises(ValueError, match=r"sample_weight must have the shape \(6,\) or \(6, 2\)"):
                SoftmaxWithLoss().forward(x, t, np.ones(shape))

    def test_pytorchs_losses(self, device):
        torch = pytest.importorskip("torch")
        F = torch.nn.functional
        x, ids, w = problem("ids")
        _, t, _ = problem("shares")
        theirs = torch.tensor(x, requires_grad=True)
        t_, w_ = torch.tensor(t), torch.tensor(w)
        for loss, labels, each in (
            (SoftmaxWithLoss(), ids, F.cross_entropy(theirs, torch.tensor(ids), reduction="none")),
            (SigmoidWithLoss(), t, F.binary_cross_entropy_with_logits(theirs, t_, reduction="none").mean(1)),
            (IdentityWithLoss(), t, 0.5 * F.mse_loss(theirs, t_, reduction="none").sum(1)),
            (PoissonWithLoss(), t, F.poisson_nll_loss(theirs, t_, reduction="none").mean(1)),
            (HuberWithLoss(0.5), t, F.huber_loss(theirs, t_, delta=0.5, reduction="none").mean(1)),
            (HingeWithLoss(), ids, F.multi_margin_loss(theirs, torch.tensor(ids), reduction="none")),
        ):
            mean = (w_ * each).sum() / w_.sum()
            (gradient,) = torch.autograd.grad(mean, theirs)
            value, dx = loss_and_gradient(loss, device, x, labels, w)
            assert value == pytest.approx(mean.item(), rel=1e-12)
            np.testing.assert_allclose(dx, gradient, rtol=1e-12, atol=1e-15)


class TestIgnoredLabels:
    @pytest.mark.parametrize("smoothing", [0.0, 0.2])
    @pytest.mark.parametrize("class_weight", [None, CLASS_WEIGHT])
    @pytest.mark.parametrize("ignored", [-1, 2, 255])
    def test_pytorchs_cross_entropy(self, device, rng, smoothing, class_weight, ignored):
        torch = pytest.importorskip("torch")
        x, t = rng.standard_normal((8, 2, 3)), rng.integers(0, 3, (8, 2))
        t[rng.random((8, 2)) < 0.4] = ignored
        theirs = torch.tensor(x.reshape(-1, 3), requires_grad=True)
        expected = torch.nn.functional.cross_entropy(
            theirs,
            torch.tensor(t.reshape(-1)),
            None if class_weight is None else torch.tensor(class_weight),
            ignore_index=ignored,
            label_smoothing=smoothing,
        )
        expected.backward()
        loss = SoftmaxWithLoss(smoothing, class_weight, ignored)
        loss.to(device)
        value, dx = loss_and_gradient(loss, device, x, t)
        assert value == pytest.approx(expected.item(), rel=1e-12)
        np.testing.assert_allclose(dx.reshape(-1, 3), theirs.grad, rtol=1e-12, atol=1e-15)

    def test_nothing_left_gives_nan_and_no_gradient(self, device):
        value, dx = loss_and_gradient(SoftmaxWithLoss(ignore_index=-1), device, np.ones((2, 3)), np.array([-1, -1]))
        assert np.isnan(value)
        assert not dx.any()

    def test_weights_and_ignored_labels_combine(self, device, rng):
        x, t, w = problem("ids")
        hidden = np.where(np.arange(6) == 3, 255, t).astype("uint8")
        expected = loss_and_gradient(SoftmaxWithLoss(), device, x, t, np.where(np.arange(6) == 3, 0, w))
        found = loss_and_gradient(SoftmaxWithLoss(ignore_index=255), device, x, hidden, w)
        assert found[0] == pytest.approx(expected[0], rel=1e-12)
        np.testing.assert_allclose(found[1], expected[1], rtol=1e-12, atol=1e-15)

    def test_other_labels_out_of_range_are_still_errors(self):
        loss = SoftmaxWithLoss(ignore_index=-1)
        for t in (np.array([0, 3]), np.array([-2, -1])):
            with pytest.raises(ValueError, match=r"class ids must lie in \[0, 3\)"):
                loss.forward(np.zeros((2, 3)), t)
            with pytest.raises(ValueError, match=r"class ids must lie in \[0, 3\)"):
                loss.check_labels(t, (2, 3))
        loss.check_labels(np.array([[-1], [2]]), (2, 3))
        with pytest.raises(ValueError, match=r"class ids must lie in \[0, 3\)"):
            SoftmaxWithLoss().forward(np.zeros((2, 3)), np.array([0, -1]))

    @pytest.mark.parametrize("backend", ["numpy", "numba"])
    def test_the_accuracy_leaves_them_out(self, device, rng, backend):
        if backend == "numba":
            pytest.importorskip("numba", reason="numba is not installed")
            if device.name != "cpu":
                pytest.skip("Numba computes on the host")
        net = network(device, SoftmaxWithLoss(ignore_index=2))
        x, t, _ = samples(device, rng)
        counted = asnumpy(t) != 2
        right = asnumpy(net.predict(x)).argmax(axis=1) == asnumpy(t)
        step = net.compile(SGD(), 4, backend)
        for accuracy in (net.accuracy, step.accuracy):
            assert accuracy(x, t) == right[counted].sum() / counted.sum()
            assert np.isnan(accuracy(x, 0 * t + 2))


class Plain(Loss):
    """A custom loss without weights."""

    saved = ("x",)

    def forward(self, x, t):
        self.x = x
        return (x * x).sum()

    def backward(self, dout=1.0):
        return 2 * self.x * dout


class TestNetworks:
    @pytest.mark.parametrize("method", ["batched", "loop", "directional"])
    @each_loss
    def test_the_gradient_check_takes_weights(self, device, rng, make, kind, method):
        _, t, w = problem(kind)
        net = network(device, make(), dtype="float64")
        x = device.asarray(rng.standard_normal((6, 4)))
        assert gradient_check(net, x, device.asarray(t), method=method, sample_weight=device.asarray(w)).ok

    def test_all_methods_take_weights(self, device, rng):
        loss, layer = SoftmaxWithLoss(), Affine(rng.standard_normal((4, 3)), np.zeros(3))
        net = GraphNetwork(loss(layer(Input("x")), Input("t")), device=device)
        x, t, w = samples(device, rng)
        host = asnumpy(w)
        copies = device.asarray(np.repeat(np.arange(30), (2 * host).astype(int)))
        expected = net.loss_and_gradient(x[copies], t[copies])
        value, grads = net.loss_and_gradient(x, t, sample_weight=w)
        assert float(value) == pytest.approx(float(expected[0]), rel=1e-6)
        assert float(net.loss(x, t, sample_weight=w)) == float(value)
        np.testing.assert_allclose(asnumpy(grads.flat), asnumpy(expected[1].flat), rtol=1e-5, atol=1e-6)
        numerical = net.numerical_gradient(x, t, sample_weight=w)
        np.testing.assert_allclose(asnumpy(numerical.flat), asnumpy(grads.flat), rtol=1e-4, atol=1e-6)
        assert (asnumpy(net.gradient(x, t, sample_weight=w).flat) == asnumpy(grads.flat)).all()

    def test_a_custom_loss_needs_the_parameter_for_weights_only(self, device, rng):
        x, t, w = samples(device, rng)
        net = network(device, Plain())
        indices = device.asarray(rng.integers(0, 30, (2, 4)))
        assert np.isfinite(asnumpy(net.compile(SGD(0.01), 4, "numpy").run(x, t, indices))).all()
        for compute in (
            lambda: net.loss(x, t, sample_weight=w),
            lambda: net.numerical_gradient(x, t, sample_weight=w),
            lambda: net.compile(SGD(0.01), 4, "numpy").run(x, t, indices, sample_weight=w),
        ):
            with pytest.raises(TypeError, match=r"Plain\.forward takes no sample_weight; define forward"):
                compute()


def train_plainly(net, rule, x, t, w, indices):
    losses = []
    for index in indices:
        loss, grads = net.loss_and_gradient(x[index], t[index], sample_weight=w if w is None else w[index])
        rule.update(net.params, grads)
        losses.append(float(loss))
    return np.array(losses, net.dtype)


class TestSteps:
    @each_loss
    def test_one_by_one_and_captured_steps_are_the_plain_ones(self, device, rng, make, kind):
        x, t, w = samples(device, rng)
        if kind == "shares":
            t = device.asarray(rng.dirichlet(np.ones(3), 30))
        indices = device.asarray(rng.integers(0, 30, (60, 8)))
        plain, fast = network(device, make()), network(device, make())
        expected = train_plainly(plain, Adam(0.01), x, t, w, indices)
        step = fast.compile(Adam(0.01), 8, "numpy")
        found = [asnumpy(step.run(x, t, part, sample_weight=w)) for part in (indices[:1], indices[1:5], indices[5:])]
        np.testing.assert_array_equal(np.concatenate(found), expected)
        np.testing.assert_array_equal(asnumpy(fast.params.flat), asnumpy(plain.params.flat))

    @pytest.mark.parametrize("dtype", ["int64", "bool", "uint8", "float32"])
    def test_weights_of_any_dtype(self, device, rng, dtype):
        x, t, w = samples(device, rng)
        w, indices = (2 * w).astype(dtype), device.asarray(rng.integers(0, 30, (5, 8)))
        plain, fast = network(device), network(device)
        expected = train_plainly(plain, SGD(0.1), x, t, w, indices)
        np.testing.assert_allclose(asnumpy(fast.compile(SGD(0.1), 8, "numpy").run(x, t, indices, None, w)), expected)

    def test_other_weights_than_before_are_not_missed(self, device, rng):
        x, t, w = samples(device, rng)
        indices = device.asarray(rng.integers(0, 30, (8, 8)))
        plain, fast, rule = network(device), network(device), SGD(0.1)
        step = fast.compile(SGD(0.1), 8, "numpy")
        for weights in (None, w, None, w[::-1].copy(), w):
            expected = train_plainly(plain, rule, x, t, weights, indices)
            np.testing.assert_array_equal(asnumpy(step.run(x, t, indices, sample_weight=weights)), expected)

    def test_weighted_steps_do_not_wait_for_the_device(self, cuda, counted, rng):
        device = cuda
        x, t, w = samples(device, rng, labels=(-1, 3))
        indices = device.asarray(rng.integers(0, 30, (5, 8)))
        step = network(device, SoftmaxWithLoss(0.1, CLASS_WEIGHT, ignore_index=-1)).compile(RMSprop(0.01), 8)
        step.run(x, t, indices, sample_weight=w)
        with counted() as work:
            step.run(x, t, indices, sample_weight=w)
        # The learning rates.
        assert (work["synchronizations"], work["copies_to_device"], work["copies_to_host"]) == (0, 1, 0)

    def test_an_index_out_of_range_makes_the_loss_nan_on_a_device(self, cupy, rng):
        device = Device("cuda")
        x, t, w = samples(device, rng)
        indices = device.asarray(np.array([[0, 30], [0, 1]]))
        for weights in (w + 1, (2 * w + 1).astype("int64")):
            step = network(device, SoftmaxWithLoss(ignore_index=-1)).compile(SGD(0.0), 2)
            assert np.isnan(asnumpy(step.run(x, t, indices, sample_weight=weights))[0])

    def test_float16(self, device, rng):
        x, t, w = samples(device, rng)
        indices = device.asarray(rng.integers(0, 30, (8, 8)))
        plain, half = network(device), network(device)
        expected = train_plainly(plain, SGD(0.1), x, t, w, indices)
        found = asnumpy(half.compile(SGD(0.1), 8, precision="float16").run(x, t, indices, sample_weight=w))
        np.testing.assert_allclose(found, expected, rtol=0.02)

    @pytest.mark.parametrize("runner", ["one by one", "by two threads", "float16"])
    def test_weights_of_zero_are_absent_samples(self, rng, runner):
        if runner == "by two threads":
            pytest.importorskip("numba", reason="numba is not installed")
        x, t, w = samples(HOST, rng)
        w[:] = 1.0
        w[10:] = 0.0
        backend, precision = (
            "numba" if runner == "by two threads" else "numpy",
            "float16" if runner == "float16" else "float32",
        )
        all_of, some = np.arange(8, 16)[None].repeat(5, axis=0), np.arange(8, 10)[None].repeat(5, axis=0)
        nets = network(HOST), network(HOST)
        expected = nets[0].compile(SGD(0.1), 8, backend, precision).run(x, t, some)
        found = nets[1].compile(SGD(0.1), 8, backend, precision).run(x, t, all_of, sample_weight=w)
        tolerance = {"rtol": 1e-2, "atol": 1e-3} if runner == "float16" else {"rtol": 1e-5, "atol": 1e-6}
        np.testing.assert_allclose(found, expected, **tolerance)
        np.testing.assert_allclose(nets[1].params.flat, nets[0].params.flat, **tolerance)

    @pytest.mark.parametrize("backend", ["numpy", "numba"])
    def test_bad_weights_are_refused_before_the_first_step(self, rng, backend):
        if backend == "numba":
            pytest.importorskip("numba", reason="numba is not installed")
        x, t, w = samples(HOST, rng)
        step = network(HOST).compile(SGD(0.1), 8, backend)
        indices = rng.integers(0, 30, (2, 8))
        with pytest.raises(ValueError, match="x and sample_weight must be equally many, got 30 and 29"):
            step.run(x, t, indices, sample_weight=w[:-1])
        with pytest.raises(ValueError, match="sample_weight must be finite and not negative"):
            step.run(x, t, indices, sample_weight=w - 1)
        with pytest.raises(ValueError, match=r"sample_weight must have the shape \(8,\)"):
            step.run(x, t, indices, sample_weight=np.ones((30, 2)))
        assert step.steps == 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("labels", ["ids", "one-hot", "ignored"])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("rule", [lambda: SGD(0.1), lambda: RMSprop(0.01)])
def test_two_threads_take_the_plain_steps(rng, dtype, labels, weighted, rule):
    pytest.importorskip("numba", reason="numba is not installed")
    x, t, w = samples(HOST, rng)
    x, w = x.astype(dtype), w if weighted else None
    t = np.eye(3)[t] if labels == "one-hot" else t
    settings = {"ignore_index": 2 if labels == "ignored" else None}
    plain, fast = (network(HOST, SoftmaxWithLoss(**settings), dtype=dtype) for _ in range(2))
    indices = rng.integers(0, 30, (60, 9))
    step = fast.compile(rule(), 9, "numba")
    del step.runners[1:]  # the two threads take them all
    expected = train_plainly(plain, rule(), x, t, w, indices)
    tolerance = {"rtol": 1e-3, "atol": 1e-5} if dtype == "float32" else {"rtol": 1e-9, "atol": 1e-12}
    np.testing.assert_allclose(step.run(x, t, indices, sample_weight=w), expected, **tolerance)
    np.testing.assert_allclose(fast.params.flat, plain.params.flat, **tolerance)
    assert step.steps == step.optimizer.steps == 60


def test_two_threads_leave_a_minibatch_of_no_weight_as_it_was(rng):
    pytest.importorskip("numba", reason="numba is not installed")
    x, t, w = samples(HOST, rng)
    net = network(HOST)
    before = net.params.flat.copy()
    losses = net.compile(SGD(0.1), 8, "numba").run(x, t, rng.integers(0, 30, (3, 8)), sample_weight=0 * w)
    assert np.isnan(losses).all()
    np.testing.assert_array_equal(net.params.flat, before)

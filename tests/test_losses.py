"""Losses in networks: what is right, what labels they take, and what they refuse."""

import numpy as np
import pytest

from xpnet import asnumpy
from xpnet.gradient import gradient_check
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
from xpnet.nets import GraphNetwork, Sequential
from xpnet.optimizers import SGD
from xpnet.training import Trainer

ADAM = {"optimizer": "adam", "optimizer_param": {"lr": 0.02}}
REGRESSIONS = [IdentityWithLoss, HuberWithLoss]
LOSSES = [*REGRESSIONS, PoissonWithLoss, SigmoidWithLoss, lambda: SoftmaxWithLoss(0.1), HingeWithLoss]


def network(loss, device, outputs=3, **settings):
    return Sequential.mlp([4, 8, outputs], "tanh", loss=loss, device=device, seed=0, **settings)


@pytest.mark.parametrize("method", ["batched", "loop", "directional"])
@pytest.mark.parametrize(
    ("loss", "labels"),
    [
        (lambda: SoftmaxWithLoss(0.1, np.array([1.0, 2.0, 3.0])), lambda rng: rng.integers(0, 3, 5)),
        (SigmoidWithLoss, lambda rng: rng.integers(0, 2, (5, 3))),
        (IdentityWithLoss, lambda rng: rng.standard_normal((5, 3))),
        (PoissonWithLoss, lambda rng: rng.poisson(2.0, (5, 3))),
        (HuberWithLoss, lambda rng: 3 * rng.standard_normal((5, 3))),
        (HingeWithLoss, lambda rng: rng.integers(0, 3, 5)),
    ],
)
def test_networks_pass_the_gradient_check(device, rng, loss, labels, method):
    net = network(loss(), device, dtype="float64")
    x, t = device.asarray(rng.standard_normal((5, 4))), device.asarray(labels(rng))
    assert gradient_check(net, x, t, method=method).ok


def test_class_weights_follow_the_network(device, rng):
    loss = SoftmaxWithLoss(class_weight=np.array([1.0, 2.0, 4.0]))
    net = network(loss, device)
    assert device.holds(loss.class_weight)
    assert loss.class_weight.dtype == "float32"
    x, t = device.asarray(rng.random((6, 4), dtype="float32")), device.asarray(np.array([0, 1, 2, 2, 1, 0]))
    assert net.gradient(x, t).flat.dtype == "float32"


def test_a_sigmoid_is_right_where_its_score_has_the_targets_sign(device):
    loss = SigmoidWithLoss()
    x = device.asarray(np.array([[2.0], [-1.0], [0.5], [-3.0]]))
    t = device.asarray(np.array([1, 1, 0, 0]))
    assert asnumpy(loss.correct(x, t)).ravel().tolist() == [True, False, False, True]


def test_a_binary_classifier_trains(device, rng):
    x = rng.standard_normal((400, 4)).astype("float32")
    t = (x[:, 0] * x[:, 1] > 0).astype("float32")
    net = network(SigmoidWithLoss(), device, outputs=1)
    trainer = Trainer(net, x, t, x, t, epochs=100, mini_batch_size=50, verbose=False, seed=0, **ADAM)
    trainer.train()
    assert trainer.test_acc_list[-1] > 0.9


@pytest.mark.parametrize("loss", REGRESSIONS)
def test_a_regression_trains_and_has_no_accuracy(device, rng, loss):
    x = rng.standard_normal((300, 4)).astype("float32")
    t = (x[:, :1] ** 2 - x[:, 1:2]).astype("float32")
    net = network(loss(), device, outputs=1)
    before = float(net.loss(device.asarray(x), device.asarray(t)))
    trainer = Trainer(net, x, t, x, t, epochs=60, mini_batch_size=50, verbose=False, seed=0, **ADAM)
    trainer.train()
    assert float(net.loss(device.asarray(x), device.asarray(t))) < 0.3 * before
    assert np.isnan(trainer.test_acc_list[-1])
    with pytest.raises(TypeError, match=f"{loss.__name__} ends a regression, which has a loss but no accuracy"):
        net.accuracy(device.asarray(x), device.asarray(t))


def test_rates_of_counts_are_learned(device, rng):
    x = rng.standard_normal((500, 4)).astype("float32")
    rates = np.exp(0.5 * x[:, 0] - x[:, 1])
    net = network(PoissonWithLoss(), device, outputs=1)
    trainer = Trainer(net, x, rng.poisson(rates), epochs=60, mini_batch_size=50, verbose=False, seed=0, **ADAM)
    trainer.train()
    found = asnumpy(net.predict(device.asarray(x)))[:, 0]
    assert np.corrcoef(found, np.log(rates))[0, 1] > 0.95


@pytest.mark.parametrize("bad", [-1.0, np.nan])
def test_a_negative_count_never_passes_for_a_loss(device, bad):
    x, t = device.asarray(np.zeros((2, 1))), device.asarray(np.array([0.0, bad]))
    if device.name == "cpu":
        with pytest.raises(ValueError, match=r"targets t must lie in \[0, inf\]"):
            PoissonWithLoss().forward(x, t)
    else:
        assert np.isnan(float(PoissonWithLoss().forward(x, t)))
    with pytest.raises(ValueError, match=r"targets t must lie in \[0, inf\]"):
        PoissonWithLoss().check_labels(t, (2, 1))


@pytest.mark.parametrize("bad", [-1.0, 2.0, np.nan])
def test_a_target_that_is_no_probability_never_passes_for_a_loss(device, bad):
    x, t = device.asarray(np.zeros((2, 1))), device.asarray(np.array([0.0, bad]))
    if device.name == "cpu":
        with pytest.raises(ValueError, match=r"targets t must lie in \[0, 1\], got values from"):
            SigmoidWithLoss().forward(x, t)
    else:
        assert np.isnan(float(SigmoidWithLoss().forward(x, t)))
    with pytest.raises(ValueError, match=r"targets t must lie in \[0, 1\]"):  # looked at once, on every device
        Trainer(network(SigmoidWithLoss(), device, outputs=1), np.zeros((2, 4)), asnumpy(t), np.zeros((2, 4)), [0, 1])


@pytest.mark.parametrize("method", ["batched", "loop", "directional"])
@pytest.mark.parametrize("as_graph", [False, True])
def test_the_kinks_of_a_loss_are_set_apart(device, rng, method, as_graph):
    # The scores of class 1 are at the margin exactly, those of class 2 are far from it.
    layer, loss = Affine(np.zeros((4, 3)), np.array([1.0, 0.0, -5.0])), HingeWithLoss()
    if as_graph:
        net = GraphNetwork(loss(layer(Input("x")), Input("t")), device=device)
    else:
        net = Sequential([layer], loss, device=device)
    x, t = device.asarray(rng.standard_normal((3, 4))), device.asarray(np.zeros(3, int))
    report = gradient_check(net, x, t, method=method)
    assert report.ok
    assert all(check.kinks for check in report.parameters.values())


def test_the_highest_of_one_hot_labels_counts_for_the_hinge_as_for_accuracy(device):
    x, t = device.asarray(np.array([[0.5, 0.25, 0.0]])), device.asarray(np.array([[0.25, 0.75, 0.0]]))
    loss = HingeWithLoss()
    assert float(loss.forward(x, t)) == float(loss.forward(x, device.asarray(np.array([1]))))


@pytest.mark.parametrize(
    "loss", [*REGRESSIONS, PoissonWithLoss, SigmoidWithLoss, lambda: SoftmaxWithLoss(0.1), HingeWithLoss]
)
def test_whole_numbers_are_computed_in_float64(device, loss):
    scores, t = np.array([[1, 2, 0], [3, 0, 1]]), np.array([[0.5, 0.25, 0.25], [0.0, 0.5, 0.5]])
    whole, real = loss(), loss()
    t = device.asarray(t)
    assert float(whole.forward(device.asarray(scores), t)) == float(real.forward(device.asarray(scores * 1.0), t))
    np.testing.assert_array_equal(asnumpy(whole.backward()), asnumpy(real.backward()))


@pytest.mark.parametrize(
    "loss", [*REGRESSIONS, PoissonWithLoss, SigmoidWithLoss, lambda: SoftmaxWithLoss(0.1), HingeWithLoss]
)
def test_compiled_steps_are_the_plain_ones(device, rng, loss):
    x = device.asarray(rng.standard_normal((20, 4)))
    t = rng.random((20, 3))
    t = device.asarray(t if loss is not HingeWithLoss else t.argmax(axis=1))
    plain, fast = network(loss(), device), network(loss(), device)
    indices, rule = device.asarray(rng.integers(0, 20, (5, 6))), SGD(0.1)
    losses = asnumpy(fast.compile(SGD(0.1), 6, backend="numpy").run(x, t, indices))
    for index, expected in zip(indices, losses, strict=True):
        value, grads = plain.loss_and_gradient(x[index], t[index])
        rule.update(plain.params, grads)
        assert float(value) == expected
    np.testing.assert_array_equal(asnumpy(fast.params.flat), asnumpy(plain.params.flat))


@pytest.mark.parametrize("loss", [*REGRESSIONS, PoissonWithLoss, SigmoidWithLoss])
def test_targets_of_another_shape_are_refused_and_none_is_broadcast(device, loss):
    x = device.asarray(np.zeros((4, 3)))
    for shape in [(4,), (3,), (1, 3), (4, 1), (3, 4)]:
        with pytest.raises(ValueError, match=r"expected targets t of the scores' shape \(4, 3\), got"):
            loss().forward(x, device.asarray(np.zeros(shape)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SoftmaxWithLoss(1.1), r"label_smoothing must lie in \[0, 1\], got 1.1"),
        (
            lambda: SoftmaxWithLoss(class_weight=np.ones((2, 2))),
            r"class_weight must have the shape \(C,\), got \(2, 2\)",
        ),
        (lambda: HuberWithLoss(0), "delta must be finite and positive, got 0"),
        (lambda: HingeWithLoss(-1), "margin must be finite and positive, got -1"),
        (
            lambda: SoftmaxWithLoss(class_weight=np.ones(2)).forward(np.zeros((1, 3)), np.array([0])),
            "class_weight has 2 weights, but x has scores for 3 classes",
        ),
        (lambda: SoftmaxWithLoss(0.1).forward(np.zeros((1, 3)), np.array([3])), r"class ids must lie in \[0, 3\)"),
        (lambda: HingeWithLoss().forward(np.zeros((1, 3)), np.array([-1])), r"class ids must lie in \[0, 3\)"),
    ],
)
def test_what_makes_no_loss_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("loss", [SigmoidWithLoss, IdentityWithLoss, HuberWithLoss])
def test_extreme_scores_give_finite_losses(device, loss):
    x = device.asarray(np.array([[-1e4, 1e4, 0.0]], "float32"))
    t = device.asarray(np.array([[1, 0, 1]]))
    layer = loss()
    assert np.isfinite(float(layer.forward(x, t)))
    assert np.isfinite(asnumpy(layer.backward())).all()


def test_softmax_of_one_output_is_refused_and_the_remedy_named(device, rng):
    x, t = device.asarray(rng.random((4, 1))), device.asarray(np.array([[0], [1], [1], [0]]))
    with pytest.raises(ValueError, match=r"two or more classes, got shape \(4, 1\).*use SigmoidWithLoss"):
        SoftmaxWithLoss().forward(x, t)
    with pytest.raises(ValueError, match="use SigmoidWithLoss"):
        SoftmaxWithLoss().check_labels(t, (4, 1))

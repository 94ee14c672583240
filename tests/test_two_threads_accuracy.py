"""The accuracy of a perceptron on two cores is the network's."""

import numpy as np
import pytest
from test_two_threads import compiled, data, net_of, threadpoolctl

from xpnet.layers import Affine
from xpnet.nets import Sequential
from xpnet.optimizers import SGD
from xpnet.steps.two_threads import PREDICTED


@pytest.mark.parametrize("samples", [1, 2, 3, 2 * PREDICTED, 2 * PREDICTED + 1])
@pytest.mark.parametrize("threads", [1, 2])
def test_accuracy_is_the_networks(rng, samples, threads):
    net = net_of(6, 8, 3)
    x = rng.standard_normal((samples, 6)).astype("float32")
    t = net.predict(x).argmax(axis=1)
    wrong = samples // 3
    t[:wrong] = (t[:wrong] + 1) % 3
    step = compiled(net, SGD())
    with threadpoolctl.threadpool_limits(threads):
        assert step.accuracy(x, t) == (samples - wrong) / samples
        assert step.accuracy(x, np.eye(3)[t]) == (samples - wrong) / samples
        assert step.accuracy(x, 0.4 + 0.2 * np.eye(3)[t]) == (samples - wrong) / samples


def test_accuracy_of_scores_that_are_not_finite_is_the_networks(rng):
    x, t = data(rng)
    x[::3] = np.nan
    x[1::3] = np.inf
    net = net_of(6, 8, 3)
    with np.errstate(all="ignore"):
        assert compiled(net, SGD()).accuracy(x, t) == net.accuracy(x, t)


def test_a_networks_own_accuracy_is_asked(rng):
    class TopTwo(Sequential):
        def accuracy(self, x, t):
            return float((self.predict(x).argsort(axis=1)[:, 1:] == t[:, None]).any(axis=1).mean())

    x, t = data(rng)
    net = TopTwo([Affine.from_sizes(6, 3, std=0.5, rng=0)])
    assert compiled(net, SGD()).accuracy(x, t) == net.accuracy(x, t) > net_of(6, 3).accuracy(x, t)


def test_accuracy_refuses_what_the_network_refuses(rng):
    (x, t), step = data(rng), compiled(net_of(6, 8, 3), SGD())
    assert np.isnan(step.accuracy(x[:0], t[:0]))
    with pytest.raises(ValueError, match="must be equally many"):
        step.accuracy(x, t[1:])
    with pytest.raises(ValueError, match="Affine1 expected x"):
        step.accuracy(x[:, :5].copy(), t)
    step.net.to(dtype="float64")
    with pytest.raises(RuntimeError, match="compile its step again"):
        step.accuracy(x, t)

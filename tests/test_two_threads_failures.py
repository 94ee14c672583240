"""Steps on two cores that fail or are interrupted: no thread waits, and the network is left after a whole step."""

import importlib
import signal
import threading

import numpy as np
import pytest
from test_two_threads import SAMPLES, compiled, data, net_of, threadpoolctl, train_plainly

from xpnet.optimizers import SGD, Momentum
from xpnet.steps.two_threads import UNINTERRUPTED_STEPS


def test_wrong_data_are_refused_before_a_step_is_taken(rng):
    net = net_of(6, 8, 3)
    before, step, (x, t) = net.params.flat.copy(), compiled(net, SGD(0.1)), data(rng)
    indices = rng.integers(0, SAMPLES, (5, 4))
    with pytest.raises(ValueError, match=r"Affine1 expected x of shape \(N, 6\)"):
        step.run(x[:, :5].copy(), t, indices)
    with pytest.raises(ValueError, match=r"class ids must lie in \[0, 3\), got ids from 0 to 3"):
        step.run(x, np.where(t == 2, 3, t), indices)
    with pytest.raises(ValueError, match="class ids must lie"):
        step.run(x, t - 1, indices)
    with pytest.raises(ValueError, match="labels t must be one-hot"):
        step.run(x, np.eye(4)[t], indices)
    with pytest.raises(IndexError):
        step.run(x[:0], t[:0], indices)
    np.testing.assert_array_equal(net.params.flat, before)
    assert step.steps == step.optimizer.steps == 0
    assert np.isfinite(step.run(x, t, indices)).all()


def test_losses_of_a_diverging_training_are_not_finite(rng):
    x, t = data(rng)
    with np.errstate(all="ignore"):
        losses = compiled(net_of(6, 8, 3), SGD(1e30)).run(x, t, rng.integers(0, SAMPLES, (9, 4)))
    assert not np.isfinite(losses[-1])


@pytest.mark.parametrize("rule", [lambda: SGD(0.1), lambda: Momentum(0.1)])
def test_interrupted_it_is_left_as_after_a_whole_step(rng, rule):
    x, t = data(rng)
    indices = rng.integers(0, SAMPLES, (4 * UNINTERRUPTED_STEPS, 4))
    net, plain = net_of(6, 8, 3), net_of(6, 8, 3)
    step, losses = compiled(net, rule()), np.zeros(len(indices), "float32")
    steps_of = step.optimizer.numbers

    def numbers(ahead):
        if step.optimizer.steps + ahead == UNINTERRUPTED_STEPS + 5:
            signal.raise_signal(signal.SIGINT)
        return steps_of(ahead)

    step.optimizer.numbers = numbers
    with pytest.raises(KeyboardInterrupt):
        step.run(x, t, indices, losses)
    assert UNINTERRUPTED_STEPS + 5 < step.steps <= 2 * UNINTERRUPTED_STEPS
    assert step.optimizer.steps == step.steps
    expected = train_plainly(plain, rule(), x, t, indices[: step.steps])
    np.testing.assert_allclose(losses[: step.steps], expected, rtol=1e-3)
    np.testing.assert_allclose(net.params.flat, plain.params.flat, rtol=1e-3, atol=1e-5)
    assert (losses[2 * UNINTERRUPTED_STEPS :] == 0).all()


def test_an_update_that_fails_leaves_no_thread_waiting(rng):
    class Failing(SGD):
        def rule(self, *args):
            if self.steps == 3:
                raise ZeroDivisionError
            super().rule(*args)

    x, t = data(rng)
    threads = threading.active_count()
    step = compiled(net_of(6, 8, 3), Failing(0.1))
    with pytest.raises(ZeroDivisionError):
        step.run(x, t, rng.integers(0, SAMPLES, (20, 4)))
    assert step.steps == 3
    assert threading.active_count() == threads


def test_a_helper_that_fails_is_not_waited_for(rng, monkeypatch):
    module = importlib.import_module("xpnet.kernels.numba.rows")
    take_steps = module.take_steps

    def failing(first, *args):
        if first == 1:
            raise MemoryError
        take_steps(first, *args)

    monkeypatch.setattr(module, "take_steps", failing)
    with threadpoolctl.threadpool_limits(2), pytest.raises(MemoryError):
        compiled(net_of(6, 8, 3), SGD(0.1)).run(*data(rng), rng.integers(0, SAMPLES, (20, 4)))


def test_where_one_thread_is_interrupted_before_it_starts_the_other_changes_nothing(rng, monkeypatch):
    module = importlib.import_module("xpnet.kernels.numba.rows")
    take_steps = module.take_steps

    def interrupted(first, *args):
        if first == 0:  # as by a second Ctrl-C, which does not wait
            raise KeyboardInterrupt
        take_steps(first, *args)

    net = net_of(6, 8, 3)
    before, step = net.params.flat.copy(), compiled(net, SGD(0.1))
    monkeypatch.setattr(module, "take_steps", interrupted)
    with threadpoolctl.threadpool_limits(2), pytest.raises(KeyboardInterrupt):
        step.run(*data(rng), rng.integers(0, SAMPLES, (20, 4)))
    np.testing.assert_array_equal(net.params.flat, before)
    assert step.steps == step.optimizer.steps == 0

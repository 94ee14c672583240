"""Evaluation of a network on any number of samples, in batches: accuracy, loss, errors of a regression."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from xpnet import functions, kernels
from xpnet.device import asnumpy, is_on_host
from xpnet.threads import Sharing, Team, are_available
from xpnet.typing import Array

if TYPE_CHECKING:
    from xpnet.nets.network import Network

__all__ = ["accuracy", "batch_size", "evaluate", "predict", "team_for"]

BATCH = 1000
"""Largest number of samples that the host predicts at a time; fewer if their values would not stay in the cache.

A CUDA device predicts as many as `kernels.scratch_size` allows: each batch is a dozen launches, whatever its size.
"""


SHARED = 2**22
"""Number of values in the largest layer of all samples from which threads share their evaluation."""


@contextlib.contextmanager
def team_for(net: Network, x: Array) -> Iterator[Sharing | None]:
    """Context with threads that share the evaluation of samples; None for few samples, or on a CUDA device."""
    is_large = len(x) * net.largest(x.shape[1:]) >= SHARED
    with Team() if is_large and is_on_host(net.params.flat) and are_available() else contextlib.nullcontext() as team:
        yield team


def predict(net: Network, x: Array) -> np.ndarray:
    """Return the scores of any number of samples, on the host. Data on the host are moved in batches."""

    def scores(own: Network, part: slice) -> np.ndarray:
        return asnumpy(own.predict(net.device.asarray(x[part])))

    with net.device.activate(), net.reordered(), team_for(net, x) as team:
        return np.concatenate(_in_batches(net, x, scores, team) or [scores(net, slice(0))])


def accuracy(net: Network, x: Array, t: Array, team: Sharing | None = None) -> float:
    """Return the share of correctly classified samples (`Network.accuracy`). Data on the host are moved in batches.

    Parameters
    ----------
    net, x, t
        A network and its data.
    team : Sharing, optional
        Threads or processes that share the batches.
    """

    def count(own: Network, part: slice) -> tuple[Any, Any]:
        y, labels = own.predict(net.device.asarray(x[part])), net.device.asarray(t[part])
        hits, counted = own.last_layer.correct(y, labels), own.last_layer.counted(labels, y.shape)
        return xp.sum(hits), hits.size if counted is None else xp.sum(counted)

    xp = net.device.xp
    with net.device.activate(), net.reordered():
        correct, number = (sum(column) for column in _columns(_in_batches(net, x, count, team), 2))
        return int(correct) / int(number) if number else math.nan


def evaluate(net: Network, x: Array, t: Array, team: Sharing | None = None) -> dict[str, float]:
    """Return loss and metrics (`Network.evaluate`). Arguments are those of `accuracy`."""

    def measure(own: Network, part: slice) -> tuple[Any, ...]:
        y, labels = own.predict(net.device.asarray(x[part])), net.device.asarray(t[part])
        mean, counted = own.last_layer.forward(y, labels), own.last_layer.counted(labels, y.shape)
        here = xp.asarray(len(y)) if counted is None else xp.sum(counted)
        loss = xp.where(here > 0, mean * here, 0.0)  # the mean of nothing is NaN
        if classifies:
            hits = own.last_layer.correct(y, labels)
            return loss, here, xp.sum(hits), hits.size if counted is None else here
        return loss, here, xp.square(y.astype("float64") - labels.reshape(y.shape)).sum(axis=0), 0

    xp, classifies = net.device.xp, net.last_layer.classifies
    with net.device.activate(), net.reordered():
        loss, samples, found, number = (sum(column) for column in _columns(_in_batches(net, x, measure, team), 4))
        metrics = {"loss": float(loss) * functions.inverse_count(int(samples))}
        if net.is_language_model:
            with np.errstate(over="ignore"):
                metrics["perplexity"] = float(np.exp(metrics["loss"]))
        if classifies:
            return {**metrics, "accuracy": int(found) * functions.inverse_count(int(number))}
    return {**metrics, **_errors(asnumpy(found), asnumpy(t))}


def _errors(squares: np.ndarray, t: np.ndarray) -> dict[str, float]:
    """Return RMSE and R^2 of a regression from the sums of squared errors by output."""
    if not len(t):
        return {"rmse": math.nan, "r2": math.nan}
    squares, targets = squares.reshape(-1), t.reshape(len(t), -1).astype("float64")
    total = np.square(targets - targets.mean(axis=0)).sum(axis=0)
    # Constant targets: 1 if they are met, else 0, as in scikit-learn.
    r2 = np.where(total > 0, 1.0 - squares / np.where(total > 0, total, 1.0), np.where(squares > 0, 0.0, 1.0))
    return {"rmse": math.sqrt(squares.sum() / targets.size), "r2": float(r2.mean())}


def batch_size(net: Network, x: Array) -> int:
    """Return the number of samples like `x` that are best predicted at a time."""
    sample = max(net.largest(x.shape[1:]) * net.dtype.itemsize, 1)
    most = BATCH if is_on_host(net.params.flat) else max(len(x), 1)
    return max(min(most, kernels.scratch_size(net.params.flat) // sample), 1)


def _in_batches(net: Network, x: Array, task: Callable[[Network, slice], Any], team: Sharing | None) -> list[Any]:
    """Return the results of a task for each batch of samples.

    The task takes a network and a batch. Each thread has a network of its own: a custom layer's forward may keep
    intermediate results in attributes.
    """
    at_a_time = batch_size(net, x)
    if team is not None:
        at_a_time = max(min(at_a_time, -(-len(x) // team.threads)), 1)
    parts = [slice(start, start + at_a_time) for start in range(0, len(x), at_a_time)]
    if team is None:
        return [task(net, part) for part in parts]
    own = [net, *(net.replica() for _ in range(min(team.together_here, len(parts)) - 1))]
    return team.together([partial(task, own[i % len(own)], part) for i, part in enumerate(parts)])


def _columns(rows: list[Any], number: int) -> list[Any]:
    return [*zip(*rows, strict=True)] or [()] * number

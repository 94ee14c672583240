"""Evaluation of a network on any number of samples, in batches: accuracy, loss, errors of a regression."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from xpnet import functions, kernels
from xpnet.device import asnumpy, is_on_host
from xpnet.threads import Team
from xpnet.typing import Array

if TYPE_CHECKING:
    from xpnet.nets.network import Network

__all__ = ["accuracy", "batch_size", "evaluate"]

BATCH = 1000
"""Largest number of samples that the host predicts at a time; fewer if their values would not stay in the cache.

A CUDA device predicts as many as `kernels.scratch_size` allows: each batch is a dozen launches, whatever its size.
"""


def accuracy(net: Network, x: Array, t: Array, team: Team | None = None) -> float:
    """Return the share of correctly classified samples (`Network.accuracy`). Data on the host are moved in batches.

    Parameters
    ----------
    net, x, t
        A network and its data.
    team : Team, optional
        Threads that share the batches.
    """

    def count(y: Array, labels: Array) -> tuple[Any, Any]:
        hits, counted = net.last_layer.correct(y, labels), net.last_layer.counted(labels, y.shape)
        return xp.sum(hits), hits.size if counted is None else xp.sum(counted)

    xp = net.device.xp
    with net.device.activate(), net.reordered():
        correct, number = (sum(column) for column in _columns(_measured(net, x, t, count, team), 2))
        return int(correct) / int(number) if number else math.nan


def evaluate(net: Network, x: Array, t: Array, team: Team | None = None) -> dict[str, float]:
    """Return loss and metrics (`Network.evaluate`). Arguments are those of `accuracy`."""

    def measure(y: Array, labels: Array) -> tuple[Any, ...]:
        mean, counted = net.last_layer.forward(y, labels), net.last_layer.counted(labels, y.shape)
        here = xp.asarray(len(y)) if counted is None else xp.sum(counted)
        loss = xp.where(here > 0, mean * here, 0.0)  # the mean of nothing is NaN
        if classifies:
            hits = net.last_layer.correct(y, labels)
            return loss, here, xp.sum(hits), hits.size if counted is None else here
        return loss, here, xp.square(y.astype("float64") - labels.reshape(y.shape)).sum(axis=0), 0

    xp, classifies = net.device.xp, net.last_layer.classifies
    with net.device.activate(), net.reordered():
        loss, samples, found, number = (sum(column) for column in _columns(_measured(net, x, t, measure, team), 4))
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


def _measured(net: Network, x: Array, t: Array, measure: Callable[[Array, Array], Any], team: Team | None) -> list[Any]:
    """Return a function of scores and labels on the network's device, for each batch."""
    at_a_time = batch_size(net, x)
    if team is not None:
        at_a_time = max(min(at_a_time, -(-len(x) // team.threads)), 1)

    def of_batch(part: slice) -> Any:
        return measure(net.predict(net.device.asarray(x[part])), net.device.asarray(t[part]))

    batches = [partial(of_batch, slice(start, start + at_a_time)) for start in range(0, len(x), at_a_time)]
    return [batch() for batch in batches] if team is None else team.together(batches)


def _columns(rows: list[Any], number: int) -> list[Any]:
    return [*zip(*rows, strict=True)] or [()] * number

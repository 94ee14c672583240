"""Evaluation of a network on any number of samples, in batches: accuracy, loss, errors of a regression."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from xpnet import functions, kernels
from xpnet.device import asnumpy, is_on_host
from xpnet.typing import Array

if TYPE_CHECKING:
    from xpnet.nets.network import Network

__all__ = ["accuracy", "evaluate"]

BATCH = 1000
"""Largest number of samples that the host predicts at a time; fewer if their values would not stay in the cache.

A CUDA device predicts as many as `kernels.scratch_size` allows: each batch is a dozen launches, whatever its size.
"""


def accuracy(net: Network, x: Array, t: Array) -> float:
    """Return the share of correctly classified samples (`Network.accuracy`). Data on the host are moved in batches."""
    xp, number = net.device.xp, 0
    with net.device.activate(), net.reordered():
        correct = xp.zeros((), dtype="int64")
        for y, labels in _predictions(net, x, t):
            hits, counted = net.last_layer.correct(y, labels), net.last_layer.counted(labels, y.shape)
            correct += xp.sum(hits)
            number += hits.size if counted is None else xp.sum(counted)
        return int(correct) / int(number) if number else math.nan


def evaluate(net: Network, x: Array, t: Array) -> dict[str, float]:
    """Return loss and metrics (`Network.evaluate`). Data on the host are moved in batches."""
    xp, classifies = net.device.xp, net.last_layer.classifies
    with net.device.activate(), net.reordered():
        loss, samples = xp.zeros((), dtype="float64"), xp.zeros((), dtype="int64")
        correct, number = xp.zeros((), dtype="int64"), xp.zeros((), dtype="int64")
        squares: Array | float = 0.0  # of the errors, by output
        for y, labels in _predictions(net, x, t):
            mean, counted = net.last_layer.forward(y, labels), net.last_layer.counted(labels, y.shape)
            here = xp.asarray(len(y)) if counted is None else xp.sum(counted)
            loss += xp.where(here > 0, mean * here, 0.0)  # the mean of nothing is NaN
            samples += here
            if classifies:
                hits = net.last_layer.correct(y, labels)
                correct += xp.sum(hits)
                number += hits.size if counted is None else here
            else:
                squares = squares + xp.square(y.astype("float64") - labels.reshape(y.shape)).sum(axis=0)
        metrics = {"loss": float(loss) * functions.inverse_count(int(samples))}
        if classifies:
            return {**metrics, "accuracy": int(correct) * functions.inverse_count(int(number))}
    return {**metrics, **_errors(asnumpy(squares), asnumpy(t))}


def _errors(squares: np.ndarray, t: np.ndarray) -> dict[str, float]:
    """Return RMSE and R^2 of a regression from the sums of squared errors by output."""
    if not len(t):
        return {"rmse": math.nan, "r2": math.nan}
    squares, targets = squares.reshape(-1), t.reshape(len(t), -1).astype("float64")
    total = np.square(targets - targets.mean(axis=0)).sum(axis=0)
    # Constant targets: 1 if they are met, else 0, as in scikit-learn.
    r2 = np.where(total > 0, 1.0 - squares / np.where(total > 0, total, 1.0), np.where(squares > 0, 0.0, 1.0))
    return {"rmse": math.sqrt(squares.sum() / targets.size), "r2": float(r2.mean())}


def _predictions(net: Network, x: Array, t: Array) -> Iterator[tuple[Array, Array]]:
    """Yield scores and labels on the network's device, a batch at a time."""
    sample = max(net.largest(x.shape[1:]) * net.dtype.itemsize, 1)
    most = BATCH if is_on_host(net.params.flat) else max(len(x), 1)
    at_a_time = max(min(most, kernels.scratch_size(net.params.flat) // sample), 1)
    for start in range(0, len(x), at_a_time):
        part = slice(start, start + at_a_time)
        yield net.predict(net.device.asarray(x[part])), net.device.asarray(t[part])

"""Training steps of perceptrons by two threads, each with half of every minibatch."""

from __future__ import annotations

import importlib.util
import itertools
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from xpnet import functions
from xpnet.blas import blas
from xpnet.layers import Affine, Loss, Relu, Sigmoid, SigmoidWithLoss, SoftmaxWithLoss, Tanh
from xpnet.nets import Network
from xpnet.optimizers import SGD, Adam, AdamW, Momentum, Nesterov, Optimizer
from xpnet.parameters import ParameterVector
from xpnet.steps.step import Minibatches
from xpnet.threads import submitted
from xpnet.typing import Array
from xpnet.weights import normalize

if TYPE_CHECKING:
    from xpnet.kernels.numba.perceptron import Perceptron, Rule, Samples

__all__ = ["TwoThreads"]

LARGEST = 2**22
"""Largest size of the parameters in bytes. Each step adds two gradients of this size, which should fit the caches."""

UNINTERRUPTED_STEPS = 50
"""Steps between two checks for Ctrl-C."""

PREDICTED = 100
"""Samples per prediction of a thread."""

MOST_BLOCKS = 12
"""Largest number of parts of the first product. It takes a third less time in two parts, a tenth less in twelve."""

ACTIVATIONS = {Relu: "RELU", Sigmoid: "SIGMOID", Tanh: "TANH"}
"""Layers allowed between affine layers, and their names in `xpnet.kernels.numba.rows`."""

METHODS = {"forward", "backward", "backward_parameters"}
"""Methods that other runners call. This runner refuses a layer with one of them replaced on the instance."""


class TwoThreads:
    """A runner for perceptrons on the host: two threads, each with half of every minibatch.

    The network has affine layers with ReLU, sigmoid or tanh between them, and at the end `SoftmaxWithLoss`, or for one
    output `SigmoidWithLoss`. Numba compiles its steps into one function (`xpnet.kernels.numba.rows.take_steps`). If the
    BLAS may use only one thread, one thread computes both halves, with the same result to the last bit. Other cases,
    such as a label shared between classes, are left to the next runner.

    Parameters
    ----------
    net : Network
        The network to train, see `suits`.
    optimizer : Optimizer
        The update rule. Gradient descent and Adam are part of the compiled function; other rules are called after it.
    grads : ParameterVector
        Gradient for the other rules.
    threads : int, optional
        With 1, one thread computes both halves; by default if the BLAS may use only one.
    """

    name = "by two threads"

    def __init__(self, net: Network, optimizer: Optimizer, grads: ParameterVector, threads: int | None = None) -> None:
        self.net, self.optimizer, self.grads, self.threads = net, optimizer, grads, threads
        self._layers = _table(net)
        self._inputs, self._classes = int(self._layers[0, 0]), int(self._layers[-1, 1])
        self._half_grads = net.params.zeros_like()
        self._buffers = self._room(0)

    @staticmethod
    def suits(net: Network, batch_size: int) -> bool:
        """Whether this runner can train `net` here: its packages are installed, and it supports the layers."""
        row = net.row or []
        return (
            net.device.name == "cpu"
            and net.dtype in ("float32", "float64")
            and net.params.flat.nbytes <= LARGEST
            and batch_size > 1
            and len(row) % 2 == 1
            and all(type(layer) in (ACTIVATIONS if i % 2 else {Affine}) for i, layer in enumerate(row))
            and type(net.last_layer) is _loss_of(cast(Affine, row[-1]).W.shape[1])
            and type(net).backpropagate is Network.backpropagate
            and type(net).loss_of is Network.loss_of
            and all(map(importlib.util.find_spec, ("numba", "scipy", "threadpoolctl")))
        )

    def run(self, batches: Minibatches, losses: Array, on_taken: Callable[[int], None]) -> int:
        size = batches.indices.shape[1]
        if (
            size < 2
            or not self._takes(batches.x, batches.t)
            or (batches.weights is not None and batches.weights.ndim > 1)
        ):
            return 0
        samples, indices = self._samples(batches.x), np.ascontiguousarray(batches.indices, np.int64)
        with blas as of_blas, ThreadPoolExecutor(1) as pool:
            helper = pool if (self.threads or of_blas) > 1 else None
            for start in range(0, len(indices), UNINTERRUPTED_STEPS):
                part = slice(start, start + UNINTERRUPTED_STEPS)
                labels = self._labels(batches, indices[part])
                if labels is None:
                    return start
                self._take(samples, indices[part], *labels, losses[part], on_taken, helper)
        return len(indices)

    def accuracy(self, x: Array, t: Array) -> float:
        """Return `Network.accuracy`. Each thread predicts half of the samples."""
        found = self._evaluated(x, t)
        return found["accuracy"] if found else self.net.accuracy(x, t)

    def evaluate(self, x: Array, t: Array) -> dict[str, float]:
        """Return `Network.evaluate`. Each thread predicts half of the samples."""
        return self._evaluated(x, t) or self.net.evaluate(x, t)

    def _evaluated(self, x: Array, t: Array) -> dict[str, float]:
        """Return loss and accuracy, computed by the threads; empty if they do not support the data."""
        from xpnet.kernels.numba import rows

        own = [getattr(getattr(self.net, name), "__func__", None) for name in ("accuracy", "evaluate")]
        if (
            own != [Network.accuracy, Network.evaluate]
            or len(x) != len(t)
            or not self._takes(x, t)
            or self._ignored is not None
        ):
            return {}
        everything = np.arange(len(t))[None]
        labels = self._labels(Minibatches(x, t, everything), everything)
        if labels is None:
            return {}
        ids = labels[0][0]
        samples, middle = self._samples(x), len(x) // 2
        perceptron, buffers = self.perceptron(PREDICTED), self._room(PREDICTED)

        def of_half(half: int) -> Array:
            part = slice(middle, None) if half else slice(middle)
            given = samples.rows[part], samples.divisor
            return np.array(rows.evaluate(tuple(perceptron), given, ids[part], PREDICTED, buffers[half]))

        with blas as of_blas, ThreadPoolExecutor(1) as pool:
            helped = submitted(pool if (self.threads or of_blas) > 1 else None, lambda: of_half(1))
            correct, loss = (of_half(0) + (helped.result() if helped else of_half(1))) / len(x)
        return {"loss": float(loss), "accuracy": float(correct)}

    def perceptron(self, samples: int, weight_decay: float = 0.0) -> Perceptron:
        """Return the network as an argument of the compiled functions, for this number of samples at a time."""
        from xpnet.kernels.numba.perceptron import Perceptron

        outputs = int(self._layers[0, 1])
        blocks = -(-samples * self._inputs * outputs // blas.small) if blas.small else 1
        width = -(-self._inputs // blocks) if blocks <= MOST_BLOCKS else self._inputs
        return Perceptron(self._layers, width, self.net.params.flat, weight_decay)

    def _take(
        self,
        samples: Samples,
        indices: Array,
        ids: Array,
        weights: Array,
        losses: Array,
        on_taken: Callable[[int], None],
        pool: ThreadPoolExecutor | None,
    ) -> None:
        """Take some steps, alone or with a thread of the pool."""
        from xpnet.kernels.numba.barrier import GONE, LINE
        from xpnet.kernels.numba.rows import OTHER, take_steps

        net, optimizer, (steps, size) = self.net, self.optimizer, indices.shape
        rule = _as_rule(optimizer, net.params, steps)
        at_a_time = 1 if rule.kind == OTHER else steps
        half = -(-size // 2)
        if self._buffers.shape[1] < self._values(half):
            self._buffers = self._room(half)
        perceptron = self.perceptron(half, float(net.weight_decay_of(size)))
        sums, arrivals = np.empty((2, steps)), np.zeros((2, LINE), np.int64)

        def take(first: int, end: int, part: slice) -> None:
            both_grads = self.grads.flat, self._half_grads.flat
            mine = indices[part], ids[part], weights[part], tuple(rule), both_grads, self._buffers, sums[:, part]
            take_steps(first, end, arrivals, tuple(perceptron), tuple(samples), *mine)

        def help_out() -> None:
            try:
                take(1, 2, slice(steps))
            finally:  # else the other thread would wait forever after an error
                arrivals[1] = GONE

        helper = submitted(pool, help_out)
        if helper is None:
            arrivals[1] = GONE
        try:
            for start in range(0, steps, at_a_time):
                part = slice(start, start + at_a_time)
                take(0, 1 if helper else 2, part)
                total = sums[:, part].sum(axis=0)
                if weights.size:
                    losses[part] = np.where(weights[part].any(axis=1), total, math.nan)
                else:
                    losses[part] = total / size
                if rule.kind == OTHER:
                    optimizer.update(net.params, self.grads)
                else:
                    optimizer.steps += steps
                on_taken(at_a_time)
        finally:
            arrivals[0] = GONE
            if helper:
                helper.result()

    def _takes(self, x: Array, t: Array) -> bool:
        """Whether the compiled function supports these data and the layers' settings."""
        net, loss = self.net, self.net.last_layer
        return (
            type(loss) is _loss_of(self._classes)
            and x.dtype in ("uint8", net.dtype)
            and x.flags.c_contiguous
            and len(x) > 0
            and x.ndim > 1
            and (math.prod(x.shape[1:]) == self._inputs if net.input_shape is None else x.shape[1:] == net.input_shape)
            and (t.dtype.kind in "iu" or self._classes == 1 if t.ndim == 1 else t.shape[1:] == (self._classes,))
            and not (isinstance(loss, SoftmaxWithLoss) and (loss.label_smoothing or loss.class_weight is not None))
            and not any(vars(layer).keys() & METHODS for layer in (*net.layers.values(), loss))
        )

    def _labels(self, batches: Minibatches, indices: Array) -> tuple[Array, Array] | None:
        """Return the class ids (S, B) of samples and their normalized weights (S, B), or (S, 0) for the plain mean.

        None if a label is shared between classes, or between 0 and 1.
        """
        labels = batches.t.take(indices, axis=0, mode="clip")
        weights = None if batches.weights is None else batches.weights.take(indices, mode="clip").astype("float64")
        if self._classes == 1:
            labels = labels.reshape(indices.shape)
            ids = labels.astype(np.int64)
            if not ((labels == ids) & ((ids == 0) | (ids == 1))).all():
                return None
        elif batches.t.ndim > 1:
            ids = functions.indicated_classes(labels)
            if ids is None:
                return None
        else:
            ids = labels.astype(np.int64)
            if self._ignored is not None:
                counted = ids != self._ignored
                ids, weights = np.where(counted, ids, 0), counted * (1.0 if weights is None else weights)
            functions.check_ids(ids, self._classes)
        if weights is None:
            return ids, np.empty((len(ids), 0), self.net.dtype)
        return ids, normalize(weights, self.net.dtype, axis=1)

    @property
    def _ignored(self) -> int | None:
        """Class id of samples that do not count."""
        return getattr(self.net.last_layer, "ignore_index", None)

    def _samples(self, x: Array) -> Samples:
        from xpnet.kernels.numba.perceptron import Samples

        return Samples(x.reshape(len(x), -1), self.net.dtype.type(255 if x.dtype == "uint8" else 1))

    def _room(self, samples: int) -> Array:
        """Return buffers for the layers' results from this number of samples, one per thread."""
        return np.empty((2, self._values(samples)), self.net.dtype)

    def _values(self, samples: int) -> int:
        outputs = self._layers[:, 1]
        return samples * int(self._inputs + outputs.sum() + outputs.max())


def _loss_of(outputs: int) -> type[Loss]:
    """Return the loss that the compiled function has for this number of outputs."""
    return SoftmaxWithLoss if outputs > 1 else SigmoidWithLoss


def _table(net: Network) -> Array:
    """Return the table `Perceptron.layers` of the affine layers."""
    from xpnet.kernels.numba import rows

    flat, row, table = net.params.flat, net.row or [], []
    for layer, behind in itertools.zip_longest(row[::2], row[1::2]):
        starts = ((p.ctypes.data - flat.ctypes.data) // flat.itemsize for p in (layer.W, layer.b))
        table.append((*layer.W.shape, *starts, getattr(rows, ACTIVATIONS.get(type(behind), "NONE"))))
    return np.array(table, np.int64)


def _as_rule(optimizer: Optimizer, params: ParameterVector, steps: int) -> Rule:
    """Return the optimizer as an argument of the compiled function, for this number of steps."""
    from xpnet.kernels.numba.perceptron import Rule
    from xpnet.kernels.numba.rows import DESCENT, MOMENTS, MOMENTUM, OTHER

    kind, coefficients, settings = OTHER, np.zeros((steps, 3)), np.zeros(4)
    state: list[Any] = [params, params]
    if not (optimizer.clip_norm or optimizer.clip_value or vars(optimizer).keys() & {"update", "rule", "coefficients"}):
        if isinstance(optimizer, SGD) and type(optimizer) in (SGD, Momentum, Nesterov):
            kind = MOMENTUM if optimizer.momentum else DESCENT
            settings[2:] = optimizer.momentum, optimizer.nesterov
        elif isinstance(optimizer, Adam) and type(optimizer) in (Adam, AdamW):
            kind = MOMENTS
            settings[2:] = optimizer.beta1, optimizer.beta2
    if kind != OTHER:
        settings[int(optimizer.decoupled)] = optimizer.weight_decay
        for ahead in range(steps):
            *numbers, coefficients[ahead, 2] = optimizer.numbers(ahead)
            coefficients[ahead, : len(numbers)] = numbers
        kept = (optimizer.remembered(quantity, params) for quantity in optimizer.state_names)
        state[: len(optimizer.state_names)] = kept
    return Rule(kind, coefficients, settings, (state[0].flat, state[1].flat))

"""Training steps of perceptrons on two cores, each with its half of every minibatch."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from xpnet import functions
from xpnet.blas import blas
from xpnet.layers import Affine, Relu, Sigmoid, SoftmaxWithLoss, Tanh
from xpnet.optimizers import SGD, Adam, AdamW, Momentum, Nesterov, Optimizer
from xpnet.parameters import ParameterVector
from xpnet.typing import Array

if TYPE_CHECKING:
    from xpnet.nets.network import Network

__all__ = ["HalvedSteps"]

LARGEST = 2**22
"""Bytes of parameters up to which this gains: two gradients are added, and should be in the caches for it."""

WINDOW = 50
"""Steps that the threads take between two moments at which Ctrl-C is heeded."""

EVALUATED = 100
"""Samples that a thread predicts at a time."""

MOST_BLOCKS = 12
"""Into how many small products the first is split at most: into two it takes a third less time, into twelve a tenth."""

ACTIVATIONS = {Relu: "RELU", Sigmoid: "SIGMOID", Tanh: "TANH"}
"""What may be between affine layers, and its name in `xpnet.kernels.numba.rows`."""

METHODS = {"forward", "backward", "backward_parameters"}
"""What other steps call of a layer, and may have been replaced in one."""

Steps = Callable[[Array, Array, Array, Array, None, Callable[[int], None]], None]
"""Takes samples, labels, minibatches, losses to be written, no numbers, and what to call behind each step."""


class HalvedSteps:
    """Takes training steps of a perceptron on the host: two threads, each with its half of every minibatch.

    Of affine layers with ReLU, sigmoid or tanh between them and `SoftmaxWithLoss` at their end, as one function that
    Numba compiles (`xpnet.kernels.numba.rows.take_steps`). Where the BLAS may use one thread only, so does this, and
    takes the same steps to the last bit.

    Parameters
    ----------
    net : Network
        What is trained.
    optimizer : Optimizer
        The update rule. Gradient descent and Adam are part of the compiled function; others are called in each step.
    grads : ParameterVector
        Where the rule finds the gradient.
    batch_size : int
        Samples per step.
    steps : function
        Takes the steps that this is not made for, see `Steps`.
    """

    HOW = "halved between two cores"

    def __init__(
        self, net: Network, optimizer: Optimizer, grads: ParameterVector, batch_size: int, steps: Steps
    ) -> None:
        self.net, self.optimizer, self.grads, self.steps = net, optimizer, grads, steps
        self._layers = _table(net)
        self._both_grads = grads.flat, net.params.zeros_like().flat
        self._samples, self._classes = -(-batch_size // 2), int(self._layers[-1, 1])
        self._memory = self._room(self._samples)

    @staticmethod
    def suit(net: Network, batch_size: int) -> bool:
        """Tell whether there are such steps of a network, and what they need is installed."""
        row = net._row() or []
        return (
            net.device.name == "cpu"
            and net.dtype in ("float32", "float64")
            and net.params.flat.nbytes <= LARGEST
            and batch_size > 1
            and len(row) % 2 == 1
            and all(type(layer) in (ACTIVATIONS if i % 2 else {Affine}) for i, layer in enumerate(row))
            and type(net.last_layer) is SoftmaxWithLoss
            and all(map(importlib.util.find_spec, ("numba", "scipy", "threadpoolctl")))
        )

    def run(self, x: Array, t: Array, indices: Array, losses: Array, on_taken: Callable[[int], None]) -> None:
        """Take a step for each row of `indices`, and say so each time that some were taken."""
        taken = self._take(x, t, indices, losses, on_taken) if self._takes(x, t) else 0
        if taken < len(indices):
            self.steps(x, t, indices[taken:], losses[taken:], None, on_taken)

    def accuracy(self, x: Array, t: Array) -> float:
        """Return the network's accuracy, of which either thread counts a half."""
        from xpnet.kernels.numba.rows import count_correct
        from xpnet.nets.network import Network

        is_own = getattr(self.net.accuracy, "__func__", None) is not Network.accuracy
        if is_own or len(x) != len(t) or not self._takes(x, t):
            return self.net.accuracy(x, t)
        ids = t.astype(np.int64) if t.ndim == 1 else t.argmax(axis=1)
        (rows, white), middle = self._data(x), len(x) // 2
        network, room = self._network(EVALUATED), self._room(EVALUATED)

        def count(half: int) -> int:
            part = slice(middle, None) if half else slice(middle)
            return int(count_correct(network, (rows[part], white), ids[part], EVALUATED, room[half]))

        with blas as threads, ThreadPoolExecutor(1) as pool:
            helped = pool.submit(count, 1) if threads > 1 else None
            return (count(0) + (helped.result() if helped else count(1))) / len(x)

    def _take(self, x: Array, t: Array, indices: Array, losses: Array, on_taken: Callable[[int], None]) -> int:
        """Take steps as long as every label is one class; return how many."""
        data, indices = self._data(x), np.ascontiguousarray(indices, np.int64)
        with blas as threads, ThreadPoolExecutor(1) as pool:
            for start in range(0, len(indices), WINDOW):
                part = slice(start, start + WINDOW)
                ids = self._class_ids(t, indices[part])
                if ids is None:
                    return start
                self._take_window(data, indices[part], ids, losses[part], on_taken, pool if threads > 1 else None)
        return len(indices)

    def _take_window(
        self,
        data: tuple[Array, Any],
        indices: Array,
        ids: Array,
        losses: Array,
        on_taken: Callable[[int], None],
        pool: ThreadPoolExecutor | None,
    ) -> None:
        """Take some steps, with a thread of the pool or alone."""
        from xpnet.kernels.numba.meeting import GONE, LINE
        from xpnet.kernels.numba.rows import take_steps

        net, rule, (steps, size) = self.net, self.optimizer, indices.shape
        compiled_rule = _as_compiled(rule, net.params, steps)
        at_a_time = steps if compiled_rule[0] else 1
        network, sums, turns = self._network(self._samples), np.empty((2, steps)), np.zeros((2, LINE), np.int64)

        def take(first: int, end: int, part: slice) -> None:
            mine = indices[part], ids[part], compiled_rule, self._both_grads, self._memory, sums[:, part]
            take_steps(first, end, turns, network, data, *mine)

        def help_out() -> None:
            try:
                take(1, 2, slice(steps))
            finally:  # or the other would wait for ever, should this fail
                turns[1] = GONE

        turns[1] = 0 if pool else GONE
        helper = pool.submit(help_out) if pool else None
        try:
            for start in range(0, steps, at_a_time):
                part = slice(start, start + at_a_time)
                take(0, 1 if pool else 2, part)
                losses[part] = sums[:, part].sum(axis=0) / size
                if compiled_rule[0]:
                    rule.steps += steps
                else:
                    rule.update(net.params, self.grads)
                on_taken(at_a_time)
        finally:
            turns[0] = GONE
            if helper:
                helper.result()

    def _takes(self, x: Array, t: Array) -> bool:
        """Tell whether the compiled function computes what the layers would, from these data and as they are set."""
        net, loss = self.net, self.net.last_layer
        return (
            type(loss) is SoftmaxWithLoss
            and x.dtype in ("uint8", net.dtype)
            and x.flags.c_contiguous
            and len(x) > 0
            and (t.dtype.kind in "iu" if t.ndim == 1 else t.shape[1:] == (self._classes,))
            and not (net.weight_decay_lambda or loss.label_smoothing or loss.class_weight is not None)
            and not any(vars(layer).keys() & METHODS for layer in (*net.layers.values(), loss))
        )

    def _class_ids(self, t: Array, indices: Array) -> Array | None:
        """Return the class ids of samples; None if some are not of one class."""
        labeled = t.take(indices, axis=0, mode="clip")
        if t.ndim > 1:
            return functions.indicated_classes(labeled)
        functions.check_ids(labeled, self._classes)
        return labeled.astype(np.int64)

    def _network(self, samples: int) -> tuple[Array, int, Array]:
        """Return what the compiled functions must know of the network to compute so many samples at a time."""
        inputs, outputs = (int(n) for n in self._layers[0, :2])
        blocks = -(-samples * inputs * outputs // blas.small) if blas.small else 1
        width = -(-inputs // blocks) if blocks <= MOST_BLOCKS else inputs
        return self._layers, width, self.net.params.flat

    def _data(self, x: Array) -> tuple[Array, Any]:
        """Return samples as vectors, and what they are divided by."""
        self.net.predict(x[:1], True)  # refuses what the network is not made for
        return x.reshape(len(x), -1), self.net.dtype.type(255 if x.dtype == "uint8" else 1)

    def _room(self, samples: int) -> Array:
        """Return room for what the layers give of so many samples, for either thread."""
        inputs, outputs = self._layers[0, 0], self._layers[:, 1]
        return np.empty((2, samples * int(inputs + outputs.sum() + outputs.max())), self.net.dtype)


def _table(net: Network) -> Array:
    """Return inputs and outputs of the affine layers, where W and b are in the vector, and what is behind them."""
    from xpnet.kernels.numba import rows

    flat, row, table = net.params.flat, net._row() or [], []
    for layer, behind in itertools.zip_longest(row[::2], row[1::2]):
        starts = ((p.ctypes.data - flat.ctypes.data) // flat.itemsize for p in (layer.W, layer.b))
        table.append((*layer.W.shape, *starts, getattr(rows, ACTIVATIONS.get(type(behind), "NONE"))))
    return np.array(table, np.int64)


def _as_compiled(rule: Optimizer, params: ParameterVector, steps: int) -> tuple[int, Array, Array, tuple[Array, Array]]:
    """Return what `take_steps` must know of a rule to apply it itself, so many times."""
    from xpnet.kernels.numba.rows import DESCENT, MOMENTS, MOMENTUM, OTHER

    which, coefficients, settings = OTHER, np.zeros((steps, 3)), np.zeros(4)
    memory: list[Any] = [params, params]
    if not (rule.clip_norm or rule.clip_value or vars(rule).keys() & {"update", "rule", "coefficients"}):
        if isinstance(rule, SGD) and type(rule) in (SGD, Momentum, Nesterov):
            which = MOMENTUM if rule.momentum else DESCENT
            settings[2:] = rule.momentum, rule.nesterov
        elif isinstance(rule, Adam) and type(rule) in (Adam, AdamW):
            which = MOMENTS
            settings[2:] = rule.beta1, rule.beta2
    if which != OTHER:
        settings[int(rule.decoupled)] = rule.weight_decay
        for ahead in range(steps):
            *numbers, coefficients[ahead, 2] = rule._numbers(ahead)
            coefficients[ahead, : len(numbers)] = numbers
        memory[: len(rule.state_names)] = (rule._remembered(quantity, params) for quantity in rule.state_names)
    return which, coefficients, settings, (memory[0].flat, memory[1].flat)

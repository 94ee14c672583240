"""Training steps by replicas of the network, each with a share of every minibatch, on threads."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from xpnet.blas import blas
from xpnet.layers import Affine, Layer
from xpnet.layers.registry import ACTIVATIONS
from xpnet.nets import Network, evaluation
from xpnet.optimizers import Optimizer
from xpnet.steps.layer_arrays import largest_of_sample
from xpnet.steps.step import FullPrecision, Minibatches
from xpnet.steps.sums import LOSSES, PartGradient, obstacle, placed, slices, steps_of, with_weight_decay
from xpnet.threads import Team, are_available
from xpnet.typing import Array

__all__ = ["Replicas"]

METHODS = {"forward", "backward", "backward_parameters"}
"""Methods of a layer. One replaced on the instance belongs to that layer, not to a replica's."""

ALONE = 2**19
"""Largest size in bytes of a gradient that one thread adds up: for less, starting the others takes longer."""


GAINING = 2**17
"""Number of values in the largest array of a share from which its thread gains, measured on two cores.

LeNet-5 has 3.5e5 at batch 100: its step takes 0.9 of the time, those of SimpleConvNet and DeepConvNet 0.8; beside a
busy process half and less (`benchmarks/replicas.py`). 784-50-10, with 8e4, loses: the threads start twice in a step.
"""

DIVIDED: tuple[type[Layer], ...] = (Affine, *ACTIVATIONS.values())
"""Layers whose time is that of products which the BLAS divides between its threads itself, no slower than shares do."""


class Replicas:
    """A runner that divides every minibatch into shares. A replica of the network computes the gradient of each.

    Replicas share the parameters; each has its own gradient, and its own arrays in the layers. A step adds up the
    gradients of the samples' losses in the order of the shares, divides once, and updates once. The number of shares
    fixes the result to the bit. The number of threads does not change it: a thread takes several shares, or none.

    Parameters
    ----------
    net : Network
        The network to train, see `suits`.
    optimizer : Optimizer
        The update rule.
    gradient : FullPrecision
        Its ``grads`` get the gradient of the minibatch, and it makes the update.
    shares : int
        Number of shares.
    threads : int, optional
        Number of threads; by default that of the BLAS.
    microbatch : int, optional
        Largest number of samples that a replica computes at a time (`Microbatches`).
    """

    name = "by replicas on threads"

    def __init__(
        self,
        net: Network,
        optimizer: Optimizer,
        gradient: FullPrecision,
        shares: int,
        threads: int | None = None,
        microbatch: int | None = None,
    ) -> None:
        self.net, self.optimizer, self.gradient = net, optimizer, gradient
        self.shares, self.threads, self.microbatch = shares, threads, microbatch
        self._replicas: list[_Replica] = []
        self._basis: list[Any] = []

    @staticmethod
    def suits(net: Network) -> bool:
        """Whether this runner can train `net` here: no layer mixes samples, and the BLAS can be limited."""
        on_host = net.device.name == "cpu" and net.dtype in ("float32", "float64")
        return on_host and are_available() and obstacle(net) is None

    @staticmethod
    def best_shares(net: Network, batch_size: int, threads: int | None) -> int:
        """Return the number of shares that is fastest: one per thread, if each is large enough to gain; else 1."""
        threads = blas.threads if threads is None else threads
        largest = largest_of_sample(net)
        if largest is None or all(isinstance(layer, DIVIDED) for layer in net.row or []):
            return 1
        return max(min(threads, batch_size, batch_size * largest // GAINING), 1)

    def run(self, batches: Minibatches, losses: Array, on_taken: Callable[[int], None]) -> int:
        net = self.net
        layers = (*net.modules().values(), net.last_layer)
        if type(net.last_layer) not in LOSSES or any(vars(layer).keys() & METHODS for layer in layers):
            return 0
        self._build(layers)
        size = batches.indices.shape[1]
        parts = [part for part in slices(size, self.shares) if part.start < part.stop]
        shares = list(zip(self._replicas, parts, strict=False))  # a small minibatch has fewer
        with Team(self.threads) as team:
            for i in range(len(batches)):
                losses[i] = self._compute(team, shares, batches[i : i + 1])
                self.gradient.update(None, i)
                self._replicas[0].pass_buffers_to(net)
                on_taken(1)
        return len(batches)

    def accuracy(self, x: Array, t: Array) -> float:
        """Return `Network.accuracy`. Threads predict the batches."""
        if type(self.net).accuracy is not Network.accuracy:
            return self.net.accuracy(x, t)
        with Team(self.threads) as team:
            return evaluation.accuracy(self.net, *self.net.as_pairs(x, t), team)

    def evaluate(self, x: Array, t: Array) -> dict[str, float]:
        """Return `Network.evaluate`. Threads predict the batches."""
        if type(self.net).evaluate is not Network.evaluate:
            return self.net.evaluate(x, t)
        with Team(self.threads) as team:
            return evaluation.evaluate(self.net, *self.net.as_pairs(x, t), team)

    def _compute(self, team: Team, shares: list[tuple[_Replica, slice]], batch: Minibatches) -> Array | float:
        """Compute the gradient of a minibatch into ``gradient.grads``, and return the loss."""
        net, grads = self.net, self.gradient.grads
        computed = team.together([partial(replica.compute, net, batch, part) for replica, part in shares])
        amount = sum(amount for _, amount in computed)
        vectors = [replica.gradient.grads.flat for replica, _ in shares]
        parts = team.threads if grads.flat.nbytes > ALONE else 1
        team.together([partial(_add, vectors, 1.0 / (amount or 1.0), part) for part in slices(grads.flat.size, parts)])
        size = batch.indices.shape[1]
        loss = sum(loss for loss, _ in computed) / amount if amount else math.nan
        return with_weight_decay(net, grads, loss, size)

    def _build(self, layers: tuple[Layer, ...]) -> None:
        """Make the replicas, again if the number of shares or a layer's setting has changed."""
        basis = [self.net.last_layer, *(value for layer in layers for value in _settings(layer))]
        is_same = len(basis) == len(self._basis) and all(a is b for a, b in zip(basis, self._basis, strict=True))
        if not is_same or len(self._replicas) != self.shares:
            self._basis = basis
            self._replicas = [_Replica(self.net.replica(), self.optimizer, self.microbatch) for _ in range(self.shares)]
            self._replicas[0].gradient.write_to(self.gradient.grads)

    def __getstate__(self) -> dict[str, Any]:
        # Replicas of a copy share the parameters of the copied network.
        return {**vars(self), "_replicas": [], "_basis": []}


class _Replica:
    """A copy of the network, and the gradient of its share."""

    def __init__(self, net: Network, optimizer: Optimizer, microbatch: int | None) -> None:
        self.net, self.gradient = net, PartGradient(net, optimizer)
        self._steps = steps_of(self.gradient, optimizer, microbatch)
        self._buffers = net.buffers()
        self._placed = placed(net)

    def compute(self, owner: Network, batch: Minibatches, part: slice) -> tuple[float, float]:
        """Compute the gradient of some samples of a minibatch; return the sum of their losses, and the divisor."""
        for name, buffer in owner.buffers().items() if self._buffers else ():
            self._buffers[name][...] = buffer
        for layer in self._placed:
            layer.first_sample = part.start
        self._steps.take(Minibatches(batch.x, batch.t, batch.indices[:, part], batch.weights), np.empty(1))
        return self.gradient.sums

    def pass_buffers_to(self, owner: Network) -> None:
        for name, buffer in owner.buffers().items() if self._buffers else ():
            buffer[...] = self._buffers[name]


def _settings(layer: Layer) -> Iterator[Any]:
    """Yield the attributes of a layer that a pass does not set."""
    results = {
        *layer.saved,
        *layer.parameter_names,
        *layer.buffer_names,
        *(f"d{name}" for name in layer.parameter_names),
    }
    return (value for name, value in vars(layer).items() if name not in {*results, "out", "first_sample"})


def _add(vectors: list[Array], scale: float, part: slice) -> None:
    """Add vectors up into the first one, and scale the sum."""
    total = vectors[0][part]
    for vector in vectors[1:]:
        total += vector[part]
    total *= scale

"""Training steps by replicas of the network, each with a share of every minibatch, on threads."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from xpnet import functions
from xpnet.blas import blas
from xpnet.device import get_array_module, is_on_host
from xpnet.kernels import call
from xpnet.layers import (
    Affine,
    BatchNormalization,
    HingeWithLoss,
    HuberWithLoss,
    IdentityWithLoss,
    Layer,
    Loss,
    PoissonWithLoss,
    Residual,
    SigmoidWithLoss,
    SoftmaxWithLoss,
)
from xpnet.layers.registry import ACTIVATIONS
from xpnet.nets import GraphNetwork, Network, evaluation
from xpnet.nets.assembly import penalty
from xpnet.optimizers import Optimizer
from xpnet.parameters import ParameterVector
from xpnet.steps.step import FullPrecision, Minibatches, OneByOne
from xpnet.threads import Team, are_available
from xpnet.typing import Array
from xpnet.weights import sample_weights

__all__ = ["Replicas", "SumGradient", "obstacle", "slices"]

LOSSES = (SoftmaxWithLoss, SigmoidWithLoss, IdentityWithLoss, HuberWithLoss, HingeWithLoss, PoissonWithLoss)
"""Losses that are means of the samples' own losses. Another loss, a subclass too, may be anything."""

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
    """

    name = "by replicas on threads"

    def __init__(
        self,
        net: Network,
        optimizer: Optimizer,
        gradient: FullPrecision,
        shares: int,
        threads: int | None = None,
    ) -> None:
        self.net, self.optimizer, self.gradient = net, optimizer, gradient
        self.shares, self.threads = shares, threads
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
        row = net.row or []
        sample = net.input_shape or (row[0].input_shape() if row else None)
        if sample is None or all(isinstance(layer, DIVIDED) for layer in row):
            return 1
        return max(min(threads, batch_size, batch_size * net.largest(sample) // GAINING), 1)

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
        strength = net.weight_decay_of(size)
        loss = sum(loss for loss, _ in computed) / amount if amount else math.nan
        if strength:
            loss = loss + penalty(net.params, strength)
        net.add_weight_decay(grads, size)
        return loss

    def _build(self, layers: tuple[Layer, ...]) -> None:
        """Make the replicas, again if the number of shares or a layer's setting has changed."""
        basis = [self.net.last_layer, *(value for layer in layers for value in _settings(layer))]
        is_same = len(basis) == len(self._basis) and all(a is b for a, b in zip(basis, self._basis, strict=True))
        if not is_same or len(self._replicas) != self.shares:
            self._basis = basis
            self._replicas = [_Replica(self.net.replica(), self.optimizer) for _ in range(self.shares)]
            self._replicas[0].gradient.write_to(self.gradient.grads)

    def __getstate__(self) -> dict[str, Any]:
        # Replicas of a copy share the parameters of the copied network.
        return {**vars(self), "_replicas": [], "_basis": []}


class _Replica:
    """A copy of the network, and the gradient of its share."""

    def __init__(self, net: Network, optimizer: Optimizer) -> None:
        self.net, self.gradient = net, _ShareGradient(net, optimizer)
        self._steps = OneByOne(self.gradient, optimizer)
        self._buffers = net.buffers()
        self._placed = [layer for layer in net.modules().values() if layer.first_sample is not None]

    def compute(self, owner: Network, batch: Minibatches, part: slice) -> tuple[float, float]:
        """Compute the gradient of some samples of a minibatch; return the sum of their losses, and the divisor."""
        for name, buffer in owner.buffers().items() if self._buffers else ():
            self._buffers[name][...] = buffer
        for layer in self._placed:
            layer.first_sample = part.start
        loss = np.empty(1)
        self._steps.take(Minibatches(batch.x, batch.t, batch.indices[:, part], batch.weights), loss)
        return float(loss[0]), self.gradient.amount

    def pass_buffers_to(self, owner: Network) -> None:
        for name, buffer in owner.buffers().items() if self._buffers else ():
            buffer[...] = self._buffers[name]


class SumGradient(FullPrecision):
    """The gradient of the sum of the samples' weighted losses, without weight decay.

    Attributes
    ----------
    amount : float
        Divisor that makes the sum a mean: the number of samples, or the sum of their weights.
    """

    amount = 0.0

    def compute(self, x: Array, t: Array, sample_weight: Array | None = None) -> Array | float:
        net, loss = self.net, self.net.last_layer
        scores = net.predict(x, True)
        weight = () if sample_weight is None else (sample_weight,)
        mean = call(loss, "forward", scores, t, *weight)  # weight decay follows the sum of the gradients
        self.amount = amount = _amount(loss, scores, t, sample_weight)
        net.backward(call(loss, "backward", amount))
        net.collect_gradients(self.grads)
        if not amount:
            return 0.0  # the mean of nothing is NaN
        return float(mean) * amount if is_on_host(scores) else mean * amount


class _ShareGradient(SumGradient):
    def write_to(self, grads: ParameterVector) -> None:
        self.grads = self.layer_grads = grads

    def update(self, coefficients: Array | None, step: int) -> None:
        pass  # one update follows for all shares


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


def obstacle(net: Network, connected: bool = False) -> str | None:
    """Return why the gradients of shares would not add up to that of a minibatch; None if they do.

    Parameters
    ----------
    net : Network
        The network.
    connected : bool, default False
        Whether batch normalisation may ask for the sums of the other shares (`BatchNormalization.across`).
    """
    cls = type(net)
    if net.row is None:
        return f"{cls.__name__} is no row of layers"
    for name, layer in net.layers.items():
        if not _takes_shares(layer, connected):
            return f"{name} mixes the samples of a minibatch, or has a state of its own"
    if type(net.last_layer) not in LOSSES:
        return f"{type(net.last_layer).__name__} may be something else than the mean of the samples' losses"
    if cls.collect_gradients not in (Network.collect_gradients, GraphNetwork.collect_gradients):
        return f"{cls.__name__} overrides collect_gradients"
    for name in ("backpropagate", "loss_of"):
        if getattr(cls, name) is not getattr(Network, name):
            return f"{cls.__name__} overrides {name}"
    return None


def slices(size: int, number: int) -> list[slice]:
    """Divide a range into slices, the larger ones first."""
    ends = [-(-size * i // number) for i in range(number + 1)]
    return [slice(start, end) for start, end in itertools.pairwise(ends)]


def _takes_shares(layer: Layer, connected: bool) -> bool:
    """Whether a layer computes the same from a share of a minibatch as from the whole."""
    if isinstance(layer, Residual):
        return all(_takes_shares(part, connected) for part in layer.parts.values())
    if type(layer) is BatchNormalization:
        return connected
    return layer.first_sample is not None or (layer.samplewise and not layer.buffer_names)


def _amount(loss: Loss, scores: Array, t: Array, sample_weight: Array | None) -> float:
    """Return the divisor of a mean loss: number of samples, or sum of their weights, for which a GPU is waited for."""
    counted, class_weight = loss.counted(t, scores.shape), getattr(loss, "class_weight", None)
    if sample_weight is None and counted is None and class_weight is None:
        return float(len(scores))
    xp = get_array_module(scores=scores)
    shape = scores.shape[:-1] or scores.shape
    amounts = xp.ones(shape) if sample_weight is None else sample_weights(sample_weight, scores, shape)
    if counted is not None:
        amounts = xp.where(counted, amounts, 0.0)
    ids = None if class_weight is None else functions.class_ids_for_shape(t, scores.shape)
    if class_weight is not None and ids is not None:
        amounts = amounts * class_weight[ids if counted is None else xp.where(counted, ids, 0)]
    return float(amounts.sum())

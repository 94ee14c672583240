"""Sums over parts of a minibatch: gradients that are divided once, by what all parts count."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

from xpnet import functions
from xpnet.device import get_array_module, is_on_host
from xpnet.kernels import call
from xpnet.layers import (
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
from xpnet.nets import GraphNetwork, Network
from xpnet.nets.assembly import penalty
from xpnet.optimizers import Optimizer
from xpnet.parameters import ParameterVector
from xpnet.steps.step import FullPrecision, Minibatches, OneByOne
from xpnet.typing import Array
from xpnet.weights import sample_weights

__all__ = [
    "LOSSES",
    "MeanGradient",
    "Microbatches",
    "PartGradient",
    "obstacle",
    "placed",
    "slices",
    "steps_of",
    "with_weight_decay",
]

LOSSES = (SoftmaxWithLoss, SigmoidWithLoss, IdentityWithLoss, HuberWithLoss, HingeWithLoss, PoissonWithLoss)
"""Losses that are means of the samples' own losses. Another loss, a subclass too, may be anything."""


class SumGradient(FullPrecision):
    """The gradient of the sum of the samples' weighted losses, without weight decay.

    Attributes
    ----------
    sums : (loss, amount)
        Sum of the losses, and the divisor that makes it a mean: the number of samples, or the sum of their weights.
    """

    sums: tuple[Array | float, Array | float] = (0.0, 0.0)

    def compute(self, x: Array, t: Array, sample_weight: Array | None = None) -> Array | float:
        net, loss = self.net, self.net.last_layer
        scores = net.predict(x, True)
        weight = () if sample_weight is None else (sample_weight,)
        mean = call(loss, "forward", scores, t, *weight)  # weight decay follows the sum of the gradients
        amount = _amount(loss, scores, t, sample_weight)
        # On a GPU the sum of weights is an array, and the host does not wait for it.
        net.backward(call(loss, "backward", amount if isinstance(amount, float) else 1.0))
        net.collect_gradients(self.grads)
        if isinstance(amount, float):
            total = 0.0 if not amount else float(mean) * amount if is_on_host(scores) else mean * amount
        else:
            self.grads.flat[...] *= amount.astype(net.dtype)
            total = net.device.xp.where(amount == 0.0, 0.0, mean * amount)  # the mean of nothing is NaN
        return self.completed(total, amount, len(x))

    def completed(self, loss: Array | float, amount: Array | float, samples: int) -> Array | float:
        """Finish a gradient whose sum is in ``grads``, and return the loss.

        Parameters
        ----------
        loss, amount
            See ``sums``.
        samples : int
            Number of samples in the sum.
        """
        self.sums = loss, amount
        return loss


class PartGradient(SumGradient):
    """The sum over a part of a minibatch. No update follows: it comes after all parts."""

    def update(self, coefficients: Array | None, step: int) -> None:
        pass

    def write_to(self, grads: ParameterVector) -> None:
        self.grads = self.layer_grads = grads


class MeanGradient(SumGradient):
    """The gradient of a minibatch, from the sum over its parts."""

    def completed(self, loss: Array | float, amount: Array | float, samples: int) -> Array | float:
        net, xp = self.net, self.net.device.xp
        if isinstance(amount, float):
            divisor, mean = amount or 1.0, loss / amount if amount else math.nan
        else:
            divisor = xp.where(amount == 0.0, 1.0, amount).astype(net.dtype)
            mean = xp.where(amount == 0.0, math.nan, loss / divisor)
        xp.divide(self.grads.flat, divisor, out=self.grads.flat)
        return with_weight_decay(net, self.grads, mean, samples)


class Microbatches:
    """Steps whose minibatches are computed in microbatches, one after the other, with one update.

    Only one microbatch's arrays are in memory. The update is that of the whole minibatch to rounding.

    Parameters
    ----------
    gradient : SumGradient
        Its ``grads`` get the sum over each minibatch. `SumGradient.completed` and its update follow.
    optimizer : Optimizer
        The update rule.
    microbatch : int
        Largest number of samples in a microbatch. They are as equal in size as can be.
    """

    name = "by microbatches"

    def __init__(self, gradient: SumGradient, optimizer: Optimizer, microbatch: int) -> None:
        self.gradient, self.optimizer, self.microbatch = gradient, optimizer, microbatch
        self._part = PartGradient(gradient.net, optimizer)
        self._steps = OneByOne(self._part, optimizer)
        self._unused = gradient.net.device.xp.empty(1, gradient.net.dtype)
        self._check()

    def run(self, batches: Minibatches, losses: Array, on_taken: Callable[[int], None]) -> int:
        self.take(batches, losses, None, on_taken)
        return len(batches)

    def take(
        self,
        batches: Minibatches,
        losses: Array,
        coefficients: Array | None = None,
        on_taken: Callable[[int], None] = lambda steps: None,
    ) -> None:
        """Take a step for each minibatch, with the given coefficients (`Gradient.update`)."""
        self._check()
        size = batches.indices.shape[1]
        for i in range(len(batches)):
            losses[i] = self.gradient.completed(*self._sums(batches[i : i + 1]), size)
            self.gradient.update(coefficients, i)
            on_taken(1)

    def _sums(self, batch: Minibatches) -> tuple[Array | float, Array | float]:
        """Compute the sum of a minibatch's gradients; return those of the losses and of what they count."""
        layers = list(self.gradient.net.modules().values())
        firsts = {layer: layer.first_sample for layer in placed(self.gradient.net)}
        fixed = {layer: layer.fixed_buffers for layer in layers}
        size, total = batch.indices.shape[1], self.gradient.grads.flat
        loss: Array | float = 0.0
        amount: Array | float = 0.0
        try:
            for part in slices(size, -(-size // self.microbatch)):
                for layer, first in firsts.items():
                    layer.first_sample = first + part.start
                for layer in layers:  # counters of dropout count minibatches
                    layer.fixed_buffers = fixed[layer] or part.stop < size
                self._steps.take(Minibatches(batch.x, batch.t, batch.indices[:, part], batch.weights), self._unused)
                if part.start:
                    total += self._part.grads.flat
                else:
                    total[...] = self._part.grads.flat
                loss, amount = loss + self._part.sums[0], amount + self._part.sums[1]
        finally:
            for layer, first in firsts.items():
                layer.first_sample = first
            for layer in layers:
                layer.fixed_buffers = fixed[layer]
        return loss, amount

    def _check(self) -> None:
        if (reason := obstacle(self.gradient.net)) is not None:
            raise ValueError(f"microbatch must be None for this network, got {self.microbatch}: {reason}")


def steps_of(gradient: SumGradient, optimizer: Optimizer, microbatch: int | None) -> OneByOne | Microbatches:
    """Return the steps of a gradient: with whole minibatches, or with microbatches of at most so many samples."""
    return OneByOne(gradient, optimizer) if microbatch is None else Microbatches(gradient, optimizer, microbatch)


def with_weight_decay(net: Network, grads: ParameterVector, loss: Array | float, samples: int) -> Array | float:
    """Add the gradient of the weight decay to that of a minibatch; return the loss with the penalty."""
    net.add_weight_decay(grads, samples)
    strength = net.weight_decay_of(samples)
    return loss + penalty(net.params, strength) if strength else loss


def placed(net: Network) -> list[Layer]:
    """Return the layers whose results depend on a sample's place in the minibatch (`Layer.first_sample`)."""
    return [layer for layer in net.modules().values() if layer.first_sample is not None]


def obstacle(net: Network, connected: bool = False) -> str | None:
    """Return why the gradients of shares would not add up to that of a minibatch; None if they do.

    Parameters
    ----------
    net : Network
        The network.
    connected : bool, default False
        Whether batch normalization may ask for the sums of the other shares (`BatchNormalization.across`).
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


def _amount(loss: Loss, scores: Array, t: Array, sample_weight: Array | None) -> Array | float:
    """Return the divisor of a mean loss: number of samples, or sum of their weights, on a GPU as an array."""
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
    amount = amounts.sum()
    return float(amount) if is_on_host(amounts) else amount

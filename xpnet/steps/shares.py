"""Shares of a minibatch, whose gradients add up to that of the whole: on threads, or on processes."""

from __future__ import annotations

import itertools

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
from xpnet.steps.step import FullPrecision
from xpnet.typing import Array
from xpnet.weights import sample_weights

__all__ = ["LOSSES", "SumGradient", "obstacle", "slices"]

LOSSES = (SoftmaxWithLoss, SigmoidWithLoss, IdentityWithLoss, HuberWithLoss, HingeWithLoss, PoissonWithLoss)
"""Losses that are means of the samples' own losses. Another loss, a subclass too, may be anything."""


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

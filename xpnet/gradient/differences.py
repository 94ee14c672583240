"""The numerical gradient of a network's loss, parameter by parameter."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from xpnet.gradient.batched import Batched, NotApplicable
from xpnet.gradient.differentiable import Differentiable, deterministic_copy
from xpnet.gradient.numerical import MEMORY, STEP, central_differences
from xpnet.typing import Array

__all__ = ["METHODS", "Differences", "network_differences", "rounding_of_differences"]

METHODS = ("batched", "loop")


@dataclass(frozen=True)
class Differences:
    """Central differences of one parameter.

    Attributes
    ----------
    values : array
        The differences, in the parameter's shape.
    straddles : array of bool
        True where the perturbation moves a unit across a kink, so that the difference is no derivative
        (`Layer.activation_pattern`).
    method : {"batched", "loop"}
        Method of computation.
    reason : str
        Reason for a fallback from batched differences to the loop, else empty.
    """

    values: Array
    straddles: Array
    method: Literal["batched", "loop"]
    reason: str = ""


def network_differences(
    net: Differentiable,
    x: Array,
    t: Array,
    h: float = STEP,
    *,
    method: str = "batched",
    memory: int = MEMORY,
    sample_weight: Array | None = None,
) -> dict[str, Differences]:
    """Return the numerical gradient of each parameter, in float64.

    A copy of the network computes the loss, with ``train=True``.

    Parameters
    ----------
    net, x, t
        The network, a batch and its labels.
    h : float
        Half the step.
    method : {"batched", "loop"}
        ``"batched"`` takes many coordinates at a time, and falls back to the loop where a layer does not allow it.
        ``"loop"`` takes one after the other.
    memory : int
        Largest size of the copies of batched differences, in bytes.
    sample_weight : (N,), optional
        Weights of the samples.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(map(repr, METHODS))}, got {method!r}")
    net = deterministic_copy(net, "float64", sample_weight)
    x, t = net.as_input(x), net.as_array("t", t)  # once, not in each of the many forward passes

    def loss(_: Array) -> Array:
        return net.loss(x, t, train=True)

    found = {}
    with net.device.activate():
        batched = Batched(net, x, t, h, rounding_of_differences(net, x, t, h), memory) if method == "batched" else None
        for slot in net.slots:
            reason = ""
            if batched is not None:
                try:
                    values, straddles = batched.differences(slot.layer, slot.attribute)
                    found[slot.name] = Differences(values, straddles, "batched")
                    continue
                except NotApplicable as error:
                    reason = str(error)
            values, straddles = central_differences(loss, net.params[slot.name], h, net.activation_patterns)
            found[slot.name] = Differences(values, straddles, "loop", reason)
    return found


def rounding_of_differences(net: Differentiable, x: Array, t: Array, h: float) -> float:
    """Return the largest rounding error of a central difference of the loss.

    Each of the two losses has an error of a few units in the last place of the largest number that it is computed from.
    In a confident network this number is a score, not the loss. The difference divides the error by 2h.
    """
    xp = net.device.xp
    scores = net.predict(x, train=True)
    loss = net.last_layer.forward(scores, t)
    size = max(abs(float(loss)), float(xp.abs(scores).max()) if scores.size else 0.0)
    return 10 * float(np.finfo(net.dtype).eps) * size / h

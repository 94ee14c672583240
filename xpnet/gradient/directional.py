"""Derivatives of a network's loss along random directions: a check of a few passes for networks of any size.

The difference of the loss along a direction v is compared with the inner product of v and the gradient. Each direction
changes one parameter, so that a large gradient does not hide an error in a small one. For a parameter of size n, an
error e in the gradient changes the comparison by (e, v), normally distributed with standard deviation ||e|| / sqrt(n).
One direction misses the error with a small probability p, k directions with p^k.
"""

from dataclasses import dataclass

import numpy as np

from xpnet.gradient.differentiable import Differentiable
from xpnet.parameters import ParameterVector
from xpnet.typing import Array, Seed

__all__ = ["DirectionalDerivatives", "directional_derivatives"]

SHRINKING = (1.0, 0.1, 0.01)
"""Steps to try, in units of h, until no unit moves across a kink."""


@dataclass(frozen=True)
class DirectionalDerivatives:
    """Derivatives of the loss along S random unit directions of one parameter.

    Attributes
    ----------
    numerical : (S,)
        Central differences.
    backprop : (S,)
        Inner product of the gradient and the step after rounding, per unit of length.
    steps : (S,)
        Half the length of the step.
    straddles : (S,) of bool
        Whether even the smallest step moved a unit across a kink.
    """

    numerical: np.ndarray
    backprop: np.ndarray
    steps: np.ndarray
    straddles: np.ndarray


def directional_derivatives(
    net: Differentiable, grads: ParameterVector, x: Array, t: Array, h: float, samples: int, seed: Seed
) -> dict[str, DirectionalDerivatives]:
    """Return the derivatives of the network's loss along `samples` random directions of each parameter.

    Parameters
    ----------
    net : Differentiable
        A network in float64. Its parameters are perturbed in place and restored.
    grads : ParameterVector
        The gradient to compare with.
    x, t : array
        A batch and its labels.
    h : float
        Half the length of a step, in the space of the parameter.
    samples : int
        Number of directions.
    seed : int or numpy.random.Generator
        Source of the directions.
    """
    rng = net.device.rng(seed)
    found = {}
    with net.device.activate():
        for name, parameter in net.params.items():
            original = parameter.copy()
            rows = []
            try:
                for _ in range(samples):
                    direction = rng.standard_normal(parameter.shape)
                    direction /= max(float(np.linalg.norm(direction)), np.finfo(np.float64).tiny)
                    moved = net.device.asarray(direction)
                    rows.append(_derivative(net, parameter, original, moved, grads[name], x, t, h))
            finally:
                parameter[...] = original
            numerical, backprop, steps, straddles = zip(*rows, strict=True)
            found[name] = DirectionalDerivatives(
                np.array(numerical), np.array(backprop), np.array(steps), np.array(straddles, dtype=bool)
            )
    return found


def _derivative(
    net: Differentiable, parameter: Array, original: Array, direction: Array, grad: Array, x: Array, t: Array, h: float
) -> tuple[float, float, float, bool]:
    for step in (h * factor for factor in SHRINKING):
        upper, lower = original + step * direction, original - step * direction
        parameter[...] = upper
        loss_upper, pattern_upper = float(net.loss(x, t, train=True)), net.activation_patterns()
        parameter[...] = lower
        loss_lower, pattern_lower = float(net.loss(x, t, train=True)), net.activation_patterns()
        straddles = any(bool((a != b).any()) for a, b in zip(pattern_upper, pattern_lower, strict=True))
        if not straddles:
            break
    return (loss_upper - loss_lower) / (2 * step), float((grad * (upper - lower)).sum()) / (2 * step), step, straddles

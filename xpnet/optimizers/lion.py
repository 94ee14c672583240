"""Steps of one size in every coordinate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from xpnet import kernels
from xpnet.device import get_array_module
from xpnet.optimizers.base import Clipping, Optimizer
from xpnet.optimizers.schedules import LearningRate
from xpnet.optimizers.settings import fraction
from xpnet.typing import Array

__all__ = ["Lion"]


class Lion(Optimizer):
    """Step by the sign of a moving average of gradients.

    p <- p - lr * (sign(beta1 * m + (1 - beta1) * g) + weight_decay * p), then m <- beta2 * m + (1 - beta2) * g. It
    remembers half of what Adam does, and wants a learning rate 3 to 10 times smaller. (Chen and others, "Symbolic
    Discovery of Optimization Algorithms", 2023, algorithm 2.)

    Parameters
    ----------
    lr : float or schedule, default 0.0001
        Learning rate.
    beta1, beta2 : float in [0, 1), default 0.9 and 0.99
        How much of the average counts for the step, and how much is kept.
    weight_decay : float, default 0
        The part of p that is taken away, times lr.
    **clipping
        ``clip_norm`` or ``clip_value``, see `Optimizer`.
    """

    decoupled = True
    state_names = ("m",)

    def __init__(
        self,
        lr: LearningRate = 0.0001,
        beta1: float = 0.9,
        beta2: float = 0.99,
        weight_decay: float = 0.0,
        **clipping: Unpack[Clipping],
    ) -> None:
        super().__init__(lr, weight_decay, **clipping)
        self.beta1 = fraction("beta1", beta1)
        self.beta2 = fraction("beta2", beta2)

    def rule(self, p: Array, g: Array, state: Sequence[Array], coefficients: Sequence[Array | float], a: Array) -> None:
        xp = get_array_module(p)
        (lr,), (m,) = coefficients, state
        xp.multiply(m, self.beta1 / (1.0 - self.beta1), out=a)  # a positive factor leaves the sign alone
        a += g
        xp.sign(a, out=a)
        a *= lr
        p -= a
        kernels.update_average(m, g, self.beta2, a)

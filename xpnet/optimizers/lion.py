"""Lion, a rule with steps of equal size in every coordinate."""

from collections.abc import Sequence
from typing import Unpack

from xpnet import kernels
from xpnet.device import get_array_module
from xpnet.optimizers.base import Clipping, Optimizer
from xpnet.optimizers.schedules import LearningRate
from xpnet.settings import fraction
from xpnet.typing import Array

__all__ = ["Lion"]


class Lion(Optimizer):
    """Lion: step by the sign of a moving average of gradients.

    p <- p - lr * (sign(beta1 * m + (1 - beta1) * g) + weight_decay * p), then m <- beta2 * m + (1 - beta2) * g. Its
    state is half of Adam's. Its learning rate should be 3 to 10 times smaller. (Chen and others, "Symbolic Discovery of
    Optimization Algorithms", 2023, algorithm 2.)

    Parameters
    ----------
    lr : float or schedule, default 0.0001
        Learning rate.
    beta1, beta2 : float in [0, 1), default 0.9 and 0.99
        Weight of the average m in the step, and of its old value in its update.
    weight_decay : float, default 0
        Decoupled weight decay, see `Optimizer`.
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

    def rule(
        self, p: Array, g: Array, state: Sequence[Array], coefficients: Sequence[Array | float], scratch: Array
    ) -> None:
        xp = get_array_module(p)
        (lr,), (m,) = coefficients, state
        xp.multiply(m, self.beta1 / (1.0 - self.beta1), out=scratch)  # divided by 1 - beta1 > 0: the same sign
        scratch += g
        xp.sign(scratch, out=scratch)
        scratch *= lr
        p -= scratch
        kernels.update_average(m, g, self.beta2, scratch)

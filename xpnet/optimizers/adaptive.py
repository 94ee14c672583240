"""Rules with a learning rate of each parameter's own, from the squares of its gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Unpack

from xpnet import kernels
from xpnet.device import get_array_module
from xpnet.optimizers.base import Clipping, Optimizer
from xpnet.optimizers.schedules import LearningRate
from xpnet.optimizers.settings import fraction, positive
from xpnet.typing import Array

__all__ = ["AdaGrad", "Adam", "AdamW", "RMSprop"]


class AdaGrad(Optimizer):
    """Divide each step by the root of all squared gradients so far (section 6.1.5).

    h <- h + g**2, p <- p - lr * g / (sqrt(h) + eps). (Duchi, Hazan and Singer, "Adaptive Subgradient Methods for Online
    Learning and Stochastic Optimization", 2011.)

    Parameters
    ----------
    lr : float or schedule, default 0.01
        Learning rate.
    eps : float, default 1e-10
        What keeps the divisor from 0: PyTorch's. The book's is 1e-7.
    weight_decay : float, default 0
        Added to the gradient times p, see `Optimizer`.
    **clipping
        ``clip_norm`` or ``clip_value``, see `Optimizer`.
    """

    state_names = ("h",)

    def __init__(
        self, lr: LearningRate = 0.01, eps: float = 1e-10, weight_decay: float = 0.0, **clipping: Unpack[Clipping]
    ) -> None:
        super().__init__(lr, weight_decay, **clipping)
        self.eps = positive("eps", eps)

    def rule(self, p: Array, g: Array, state: Sequence[Array], coefficients: Sequence[Array | float], a: Array) -> None:
        (lr,), (h,) = coefficients, state
        h += get_array_module(p).multiply(g, g, out=a)
        kernels.scaled_update(p, g, h, lr, self.eps, a)


class RMSprop(Optimizer):
    """Divide each step by the root of a moving average of squared gradients (section 6.1.5).

    h <- decay_rate * h + (1 - decay_rate) * g**2, p <- p - lr * g / (sqrt(h) + eps). (Tieleman and Hinton, lecture
    6.5 of "Neural Networks for Machine Learning", 2012.)

    Parameters
    ----------
    lr : float or schedule, default 0.01
        Learning rate.
    decay_rate : float in [0, 1), default 0.99
        How much of the average is kept; PyTorch's ``alpha``.
    eps : float, default 1e-8
        What keeps the divisor from 0: PyTorch's. The book's is 1e-7.
    weight_decay, **clipping
        As for `AdaGrad`.
    """

    state_names = ("h",)

    def __init__(
        self,
        lr: LearningRate = 0.01,
        decay_rate: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        **clipping: Unpack[Clipping],
    ) -> None:
        super().__init__(lr, weight_decay, **clipping)
        self.decay_rate = fraction("decay_rate", decay_rate)
        self.eps = positive("eps", eps)

    def rule(self, p: Array, g: Array, state: Sequence[Array], coefficients: Sequence[Array | float], a: Array) -> None:
        (lr,), (h,) = coefficients, state
        kernels.update_average(h, get_array_module(p).multiply(g, g, out=a), self.decay_rate, a)
        kernels.scaled_update(p, g, h, lr, self.eps, a)


class Adam(Optimizer):
    """Moving averages of gradients and of their squares, freed of the zeros they began with (section 6.1.6).

    m <- beta1 * m + (1 - beta1) * g, v <- beta2 * v + (1 - beta2) * g**2, and at update t

    p <- p - lr / (1 - beta1**t) * m / (sqrt(v / (1 - beta2**t)) + eps).

    (Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2015, algorithm 1; so does PyTorch. The book adds its
    eps, 1e-7, to sqrt(v) itself, as the remark at the end of the paper's section 2 does.)

    Parameters
    ----------
    lr : float or schedule, default 0.001
        Learning rate.
    beta1, beta2 : float in [0, 1), default 0.9 and 0.999
        How much of either average is kept.
    eps : float, default 1e-8
        What keeps the divisor from 0.
    weight_decay : float, default 0
        Added to the gradient times p, see `Optimizer`.
    **clipping
        ``clip_norm`` or ``clip_value``, see `Optimizer`.
    """

    state_names = ("m", "v")

    def __init__(
        self,
        lr: LearningRate = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        **clipping: Unpack[Clipping],
    ) -> None:
        super().__init__(lr, weight_decay, **clipping)
        self.beta1 = fraction("beta1", beta1)
        self.beta2 = fraction("beta2", beta2)
        self.eps = positive("eps", eps)

    def coefficients(self, lr: float, t: int) -> tuple[float, ...]:
        """Return what takes the place of `lr` and `eps` once sqrt(1 - beta2**t) has gone from under the root of v."""
        root = math.sqrt(1.0 - self.beta2**t)
        return lr * root / (1.0 - self.beta1**t), self.eps * root

    def rule(self, p: Array, g: Array, state: Sequence[Array], coefficients: Sequence[Array | float], a: Array) -> None:
        (lr, eps), (m, v) = coefficients, state
        kernels.adam_update(p, g, m, v, lr, eps, (self.beta1, self.beta2), a)


class AdamW(Adam):
    """Adam with weight decay past the averages: p <- p - lr * weight_decay * p - Adam's step.

    (Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019; as in PyTorch.)

    Parameters
    ----------
    lr, beta1, beta2, eps, **clipping
        As for `Adam`.
    weight_decay : float, default 0.01
        The part of p that is taken away, times lr.
    """

    decoupled = True

    def __init__(
        self,
        lr: LearningRate = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        **clipping: Unpack[Clipping],
    ) -> None:
        super().__init__(lr, beta1, beta2, eps, weight_decay, **clipping)

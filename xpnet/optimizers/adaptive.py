"""Rules with a step size per parameter, from the squares of its gradients."""

import math
from collections.abc import Sequence
from typing import Unpack

from xpnet import kernels
from xpnet.device import get_array_module
from xpnet.optimizers.base import Clipping, Optimizer
from xpnet.optimizers.schedules import LearningRate
from xpnet.settings import fraction, positive
from xpnet.typing import Array

__all__ = ["AdaGrad", "Adam", "AdamW", "RMSprop"]


class AdaGrad(Optimizer):
    """AdaGrad: divide each step by the root of the sum of all squared gradients (section 6.1.5).

    h <- h + g**2, p <- p - lr * g / (sqrt(h) + eps). (Duchi, Hazan and Singer, "Adaptive Subgradient Methods for Online
    Learning and Stochastic Optimization", 2011.)

    Parameters
    ----------
    lr : float or schedule, default 0.01
        Learning rate.
    eps : float, default 1e-10
        Added to the divisor, to avoid division by 0. PyTorch's default; the book's is 1e-7.
    weight_decay : float, default 0
        L2 penalty, see `Optimizer`.
    **clipping
        ``clip_norm`` or ``clip_value``, see `Optimizer`.
    """

    state_names = ("h",)

    def __init__(
        self, lr: LearningRate = 0.01, eps: float = 1e-10, weight_decay: float = 0.0, **clipping: Unpack[Clipping]
    ) -> None:
        super().__init__(lr, weight_decay, **clipping)
        self.eps = positive("eps", eps)

    def rule(
        self, p: Array, g: Array, state: Sequence[Array], coefficients: Sequence[Array | float], scratch: Array
    ) -> None:
        (lr,), (h,) = coefficients, state
        h += get_array_module(p).multiply(g, g, out=scratch)
        kernels.scaled_update(p, g, h, lr, self.eps, scratch)


class RMSprop(Optimizer):
    """RMSprop: divide each step by the root of a moving average of squared gradients (section 6.1.5).

    h <- decay_rate * h + (1 - decay_rate) * g**2, p <- p - lr * g / (sqrt(h) + eps). (Tieleman and Hinton, lecture
    6.5 of "Neural Networks for Machine Learning", 2012.)

    Parameters
    ----------
    lr : float or schedule, default 0.01
        Learning rate.
    decay_rate : float in [0, 1), default 0.99
        Weight of the old value in the average; PyTorch's ``alpha``.
    eps : float, default 1e-8
        Added to the divisor, to avoid division by 0. PyTorch's default; the book's is 1e-7.
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

    def rule(
        self, p: Array, g: Array, state: Sequence[Array], coefficients: Sequence[Array | float], scratch: Array
    ) -> None:
        (lr,), (h,) = coefficients, state
        kernels.update_average(h, get_array_module(p).multiply(g, g, out=scratch), self.decay_rate, scratch)
        kernels.scaled_update(p, g, h, lr, self.eps, scratch)


class Adam(Optimizer):
    """Adam: steps by bias-corrected moving averages of gradients and of their squares (section 6.1.6).

    m <- beta1 * m + (1 - beta1) * g, v <- beta2 * v + (1 - beta2) * g**2, and at update t

    p <- p - lr / (1 - beta1**t) * m / (sqrt(v / (1 - beta2**t)) + eps).

    (Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2015, algorithm 1; PyTorch does the same. The book
    adds its eps, 1e-7, to sqrt(v), as the end of section 2 of the paper suggests.)

    Parameters
    ----------
    lr : float or schedule, default 0.001
        Learning rate.
    beta1, beta2 : float in [0, 1), default 0.9 and 0.999
        Weights of the old values in the two averages.
    eps : float, default 1e-8
        Added to the divisor, to avoid division by 0.
    weight_decay : float, default 0
        L2 penalty, see `Optimizer`.
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
        """Return `lr` and `eps` with the bias corrections, for a step lr * m / (sqrt(v) + eps)."""
        root = math.sqrt(1.0 - self.beta2**t)
        return lr * root / (1.0 - self.beta1**t), self.eps * root

    def rule(
        self, p: Array, g: Array, state: Sequence[Array], coefficients: Sequence[Array | float], scratch: Array
    ) -> None:
        (lr, eps), (m, v) = coefficients, state
        kernels.adam_update(p, g, m, v, lr, eps, (self.beta1, self.beta2), scratch)


class AdamW(Adam):
    """AdamW: Adam with decoupled weight decay, p <- p - lr * weight_decay * p - Adam's step.

    (Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019; as in PyTorch.)

    Parameters
    ----------
    lr, beta1, beta2, eps, **clipping
        As for `Adam`.
    weight_decay : float, default 0.01
        Decoupled weight decay, see `Optimizer`.
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

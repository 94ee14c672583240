"""Gradient descent, with and without momentum."""

from collections.abc import Sequence
from typing import Unpack

from xpnet import kernels
from xpnet.optimizers.base import Clipping, Optimizer
from xpnet.optimizers.schedules import LearningRate
from xpnet.settings import fraction
from xpnet.typing import Array

__all__ = ["SGD", "Momentum", "Nesterov"]


class SGD(Optimizer):
    """Stochastic gradient descent, p <- p - lr * g (section 6.1.2), optionally with momentum, as in PyTorch.

    Momentum: v <- momentum * v + g, p <- p - lr * v. Nesterov's: the same v, p <- p - lr * (g + momentum * v).
    (Sutskever and others, "On the importance of initialization and momentum in deep learning", 2013.)

    Parameters
    ----------
    lr : float or schedule, default 0.01
        Learning rate.
    momentum : float in [0, 1), default 0
        Momentum factor. 0 keeps no state.
    nesterov : bool, default False
        Whether to use Nesterov's momentum. It needs `momentum` > 0.
    weight_decay : float, default 0
        L2 penalty, see `Optimizer`.
    **clipping
        ``clip_norm`` or ``clip_value``, see `Optimizer`.
    """

    def __init__(
        self,
        lr: LearningRate = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        **clipping: Unpack[Clipping],
    ) -> None:
        super().__init__(lr, weight_decay, **clipping)
        self.momentum = fraction("momentum", momentum)
        self.nesterov = bool(nesterov)
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0, got momentum=0.0")

    @property
    def state_names(self) -> tuple[str, ...]:
        return ("v",) if self.momentum else ()

    def rule(
        self, p: Array, g: Array, state: Sequence[Array], coefficients: Sequence[Array | float], scratch: Array
    ) -> None:
        (lr,) = coefficients
        if state:
            kernels.momentum_update(p, g, state[0], lr, self.momentum, self.nesterov, scratch)
        else:
            kernels.sgd_update(p, g, lr, scratch)


class Momentum(SGD):
    """SGD with the book's default for momentum (section 6.1.4).

    The book has v <- momentum * v - lr * g, p <- p + v. For a constant lr the steps are the same: the book's v is -lr
    times this one. A new lr acts on all of this v at once, as in PyTorch.

    Parameters
    ----------
    lr : float or schedule, default 0.01
        Learning rate.
    momentum : float in [0, 1), default 0.9
        Momentum factor.
    weight_decay, **clipping
        As for `SGD`.
    """

    def __init__(
        self,
        lr: LearningRate = 0.01,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        **clipping: Unpack[Clipping],
    ) -> None:
        super().__init__(lr, momentum, False, weight_decay, **clipping)


class Nesterov(SGD):
    """SGD with Nesterov's momentum, and the book's default for it.

    The book has p <- p + momentum**2 * v - (1 + momentum) * lr * g, with its own v (see `Momentum`) from the previous
    step. For a constant lr the steps are the same.

    Parameters
    ----------
    lr : float or schedule, default 0.01
        Learning rate.
    momentum : float in (0, 1), default 0.9
        Momentum factor.
    weight_decay, **clipping
        As for `SGD`.
    """

    def __init__(
        self,
        lr: LearningRate = 0.01,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        **clipping: Unpack[Clipping],
    ) -> None:
        super().__init__(lr, momentum, True, weight_decay, **clipping)

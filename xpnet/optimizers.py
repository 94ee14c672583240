"""Update rules (section 6.1)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from xpnet import kernels
from xpnet.parameters import ParameterVector
from xpnet.typing import Array

__all__ = ["SGD", "Optimizer", "get_optimizer"]


class Optimizer:
    """A rule that changes parameters, in place, by their gradients.

    Attributes
    ----------
    state : dict of str to mapping of str to array
        What the rule remembers between updates (a momentum, say): by the name of the quantity, and then by the name
        of the parameter, so that it can be saved and restored. Empty for a rule that remembers nothing.
    """

    state: dict[str, Mapping[str, Array]]

    def __init__(self) -> None:
        self.state = {}

    def update(self, params: Mapping[str, Array], grads: Mapping[str, Array]) -> None:
        """Change `params` in place.

        Parameters
        ----------
        params, grads : mapping of str to array
            A network's ``params`` and its gradient, which are updated as one vector; or dicts of arrays.
        """
        raise NotImplementedError(f"{type(self).__name__} must define update(params, grads)")


class SGD(Optimizer):
    """Stochastic gradient descent, p <- p - lr * g (section 6.1.2).

    Parameters
    ----------
    lr : float, default 0.01
        Learning rate.
    """

    def __init__(self, lr: float = 0.01) -> None:
        super().__init__()
        if not (math.isfinite(lr) and lr >= 0):
            raise ValueError(f"lr must be finite and not negative, got {lr}")
        self.lr = float(lr)

    def update(self, params: Mapping[str, Array], grads: Mapping[str, Array]) -> None:
        for p, g in pairs(params, grads):
            kernels.sgd(p, g, self.lr)


def pairs(params: Mapping[str, Array], grads: Mapping[str, Array]) -> Iterator[tuple[Array, Array]]:
    """Yield what an elementwise rule has to go over: the two flat vectors where there are such, else array by array.

    Raises
    ------
    KeyError
        If a parameter has no gradient.
    """
    if isinstance(params, ParameterVector) and params.has_layout_of(grads):
        yield params.flat, grads.flat  # type: ignore[attr-defined]
        return
    missing = params.keys() - grads.keys()
    if missing:
        raise KeyError(f"no gradient for {', '.join(sorted(missing))}; grads has {', '.join(grads)}")
    for name, p in params.items():
        if p.shape != grads[name].shape:
            raise ValueError(f"{name!r} has shape {p.shape}, its gradient {grads[name].shape}")
        yield p, grads[name]


OPTIMIZERS: dict[str, type[Optimizer]] = {"sgd": SGD}


def get_optimizer(name: str | Optimizer, **settings: float) -> Optimizer:
    """Return the optimiser called `name` with the given settings; an optimiser is returned as it is.

    Raises
    ------
    ValueError
        If there is none of that name, it has no such setting, or an optimiser is given along with settings.
    """
    if isinstance(name, Optimizer):
        if settings:
            raise ValueError("settings go with an optimizer's name; set them on the optimizer itself")
        return name
    cls = OPTIMIZERS.get(str(name).lower())
    if cls is None:
        raise ValueError(f"optimizer must be one of {', '.join(map(repr, OPTIMIZERS))}, got {name!r}")
    try:
        return cls(**settings)
    except TypeError as error:
        raise ValueError(f"optimizer {name!r}: {error}") from None

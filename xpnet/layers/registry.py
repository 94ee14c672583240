"""Activations by the names that networks and the command line take."""

from collections.abc import Callable
from typing import TypeVar

from xpnet import initializers
from xpnet.layers.base import Layer
from xpnet.settings import choice

__all__ = ["ACTIVATIONS", "activation", "activation_layer"]

ACTIVATIONS: dict[str, type[Layer]] = {}
"""Layer classes by name: "relu", "leaky_relu" ... Each can be called without arguments."""

L = TypeVar("L", bound=Layer)


def activation(name: str, gain: float) -> Callable[[type[L]], type[L]]:
    """Declare a layer class as an activation: the decorator adds it to `ACTIVATIONS`.

    Parameters
    ----------
    name : str
        The name for a network's ``activation=``, and for the ``weight_init_std=`` that suits it.
    gain : float
        Variance of the initial weights in front, times fan_in (`xpnet.initializers.scale`).
    """

    def declare(cls: type[L]) -> type[L]:
        ACTIVATIONS[name] = cls
        initializers.GAINS[name] = gain
        return cls

    return declare


def activation_layer(name: str) -> Layer:
    """Return a new layer for a network's ``activation=``.

    Parameters
    ----------
    name : str
        A key of `ACTIVATIONS`.

    Raises
    ------
    ValueError
        If there is no such activation.
    """
    return ACTIVATIONS[choice("activation", name, ACTIVATIONS)]()

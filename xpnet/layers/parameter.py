"""Descriptor of the parameters of a layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xpnet.device import get_device
from xpnet.typing import Array

if TYPE_CHECKING:
    from xpnet.layers.base import Layer

__all__ = ["Parameter"]


class Parameter:
    """Descriptor of a parameter: assigning to one that belongs to a network, or to another layer, writes into it.

    It has no ``__get__``: Python reads the attribute from the layer itself, as fast as any other.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __set__(self, layer: Layer, value: Array) -> None:
        current = vars(layer).get(self.name)
        if layer.place is None or current is None:
            vars(layer)[self.name] = value
        elif value is not current:  # the second half of `layer.W -= step`
            if np.shape(value) != current.shape:
                raise ValueError(
                    f"{layer.name}.{self.name} has shape {current.shape}, cannot be set to an array of shape "
                    f"{np.shape(value)}: it is a parameter of the network"
                )
            device = get_device(current)
            with device.activate():
                current[...] = device.asarray(value, current.dtype)

"""Multiplication and addition, the nodes of the first computational graphs (section 5.4)."""

from __future__ import annotations

import numpy as np

from xpnet.device import get_array_module
from xpnet.functions import sum_to_shape
from xpnet.layers.base import Layer
from xpnet.typing import Array

__all__ = ["AddLayer", "MulLayer"]


class MulLayer(Layer):
    """Product of two values, z = x * y (section 5.4.1).

    dx = dout * y and dy = dout * x: each input's gradient is scaled by the other input.

    ``forward(x, y)`` takes scalars or arrays, which may broadcast; ``backward(dout)`` returns ``(dx, dy)``, each
    summed to the shape of its input.
    """

    inputs = 2
    saved = ("x", "y")

    def forward(self, x: Array, y: Array) -> Array:  # type: ignore[override]
        get_array_module(x=x, y=y)
        self.x = x
        self.y = y
        return x * y

    def backward(self, dout: Array) -> tuple[Array, Array]:
        x_shape, y_shape = np.shape(self.x), np.shape(self.y)
        self._expect_dout(dout, np.broadcast_shapes(x_shape, y_shape))
        return sum_to_shape(dout * self.y, x_shape), sum_to_shape(dout * self.x, y_shape)


class AddLayer(Layer):
    """Sum of two values, z = x + y (section 5.4.2).

    dx = dy = dout: addition passes the gradient on to both inputs.

    ``forward(x, y)`` takes scalars or arrays, which may broadcast; ``backward(dout)`` returns ``(dx, dy)``, each
    summed to the shape of its input.
    """

    inputs = 2
    saved = ("x_shape", "y_shape")

    def forward(self, x: Array, y: Array) -> Array:  # type: ignore[override]
        get_array_module(x=x, y=y)
        self.x_shape = np.shape(x)
        self.y_shape = np.shape(y)
        return x + y

    def backward(self, dout: Array) -> tuple[Array, Array]:
        self._expect_dout(dout, np.broadcast_shapes(self.x_shape, self.y_shape))
        # "* 1" makes new arrays: neither result shares memory with dout or with the other.
        return sum_to_shape(dout * 1, self.x_shape), sum_to_shape(dout * 1, self.y_shape)

"""Arithmetic on two values, for computational graphs (section 5.4)."""

import math

import numpy as np

from xpnet import kernels
from xpnet.device import as_array, get_array_module
from xpnet.functions import sum_to_shape
from xpnet.layers.base import Layer
from xpnet.typing import Array

__all__ = ["AddLayer", "DivLayer", "MatMulLayer", "MulLayer", "PowLayer", "SubLayer"]


class _Arithmetic(Layer):
    """A layer of two inputs, scalars or arrays."""

    def _numbers(self, x: Array, y: Array) -> tuple[Array, Array]:
        get_array_module(x=x, y=y)
        return (
            x if isinstance(x, (int, float)) else as_array("x", x),
            y if isinstance(y, (int, float)) else as_array("y", y),
        )

    def _operands(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Check both inputs: on one device, real numbers, of shapes that broadcast."""
        x, y = self._numbers(x, y)
        shapes = np.shape(x), np.shape(y)
        if shapes[0] != shapes[1]:
            try:
                np.broadcast_shapes(*shapes)
            except ValueError:
                raise ValueError(
                    f"{self.name} expected x and y of shapes that broadcast, got {shapes[0]} and {shapes[1]}"
                ) from None
        return x, y


class MulLayer(_Arithmetic):
    """Product of two values, z = x * y (section 5.4.1).

    dx = dout * y and dy = dout * x: each input's gradient is scaled by the other input.

    ``forward(x, y)`` takes scalars or arrays, which may broadcast; ``backward(dout)`` returns ``(dx, dy)``, each
    summed to the shape of its input.
    """

    inputs = 2
    saved = ("x", "y")

    def forward(self, x: Array, y: Array) -> Array:  # type: ignore[override]
        x, y = self._operands(x, y)
        self.x = x
        self.y = y
        return x * y

    def backward(self, dout: Array) -> tuple[Array, Array]:
        get_array_module(dout=dout, x=self.x, y=self.y)
        x_shape, y_shape = np.shape(self.x), np.shape(self.y)
        self._expect_dout(dout, np.broadcast_shapes(x_shape, y_shape))
        return sum_to_shape(dout * self.y, x_shape), sum_to_shape(dout * self.x, y_shape)


class AddLayer(_Arithmetic):
    """Sum of two values, z = x + y (section 5.4.2).

    dx = dy = dout: addition passes the gradient on to both inputs.

    ``forward(x, y)`` takes scalars or arrays, which may broadcast; ``backward(dout)`` returns ``(dx, dy)``, each
    summed to the shape of its input.
    """

    inputs = 2
    saved = ("x_shape", "y_shape")

    def forward(self, x: Array, y: Array) -> Array:  # type: ignore[override]
        x, y = self._operands(x, y)
        self.x_shape = np.shape(x)
        self.y_shape = np.shape(y)
        return x + y

    def backward(self, dout: Array) -> tuple[Array, Array]:
        self._expect_dout(dout, np.broadcast_shapes(self.x_shape, self.y_shape))
        # "* 1" makes new arrays: neither result shares memory with dout or with the other.
        return sum_to_shape(dout * 1, self.x_shape), sum_to_shape(dout * 1, self.y_shape)


class SubLayer(_Arithmetic):
    """Difference of two values, z = x - y.

    dx = dout and dy = -dout.

    ``forward(x, y)`` takes scalars or arrays, which may broadcast; ``backward(dout)`` returns ``(dx, dy)``, each
    summed to the shape of its input.
    """

    inputs = 2
    saved = ("x_shape", "y_shape")

    def forward(self, x: Array, y: Array) -> Array:  # type: ignore[override]
        x, y = self._operands(x, y)
        self.x_shape = np.shape(x)
        self.y_shape = np.shape(y)
        return x - y

    def backward(self, dout: Array) -> tuple[Array, Array]:
        self._expect_dout(dout, np.broadcast_shapes(self.x_shape, self.y_shape))
        return sum_to_shape(dout * 1, self.x_shape), sum_to_shape(-dout, self.y_shape)


class DivLayer(_Arithmetic):
    """Quotient of two values, z = x / y.

    dx = dout / y and dy = -dout * z / y.

    ``forward(x, y)`` takes scalars or arrays, which may broadcast; ``backward(dout)`` returns ``(dx, dy)``, each
    summed to the shape of its input.
    """

    inputs = 2
    saved = ("x_shape", "y", "z")

    def forward(self, x: Array, y: Array) -> Array:  # type: ignore[override]
        x, y = self._operands(x, y)
        self.x_shape = np.shape(x)
        z = x / y
        self.y, self.z = y, z
        return z

    def backward(self, dout: Array) -> tuple[Array, Array]:
        get_array_module(dout=dout, z=self.z)
        self._expect_dout(dout, np.shape(self.z))
        dx = dout / self.y
        return sum_to_shape(dx, self.x_shape), sum_to_shape(-dx * self.z, np.shape(self.y))


class PowLayer(_Arithmetic):
    """Power, z = x ** y.

    dx = dout * y * x ** (y - 1), which is 0 for y = 0, and dy = dout * z * log x. At x = 0, dy is 0 (its limit, for
    y > 0). For x < 0 there is no derivative with respect to y, and dy is NaN.

    ``forward(x, y)`` takes scalars or arrays, which may broadcast; ``backward(dout)`` returns ``(dx, dy)``, each
    summed to the shape of its input.
    """

    inputs = 2
    saved = ("x", "y", "z")

    def forward(self, x: Array, y: Array) -> Array:  # type: ignore[override]
        x, y = self._operands(x, y)
        self.x = x
        z = x**y
        self.y, self.z = y, z
        return z

    def backward(self, dout: Array) -> tuple[Array, Array]:
        xp = get_array_module(dout=dout, z=self.z)
        self._expect_dout(dout, np.shape(self.z))
        x = xp.asarray(self.x)
        positive = xp.where(x > 0, x, 1)  # log would warn of x <= 0
        log_x = xp.where(x < 0, math.nan, xp.log(positive))
        # For y = 0 the exponent is 0 too: the product is 0 for every x, without a division by 0.
        dx = dout * self.y * self.x ** (self.y - 1 + (self.y == 0))
        return sum_to_shape(dx, np.shape(self.x)), sum_to_shape(dout * self.z * log_x, np.shape(self.y))


class MatMulLayer(_Arithmetic):
    """Matrix product, z = x y (section 5.6.1).

    dx = dout y^T and dy = x^T dout.

    ``forward(x, y)`` takes x of shape (N, D) and y of shape (D, M); ``backward(dout)`` returns ``(dx, dy)``.
    """

    inputs = 2
    saved = ("x", "y")

    def forward(self, x: Array, y: Array) -> Array:  # type: ignore[override]
        x, y = self._numbers(x, y)
        shapes = np.shape(x), np.shape(y)
        if len(shapes[0]) != 2 or len(shapes[1]) != 2 or shapes[0][1] != shapes[1][0]:
            raise ValueError(
                f"{self.name} expected x of shape (N, D) and y of shape (D, M), got {shapes[0]} and {shapes[1]}"
            )
        self.x = x
        self.y = y
        return kernels.matmul(x, y)

    def backward(self, dout: Array) -> tuple[Array, Array]:
        get_array_module(dout=dout, x=self.x)
        self._expect_dout(dout, (len(self.x), self.y.shape[1]))
        return kernels.matmul(dout, self.y.T), kernels.matmul(self.x.T, dout)

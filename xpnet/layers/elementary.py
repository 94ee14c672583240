"""Exponential, logarithm and reductions: the parts of sigmoid and softmax (sections 5.5.2 and 5.6.3)."""

from typing import Any

import numpy as np

from xpnet.device import as_array, get_array_module
from xpnet.functions import as_floating, inverse_count
from xpnet.layers.base import Layer
from xpnet.typing import Array

__all__ = ["ExpLayer", "LogLayer", "MaxLayer", "MeanLayer", "SumLayer"]

Axis = int | tuple[int, ...] | None


class ExpLayer(Layer):
    """Exponential, y = exp(x).

    Its derivative is its output: dx = dout * y.
    """

    saved = ("y",)
    samplewise = True

    def forward(self, x: Array, train: bool = True) -> Array:
        self.y = y = get_array_module(x).exp(as_floating(x))
        return y

    def backward(self, dout: Array) -> Array:
        get_array_module(dout=dout, y=self.y)
        self._expect_dout(dout, np.shape(self.y))
        return dout * self.y


class LogLayer(Layer):
    """Natural logarithm, y = log x.

    dx = dout / x.
    """

    saved = ("x",)
    samplewise = True

    def forward(self, x: Array, train: bool = True) -> Array:
        self.x = x = as_floating(x)
        return get_array_module(x).log(x)

    def backward(self, dout: Array) -> Array:
        get_array_module(dout=dout, x=self.x)
        self._expect_dout(dout, np.shape(self.x))
        return dout / self.x


class _Reduction(Layer):
    """Reduction over axes.

    Parameters
    ----------
    axis : int or tuple of int, optional
        Axes to reduce; by default all.
    keepdims : bool, default False
        Whether to keep the reduced axes, with length 1.
    """

    def __init__(self, axis: Axis = None, keepdims: bool = False) -> None:
        self.axis = axis
        self.keepdims = keepdims

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        axes = range(1 + len(shape)) if self.axis is None else np.atleast_1d(self.axis) % (1 + len(shape))
        sizes = (1 if i in axes else size for i, size in enumerate(shape, 1) if self.keepdims or i not in axes)
        return tuple(sizes)

    def _like_input(self, y: Any, x_shape: tuple[int, ...]) -> Any:
        """Return `y` with the reduced axes at length 1, so that it broadcasts with the input."""
        shape = list(x_shape)
        axes = range(len(shape)) if self.axis is None else np.atleast_1d(self.axis)
        for axis in axes:
            shape[axis] = 1
        return get_array_module(y).asarray(y).reshape(shape)

    def _count(self, x_shape: tuple[int, ...]) -> int:
        axes = range(len(x_shape)) if self.axis is None else np.atleast_1d(self.axis)
        return int(np.prod([x_shape[axis] for axis in axes], dtype=int))


class SumLayer(_Reduction):
    """Sum over axes, y = sum x.

    dx = dout, repeated along the summed axes.
    """

    saved = ("x_shape", "y")

    def forward(self, x: Array, train: bool = True) -> Array:
        x = as_array("x", x)
        y = x.sum(axis=self.axis, keepdims=self.keepdims)
        self.x_shape, self.y = np.shape(x), y
        return y

    def backward(self, dout: Array) -> Array:
        xp = get_array_module(dout=dout, y=self.y)
        self._expect_dout(dout, np.shape(self.y))
        dout = xp.asarray(dout, dtype=self.y.dtype if self.y.dtype.kind == "f" else None)
        return xp.broadcast_to(self._like_input(dout, self.x_shape), self.x_shape) * 1


class MeanLayer(SumLayer):
    """Mean over axes, y = 1/n sum x over n elements.

    dx = dout / n, repeated along the axes.
    """

    def forward(self, x: Array, train: bool = True) -> Array:
        return super().forward(x) * inverse_count(self._count(np.shape(x)))

    def backward(self, dout: Array) -> Array:
        return super().backward(dout) * inverse_count(self._count(self.x_shape))


class MaxLayer(_Reduction):
    """Maximum over axes, y = max x.

    dx = dout at the maximum, 0 elsewhere. Equal maxima share dout evenly.
    """

    saved = ("x_shape", "y_shape", "mask")

    def forward(self, x: Array, train: bool = True) -> Array:
        x = as_array("x", x)
        y = x.max(axis=self.axis, keepdims=self.keepdims)
        self.x_shape, self.y_shape, self.mask = x.shape, y.shape, x == self._like_input(y, x.shape)
        return y

    def backward(self, dout: Array) -> Array:
        get_array_module(dout=dout, mask=self.mask)
        self._expect_dout(dout, self.y_shape)
        share = self._like_input(dout, self.x_shape) * self.mask
        return share / self.mask.sum(axis=self.axis, keepdims=True).astype(share.dtype)

    def activation_pattern(self) -> Array:
        return self.mask

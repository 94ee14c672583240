"""Flattening of images to rows."""

import math

from xpnet.device import as_array
from xpnet.layers.base import Layer
from xpnet.typing import Array

__all__ = ["Flatten"]


class Flatten(Layer):
    """Flatten each sample to a row, (N, ...) to (N, D), in C order.

    `Affine` flattens its input itself. Other layers for rows need a Flatten after layers for images.
    """

    saved = ("x_shape",)
    samplewise = True

    def forward(self, x: Array, train: bool = True) -> Array:
        x = as_array("x", x)
        if x.ndim == 0:
            raise ValueError(f"{self.name} expected x of shape (N, ...), got a single number")
        self.x_shape = x.shape
        return x.reshape(len(x), *self.output_shape(x.shape[1:]))

    def backward(self, dout: Array) -> Array:
        self._expect_dout(dout, (self.x_shape[0], *self.output_shape(self.x_shape[1:])))
        return dout.reshape(self.x_shape)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (math.prod(shape),)

"""Pooling: the maximum or the mean of each window of an image (sections 7.3 and 7.4.4)."""

import math
from typing import Any, ClassVar, Self

import numpy as np

from xpnet import functions, kernels
from xpnet.device import get_array_module
from xpnet.layers.base import Layer
from xpnet.typing import Array, DTypeLike
from xpnet.windows import Pair, Windows, as_pair, samples_first, samples_last

__all__ = ["AveragePooling", "GlobalAveragePooling", "Pooling", "RectifiedPooling"]


class _Pooling(Layer):
    """Base of max and average pooling: sliding windows on each channel of each image."""

    samplewise = True
    hands_over = True

    def __init__(self, pool_h: int, pool_w: int, stride: int | Pair = 2, pad: int | Pair = 0) -> None:
        owner = type(self).__name__
        size = as_pair(owner, "pool_h and pool_w", (pool_h, pool_w), 1)
        self.windows = Windows(size, as_pair(owner, "stride", stride, 1), as_pair(owner, "pad", pad, 0))
        if any(2 * pad > size for pad, size in zip(self.windows.pad, size, strict=True)):
            raise ValueError(
                f"{owner} expected pad to be at most half the window {size}, so that each sees the image, got {pad!r}"
            )

    def config(self) -> dict[str, Any]:
        (pool_h, pool_w), stride, pad = self.windows.size, self.windows.stride, self.windows.pad
        return {"pool_h": pool_h, "pool_w": pool_w, "stride": stride, "pad": pad}

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(shape) != 3:
            raise ValueError(
                f"{self.name} expected x of shape (N, C, H, W), got ({', '.join(['N', *map(str, shape)])})"
            )
        try:
            return (shape[0], *self.windows.places(*shape[1:]))
        except ValueError as error:
            raise ValueError(f"{self.name} expected larger images or more padding: {error}") from None

    def _buffer(self, name: str, shape: tuple[int, ...], dtype: DTypeLike, like: Array) -> Array:
        """Return an array for a result of shape (N, C, H, W), samples last: from `out`, or else a new one."""
        made = self.out.get(name)
        if made is not None:
            return samples_last(made)
        return get_array_module(like).empty((*shape[1:], shape[0]), dtype)


class Pooling(_Pooling):
    """Max pooling: y is the maximum of each window of each channel (section 7.3).

    dx = dout at the maximum of the window, 0 elsewhere. Of equal maxima the first counts, row by row. NaN is larger
    than any number; of several NaN the last counts, as in PyTorch.

    Parameters
    ----------
    pool_h, pool_w : int
        Size of the window.
    stride : int or (int, int), default 2
        Pixels from one window to the next, downwards and across.
    pad : int or (int, int), default 0
        Rows and columns of padding at each side, which are never the maximum.

    Notes
    -----
    ``forward`` takes x of shape (N, C, H, W) and returns (N, C, H', W'), H' = (H + 2 pad - pool_h) // stride + 1.
    It saves the index of each maximum in its window, one byte per window (int32 for windows of over 255 pixels).
    """

    saved: ClassVar[tuple[str, ...]] = ("index", "x_shape")

    def forward(self, x: Array, train: bool = True) -> Array:
        x = functions.as_floating(x)
        shape, x_shape = (*x.shape[:1], *self.output_shape(x.shape[1:])), x.shape
        x = samples_last(x)
        y = self._buffer("y", shape, x.dtype, x)
        number = "uint8" if math.prod(self.windows.size) <= np.iinfo("uint8").max else "int32"
        index = self._buffer("index", shape, number, x)
        self._pool(x, y, index)
        self.index, self.x_shape = samples_first(index), x_shape
        return samples_first(y)

    def backward(self, dout: Array) -> Array:
        get_array_module(dout=dout, index=self.index)
        self._expect_dout(dout, self.index.shape)
        dout, index = samples_last(dout), samples_last(self.index)
        dx = self._buffer("dx", self.x_shape, dout.dtype, dout)
        self._pool_gradient(dout, index, dx)
        return samples_first(dx)

    def activation_pattern(self) -> Array:
        return self.index

    def _pool(self, x: Array, y: Array, index: Array) -> None:
        """Write maxima and their indices, from images (C, H, W, N)."""
        for slab in kernels.slabs(x):
            kernels.max_pool(x[slab], y[slab], index[slab], self.windows)

    def _pool_gradient(self, dout: Array, index: Array, dx: Array) -> None:
        for slab in kernels.slabs(dx):
            kernels.max_pool_gradient(dout[slab], index[slab], dx[slab], self.windows)


class RectifiedPooling(Pooling):
    """Max pooling and the ReLU behind it as one operation, y = max(maximum of the window, 0), in training steps.

    Outputs and gradients have the bits of the two layers. A CUDA device saves a launch in each direction.
    """

    saved = ("index", "mask", "x_shape")

    @classmethod
    def of(cls, pooling: Pooling) -> Self:
        """Return a layer with the windows of `pooling`."""
        return cls(**pooling.config())

    def _pool(self, x: Array, y: Array, index: Array) -> None:
        mask = self._buffer("mask", (y.shape[-1], *y.shape[:-1]), bool, y)
        kernels.max_pool_relu(x, y, index, mask, self.windows)
        self.mask = samples_first(mask)

    def _pool_gradient(self, dout: Array, index: Array, dx: Array) -> None:
        kernels.max_pool_relu_gradient(dout, index, samples_last(self.mask), dx, self.windows)


class AveragePooling(_Pooling):
    """Average pooling: y is the mean of each window of each channel.

    dx = dout / (pool_h * pool_w), summed over the windows that contain the pixel. Padding counts as zeros, PyTorch's
    default.

    Parameters
    ----------
    pool_h, pool_w, stride, pad
        As in `Pooling`.
    """

    saved = ("x_shape",)

    def forward(self, x: Array, train: bool = True) -> Array:
        x = functions.as_floating(x)
        shape, x_shape = (*x.shape[:1], *self.output_shape(x.shape[1:])), x.shape
        x = samples_last(x)
        y = self._buffer("y", shape, x.dtype, x)
        y[...] = 0.0
        for _, places, pixels in self.windows.pixels(*x.shape[1:3]):
            part = y[:, *places]
            part += x[:, *pixels]
        y *= 1.0 / math.prod(self.windows.size)
        self.x_shape = x_shape
        return samples_first(y)

    def backward(self, dout: Array) -> Array:
        self._expect_dout(dout, (self.x_shape[0], *self.output_shape(self.x_shape[1:])))
        dout = samples_last(dout) * (1.0 / math.prod(self.windows.size))
        dx = self._buffer("dx", self.x_shape, dout.dtype, dout)
        dx[...] = 0.0
        for _, places, pixels in self.windows.pixels(*self.x_shape[2:]):
            image = dx[:, *pixels]
            image += dout[:, *places]
        return samples_first(dx)


class GlobalAveragePooling(Layer):
    """Mean of each channel of each image, (N, C, H, W) to (N, C), in front of a layer of class scores.

    dx = dout / (H W) at each pixel.
    """

    saved = ("x_shape",)
    samplewise = True

    def forward(self, x: Array, train: bool = True) -> Array:
        x = functions.as_floating(x)
        self.output_shape(x.shape[1:])
        self.x_shape = x.shape
        return x.mean(axis=(2, 3))

    def backward(self, dout: Array) -> Array:
        self._expect_dout(dout, self.x_shape[:2])
        H, W = self.x_shape[2:]
        dout = dout * (1.0 / (H * W))
        return get_array_module(dout).broadcast_to(dout[:, :, None, None], self.x_shape).copy()

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(shape) != 3 or 0 in shape[1:]:
            raise ValueError(
                f"{self.name} expected x of shape (N, C, H, W), got ({', '.join(['N', *map(str, shape)])})"
            )
        return shape[:1]

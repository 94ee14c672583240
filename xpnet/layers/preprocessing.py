"""Preprocessing as a layer: a network that begins with it takes data as they are."""

import math
from typing import Any, Self

from xpnet import functions
from xpnet.device import as_array, asnumpy, get_array_module
from xpnet.layers.base import Layer
from xpnet.typing import Array

__all__ = ["Normalize"]

CHUNK = 4096
"""Samples whose squares `Normalize.from_data` holds at a time."""


class Normalize(Layer):
    """Fixed shift and scale, y = (x - mean) / std, as preprocessing in front of a network.

    dx = dout / std. Mean and deviation are buffers: they are moved and saved with the network, and never learned.

    Parameters
    ----------
    mean, std : (D,), or numbers
        Mean and standard deviation of each feature, of each channel of images, or one for all values.

    Raises
    ------
    ValueError
        If their shapes differ, or a deviation is not positive.

    Notes
    -----
    ``forward`` takes x of shape (N, D), (N, ...) with D values a sample, or images (N, C, H, W). With ``mean`` of shape
    (C,), all pixels of a channel have the same mean; with a mean of one value, all values have.

    A network divides ``uint8`` pixels by 255 before its first layer. Mean and deviation are those of the quotients.

    Examples
    --------
    >>> import numpy as np
    >>> Normalize.from_data(np.array([[1.0, 10.0], [3.0, 30.0]])).forward(np.array([[2.0, 40.0]]))
    array([[0., 2.]])
    """

    buffer_names = ("mean", "std")
    saved = ("x_shape",)
    hands_over = True
    samplewise = True

    def __init__(self, mean: Array | float, std: Array | float) -> None:
        mean, std = as_array("mean", mean), as_array("std", std)
        xp = get_array_module(mean=mean, std=std)
        if mean.shape != std.shape or mean.ndim > 1 or mean.size == 0:
            raise ValueError(f"Normalize expected mean and std of one shape (D,), got {mean.shape} and {std.shape}")
        # Copies, since a network that is loaded writes into them.
        self.mean, self.std = (xp.array(xp.atleast_1d(functions.as_floating(array))) for array in (mean, std))
        if not (asnumpy(self.std) > 0).all():
            raise ValueError("std must be positive; for a feature that never changes, 1 leaves the difference as it is")

    @classmethod
    def from_data(cls, x: Any) -> Self:
        """Create the layer with the mean and standard deviation of samples.

        Parameters
        ----------
        x : (N, C, H, W), or (N, ...)
            Training samples. Of images, each channel gets its mean and deviation; otherwise, each feature. ``uint8``
            are pixels, divided by 255. The deviation of a feature that never changes is set to 1.

        Raises
        ------
        ValueError
            If there are no samples, or values are not finite.
        """
        x = as_array("x", x)
        xp = get_array_module(x=x)
        if x.ndim < 2 or x.size == 0:
            raise ValueError(f"x must be samples of shape (N, D) or (N, C, H, W), N > 0, got {x.shape}")
        axes = (0, 2, 3) if x.ndim == 4 else (0,)
        mean = x.mean(axis=axes, keepdims=True, dtype="float64")
        if not bool(xp.isfinite(mean).all()):
            raise ValueError("x must be finite, got NaN or infinity")
        var = sum(
            xp.square(x[i : i + CHUNK] - mean).sum(axis=axes, keepdims=True) for i in range(0, len(x), CHUNK)
        ) / math.prod(x.shape[axis] for axis in axes)
        unit = 255.0 if x.dtype == "uint8" else 1.0
        # Compared exactly: rounding errors of the mean give a constant feature a deviation too.
        constant = x.max(axis=axes, keepdims=True) == x.min(axis=axes, keepdims=True)
        std = xp.where(constant, 1.0, xp.sqrt(var) / unit)
        dtype = x.dtype if x.dtype.kind == "f" else "float32"
        return cls((mean / unit).reshape(-1).astype(dtype), std.reshape(-1).astype(dtype))

    def forward(self, x: Array, train: bool = True) -> Array:
        get_array_module(x=x, mean=self.mean)
        x = functions.as_floating(x)
        shape = self._broadcast(self.output_shape(x.shape[1:]))
        y = (x - self.mean.reshape(shape)) / self.std.reshape(shape)
        self.x_shape = x.shape
        return y.astype(x.dtype, copy=False)  # a step in float16 has its buffers in float32

    def backward(self, dout: Array) -> Array:
        get_array_module(dout=dout, std=self.std)
        self._expect_dout(dout, self.x_shape)
        dx = dout / self.std.reshape(self._broadcast(self.x_shape[1:]))
        return dx.astype(dout.dtype, copy=False)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        D = len(self.mean)
        if D not in (1, math.prod(shape)) and (len(shape) != 3 or shape[0] != D):
            got = ", ".join(["N", *map(str, shape)])
            raise ValueError(
                f"{self.name} expected x of shape (N, {D}), (N, {D}, H, W), or (N, ...) with {D} values a sample, "
                f"got ({got})"
            )
        return shape

    def _broadcast(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape in which `mean` broadcasts over samples of the given shape."""
        if len(self.mean) == 1:
            return (1,) * len(shape)
        return shape if math.prod(shape) == len(self.mean) else (-1, 1, 1)

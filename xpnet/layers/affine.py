"""Affine transformation, a fully connected layer (section 5.6)."""

import math
from typing import Literal, Self

import numpy as np

from xpnet import functions, initializers, kernels
from xpnet.device import get_array_module
from xpnet.layers.base import Layer
from xpnet.settings import count
from xpnet.typing import Array, DTypeLike, Seed

__all__ = ["Affine"]


class Affine(Layer):
    """Affine transformation, y = x W + b (section 5.6).

    dx = dout W^T, dW = x^T dout, db = sum_n dout_n.

    Parameters
    ----------
    W : (D, M)
        Weights, kept without a copy: the layer sees in-place updates.
    b : (M,)
        Biases, also kept without a copy.
    axis : {1, -1}, default 1
        First axis of the D values that are transformed together. By default they are all values of a sample, as in the
        book. With -1 they are those of the last axis alone: each position of a sequence, as in PyTorch's ``Linear``.

    Notes
    -----
    ``forward`` takes x of shape (N, D), or (N, ...) with D values per sample, flattened in C order. It returns (N, M).
    With ``axis=-1`` it takes (N, ..., D) and returns (N, ..., M). ``backward`` takes dout of the shape of the output,
    and returns dx of the shape of x.
    """

    parameter_names = ("W", "b")
    saved = ("x", "x_shape")
    samplewise = True
    hands_over = True
    reach = {"W": {1: -1}, "b": {0: -1}}  # noqa: RUF012

    def __init__(self, W: Array, b: Array, axis: Literal[1, -1] = 1) -> None:
        get_array_module(W=W, b=b)
        if getattr(W, "ndim", None) != 2:
            raise ValueError(f"Affine expected W to be an array of shape (D, M), got {_shape_of(W)}")
        if getattr(b, "shape", None) != W.shape[1:]:
            raise ValueError(f"Affine expected b of shape {W.shape[1:]} to go with W {W.shape}, got {_shape_of(b)}")
        if axis not in (1, -1):
            raise ValueError(f"axis must be 1, for all values of a sample, or -1, for the last axis, got {axis!r}")
        self.W = W
        self.b = b
        self.axis = axis

    @classmethod
    def from_sizes(
        cls,
        input_size: int,
        output_size: int,
        *,
        std: float | str = 0.01,
        rng: Seed = None,
        dtype: DTypeLike = "float32",
        axis: Literal[1, -1] = 1,
    ) -> Self:
        """Create a layer with random weights and zero biases, on the host.

        Parameters
        ----------
        input_size, output_size : int
            D and M.
        std : float or str, default 0.01
            Standard deviation of the weights, or a rule's name, see `xpnet.initializers.initial_weights`.
        rng : numpy.random.Generator or int, optional
            Random generator or seed of the weights. Pass one generator to all layers of a network.
        dtype : dtype, default "float32"
            dtype of W and b.
        axis : {1, -1}, default 1
            As in `Affine`.
        """
        shape = count("input_size", input_size), count("output_size", output_size)
        W = initializers.initial_weights(shape, std, rng, dtype)
        return cls(W, np.zeros(shape[1], dtype=dtype), axis)

    def forward(self, x: Array, train: bool = True) -> Array:
        get_array_module(x=x, W=self.W)
        x = rows = functions.as_floating(x)
        (D, M), out = self.W.shape, self.out.get("y")
        if x.shape[1:] != (D,):
            self.output_shape(x.shape[1:])
            rows = x.reshape(math.prod(x.shape[: self.axis]), D)
            out = None if out is None else out.reshape(len(rows), M)
        self.x, self.x_shape = rows, x.shape
        y = kernels.matmul(rows, self.W, out, bias=self.b)
        return y if x.ndim == 2 else y.reshape(*x.shape[: self.axis], M)

    def backward(self, dout: Array) -> Array:
        self.backward_parameters(dout)
        xp = get_array_module(dout)
        dx = self.out.get("dx")
        # Same memory layout as x: a layer of images in front keeps samples last, in its gradient too.
        rows = xp.empty_like(self.x) if dx is None else dx if dx.ndim == 2 else dx.reshape(self.x.shape)
        rows = kernels.matmul(self._rows(dout), self.W.T, out=rows)
        return rows if len(self.x_shape) == 2 else rows.reshape(self.x_shape)

    def backward_parameters(self, dout: Array) -> None:
        xp = get_array_module(dout=dout, x=self.x)
        self._expect_dout(dout, (*self.x_shape[: self.axis], self.W.shape[1]))
        db = self.out.get("db")
        self.db = xp.empty(self.b.shape, dout.dtype) if db is None else db
        self.dW = kernels.matmul(self.x.T, self._rows(dout), self.out.get("dW"), sums=self.db)

    def input_shape(self) -> tuple[int, ...] | None:
        return (self.W.shape[0],) if self.axis == 1 else None

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        D, M = self.W.shape
        if self.axis == -1:
            if shape[-1:] != (D,):
                got = ", ".join(["N", *map(str, shape)])
                raise ValueError(f"{self.name} expected x of shape (N, ..., {D}), got ({got})")
            return (*shape[:-1], M)
        if len(shape) == 0 or math.prod(shape) != D:
            got = f"(N, {', '.join(map(str, shape))})" if shape else "one without a feature axis"
            hint = "; samples of one feature need its axis: x[:, None]" if D == 1 and not shape else ""
            if shape[-1:] == (D,):
                hint = "; axis=-1 transforms each position by itself"
            raise ValueError(
                f"{self.name} expected x of shape (N, {D}), or (N, ...) with as many values a sample, "
                f"got {got}{hint or '; a single sample needs a batch axis: x[None]'}"
            )
        return (M,)

    def _rows(self, dout: Array) -> Array:
        return dout if dout.ndim == 2 else dout.reshape(len(self.x), self.W.shape[1])


def _shape_of(x: object) -> str:
    shape = getattr(x, "shape", None)
    return type(x).__name__ if shape is None else f"shape {shape}"

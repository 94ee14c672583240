"""Convolution (section 7.4)."""

import math
from collections.abc import Iterator
from typing import Any, Self

import numpy as np

from xpnet import functions, initializers, kernels
from xpnet.device import get_array_module
from xpnet.layers.base import Layer
from xpnet.settings import count
from xpnet.typing import Array, DTypeLike, Seed
from xpnet.windows import Pair, Windows, as_pair, samples_first, samples_last

__all__ = ["Convolution"]


class Convolution(Layer):
    """Convolution of images with learned filters (cross-correlation, as in all libraries; section 7.2).

    y[n, f, r, c] = b[f] + sum_(k, i, j) W[f, k, i, j] x[n, k, r * stride + i * dilation, c * stride + j * dilation],
    with zeros around x for padding. Each position of the output is a row of the book's ``im2col`` times W. With these
    rows as the columns of `cols`: dW = dout cols^T, dcols = W^T dout, db = sum of dout over samples and positions.

    Parameters
    ----------
    W : (F, C / groups, h, w)
        Filters, kept without a copy: the layer sees in-place updates.
    b : (F,)
        Biases, also kept without a copy.
    stride : int or (int, int), default 1
        Pixels from one position of a filter to the next, downwards and across.
    pad : int or (int, int), default 0
        Rows and columns of zeros at each side.
    dilation : int or (int, int), default 1
        Pixels between neighboring weights of a filter.
    groups : int, default 1
        Number of groups of channels and filters. A filter sees the channels of its group. C for a depthwise
        convolution.

    Notes
    -----
    ``forward`` takes x of shape (N, C, H, W) and returns (N, F, H', W'), H' = (H + 2 pad - dilation (h - 1) - 1) //
    stride + 1. In memory samples are the last axis (`xpnet.windows.samples_last`). The result is a view, which the next
    layer of images takes without a copy. Columns are built for some rows of the output at a time.
    """

    parameter_names = ("W", "b")
    saved = ("x", "x_shape", "columns", "held", "ones")
    samplewise = True
    hands_over = True
    reach = {"W": {0: 1}, "b": {0: 1}}  # noqa: RUF012

    def __init__(
        self,
        W: Array,
        b: Array,
        stride: int | Pair = 1,
        pad: int | Pair = 0,
        dilation: int | Pair = 1,
        groups: int = 1,
    ) -> None:
        get_array_module(W=W, b=b)
        shape = getattr(W, "shape", None)
        if shape is None or len(shape) != 4 or 0 in shape:
            got = type(W).__name__ if shape is None else f"shape {shape}"
            raise ValueError(f"Convolution expected W to be an array of shape (F, C / groups, h, w), got {got}")
        if getattr(b, "shape", None) != shape[:1]:
            got = getattr(b, "shape", type(b).__name__)
            raise ValueError(f"Convolution expected b of shape {shape[:1]} to go with W {shape}, got {got}")
        if not isinstance(groups, (int, np.integer)) or groups < 1 or shape[0] % groups:
            raise ValueError(f"groups must divide the number of filters, {shape[0]}, got {groups!r}")
        self.W = W
        self.b = b
        self.windows = Windows(
            shape[2:],
            as_pair("Convolution", "stride", stride, 1),
            as_pair("Convolution", "pad", pad, 0),
            as_pair("Convolution", "dilation", dilation, 1),
        )
        self.groups = int(groups)

    def config(self) -> dict[str, Any]:
        stride, pad, dilation = self.windows.stride, self.windows.pad, self.windows.dilation
        return {"W": self.W, "b": self.b, "stride": stride, "pad": pad, "dilation": dilation, "groups": self.groups}

    @classmethod
    def from_sizes(
        cls,
        in_channels: int,
        out_channels: int,
        filter_size: int | Pair,
        *,
        stride: int | Pair = 1,
        pad: int | Pair = 0,
        dilation: int | Pair = 1,
        groups: int = 1,
        std: float | str = "he",
        rng: Seed = None,
        dtype: DTypeLike = "float32",
    ) -> Self:
        """Create a layer with normally distributed filters and zero biases, on the host.

        Parameters
        ----------
        in_channels, out_channels : int
            C and F.
        filter_size : int or (int, int)
            h and w.
        stride, pad, dilation, groups
            As above.
        std : float or str, default "he"
            Standard deviation of the filters, or a rule's name, see `xpnet.initializers.initial_weights`.
        rng : numpy.random.Generator or int, optional
            Random generator or seed of the filters. Pass one generator to all layers of a network.
        dtype : dtype, default "float32"
            dtype of W and b.
        """
        shape = count("out_channels", out_channels), count("in_channels", in_channels) // count("groups", groups)
        if in_channels % groups:
            raise ValueError(f"groups must divide in_channels, {in_channels}, got {groups!r}")
        h, w = as_pair("Convolution", "filter_size", filter_size, 1)
        W = initializers.initial_weights((*shape, h, w), std, rng, dtype)
        return cls(W, np.zeros(out_channels, dtype), stride, pad, dilation, groups)

    def forward(self, x: Array, train: bool = True) -> Array:
        xp = get_array_module(x=x, W=self.W)
        x = functions.as_floating(x)
        F, down, across = self.output_shape(x.shape[1:])
        N = x.shape[0]
        images = self.windows.padded(x.transpose(1, 2, 3, 0), self.out.get("x"))
        memory = self.out.get("columns")
        if memory is None:
            row = math.prod(self.W.shape[1:]) * self.groups * across * N
            at_a_time = max(kernels.scratch_size(images) // max(row * images.itemsize, 1), 1)
            memory = xp.empty(row * min(at_a_time, down), images.dtype)
        y = self.out.get("y")
        y = xp.empty((F, down, across, N), np.result_type(images, self.W.dtype)) if y is None else samples_last(y)
        W, b, places = self._grouped(self.W), self._grouped(self.b), self._grouped(y)
        rows = None
        for rows, block, columns in self._blocks(x.shape, memory):
            self._gather(images, rows, columns)
            part = places[:, :, block]
            kernels.batched_matmul(W, self._as_matrices(columns), out=part)
            xp.add(part, b, out=part)
        # held: the output rows whose columns are in self.columns
        self.x, self.x_shape, self.columns, self.held = images, x.shape, memory, rows
        self.ones = self.out.get("ones")
        return samples_first(y)

    def backward(self, dout: Array) -> Array:
        self._expect_dout(dout, (self.x_shape[0], *self.output_shape(self.x_shape[1:])))
        dout = samples_first(samples_last(dout))
        self.backward_parameters(dout)
        xp = get_array_module(dout)
        _, C, H, width = self.x_shape
        dx = self.out.get("dx")
        dx = xp.empty((C, H, width, self.x_shape[0]), self.x.dtype) if dx is None else samples_last(dx)
        W, places = self._grouped(self.W).transpose(0, 2, 1), self._grouped(samples_last(dout))
        self.held = None
        for rows, block, columns in self._blocks(self.x_shape, self.columns):
            kernels.batched_matmul(W, places[:, :, block], out=self._as_matrices(columns))
            kernels.add_windows(columns, dx, self.windows, rows)
        return samples_first(dx)

    def backward_parameters(self, dout: Array) -> None:
        xp = get_array_module(dout=dout, x=self.x)
        self._expect_dout(dout, (self.x_shape[0], *self.output_shape(self.x_shape[1:])))
        dout = samples_last(dout).reshape(len(self.W), -1)
        if self.ones is None:
            self.ones = xp.ones(dout.shape[1], dtype=dout.dtype)
        self.db = self.out.get("db")
        if self.db is None:
            self.db = xp.empty(self.b.shape, dout.dtype)
        self.dW = self.out.get("dW")
        if self.dW is None:
            self.dW = xp.empty(self.W.shape, self.W.dtype)  # in C order, whatever W's: it is written as a matrix
        dW, places = self._grouped(self.dW), self._grouped(dout)
        for rows, block, columns in self._blocks(self.x_shape, self.columns):
            if self.held != rows:  # forward had several blocks
                self._gather(self.x, rows, columns)
                self.held = rows
            matrices = self._as_matrices(columns)
            if rows.start == 0:
                kernels.filter_gradients(places, matrices, self.ones, dW, self.db)
            else:
                dW += kernels.batched_matmul_transposed(places[:, :, block], matrices)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        F, channels = self.W.shape[:2]
        channels *= self.groups
        if len(shape) != 3 or shape[0] != channels:
            got = ", ".join(["N", *map(str, shape)])
            raise ValueError(
                f"{self.name} expected x of shape (N, {channels}, H, W), got ({got}); images come flat from load_mnist "
                "unless flatten=False, and a single one needs a batch axis: x[None]"
            )
        try:
            return (F, *self.windows.places(*shape[1:]))
        except ValueError as error:
            raise ValueError(f"{self.name} expected larger images or more padding: {error}") from None

    def _blocks(self, x_shape: tuple[int, ...], memory: Array) -> Iterator[tuple[range, slice, Array]]:
        """Iterate over blocks of output rows, as many rows as have their columns in `memory`.

        Yields
        ------
        rows : range
            Rows of the output.
        block : slice
            Their positions among all H' * W' * N.
        columns : (C, h, w, rows, W', N)
            Array for the columns of these positions, in the same memory for each block.
        """
        _, down, across = self.output_shape(x_shape[1:])
        N, C = x_shape[:2]
        row = C * math.prod(self.windows.size) * across * N
        at_a_time = memory.size // row if row else down
        for start in range(0, down, at_a_time):
            rows = range(start, min(start + at_a_time, down))
            columns = memory[: len(rows) * row].reshape(C, *self.windows.size, len(rows), across, N)
            yield rows, slice(rows.start * across * N, rows.stop * across * N), columns

    def _gather(self, images: Array, rows: range, columns: Array) -> None:
        """Write the columns of these output rows."""
        columns[...] = self.windows.view(images)[:, :, :, rows.start : rows.stop]

    def _as_matrices(self, columns: Array) -> Array:
        """Return columns (C, h, w, rows, W', N) as a matrix per group, (groups, C / groups * h * w, rows * W' * N)."""
        return columns.reshape(self.groups, math.prod(self.W.shape[1:]), -1)

    def _grouped(self, x: Array) -> Array:
        """Return x (F, ...) as a matrix per group, (groups, F / groups, ...)."""
        return x.reshape(self.groups, len(x) // self.groups, -1)

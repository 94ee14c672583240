"""Loops over images of shape (channels, rows, columns, N)."""

from typing import Any

import numpy as np

from xpnet.kernels.numba.compiling import are_compact, compiled
from xpnet.typing import Array
from xpnet.windows import Windows


def add_windows(seen: Array, out: Array, windows: Windows, rows: range) -> Any:
    if seen.dtype != out.dtype or not seen.flags.c_contiguous:
        return NotImplemented
    if rows.start == 0:
        out[...] = 0.0
    _add_windows(seen, out, windows.stride, windows.pad, windows.dilation, rows.start)
    return None


@compiled
def _add_windows(seen, out, stride, pad, dilation, first):
    C, h, w, rows, columns, N = seen.shape
    for c in range(C):
        for r in range(out.shape[1]):
            for i in range(h):
                row = _place(r, i, stride[0], pad[0], dilation[0], first, rows)
                if row < 0:
                    continue
                for j in range(w):
                    for column in range(columns):
                        q = column * stride[1] + j * dilation[1] - pad[1]
                        if 0 <= q < out.shape[2]:
                            for n in range(N):
                                out[c, r, q, n] += seen[c, i, j, row, column, n]


def max_pool(x: Array, y: Array, index: Array, windows: Windows) -> Any:
    if x.dtype.kind != "f" or not are_compact(x, y, index):
        return NotImplemented
    _max_pool(x, y, index, windows.size, windows.stride, windows.pad, windows.dilation)
    return None


@compiled
def _max_pool(x, y, index, size, stride, pad, dilation):
    C, down, across, N = y.shape
    for c in range(C):
        for row in range(down):
            for column in range(across):
                largest, chosen = y[c, row, column], index[c, row, column]
                largest[:] = -np.inf
                chosen[:] = 0
                for i in range(size[0]):
                    for j in range(size[1]):
                        r = row * stride[0] + i * dilation[0] - pad[0]
                        q = column * stride[1] + j * dilation[1] - pad[1]
                        if 0 <= r < x.shape[1] and 0 <= q < x.shape[2]:
                            number = i * size[1] + j
                            for n in range(N):
                                pixel = x[c, r, q, n]
                                larger = (pixel > largest[n]) | (pixel != pixel)  # noqa: PLR0124 - NaN
                                largest[n] = pixel if larger else largest[n]
                                chosen[n] = number if larger else chosen[n]


def max_pool_gradient(dout: Array, index: Array, dx: Array, windows: Windows) -> Any:
    if dout.dtype != dx.dtype or not are_compact(dout, index, dx):
        return NotImplemented
    _max_pool_gradient(dout, index, dx, windows.size, windows.stride, windows.pad, windows.dilation)
    return None


@compiled
def _max_pool_gradient(dout, index, dx, size, stride, pad, dilation):
    C, down, across, N = dout.shape
    for c in range(C):
        for r in range(dx.shape[1]):
            dx[c, r] = 0
            for i in range(size[0]):
                row = _place(r, i, stride[0], pad[0], dilation[0], 0, down)
                if row < 0:
                    continue
                for j in range(size[1]):
                    number = i * size[1] + j
                    for column in range(across):
                        q = column * stride[1] + j * dilation[1] - pad[1]
                        if 0 <= q < dx.shape[2]:
                            for n in range(N):
                                dx[c, r, q, n] += dout[c, row, column, n] * (index[c, row, column, n] == number)


@compiled
def _place(pixel, inside, stride, pad, dilation, first, places):
    """Return the place, counted from `first`, of the window whose pixel `inside` is this pixel; -1 if there is none."""
    offset = pixel + pad - inside * dilation
    place = offset // stride - first
    return place if offset % stride == 0 and 0 <= place < places else -1

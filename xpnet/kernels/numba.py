"""Kernels compiled for the CPU by Numba: one pass over the data where NumPy makes several, and no temporaries.

What each computes is said at its definition, in `xpnet.kernels`. They are compiled when first called, for each dtype,
and kept on disk for the next process. Without fast-math the compiler may neither reorder nor contract: all but
exponentials, and the sum of the losses, have NumPy's bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from xpnet import labels
from xpnet.kernels import in_memory_order
from xpnet.kernels.meeting import meet
from xpnet.typing import Array
from xpnet.windows import Windows

SETTINGS: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}
compiled = njit(**SETTINGS)
inlined = njit(**SETTINGS, inline="always")
"""Compiled anew where it is called: a loop over two arrays that are one is vectorized only where that is known."""


def gather(x: Array, index: Array, out: Array) -> Any:
    if x.dtype != "uint8" or out.dtype.kind != "f" or x.ndim < 2 or not out.size or not _are_compact(x, index, out):
        return NotImplemented
    gather_rows(x.reshape(len(x), -1), index, out.dtype.type(255), out.reshape(len(out), -1))
    return out


@compiled
def gather_rows(x, index, white, out):
    for n in range(len(index)):
        row = x[min(max(index[n], 0), len(x) - 1)]
        for i in range(len(row)):
            out[n, i] = out.dtype.type(row[i]) / white


def relu(x: Array, mask: Array | None = None, out: Array | None = None) -> Any:
    mask = np.empty_like(x, dtype=bool) if mask is None else mask
    out = np.empty_like(x) if out is None else out
    vectors = in_memory_order(x, mask, out)
    if x.dtype.kind != "f" or vectors is None:
        return NotImplemented
    if _are_one(x, out):
        _relu_in_place(*vectors[:2])
    else:
        _relu(*vectors)
    return out, mask


@inlined
def _relu(x, mask, out):
    zero = x.dtype.type(0)
    for i in range(len(x)):
        mask[i] = x[i] > zero
        out[i] = zero if x[i] <= zero else x[i]  # so that NaN stays NaN


@compiled
def _relu_in_place(x, mask):
    _relu(x, mask, x)


def relu_gradient(dout: Array, mask: Array, out: Array | None = None) -> Any:
    out = np.empty_like(dout) if out is None else out
    vectors = in_memory_order(dout, mask, out)
    if vectors is None:
        return NotImplemented
    if _are_one(dout, out):
        _relu_gradient_in_place(*vectors[:2])
    else:
        _relu_gradient(*vectors)
    return out


@inlined
def _relu_gradient(dout, mask, dx):
    for i in range(len(dout)):
        dx[i] = dout[i] * mask[i]


@compiled
def _relu_gradient_in_place(dout, mask):
    _relu_gradient(dout, mask, dout)


def matmul(a: Array, b: Array, out: Array | None = None, bias: Array | None = None, sums: Array | None = None) -> Any:
    if bias is not None and out is not None and bias.shape == out.shape[1:] and _are_compact(out, bias):
        _add_to_rows(np.matmul(a, b, out), bias)
        return out
    if sums is not None and sums.shape == b.shape[1:] and _are_compact(b, sums):
        _sum_rows(b, sums)
        return np.matmul(a, b, out)
    return NotImplemented


@compiled
def _add_to_rows(x, b):
    for n in range(len(x)):
        for i in range(len(b)):
            x[n, i] += b[i]


@compiled
def _sum_rows(x, out):
    out[:] = 0
    for n in range(len(x)):
        for i in range(len(out)):
            out[i] += x[n, i]


def softmax_cross_entropy(x: Array, t: Array, out: Array | None = None) -> Any:
    out = np.empty_like(x) if out is None else out
    if x.dtype.kind != "f" or x.ndim != 2 or t.ndim != 1 or not x.size or not _are_compact(x, t, out):
        return NotImplemented
    labels.check_labels(t, x.shape)
    return x.dtype.type(_softmax_cross_entropy(x, t, out)), out


@compiled
def _softmax_cross_entropy(x, t, y):
    loss = 0.0
    for n in range(len(x)):
        largest = x[n].max()
        right = x[n, t[n]] - largest  # read here, since y may be x
        total = x.dtype.type(0)
        for k in range(x.shape[1]):
            y[n, k] = np.exp(x[n, k] - largest)
            total += y[n, k]
        for k in range(x.shape[1]):
            y[n, k] /= total
        loss += np.log(total) - right
    return loss / len(x)


def softmax_cross_entropy_gradient(y: Array, t: Array, scale: Array | float, out: Array | None = None) -> Any:
    out = np.empty_like(y) if out is None else out
    if y.ndim != 2 or t.ndim != 1 or not isinstance(scale, float) or not _are_compact(y, t, out):
        return NotImplemented
    _softmax_cross_entropy_gradient(y, t, y.dtype.type(scale), out)
    return out


@compiled
def _softmax_cross_entropy_gradient(y, t, scale, dx):
    for n in range(len(y)):
        for k in range(y.shape[1]):
            dx[n, k] = y[n, k] * scale
        dx[n, t[n]] -= scale


def descend(p: Array, direction: Array, lr: float, scratch: Array) -> Any:
    if p.dtype != direction.dtype or p.dtype.kind != "f" or not _are_compact(p, direction):
        return NotImplemented
    return _descend(p.reshape(-1), direction.reshape(-1), p.dtype.type(lr))


@compiled
def _descend(p, direction, lr):
    for i in range(len(p)):
        p[i] -= lr * direction[i]


def add_windows(seen: Array, out: Array, windows: Windows, rows: range) -> Any:
    if seen.dtype != out.dtype or not seen.flags.c_contiguous:
        return NotImplemented
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
    if x.dtype.kind != "f" or not _are_compact(x, y, index):
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
    if dout.dtype != dx.dtype or not _are_compact(dout, index, dx):
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
    """Return at which place, counted from the first, a window's pixel is this pixel of the image; -1 if at none."""
    offset = pixel + pad - inside * dilation
    place = offset // stride - first
    return place if offset % stride == 0 and 0 <= place < places else -1


@compiled
def take_steps(first, end, turns, layers, x, white, indices, labels, params, grads, scratch, masks, rates, losses):
    """Take a thread's part in training steps of affine layers with ReLUs between them, and a softmax at their end.

    Two threads call this at once, each for its half of the samples and, in the update, of the parameters; or one for
    both. What they compute from stays in a core's own cache, where products that are shared out one by one fetch it
    from the other's, again and again. They meet when both have their gradient, and when the parameters are changed.

    Parameters
    ----------
    first, end : int
        Of which halves, 0 and 1, this is the call; the thread is the first's.
    turns : (2, LINE) int64
        How often either thread came to a meeting; a thread that is not there is `meeting.GONE`.
    layers : (L, 4) int64
        Inputs, outputs, and where W and b begin in the vector of parameters.
    x, white : (N, D), number
        Samples, and what they are divided by.
    indices, labels : (S, B) int64
        Of the minibatches, and their class ids.
    params, grads : (P,), and two of them
        The vector of parameters, and of the gradient of either half; the first is the whole's in the end.
    scratch, masks : (2, B * units)
        Room for what the layers give, and for where ReLUs are on.
    rates : (S,)
        Learning rates of gradient descent; if empty, the parameters are left as they are.
    losses : (2, S) float64
        Set to the sum of either half's losses.
    """
    size, middle = indices.shape[1], len(params) // 2
    for step in range(len(indices)):
        if not len(rates):  # another rule changes the parameters between the steps
            meet(turns, first)
        for half in range(first, end):
            samples = slice(half * (size // 2), size if half else size // 2)
            losses[half, step] = _gradient(
                layers, x, white, indices[step, samples], labels[step, samples], params, grads[half],
                scratch[half], masks[half], size,
            )  # fmt: skip
        meet(turns, first)
        for half in range(first, end):
            part = slice(half * middle, len(params) if half else middle)
            total, other = grads[0][part], grads[1][part]
            if len(rates):
                _descend_by_sum(params[part], total, other, rates[step])
            else:
                _add(total, other)
        meet(turns, first)


@compiled
def _gradient(layers, x, white, index, labels, params, grads, scratch, masks, size):
    """Set the gradient of the sum of some samples' losses divided by `size`, and return that sum."""
    n, last, end = len(index), len(layers) - 1, len(index) * layers[0, 0]
    y = scratch[:end].reshape(n, layers[0, 0])
    gather_rows(x, index, white, y)
    for number, (inputs, outputs, W, b) in enumerate(layers):
        given, start, end = y, end, end + n * outputs
        y = scratch[start:end].reshape(n, outputs)
        np.dot(given, params[W : W + inputs * outputs].reshape(inputs, outputs), y)
        _add_to_rows(y, params[b : b + outputs])
        if number < last:
            _relu_in_place(scratch[start:end], masks[start:end])
    loss = _softmax_cross_entropy(y, labels, y) * n
    _softmax_cross_entropy_gradient(y, labels, y.dtype.type(1 / size), y)
    for number in range(last, -1, -1):
        inputs, outputs, W, b = layers[number]
        start, end = start - n * inputs, start
        given = scratch[start:end].reshape(n, inputs)
        _sum_rows(y, grads[b : b + outputs])
        np.dot(given.T, y, grads[W : W + inputs * outputs].reshape(inputs, outputs))
        if number:
            np.dot(y, params[W : W + inputs * outputs].reshape(inputs, outputs).T, given)
            _relu_gradient_in_place(scratch[start:end], masks[start:end])
            y = given
    return loss


@compiled
def _descend_by_sum(p, g, other, lr):
    for i in range(len(p)):
        p[i] -= lr * (g[i] + other[i])


@compiled
def _add(total, other):
    for i in range(len(total)):
        total[i] += other[i]


def _are_compact(*arrays: Array) -> bool:
    """Whether all are in C order: what the kernels are compiled for, and can be seen as rows."""
    return all([array.flags.c_contiguous for array in arrays])  # noqa: C419 - a list is faster than a generator


def _are_one(x: Array, out: Array) -> bool:
    """Whether both lie at the same place."""
    return x is out or x.__array_interface__["data"] == out.__array_interface__["data"]

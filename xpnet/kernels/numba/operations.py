"""Operations on rows and vectors by the loops of ``rows.py``, for the arrays that these take."""

from typing import Any

import numpy as np

from xpnet import functions
from xpnet.kernels.memory import in_memory_order
from xpnet.kernels.numba import rows, sequences
from xpnet.kernels.numba.compiling import are_compact, are_one
from xpnet.typing import Array


def gather(x: Array, index: Array, out: Array) -> Any:
    if x.dtype != "uint8" or out.dtype.kind != "f" or x.ndim < 2 or not out.size or not are_compact(x, index, out):
        return NotImplemented
    flat = x.reshape(len(x), -1)
    rows.gather_blocks(flat, index, out.dtype.type(255), flat.shape[1], out.reshape(-1))
    return out


def relu(x: Array, mask: Array | None = None, out: Array | None = None) -> Any:
    mask = np.empty_like(x, dtype=bool) if mask is None else mask
    out = np.empty_like(x) if out is None else out
    vectors = in_memory_order(x, mask, out)
    if x.dtype.kind != "f" or vectors is None:
        return NotImplemented
    if are_one(x, out):
        rows.relu_in_place(*vectors[:2])
    else:
        rows.relu(*vectors)
    return out, mask


def relu_gradient(dout: Array, mask: Array, out: Array | None = None) -> Any:
    out = np.empty_like(dout) if out is None else out
    vectors = in_memory_order(dout, mask, out)
    if vectors is None:
        return NotImplemented
    if are_one(dout, out):
        rows.relu_gradient_in_place(*vectors[:2])
    else:
        rows.relu_gradient(*vectors)
    return out


def matmul(a: Array, b: Array, out: Array | None = None, bias: Array | None = None, sums: Array | None = None) -> Any:
    if bias is not None and out is not None and bias.shape == out.shape[1:] and are_compact(out, bias):
        rows.add_to_rows(np.matmul(a, b, out), bias)
        return out
    if sums is not None and sums.shape == b.shape[1:] and are_compact(b, sums):
        rows.sum_rows(b, sums)
        return np.matmul(a, b, out)
    return NotImplemented


def softmax_cross_entropy(x: Array, t: Array, out: Array | None = None) -> Any:
    out = np.empty_like(x) if out is None else out
    if x.dtype.kind != "f" or not _are_scores_with_ids(x, t) or not x.size or not are_compact(x, t, out):
        return NotImplemented
    functions.check_labels(t, x.shape)
    loss = sequences.softmax_cross_entropy(_rows(x), t.reshape(-1), _rows(out))
    return x.dtype.type(loss), out


def softmax_cross_entropy_gradient(y: Array, t: Array, scale: Array | float, out: Array | None = None) -> Any:
    out = np.empty_like(y) if out is None else out
    if not _are_scores_with_ids(y, t) or not y.size or not isinstance(scale, float) or not are_compact(y, t, out):
        return NotImplemented
    rows.softmax_cross_entropy_gradient(_rows(y), t.reshape(-1), y.dtype.type(scale), _rows(out))
    return out


def _are_scores_with_ids(x: Array, t: Array) -> bool:
    return bool(x.ndim > 1 and t.shape == x.shape[:-1])


def _rows(x: Array) -> Array:
    return x.reshape(-1, x.shape[-1])


def add_at(total: Array, index: Array, x: Array) -> Any:
    if x.dtype.kind != "f" or not x.size or not are_compact(total, index):
        return NotImplemented
    rows.add_at(total, index.reshape(-1), _rows(x))
    return total


def sgd_update(p: Array, direction: Array, lr: float, scratch: Array) -> Any:
    return _update(rows.sgd_update, p, (direction,), lr)


def momentum_update(p: Array, g: Array, v: Array, lr: float, kept: float, nesterov: bool, scratch: Array) -> Any:
    return _update(rows.momentum_update, p, (g, v), lr, kept, nesterov)


def adam_update(
    p: Array, g: Array, m: Array, v: Array, lr: float, eps: float, betas: tuple[float, float], scratch: Array
) -> Any:
    return _update(rows.adam_update, p, (g, m, v), lr, eps, *betas)


def _update(loop: Any, p: Array, others: tuple[Array, ...], *numbers: float) -> Any:
    if p.dtype.kind != "f" or any(x.dtype != p.dtype for x in others) or not are_compact(p, *others):
        return NotImplemented
    return loop(p.reshape(-1), *(x.reshape(-1) for x in others), *numbers)

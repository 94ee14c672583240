"""Loops over the positions of sequences: Gelu, normalization of rows, softmax with cross entropy.

Exponentials are left to NumPy, which computes several at a time; Numba alone does not.
"""

import functools
from typing import Any

import numpy as np

from xpnet.kernels.gelu import DENOMINATOR, DENSITY, GELU_LIMIT, NUMERATOR
from xpnet.kernels.memory import in_memory_order
from xpnet.kernels.numba.compiling import are_compact, compiled
from xpnet.typing import Array

__all__ = ["gelu", "normalize_features", "normalize_features_gradient", "softmax_cross_entropy"]

RUN = 2**14
"""Elements at a time: a run stays in the cache between NumPy's exponentials and the loops."""

compiled_sums = functools.partial(compiled, fastmath={"reassoc", "nsz"})
"""Decorator of loops with sums, in any order: the compiler then adds several numbers at a time."""


def gelu(x: Array, y: Array | None = None, slope: Array | None = None) -> Any:
    y, slope = (np.empty_like(x) if array is None else array for array in (y, slope))
    vectors = in_memory_order(x, y, slope)
    if x.dtype != "float32" or vectors is None:
        return NotImplemented
    for start in range(0, x.size, RUN):
        part, its_y, its_slope = (vector[start : start + RUN] for vector in vectors)
        _exponents(part, its_slope)
        np.exp(its_slope, out=its_slope)
        _gelu(part, its_y, its_slope)
    return y, slope


@compiled
def _exponents(x, out):
    limit, half = x.dtype.type(GELU_LIMIT), x.dtype.type(-0.5)
    for i in range(len(x)):
        size = min(abs(x[i]), limit)
        out[i] = size * size * half


@compiled
def _gelu(x, y, slope):
    """Set y and the slope of Gelu. `slope` has exp(-x^2 / 2)."""
    real = x.dtype.type
    limit, zero, one, density = real(GELU_LIMIT), real(0), real(1), real(DENSITY)
    p0, p1, p2, p3, p4 = NUMERATOR
    q0, q1, q2, q3, q4, q5 = DENOMINATOR
    for i in range(len(x)):
        size = min(abs(x[i]), limit)
        p = (((real(p0) * size + real(p1)) * size + real(p2)) * size + real(p3)) * size + real(p4)
        q = ((((real(q0) * size + real(q1)) * size + real(q2)) * size + real(q3)) * size + real(q4)) * size + real(q5)
        below = slope[i] * (p / q)
        gate = below if x[i] < zero else one - below
        clipped = -size if x[i] < zero else size
        y[i] = (clipped if x[i] < zero else x[i]) * gate
        slope[i] = gate + clipped * slope[i] * density


def normalize_features(
    x: Array, gamma: Array, beta: Array, eps: float, y: Array | None = None, xn: Array | None = None
) -> Any:
    y, xn = (np.empty_like(x) if array is None else array for array in (y, xn))
    if not x.size or x.dtype.kind != "f" or x.dtype == "float16" or not are_compact(x, gamma, beta, y, xn):
        return NotImplemented
    inverse = np.empty((len(x), 1), x.dtype)
    _normalize_features(x, gamma, beta, eps, y, xn, inverse)
    return y, xn, inverse


@compiled_sums
def _normalize_features(x, gamma, beta, eps, y, xn, inverse):
    real = x.dtype.type
    share = real(1 / x.shape[1])
    for n in range(len(x)):
        total = real(0)
        for i in range(x.shape[1]):
            total += x[n, i]
        mean, squares = total * share, real(0)
        for i in range(x.shape[1]):
            centered = x[n, i] - mean
            xn[n, i] = centered
            squares += centered * centered
        scale = real(1) / np.sqrt(squares * share + real(eps))
        inverse[n, 0] = scale
        for i in range(x.shape[1]):
            xn[n, i] *= scale
            y[n, i] = xn[n, i] * gamma[i] + beta[i]


def normalize_features_gradient(dout: Array, xn: Array, inverse: Array, gamma: Array, dx: Array | None = None) -> Any:
    dx = np.empty_like(dout) if dx is None else dx
    if not dout.size or dout.dtype != xn.dtype or not are_compact(dout, xn, inverse, gamma, dx):
        return NotImplemented
    dgamma, dbeta = np.zeros_like(gamma), np.zeros_like(gamma)
    _normalize_features_gradient(dout, xn, inverse, gamma, dx, dgamma, dbeta)
    return dx, dgamma, dbeta


@compiled_sums
def _normalize_features_gradient(dout, xn, inverse, gamma, dx, dgamma, dbeta):
    real = dout.dtype.type
    share = real(1 / dout.shape[1])
    for n in range(len(dout)):
        mean, slope = real(0), real(0)
        for i in range(dout.shape[1]):
            g = dout[n, i] * gamma[i]
            mean += g
            slope += g * xn[n, i]
        mean, slope, scale = mean * share, slope * share, inverse[n, 0]
        for i in range(dout.shape[1]):
            d, normal = dout[n, i], xn[n, i]
            dgamma[i] += d * normal
            dbeta[i] += d
            dx[n, i] = (d * gamma[i] - mean - normal * slope) * scale


def softmax_cross_entropy(x: Array, t: Array, y: Array) -> float:
    """Set `y` to the softmax of scores x (N, C), and return the mean cross entropy with class ids t (N,)."""
    at_a_time = max(RUN // x.shape[1], 1)
    loss, right = 0.0, np.empty(at_a_time, x.dtype)
    for start in range(0, len(x), at_a_time):
        rows = slice(start, start + at_a_time)
        part = y[rows]
        _subtract_largest(x[rows], t[rows], part, right)
        np.exp(part, out=part)
        loss += _cross_entropy(part, right)
    return loss / len(x)


@compiled_sums
def _subtract_largest(x, t, y, right):
    """Set y to scores minus their largest, and `right` to those of the labels. `y` may be `x`."""
    for n in range(len(x)):
        largest = x[n, 0]
        for k in range(x.shape[1]):
            largest = largest if x[n, k] < largest else x[n, k]
        for k in range(x.shape[1]):
            y[n, k] = x[n, k] - largest
        right[n] = y[n, t[n]]


@compiled_sums
def _cross_entropy(y, right):
    """Divide exponentials by their sum, and return the sum of the losses."""
    loss = 0.0
    for n in range(len(y)):
        total = y.dtype.type(0)
        for k in range(y.shape[1]):
            total += y[n, k]
        for k in range(y.shape[1]):
            y[n, k] /= total
        loss += np.log(total) - right[n]
    return loss

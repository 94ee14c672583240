"""Normalization of each feature over a batch, (N, D) or (N, C, H, W), and of rows over their features."""

import math

from xpnet.device import get_array_module
from xpnet.kernels.operations import kernel
from xpnet.typing import Array

__all__ = ["as_row", "normalize_batch", "normalize_batch_gradient", "normalize_features", "normalize_features_gradient"]


@kernel
def normalize_batch(
    x: Array,
    gamma: Array,
    beta: Array,
    running: tuple[Array, Array] | None,
    momentum: float,
    eps: float,
) -> tuple[Array, Array, Array]:
    """Return y = gamma xn + beta, xn = (x - m) / sqrt(v + eps), and gamma / sqrt(v + eps), with m and v of the batch.

    The running averages of m and v, if given, are updated in place: r <- momentum r + (1 - momentum) m.
    """
    xp, axes = get_array_module(x), _axes(x)
    mean = x.mean(axis=axes, keepdims=True)
    centered = x - mean
    var = xp.square(centered).mean(axis=axes, keepdims=True)
    if running is not None:
        n = math.prod(x.shape[axis] for axis in axes)
        for average, new in zip(running, (mean, var * (n / max(n - 1, 1))), strict=True):
            average *= momentum
            average += (1.0 - momentum) * new.reshape(average.shape)
    inverse, row = 1.0 / xp.sqrt(var + eps), as_row(gamma, x)
    xn = centered * inverse
    return xn * row + as_row(beta, x), xn, row * inverse


@kernel
def normalize_batch_gradient(
    dout: Array, xn: Array, scale: Array, dgamma: Array | None = None, dbeta: Array | None = None
) -> tuple[Array, Array, Array]:
    """Return dx = scale (dout - mean(dout) - xn mean(dout xn)), dgamma = sum dout xn and dbeta = sum dout.

    A backend may write into `dgamma` and `dbeta`; the definition does not.
    """
    axes = _axes(dout)
    shift, gain = dout.sum(axis=axes, keepdims=True), (dout * xn).sum(axis=axes, keepdims=True)
    share = 1.0 / math.prod(dout.shape[axis] for axis in axes)
    return (dout - shift * share - xn * (gain * share)) * scale, gain.reshape(-1), shift.reshape(-1)


@kernel
def normalize_features(
    x: Array, gamma: Array, beta: Array, eps: float, y: Array | None = None, xn: Array | None = None
) -> tuple[Array, Array, Array]:
    """Return y = gamma xn + beta, xn = (x - m) / sqrt(v + eps), and 1 / sqrt(v + eps), with m and v of each row (R, D).

    y and xn are written into arrays of these names, if given.
    """
    xp = get_array_module(x)
    xn = xp.subtract(x, x.mean(axis=1, keepdims=True), out=xn)
    y = xp.multiply(xn, xn, out=y)
    inverse = 1.0 / xp.sqrt(y.mean(axis=1, keepdims=True) + eps)
    xn *= inverse
    xp.multiply(xn, gamma, out=y)
    y += beta
    return y, xn, inverse


@kernel
def normalize_features_gradient(
    dout: Array, xn: Array, inverse: Array, gamma: Array, dx: Array | None = None
) -> tuple[Array, Array, Array]:
    """Return dx = (g - mean(g) - xn mean(g xn)) / sqrt(v + eps) with g = gamma dout, sum dout xn, and sum dout.

    dx is written into an array of this name, if given.
    """
    xp = get_array_module(dout)
    products = dout * xn
    dgamma, dbeta = products.sum(axis=0), dout.sum(axis=0)
    dx = xp.multiply(dout, gamma, out=dx)
    mean, slope = dx.mean(axis=1, keepdims=True), xp.multiply(dx, xn, out=products).mean(axis=1, keepdims=True)
    dx -= mean
    dx -= xp.multiply(xn, slope, out=products)
    dx *= inverse
    return dx, dgamma, dbeta


def as_row(parameter: Array, x: Array) -> Array:
    """Return a parameter (D,) in a shape that is broadcast along the features of x."""
    return parameter.reshape(-1, *[1] * (x.ndim - 2))


def _axes(x: Array) -> tuple[int, ...]:
    return (0, *range(2, x.ndim))

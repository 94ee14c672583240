"""Batch normalisation of values (N, D), or of images (N, C, H, W), by feature: the second axis."""

import math

from xpnet.device import get_array_module
from xpnet.kernels.operations import kernel
from xpnet.typing import Array

__all__ = ["as_row", "normalize_batch", "normalize_batch_gradient"]


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
    centred = x - mean
    var = xp.square(centred).mean(axis=axes, keepdims=True)
    if running is not None:
        n = math.prod(x.shape[axis] for axis in axes)
        for average, new in zip(running, (mean, var * (n / max(n - 1, 1))), strict=True):
            average *= momentum
            average += (1.0 - momentum) * new.reshape(average.shape)
    inverse, row = 1.0 / xp.sqrt(var + eps), as_row(gamma, x)
    xn = centred * inverse
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


def as_row(parameter: Array, x: Array) -> Array:
    """Return a parameter (D,) in a shape that is broadcast along the features of x."""
    return parameter.reshape(-1, *[1] * (x.ndim - 2))


def _axes(x: Array) -> tuple[int, ...]:
    return (0, *range(2, x.ndim))

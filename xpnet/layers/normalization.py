"""Normalization of each feature over the batch (section 6.3), and of each sample over its features."""

import math
from collections.abc import Callable

from xpnet import functions, kernels
from xpnet.device import get_array_module
from xpnet.layers.base import Layer
from xpnet.settings import not_negative, number
from xpnet.typing import Array

__all__ = ["BatchNormalization", "LayerNorm"]


class BatchNormalization(Layer):
    """Batch normalization, y = gamma (x - m) / sqrt(v + eps) + beta (section 6.3; Ioffe and Szegedy, 2015).

    In training m and v are mean and variance of each feature over the batch. They update running averages, r <-
    momentum r + (1 - momentum) m. In prediction m and v are these averages.

    With xn = (x - m) / sqrt(v + eps), and means over the n values of a feature: dgamma = sum dout xn, dbeta = sum dout,
    dx = gamma / sqrt(v + eps) (dout - mean(dout) - xn mean(dout xn)). With the running averages, dx = gamma /
    sqrt(v + eps) dout.

    Parameters
    ----------
    gamma, beta : (D,)
        Scale and shift of each feature, learned.
    momentum : float in [0, 1], default 0.9
        Weight of the old value in the running averages: 1 minus PyTorch's ``momentum``.
    running_mean, running_var : (D,), optional
        Initial running averages; by default 0 and 1.
    eps : float, default 1e-5
        Added to v, to avoid division by 0. (The book's is 1e-6.)

    Notes
    -----
    ``forward`` takes x of shape (N, D), or images (N, C, H, W). With gamma of shape (C,), each channel of images is
    normalized over samples and pixels. With gamma of shape (C * H * W,), as in the book, each value is normalized over
    samples. As in PyTorch, v has n in the denominator, and its running average n - 1. Processes that share a batch add
    up its sums (`across`).
    """

    parameter_names = ("gamma", "beta")
    buffer_names = ("running_mean", "running_var")
    saved = ("xn", "scale", "over_batch", "x_shape", "count")
    across: Callable[[Array], object] | None = None
    """Replaces an array by its sum over the processes that share the batch (`xpnet.parallel.Communicator.sum`)."""

    def __init__(
        self,
        gamma: Array,
        beta: Array,
        momentum: float = 0.9,
        running_mean: Array | None = None,
        running_var: Array | None = None,
        *,
        eps: float = 1e-5,
    ) -> None:
        xp = get_array_module(gamma=gamma, beta=beta)
        if getattr(gamma, "ndim", None) != 1 or getattr(beta, "shape", None) != gamma.shape:
            got = [getattr(array, "shape", type(array).__name__) for array in (gamma, beta)]
            raise ValueError(f"BatchNormalization expected gamma and beta of one shape (D,), got {got[0]} and {got[1]}")
        self.gamma = gamma
        self.beta = beta
        self.momentum = number("momentum", momentum, lambda m: 0 <= m <= 1, "lie in [0, 1]")
        self.eps = not_negative("eps", eps)
        # Copies, since forward changes them in place.
        self.running_mean = xp.zeros_like(gamma) if running_mean is None else running_mean.copy()
        self.running_var = xp.zeros_like(gamma) + 1.0 if running_var is None else running_var.copy()
        for name, array in self.buffers().items():
            if array.shape != gamma.shape:
                raise ValueError(f"{name} must have gamma's shape {gamma.shape}, got {array.shape}")

    def forward(self, x: Array, train: bool = True) -> Array:
        xp = get_array_module(x=x, gamma=self.gamma)
        x = functions.as_floating(x)
        self.output_shape(x.shape[1:])
        values = self._by_feature(x)
        over_batch = train and values.size > 0
        count = None
        if over_batch and self.across is not None:
            y, xn, scale, count = self._normalize_across(self.across, values)
        elif over_batch:
            running = None if self.fixed_buffers else (self.running_mean, self.running_var)
            y, xn, scale = kernels.normalize_batch(values, self.gamma, self.beta, running, self.momentum, self.eps)
        else:
            mean, var, gamma, beta = (
                kernels.as_row(parameter, values)
                for parameter in (self.running_mean, self.running_var, self.gamma, self.beta)
            )
            inverse = 1.0 / xp.sqrt(var + self.eps)
            xn = (values - mean) * inverse
            y, scale = xn * gamma + beta, gamma * inverse
        self.xn, self.scale, self.over_batch, self.x_shape, self.count = xn, scale, over_batch, x.shape, count
        return y.reshape(x.shape)

    def backward(self, dout: Array) -> Array:
        get_array_module(dout=dout, xn=self.xn)
        self._expect_dout(dout, self.x_shape)
        values = self._by_feature(dout)
        if self.count is not None and self.across is not None:
            xp, axes = get_array_module(values), (0, *range(2, values.ndim))
            self.dgamma, self.dbeta = (values * self.xn).sum(axis=axes), values.sum(axis=axes)
            sums = xp.stack([self.dgamma, self.dbeta])
            self.across(sums)
            along, mean = (kernels.as_row(row, values) for row in sums / self.count)
            dx = kernels.as_row(self.scale, values) * (values - mean - self.xn * along)
        elif self.over_batch:
            arrays = self.out.get("dgamma"), self.out.get("dbeta")
            dx, self.dgamma, self.dbeta = kernels.normalize_batch_gradient(values, self.xn, self.scale, *arrays)
        else:
            axes = (0, *range(2, values.ndim))
            self.dgamma, self.dbeta = (values * self.xn).sum(axis=axes), values.sum(axis=axes)
            dx = values * self.scale
        return dx.reshape(dout.shape)

    def _normalize_across(self, across: Callable[[Array], object], values: Array) -> tuple[Array, ...]:
        """Normalize over a batch of which this process has a part: the number of values of a feature is the last."""
        xp, axes = get_array_module(values), (0, *range(2, values.ndim))
        features = len(self.gamma)
        sums = xp.full(features + 1, float(values.size // features), dtype=values.dtype)
        sums[:-1] = values.sum(axis=axes)
        across(sums)
        count, mean = sums[-1:], sums[:-1] / sums[-1:]
        centered = values - kernels.as_row(mean, values)
        squares = xp.square(centered).sum(axis=axes)
        across(squares)
        if not self.fixed_buffers:
            for running, new in (
                (self.running_mean, mean),
                (self.running_var, squares / xp.maximum(count - 1.0, 1.0)),
            ):
                running *= self.momentum
                running += (1.0 - self.momentum) * new
        inverse = 1.0 / xp.sqrt(squares / count + self.eps)
        xn = centered * kernels.as_row(inverse, values)
        y = xn * kernels.as_row(self.gamma, values) + kernels.as_row(self.beta, values)
        return y, xn, self.gamma * inverse, count

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        features = len(self.gamma)
        if not shape or (math.prod(shape) != features and (len(shape) != 3 or shape[0] != features)):
            got = ", ".join(["N", *map(str, shape)])
            raise ValueError(
                f"{self.name} expected x of shape (N, {features}), (N, {features}, H, W), or (N, ...) with {features} "
                f"values a sample, got ({got})"
            )
        return shape

    def _by_feature(self, x: Array) -> Array:
        """Return x as (N, D), or unchanged, (N, C, H, W), if channels are normalized."""
        per_channel = x.ndim == 4 and x.shape[1] == len(self.gamma)
        return x if per_channel else x.reshape(len(x), len(self.gamma))


class LayerNorm(Layer):
    """Layer normalization, y = gamma (x - m) / sqrt(v + eps) + beta (Ba, Kiros and Hinton, 2016).

    m and v are mean and variance of each sample over its features. With xn = (x - m) / sqrt(v + eps), g = gamma dout,
    and means over the features: dx = (g - mean(g) - xn mean(g xn)) / sqrt(v + eps). dgamma = sum dout xn and dbeta =
    sum dout, over all other axes.

    Parameters
    ----------
    gamma, beta : (..., D)
        Scale and shift, learned. Their axes are the last axes of x, the features.
    eps : float, default 1e-5
        Added to v, to avoid division by 0.
    """

    parameter_names = ("gamma", "beta")
    saved = ("xn", "inverse")
    samplewise = True

    def __init__(self, gamma: Array, beta: Array, eps: float = 1e-5) -> None:
        get_array_module(gamma=gamma, beta=beta)
        if getattr(gamma, "ndim", 0) < 1 or getattr(beta, "shape", None) != gamma.shape:
            got = [getattr(array, "shape", type(array).__name__) for array in (gamma, beta)]
            raise ValueError(f"LayerNorm expected gamma and beta of one shape (..., D), got {got[0]} and {got[1]}")
        self.gamma = gamma
        self.beta = beta
        self.eps = not_negative("eps", eps)

    def forward(self, x: Array, train: bool = True) -> Array:
        get_array_module(x=x, gamma=self.gamma)
        x = functions.as_floating(x)
        self.output_shape(x.shape[1:])
        y, xn = (None if array is None else self._rows(array) for array in map(self.out.get, ("y", "xn")))
        flat = self.gamma.reshape(-1), self.beta.reshape(-1)
        y, xn, inverse = kernels.normalize_features(self._rows(x), *flat, self.eps, y, xn)
        self.xn, self.inverse = xn.reshape(x.shape), inverse
        return y.reshape(x.shape)

    def backward(self, dout: Array) -> Array:
        get_array_module(dout=dout, xn=self.xn)
        self._expect_dout(dout, self.xn.shape)
        dx = self.out.get("dx")
        dx, dgamma, dbeta = kernels.normalize_features_gradient(
            self._rows(dout),
            self._rows(self.xn),
            self.inverse,
            self.gamma.reshape(-1),
            None if dx is None else self._rows(dx),
        )
        self.dgamma, self.dbeta = dgamma.reshape(self.gamma.shape), dbeta.reshape(self.gamma.shape)
        return dx.reshape(dout.shape)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if shape[max(len(shape) - self.gamma.ndim, 0) :] != self.gamma.shape:
            got = ", ".join(["N", *map(str, shape)])
            features = ", ".join(map(str, self.gamma.shape))
            raise ValueError(f"{self.name} expected x of shape (N, ..., {features}), got ({got})")
        return shape

    def _rows(self, x: Array) -> Array:
        """Return the samples' features as rows."""
        return x.reshape(math.prod(x.shape[: x.ndim - self.gamma.ndim]), self.gamma.size)

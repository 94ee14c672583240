"""Initial weights, drawn on the host, so that a seed gives the same network on every device."""

from __future__ import annotations

import importlib
import math
from typing import Any

import numpy as np

from xpnet.settings import as_dtype, fit_in_memory, generator, not_negative, sizes
from xpnet.typing import DTypeLike, Seed

__all__ = ["GAINS", "fans", "initial_weights", "normal", "orthogonal", "scale"]

GAINS: dict[str, float] = {"he": 2.0, "xavier": 1.0, "lecun": 1.0}
"""Variance of the weights times fan_in, by rule. Activations add their own (`xpnet.layers.registry.activation`)."""

DRAWN = np.dtype("float64")
"""Dtype in which weights are drawn, before they are rounded to that of the network."""


def initial_weights(
    shape: tuple[int, ...], std: float | str = 0.01, rng: Seed = None, dtype: DTypeLike = "float32"
) -> np.ndarray:
    """Draw weights on the host, for a network's ``weight_init_std=`` or a layer's ``std=``.

    The weights are drawn in float64 and then rounded, so a seed gives the same weights in every dtype, up to rounding.

    Parameters
    ----------
    shape : (fan_in, fan_out), or (F, C, kh, kw)
        Shape of an affine layer's weights, or of a convolution's filters.
    std : float or str, default 0.01
        Standard deviation of a normal distribution, a rule for it (`scale`), or ``"orthogonal"``.
    rng : numpy.random.Generator or int, optional
        Generator or seed.
    dtype : dtype, default "float32"
        Dtype of the result.

    Raises
    ------
    ValueError
        If `std` is an unknown rule, negative or not finite, or if the weights do not fit in the memory.
    """
    if isinstance(std, str) and std.lower() == "orthogonal":
        return orthogonal(shape, rng, dtype)
    return normal(shape, std, rng, dtype)


def normal(
    shape: tuple[int, ...], std: float | str = 0.01, rng: Seed = None, dtype: DTypeLike = "float32"
) -> np.ndarray:
    """Draw weights from the normal distribution with mean 0; see `initial_weights` for the arguments."""
    shape, rng, dtype = _checked(shape, rng, dtype)
    deviation = scale(std, shape)  # first: it may be wrong
    return (rng.standard_normal(shape) * deviation).astype(dtype)


def orthogonal(shape: tuple[int, ...], rng: Seed = None, dtype: DTypeLike = "float32") -> np.ndarray:
    """Draw an orthogonal matrix: its rows, or its columns if they are fewer, are orthonormal (Saxe et al., 2014).

    The distribution is uniform over these matrices: Q of the QR decomposition of a normal matrix, with signs that make
    R's diagonal positive. The filters (F, C, kh, kw) of a convolution are F rows of length C kh kw. See
    `initial_weights` for the arguments.
    """
    shape, rng, dtype = _checked(shape, rng, dtype)
    rows = shape[0] if shape else 1
    columns = math.prod(shape[1:])
    matrix = rng.standard_normal((max(rows, columns), min(rows, columns)))
    q, r = np.linalg.qr(matrix)
    q = q * np.where(np.diagonal(r) < 0, -1.0, 1.0)
    return (q if rows >= columns else q.T).reshape(shape).astype(dtype)


def scale(std: float | str, shape: tuple[int, ...]) -> float:
    """Return the standard deviation of weights of this shape (section 6.2).

    - ``"he"``: sqrt(2 / fan_in), which keeps the variance behind units that pass about half of their input (He et al.,
      2015).
    - ``"xavier"``, ``"lecun"``: sqrt(1 / fan_in), for units nearly linear at 0 (LeCun et al., 1998; the book's form of
      Xavier's).
    - The name of an activation, such as ``"relu"`` or ``"tanh"``: sqrt(gain / fan_in), with the gain that its class
      declares (`xpnet.layers.registry.activation`).
    - ``"glorot"``: sqrt(2 / (fan_in + fan_out)), a compromise between the values' variance and the gradients' (Glorot
      and Bengio, 2010; PyTorch's ``xavier_normal_``).

    A number stands for itself. ``fan_in`` and ``fan_out`` are those of `fans`.

    Raises
    ------
    ValueError
        If `std` is an unknown rule, negative or not finite.
    """
    if isinstance(std, str):
        name = std.lower()
        fan_in, fan_out = fans(shape)
        if name == "glorot":
            return math.sqrt(2.0 / max(fan_in + fan_out, 1))
        if name not in GAINS:
            importlib.import_module("xpnet.layers")  # activations declare their gains there
        if name not in GAINS:
            raise ValueError(
                "std must be a number, 'he' ('relu'), 'xavier' ('sigmoid'), 'lecun', 'glorot', 'orthogonal' or the "
                f"name of an activation, got {std!r}"
            )
        return math.sqrt(GAINS[name] / max(fan_in, 1))
    return not_negative("std", std)


def _checked(
    shape: tuple[int, ...], rng: Seed, dtype: DTypeLike
) -> tuple[tuple[int, ...], np.random.Generator, np.dtype[Any]]:
    floating = as_dtype("dtype", dtype)
    if floating.kind != "f":
        raise TypeError(f"dtype must be one of floats, got {floating}")
    shape = sizes("shape", shape)
    fit_in_memory("shape of the weights", shape, math.prod(shape) * DRAWN.itemsize, "lower the sizes of the layer")
    return shape, generator("rng", rng), floating


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return fan_in, the number of inputs of a unit, and fan_out, the number of units that an input reaches.

    Weights (D, M) give D and M. Filters (F, C, kh, kw) give C kh kw, the size of a filter, and F kh kw. In a grouped
    convolution, C is the number of channels per filter.
    """
    shape = sizes("shape", shape)
    if len(shape) <= 2:
        return shape[0] if shape else 1, math.prod(shape[1:])
    kernel = math.prod(shape[2:])
    return shape[1] * kernel, shape[0] * kernel

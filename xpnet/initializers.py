"""Initial weights, drawn on the host, so that a seed gives the same network on every device."""

from __future__ import annotations

import importlib
import math

import numpy as np

from xpnet.typing import DTypeLike, Seed

__all__ = ["GAINS", "fans", "initial_weights", "normal", "orthogonal", "scale"]

GAINS: dict[str, float] = {"he": 2.0, "xavier": 1.0, "lecun": 1.0}
"""The variance of the weights, times fan_in, by the name of the rule; those of activations are added by them."""


def initial_weights(
    shape: tuple[int, ...], std: float | str = 0.01, rng: Seed = None, dtype: DTypeLike = "float32"
) -> np.ndarray:
    """Draw weights as a network's ``weight_init_std=`` or a layer's ``std=`` says, on the host.

    Drawn in float64 and then rounded, so that a seed gives the same weights at every precision up to rounding.

    Parameters
    ----------
    shape : (fan_in, fan_out), or (F, C, kh, kw)
        Of the result: weights of an affine layer, or a convolution's filters.
    std : float or str, default 0.01
        Standard deviation of a normal distribution, or the rule for it, see `scale`; or ``"orthogonal"``.
    rng : numpy.random.Generator or int, optional
        Generator or seed.
    dtype : dtype, default "float32"
        Of the result.

    Raises
    ------
    ValueError
        If there is no such rule, or `std` is negative or not finite.
    """
    if isinstance(std, str) and std.lower() == "orthogonal":
        return orthogonal(shape, rng, dtype)
    return normal(shape, std, rng, dtype)


def normal(
    shape: tuple[int, ...], std: float | str = 0.01, rng: Seed = None, dtype: DTypeLike = "float32"
) -> np.ndarray:
    """Draw weights from the normal distribution with mean 0; see `initial_weights` for the arguments."""
    weights = np.random.default_rng(rng).standard_normal(shape)
    return (weights * scale(std, shape)).astype(dtype)


def orthogonal(shape: tuple[int, ...], rng: Seed = None, dtype: DTypeLike = "float32") -> np.ndarray:
    """Draw an orthogonal matrix: its rows, or its columns if they are fewer, are orthonormal (Saxe et al., 2014).

    Uniformly among all such matrices: Q of the QR decomposition of a normal matrix, with the signs that make R's
    diagonal positive. The filters (F, C, kh, kw) of a convolution are F rows of length C kh kw. See `initial_weights`
    for the arguments.
    """
    rows = shape[0] if shape else 1
    columns = math.prod(shape[1:])
    matrix = np.random.default_rng(rng).standard_normal((max(rows, columns), min(rows, columns)))
    q, r = np.linalg.qr(matrix)
    q = q * np.where(np.diagonal(r) < 0, -1.0, 1.0)
    return (q if rows >= columns else q.T).reshape(shape).astype(dtype)


def scale(std: float | str, shape: tuple[int, ...]) -> float:
    """Return the standard deviation that `std` asks for, of weights of this shape (section 6.2).

    - ``"he"``: sqrt(2 / fan_in), which keeps the variance through units that let about half of their input through (He
      et al., 2015).
    - ``"xavier"``, ``"lecun"``: sqrt(1 / fan_in), for units about linear at 0 (LeCun et al., 1998; the book's form of
      Xavier's).
    - The name of an activation, such as ``"relu"`` or ``"tanh"``: one of the two, as its class declares
      (`xpnet.layers.registry.activation`).
    - ``"glorot"``: sqrt(2 / (fan_in + fan_out)), a compromise between the values' variance and the gradients' (Glorot
      and Bengio, 2010; what PyTorch calls ``xavier_normal_``).

    A number stands for itself. ``fan_in`` and ``fan_out`` are those of `fans`.

    Raises
    ------
    ValueError
        If `std` is another string, negative or not finite.
    """
    if isinstance(std, str):
        name = std.lower()
        fan_in, fan_out = fans(shape)
        if name == "glorot":
            return math.sqrt(2.0 / max(fan_in + fan_out, 1))
        if name not in GAINS:
            importlib.import_module("xpnet.layers")  # where activations declare theirs
        if name not in GAINS:
            raise ValueError(
                "std must be a number, 'he' ('relu'), 'xavier' ('sigmoid'), 'lecun', 'glorot', 'orthogonal' or the "
                f"name of an activation, got {std!r}"
            )
        return math.sqrt(GAINS[name] / max(fan_in, 1))
    if not (math.isfinite(std) and std >= 0):
        raise ValueError(f"std must be finite and not negative, got {std}")
    return float(std)


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return how many inputs a unit has, and how many units an input reaches.

    For weights (D, M) these are D and M. For filters (F, C, kh, kw) they are C kh kw, the size of a filter, and
    F kh kw; where a convolution works in groups, C is the number of channels that one filter sees.
    """
    if len(shape) <= 2:
        return shape[0] if shape else 1, math.prod(shape[1:])
    kernel = math.prod(shape[2:])
    return shape[1] * kernel, shape[0] * kernel

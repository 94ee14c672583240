"""Initial weights, drawn on the host, so that a seed gives the same network on every device."""

from __future__ import annotations

import math

import numpy as np

from xpnet.typing import DTypeLike, Seed

__all__ = ["normal", "scale"]


def normal(
    shape: tuple[int, ...], std: float | str = 0.01, rng: Seed = None, dtype: DTypeLike = "float32"
) -> np.ndarray:
    """Draw weights from the normal distribution with mean 0, on the host.

    Drawn in float64 and then rounded, so that a seed gives the same weights at every precision up to rounding.

    Parameters
    ----------
    shape : (fan_in, fan_out)
        Of the result.
    std : float or {"he", "relu", "xavier", "sigmoid"}, default 0.01
        Standard deviation, or the rule for it, see `scale`.
    rng : numpy.random.Generator or int, optional
        Generator or seed.
    dtype : dtype, default "float32"
        Of the result.
    """
    weights = np.random.default_rng(rng).standard_normal(shape)
    return (weights * scale(std, fan_in=shape[0])).astype(dtype)


def scale(std: float | str, fan_in: int) -> float:
    """Return the standard deviation that `std` asks for (section 6.2).

    ``"he"`` or ``"relu"``: sqrt(2 / fan_in), which keeps the variance through ReLU layers (He et al., 2015).
    ``"xavier"`` or ``"sigmoid"``: sqrt(1 / fan_in), for units about linear at 0 (Glorot and Bengio, 2010, in the
    form the book uses). A number stands for itself.

    Raises
    ------
    ValueError
        If `std` is another string, negative or not finite.
    """
    if isinstance(std, str):
        gain = {"he": 2.0, "relu": 2.0, "xavier": 1.0, "sigmoid": 1.0}.get(std.lower())
        if gain is None:
            raise ValueError(f"std must be a number, 'he' ('relu') or 'xavier' ('sigmoid'), got {std!r}")
        return math.sqrt(gain / max(fan_in, 1))
    if not (math.isfinite(std) and std >= 0):
        raise ValueError(f"std must be finite and not negative, got {std}")
    return float(std)

"""The error function, which NumPy does not have."""

import numpy as np

from xpnet.device import as_array, get_array_module, is_on_host
from xpnet.typing import Array

__all__ = ["erf", "polynomial"]

# Numerators and denominators of Cody's approximations, from the highest power down.
_ERF = (
    (1.85777706184603153e-1, 3.16112374387056560, 1.13864154151050156e2, 3.77485237685302021e2, 3.20937758913846947e3),
    (1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3, 2.84423683343917062e3),
)
ERF_RUN = 2**14
"""Elements that `erf` computes at a time on the host: its dozen temporaries then stay in the cache."""

_ERFC = (
    (
        *(2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594, 6.61191906371416295e1),
        *(2.98635138197400131e2, 8.81952221241769090e2, 1.71204761263407058e3, 2.05107837782607147e3),
        1.23033935479799725e3,
    ),
    (
        *(1.0, 1.57449261107098347e1, 1.17693950891312499e2, 5.37181101862009858e2, 1.62138957456669019e3),
        *(3.29079923573345963e3, 4.36261909014324716e3, 3.43936767414372164e3, 1.23033935480374942e3),
    ),
)


def erf(x: Array) -> Array:
    """Error function, 2 / sqrt(pi) times the integral of exp(-s^2) from 0 to x, of the shape of `x`.

    Accurate to two units in the last place in float64 and float32. float16 is computed in float32.

    Notes
    -----
    NumPy has no erf. The rational approximations are from W. J. Cody, "Rational Chebyshev approximations for the error
    function", Mathematics of Computation 23 (1969): erf(z) / z in z^2 for z <= 0.46875, and exp(z^2) erfc(z) in z for
    larger z. Cody uses the latter up to 4. Beyond 4, erfc(z) < 2e-8, so it is still accurate enough for 1 - erfc(z).
    From z = 6 on the result is 1.
    """
    x = as_array("x", x)
    x = x if x.dtype.kind == "f" else x.astype("float64")
    single = x.astype(np.result_type(x.dtype, "float32"), copy=False)
    if not is_on_host(single) or single.size <= ERF_RUN:
        return _erf(single).astype(x.dtype, copy=False)
    y, flat = np.empty(single.shape, x.dtype), single.reshape(-1)
    for start in range(0, single.size, ERF_RUN):
        y.reshape(-1)[start : start + ERF_RUN] = _erf(flat[start : start + ERF_RUN])
    return y


def _erf(single: Array) -> Array:
    xp = get_array_module(single)
    z = xp.minimum(abs(single), 6.0)
    squared = z * z
    near = single * (polynomial(_ERF[0], squared) / polynomial(_ERF[1], squared))
    far = 1.0 - xp.exp(-squared) * (polynomial(_ERFC[0], z) / polynomial(_ERFC[1], z))
    return xp.where(z <= 0.46875, near, xp.copysign(far, single))


def polynomial(coefficients: tuple[float, ...], x: Array) -> Array:
    """Evaluate a polynomial by Horner's rule, from the coefficient of the highest power down."""
    y = coefficients[0] * x
    for c in coefficients[1:-1]:
        y += c
        y *= x
    y += coefficients[-1]
    return y

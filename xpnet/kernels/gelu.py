"""Gelu and its derivative in one pass, with one exponential for both."""

import math

from xpnet.device import get_array_module, is_on_host
from xpnet.error_function import erf, polynomial
from xpnet.kernels.memory import in_memory_order
from xpnet.kernels.operations import kernel
from xpnet.typing import Array

__all__ = ["DENOMINATOR", "DENSITY", "GELU_LIMIT", "NUMERATOR", "gelu"]

GELU_LIMIT = 40.0
"""For larger abs(x), the gate is 0 or 1 to the last bit of a float64. Infinity times 0 would be NaN."""

DENSITY = 1 / math.sqrt(2 * math.pi)
"""Density of the normal distribution at 0."""

NUMERATOR = (0.00402015343, 0.0399839395, 0.181306092, 0.435685455, 0.5)
DENOMINATOR = (0.010076887, 0.100232255, 0.464378566, 1.1944815, 1.66925583, 1.0)
"""exp(x^2 / 2) times the distribution function at -x, x >= 0, as a quotient of polynomials, highest power first.

For float32: a weighted least-squares fit on [0, 13.3], beyond which the function is 0. Its relative error is 5e-9. So
small values keep their precision, and no value takes an error function.
"""

RUN = 2**14
"""Elements that are computed at a time on the host: the temporaries then stay in the cache."""


@kernel
def gelu(x: Array, y: Array | None = None, slope: Array | None = None) -> tuple[Array, Array]:
    """Return y = x g, with g the normal distribution function, and its slope g + x g'; in `y` and `slope`, if given."""
    xp = get_array_module(x)
    y, slope = (xp.empty_like(x) if array is None else array for array in (y, slope))
    vectors = in_memory_order(x, y, slope) if is_on_host(x) else None
    if vectors is None:
        y[...], slope[...] = _gelu(x)
    else:
        for start in range(0, x.size, RUN):
            part, its_y, its_slope = (vector[start : start + RUN] for vector in vectors)
            its_y[...], its_slope[...] = _gelu(part)
    return y, slope


def _gelu(x: Array) -> tuple[Array, Array]:
    xp = get_array_module(x)
    size = xp.minimum(abs(x), GELU_LIMIT)
    density = size * size
    density *= -0.5
    xp.exp(density, out=density)
    if x.dtype == "float32":
        below = polynomial(NUMERATOR, size)
        below /= polynomial(DENOMINATOR, size)
        below *= density
    else:
        below = 0.5 * (1.0 - erf(size * math.sqrt(0.5)))
    density *= size
    density *= DENSITY
    # For x < 0 the slope is u = below - |x| g', for x > 0 it is 1 - u: without branches, which random signs slow down.
    u = xp.subtract(below, density, out=density)
    slope = (x > 0.0).astype(x.dtype)
    slope *= 1.0 - 2.0 * u
    slope += u
    below *= size
    return xp.maximum(x, 0.0) - below, slope

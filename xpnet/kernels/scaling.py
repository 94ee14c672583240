"""Loss scale of mixed precision, and the overflows that it adapts to."""

from xpnet.device import get_array_module
from xpnet.kernels.operations import kernel
from xpnet.typing import Array

__all__ = ["adapt_scale", "find_overflow"]


@kernel
def find_overflow(x: Array, overflowed: Array) -> None:
    """Set `overflowed`, of shape (), to True if a number of `x` is infinite or NaN. Else it is left as it is."""
    overflowed |= ~get_array_module(x).isfinite(x).all()


@kernel
def adapt_scale(
    scale: Array, overflowed: Array, good_steps: Array, interval: int, updates: Array | None = None
) -> None:
    """Halve a loss scale in place if the gradient has overflowed; double it after `interval` good steps in a row.

    `good_steps` counts these. Each number of `updates` is raised by 1 in a good step. `overflowed` is cleared.
    """
    xp = get_array_module(scale)
    good = xp.where(overflowed, 0, good_steps + 1)
    grows = good >= interval
    scale *= xp.where(overflowed, 0.5, xp.where(grows, 2.0, 1.0))
    good_steps[...] = xp.where(grows, 0, good)
    if updates is not None:
        updates += ~overflowed
    overflowed[...] = False

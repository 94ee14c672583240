"""Loss scale of mixed precision."""

from xpnet.device import get_array_module
from xpnet.kernels.operations import kernel
from xpnet.typing import Array

__all__ = ["adapt_scale"]


@kernel
def adapt_scale(scale: Array, finite: Array, good_steps: Array, interval: int, updates: Array | None = None) -> None:
    """Halve a loss scale in place unless the gradient was finite; double it after `interval` good steps in a row.

    `good_steps` counts these. Each number of `updates` is raised by 1 if the gradient was finite.
    """
    xp = get_array_module(scale)
    good = xp.where(finite, good_steps + 1, 0)
    grows = good >= interval
    scale *= xp.where(finite, xp.where(grows, 2.0, 1.0), 0.5)
    good_steps[...] = xp.where(grows, 0, good)
    if updates is not None:
        updates += finite

"""Names for the types that run through the package."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

Array: TypeAlias = Any
"""An array of either module: ``numpy.ndarray`` or ``cupy.ndarray``. CuPy has no type stubs, and a layer is written
against what the two share, so the checker is told no more than that."""

Seed: TypeAlias = "int | np.random.Generator | None"  # a string, since numpy.random is loaded when first touched
"""Anything that ``numpy.random.default_rng`` takes and xpnet passes on: a generator is used as it is."""

if TYPE_CHECKING:
    from numpy.typing import DTypeLike
else:
    DTypeLike = Any

__all__ = ["Array", "DTypeLike", "Seed"]

"""Type aliases."""

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

Array: TypeAlias = Any
"""``numpy.ndarray`` or ``cupy.ndarray``. CuPy has no type stubs, and NumPy and CuPy share no type, hence Any."""

Seed: TypeAlias = "int | np.random.Generator | None"  # a string, since numpy.random is loaded when first touched
"""Seed for ``numpy.random.default_rng``, which returns a generator unchanged."""

if TYPE_CHECKING:
    from numpy.typing import DTypeLike
else:
    DTypeLike = Any

__all__ = ["Array", "DTypeLike", "Seed"]

"""Type aliases, and the names of networks and samplers, which the command line has before it imports them."""

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

Array: TypeAlias = Any
"""``numpy.ndarray`` or ``cupy.ndarray``. CuPy has no type stubs, and NumPy and CuPy share no type, hence Any."""

Seed: TypeAlias = "int | np.random.Generator | None"  # a string, since numpy.random is loaded when first touched
"""Seed for ``numpy.random.default_rng``, which returns a generator unchanged."""

NetName: TypeAlias = Literal["two-layer", "mlp", "simple-convnet", "deep-convnet", "lenet5", "char-lstm", "gpt"]
"""Names of networks with a default training (`xpnet.training.recipes`)."""

Sampling: TypeAlias = Literal["random", "shuffled", "in-order"]
"""Names of samplers (`xpnet.training.sampling`)."""

if TYPE_CHECKING:
    from numpy.typing import DTypeLike
else:
    DTypeLike = Any

__all__ = ["Array", "DTypeLike", "NetName", "Sampling", "Seed"]

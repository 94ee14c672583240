"""Kernels compiled for the CPU by Numba: one pass over the data where NumPy makes several, and no temporaries.

What each computes is said at its definition, in `xpnet.kernels`. They are compiled when first called, for each dtype,
and kept for the next process where a cache can be written. Without fast-math the compiler may neither reorder nor
contract: all but exponentials, and the sum of the losses, have NumPy's bits.
"""

from xpnet.kernels.numba.images import add_windows, max_pool, max_pool_gradient
from xpnet.kernels.numba.rows import (
    adam_update,
    gather,
    matmul,
    momentum_update,
    relu,
    relu_gradient,
    sgd_update,
    softmax_cross_entropy,
    softmax_cross_entropy_gradient,
)

__all__ = [
    "adam_update",
    "add_windows",
    "gather",
    "matmul",
    "max_pool",
    "max_pool_gradient",
    "momentum_update",
    "relu",
    "relu_gradient",
    "sgd_update",
    "softmax_cross_entropy",
    "softmax_cross_entropy_gradient",
]

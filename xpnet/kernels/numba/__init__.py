"""Kernels compiled for the CPU by Numba, with one pass over the data and no temporaries.

The definitions in `xpnet.kernels` document each operation. Numba compiles a kernel at its first call for each dtype,
and caches it on disk if it can. Without fast-math the compiler neither reorders operations nor fuses them. So all
results but exponentials and the sum of the losses have NumPy's bits.
"""

from xpnet.kernels.numba.gates import gru_step, gru_step_gradient, lstm_step, lstm_step_gradient
from xpnet.kernels.numba.images import add_windows, max_pool, max_pool_gradient
from xpnet.kernels.numba.operations import (
    adam_update,
    add_at,
    gather,
    matmul,
    momentum_update,
    relu,
    relu_gradient,
    sgd_update,
    softmax_cross_entropy,
    softmax_cross_entropy_gradient,
)
from xpnet.kernels.numba.sequences import gelu, normalize_features, normalize_features_gradient

__all__ = [
    "adam_update",
    "add_at",
    "add_windows",
    "gather",
    "gelu",
    "gru_step",
    "gru_step_gradient",
    "lstm_step",
    "lstm_step_gradient",
    "matmul",
    "max_pool",
    "max_pool_gradient",
    "momentum_update",
    "normalize_features",
    "normalize_features_gradient",
    "relu",
    "relu_gradient",
    "sgd_update",
    "softmax_cross_entropy",
    "softmax_cross_entropy_gradient",
]

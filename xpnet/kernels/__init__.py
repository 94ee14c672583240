"""The few operations that one `xp` expression does not do fast, each under one name.

An operation's definition is written in `xp` (`operations` and, of images, `images`): it runs everywhere, and a
backend's faster version is tested against it. A backend is a module with functions of the same names:
`xpnet.kernels.numba`, where it is chosen for the CPU, and `xpnet.kernels.cuda` for whatever is on a CUDA device. It has
them only where they gain, and leaves arguments that it is not made for to the definition by returning NotImplemented.
"""

from xpnet.kernels.choice import Backend, Precision, check_precision, choose_backend
from xpnet.kernels.images import add_windows, batched_matmul, batched_matmul_transposed, max_pool, max_pool_gradient
from xpnet.kernels.memory import in_memory_order, scratch_size, slabs
from xpnet.kernels.operations import (
    Call,
    Observer,
    adam_update,
    as_floats,
    call,
    gather,
    matmul,
    momentum_update,
    observing,
    precision,
    relu,
    relu_gradient,
    scaled_update,
    sgd_update,
    softmax_cross_entropy,
    softmax_cross_entropy_gradient,
    squared_norm,
    update_average,
    using,
)

__all__ = [
    "Backend",
    "Call",
    "Observer",
    "Precision",
    "adam_update",
    "add_windows",
    "as_floats",
    "batched_matmul",
    "batched_matmul_transposed",
    "call",
    "check_precision",
    "choose_backend",
    "gather",
    "in_memory_order",
    "matmul",
    "max_pool",
    "max_pool_gradient",
    "momentum_update",
    "observing",
    "precision",
    "relu",
    "relu_gradient",
    "scaled_update",
    "scratch_size",
    "sgd_update",
    "slabs",
    "softmax_cross_entropy",
    "softmax_cross_entropy_gradient",
    "squared_norm",
    "update_average",
    "using",
]

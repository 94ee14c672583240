"""The few operations that one `xp` expression does not do fast, each under one name.

An operation's definition is written in `xp` (`operations` and, of images, `images`): it runs everywhere, and a
backend's faster version is tested against it. A backend is a module with functions of the same names:
`xpnet.kernels.numba`, where it is chosen for the CPU, and `xpnet.kernels.cuda` for whatever is on a CUDA device. It has
them only where they gain, and leaves arguments that it is not made for to the definition by returning NotImplemented.
"""

from xpnet.kernels.choice import Backend, Precision, check_precision, choose_backend
from xpnet.kernels.images import add_windows, contract, max_pool, max_pool_gradient, spread
from xpnet.kernels.memory import in_memory_order, scratch_size, slabs
from xpnet.kernels.operations import (
    Call,
    Observer,
    as_floats,
    call,
    descend,
    descend_by_moments,
    descend_scaled,
    descend_with_momentum,
    gather,
    matmul,
    move_average,
    observing,
    precision,
    relu,
    relu_gradient,
    softmax_cross_entropy,
    softmax_cross_entropy_gradient,
    squared_norm,
    using,
)

__all__ = [
    "Backend",
    "Call",
    "Observer",
    "Precision",
    "add_windows",
    "as_floats",
    "call",
    "check_precision",
    "choose_backend",
    "contract",
    "descend",
    "descend_by_moments",
    "descend_scaled",
    "descend_with_momentum",
    "gather",
    "in_memory_order",
    "matmul",
    "max_pool",
    "max_pool_gradient",
    "move_average",
    "observing",
    "precision",
    "relu",
    "relu_gradient",
    "scratch_size",
    "slabs",
    "softmax_cross_entropy",
    "softmax_cross_entropy_gradient",
    "spread",
    "squared_norm",
    "using",
]

"""Operations that a single `xp` expression does not compute fast.

Each operation has a definition in `xp`, in `operations` or `images`. The definition runs on every device, and faster
versions are tested against it.

A backend is a module with faster versions under the same names: `xpnet.kernels.numba` for the CPU, if chosen, and
`xpnet.kernels.cuda` for arrays on a CUDA device. A backend has a version only where it is faster. A version returns
NotImplemented for arguments that it does not support; the definition then computes the result.
"""

from xpnet.kernels.choice import Backend, Precision, check_precision, choose_backend
from xpnet.kernels.gates import gru_step, gru_step_gradient, lstm_step, lstm_step_gradient
from xpnet.kernels.gelu import GELU_LIMIT, gelu
from xpnet.kernels.hashing import advance, dropout, random_mask
from xpnet.kernels.images import (
    add_windows,
    batched_matmul,
    batched_matmul_transposed,
    filter_gradients,
    max_pool,
    max_pool_gradient,
    max_pool_relu,
    max_pool_relu_gradient,
)
from xpnet.kernels.memory import in_memory_order, scratch_size, slabs
from xpnet.kernels.normalization import (
    as_row,
    normalize_batch,
    normalize_batch_gradient,
    normalize_features,
    normalize_features_gradient,
)
from xpnet.kernels.operations import (
    Call,
    Observer,
    adam_update,
    add_at,
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
    softmax_cross_entropy_with_gradient,
    squared_norm,
    update_average,
    using,
)
from xpnet.kernels.scaling import adapt_scale, find_overflow

__all__ = [
    "GELU_LIMIT",
    "Backend",
    "Call",
    "Observer",
    "Precision",
    "adam_update",
    "adapt_scale",
    "add_at",
    "add_windows",
    "advance",
    "as_floats",
    "as_row",
    "batched_matmul",
    "batched_matmul_transposed",
    "call",
    "check_precision",
    "choose_backend",
    "dropout",
    "filter_gradients",
    "find_overflow",
    "gather",
    "gelu",
    "gru_step",
    "gru_step_gradient",
    "in_memory_order",
    "lstm_step",
    "lstm_step_gradient",
    "matmul",
    "max_pool",
    "max_pool_gradient",
    "max_pool_relu",
    "max_pool_relu_gradient",
    "momentum_update",
    "normalize_batch",
    "normalize_batch_gradient",
    "normalize_features",
    "normalize_features_gradient",
    "observing",
    "precision",
    "random_mask",
    "relu",
    "relu_gradient",
    "scaled_update",
    "scratch_size",
    "sgd_update",
    "slabs",
    "softmax_cross_entropy",
    "softmax_cross_entropy_gradient",
    "softmax_cross_entropy_with_gradient",
    "squared_norm",
    "update_average",
    "using",
]

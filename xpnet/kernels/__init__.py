"""The few operations that one `xp` expression does not do fast, each under one name.

What is written here, in `xp`, is an operation's definition: it runs everywhere, and a backend's faster version is
tested against it. A backend is a module with functions of the same names: `xpnet.kernels.numba`, where it is chosen for
the CPU, and `xpnet.kernels.cuda` for whatever is on a CUDA device. It has them only where they gain, and leaves
arguments that it is not made for to the definition by returning NotImplemented.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType
from typing import Literal, ParamSpec, TypeVar, get_args

from xpnet import functions
from xpnet.device import Device, get_array_module, is_on_host
from xpnet.typing import Array, DTypeLike

__all__ = [
    "Backend",
    "Precision",
    "add_to_rows",
    "as_floats",
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
    "may_hold",
    "move_average",
    "precision",
    "relu",
    "relu_gradient",
    "scratch_size",
    "slabs",
    "softmax_cross_entropy",
    "softmax_cross_entropy_gradient",
    "spread",
    "squared_norm",
    "sum_rows",
    "using",
]

Backend = Literal["numpy", "numba"]
"""What computes on the CPU."""

Precision = Literal["float32", "tf32"]
"""Of the matrix products of float32 on a CUDA device: in full, or with inputs rounded to TF32's 10 bits, on tensor
cores."""

SLAB = 2**20
"""Bytes of an array that several operations go through one after the other, on the host: what a core's cache holds."""

RUN = 2**17
"""Numbers of a long array that one operation goes through at a time, on the host."""

HOST_SCRATCH = 8 * 2**20
DEVICE_SCRATCH = 256 * 2**20
"""Bytes of a temporary that is built for one matrix product after the other: see `scratch_size`."""

UNPACKED = 10**6
"""Multiplications up to which OpenBLAS, where it has AVX-512, multiplies matrices as they lie in memory, in one thread.
For larger products it first copies both, which takes longer than the product itself if it is long and thin."""

TRANSPOSED = 1200
"""Numbers in a result up to which it does so if the sum runs along the last axis of both."""

THIN = 1024
"""Numbers in a matrix up to which its product with a long one is better computed in parts; in a result, four times."""

LEAST = 64
"""Terms, or columns, that are worth a product of their own."""

_backend: ContextVar[ModuleType | None] = ContextVar("backend", default=None)
_precision: ContextVar[Precision] = ContextVar("precision", default="float32")

P = ParamSpec("P")
R = TypeVar("R")


def choose_backend(name: Backend | None = None) -> Backend:
    """Return the backend of that name; by default the fastest that is installed.

    Raises
    ------
    ModuleNotFoundError
        If it is not installed.
    ValueError
        If there is none of that name.
    """
    if name is not None and name not in get_args(Backend):
        raise ValueError(f"backend must be one of {', '.join(map(repr, get_args(Backend)))}, got {name!r}")
    installed = importlib.util.find_spec("numba") is not None
    if name == "numba" and not installed:
        raise ModuleNotFoundError("the backend 'numba' needs Numba; install it with pip install 'xpnet[numba]'")
    return name or ("numba" if installed else "numpy")


@contextmanager
def using(backend: Backend = "numpy", precision: Precision = "float32") -> Iterator[None]:
    """Let a backend compute on the CPU, and products on CUDA devices have a precision, in this thread and context."""
    module = None if backend == "numpy" else importlib.import_module(f"xpnet.kernels.{backend}")
    tokens = _backend.set(module), _precision.set(precision)
    try:
        yield
    finally:
        _backend.reset(tokens[0])
        _precision.reset(tokens[1])


def check_precision(name: Precision, device: Device, dtype: DTypeLike) -> Precision:
    """Return a precision, having made sure that products of that dtype have it on that device.

    Raises
    ------
    ValueError
        If they do not.
    """
    if name not in get_args(Precision):
        raise ValueError(f"precision must be one of {', '.join(map(repr, get_args(Precision)))}, got {name!r}")
    if name != "float32" and (device.name == "cpu" or dtype != "float32"):
        raise ValueError(f"precision {name!r} is for float32 on a CUDA device, got {dtype} on {device}")
    return name


def precision() -> Precision:
    """Return the precision that is in use for products on CUDA devices."""
    return _precision.get()


def kernel(definition: Callable[P, R]) -> Callable[P, R]:
    """Let the backend for where the first argument is compute a function, where it has a version and that applies."""
    name = definition.__name__

    @functools.wraps(definition)
    def dispatched(*args: P.args, **kwargs: P.kwargs) -> R:
        backend = _backend.get() if is_on_host(args[0]) else _for_cuda()
        version = None if backend is None else getattr(backend, name, None)
        if version is None:
            return definition(*args, **kwargs)
        result: R = version(*args, **kwargs)
        return definition(*args, **kwargs) if result is NotImplemented else result

    return dispatched


@functools.cache
def _for_cuda() -> ModuleType | None:
    return importlib.import_module("xpnet.kernels.cuda")


def as_floats(x: Array, dtype: DTypeLike, out: Array | None = None) -> Array:
    """Return real numbers in a floating dtype; ``uint8`` is taken for pixels and divided by 255, into [0, 1]."""
    xp = get_array_module(x)
    if x.dtype == "uint8":
        return xp.divide(x, 255.0, out=out, dtype=dtype)
    if out is None:
        return x.astype(dtype)
    out[...] = x
    return out


@kernel
def gather(x: Array, index: Array, out: Array) -> Array:
    """Return ``out[n] = x[index[n]]``, converted as by `as_floats` where the dtypes differ; any index is in range."""
    same = x.dtype == out.dtype
    if is_on_host(x):
        # Any other mode goes through a temporary of the size of out.
        rows = x.take(index, axis=0, out=out if same else None, mode="clip")
    else:
        rows = x.take(index, axis=0, out=out if same else None)
    return rows if same else as_floats(rows, out.dtype, out)


@kernel
def matmul(a: Array, b: Array, out: Array | None = None) -> Array:
    """Return the matrix product a b; all layers' products go through here, where a profile counts them."""
    return get_array_module(a).matmul(a, b, out)


@kernel
def relu(x: Array, mask: Array | None = None, out: Array | None = None) -> tuple[Array, Array]:
    """Return max(x, 0), in which NaN stays NaN, and where x > 0."""
    xp = get_array_module(x)
    mask = xp.greater(x, 0, out=mask)
    if is_on_host(x) and getattr(x, "size", 1) >= RUN:  # a graph's numbers may be Python's
        out = xp.empty_like(x) if out is None else out
        if vectors := in_memory_order(x, out):
            zeros = xp.zeros(RUN, x.dtype)  # NumPy compares with an array two to three times faster than with a number
            for start in range(0, x.size, RUN):
                part = vectors[0][start : start + RUN]
                xp.maximum(part, zeros[: len(part)], out=vectors[1][start : start + RUN])
            return out, mask
    return xp.maximum(x, 0, out=out), mask


@kernel
def relu_gradient(dout: Array, mask: Array, out: Array | None = None) -> Array:
    """Return dout where the mask is, else 0."""
    return get_array_module(dout=dout, mask=mask).multiply(dout, mask, out=out)


@kernel
def add_to_rows(x: Array, b: Array, out: Array | None = None) -> Array:
    """Return x (N, M) + b (M,)."""
    return get_array_module(x).add(x, b, out=out)


@kernel
def sum_rows(x: Array, out: Array | None = None) -> Array:
    """Return the sum of x (N, M) over its rows, (M,)."""
    return x.sum(axis=0, out=out)


@kernel
def softmax_cross_entropy(x: Array, t: Array, out: Array | None = None) -> tuple[Array, Array]:
    """Return the mean cross entropy of softmax(x) with the labels, and softmax(x) (`functions.softmax_cross_entropy`).

    What is returned is not in `out`, unless a backend puts it there.
    """
    return functions.softmax_cross_entropy(x, t)


@kernel
def softmax_cross_entropy_gradient(y: Array, t: Array, scale: Array | float, out: Array | None = None) -> Array:
    """Return (y - t) * scale for softmax outputs y (..., C) and labels, class ids or one-hot.

    For labels whose row does not sum to 1, y is multiplied by that sum.
    """
    xp = get_array_module(y)
    if functions.has_class_ids(y, t):
        dx = xp.multiply(y, scale, out=out)
        dx.reshape(-1, dx.shape[-1])[xp.arange(t.size), t.reshape(-1)] -= scale
        return dx
    t = t.astype(y.dtype, copy=False)
    return xp.multiply(y * t.sum(axis=-1, keepdims=True) - t, scale, out=out)


@kernel
def descend(p: Array, direction: Array, lr: Array | float, scratch: Array) -> None:
    """Change `p` to p - lr * direction in place; `scratch` has room for an intermediate result."""
    p -= get_array_module(p).multiply(direction, lr, out=scratch)


@kernel
def descend_with_momentum(
    p: Array, g: Array, v: Array, lr: Array | float, kept: float, nesterov: bool, scratch: Array
) -> None:
    """Change v to kept * v + g, and p to p - lr * v in place, or with Nesterov to p - lr * (kept * v + g)."""
    xp = get_array_module(p)
    v *= kept
    v += g
    descend(p, xp.add(xp.multiply(v, kept, out=scratch), g, out=scratch) if nesterov else v, lr, scratch)


@kernel
def descend_by_moments(
    p: Array,
    g: Array,
    m: Array,
    v: Array,
    lr: Array | float,
    eps: Array | float,
    betas: tuple[float, float],
    scratch: Array,
) -> None:
    """Let m and v average g and g^2, with betas for what is kept, and p be p - lr * m / (sqrt(v) + eps), in place."""
    move_average(m, g, betas[0], scratch)
    move_average(v, get_array_module(p).multiply(g, g, out=scratch), betas[1], scratch)
    descend_scaled(p, m, v, lr, eps, scratch)


def move_average(average: Array, x: Array, kept: float, scratch: Array) -> None:
    """Let `average` be ``kept * average + (1 - kept) * x``, in place; `scratch` may be `x`."""
    average *= kept
    average += get_array_module(average).multiply(x, 1.0 - kept, out=scratch)


def descend_scaled(
    p: Array, direction: Array, squares: Array, lr: Array | float, eps: Array | float, scratch: Array
) -> None:
    """Change `p` to p - lr * direction / (sqrt(squares) + eps) in place."""
    xp = get_array_module(p)
    xp.sqrt(squares, out=scratch)
    scratch += eps
    xp.divide(direction, scratch, out=scratch)
    scratch *= lr
    p -= scratch


def squared_norm(x: Array) -> Array:
    """Return the sum of the squares of a vector or matrix, without CuPy's ``vdot``, which no CUDA graph can capture."""
    xp = get_array_module(x)
    return xp.vdot(x, x) if is_on_host(x) else xp.square(x).sum()


def scratch_size(x: Array) -> int:
    """Return how many bytes a temporary should have that is written and read again part by part, where `x` is.

    On the host so few that they are still in the cache when read; on a CUDA device more, to launch few kernels.
    """
    return HOST_SCRATCH if is_on_host(x) else DEVICE_SCRATCH


def slabs(x: Array) -> Iterator[slice]:
    """Cut an array along its first axis: on the host into slabs that stay in the cache, on a CUDA device not at all."""
    length = len(x)
    at_a_time = max(SLAB * length // max(x.nbytes, 1), 1) if is_on_host(x) else max(length, 1)
    for start in range(0, length, at_a_time):
        yield slice(start, start + at_a_time)


def in_memory_order(*arrays: Array) -> list[Array] | None:
    """Return arrays of one shape as vectors, views in the order in which they lie in the host's memory.

    None if they lie there in different orders, or with gaps.
    """
    first = arrays[0]
    steps = [stride // first.itemsize for stride in first.strides]
    if sum((n - 1) * step for n, step in zip(first.shape, steps, strict=True)) + 1 != first.size:
        return None
    if any([stride // x.itemsize for stride in x.strides] != steps for x in arrays):
        return None
    return [x.ravel(order="K") for x in arrays]


def may_hold(mask: Array) -> bool:
    """Tell whether a condition may hold anywhere; on a CUDA device, where looking stalls the queue, it always may."""
    return not is_on_host(mask) or bool(mask.any())


def spread(a: Array, b: Array, out: Array) -> Array:
    """Return ``a @ b`` for stacks of matrices a (G, M, K) and b (G, K, P), P usually much larger than M and K.

    On the host, if a is small, in parts of at most `UNPACKED` multiplications: for M, K, P = 6, 25, 78,400 in 0.4 ms
    rather than 0.7 on two AVX-512 cores.
    """
    (G, M, K), P = a.shape, b.shape[2]
    p = _largest_divisor(P, UNPACKED // (M * K)) if is_on_host(a) and M * K <= THIN else P
    if LEAST <= p < P:
        parts, b = out.reshape(G, M, P // p, p), b.reshape(G, K, P // p, p)
        matmul(a, b.transpose(2, 0, 1, 3), out=parts.transpose(2, 0, 1, 3))
        return out
    return matmul(a, b, out=out)


def contract(a: Array, b: Array) -> Array:
    """Return ``a @ b^T`` for stacks of matrices a (G, M, P) and b (G, K, P), P usually much larger than M and K.

    On the host, if the result is small, as the sum of products of at most `UNPACKED` multiplications each: for
    M, K, P = 30, 25, 57,600 in 1.1 ms rather than 2.3 on two AVX-512 cores.
    """
    (G, M, P), K = a.shape, b.shape[1]
    if is_on_host(a) and M * K <= 4 * THIN:
        k = _largest_divisor(K, max(TRANSPOSED // M, 1))
        p = _largest_divisor(P, UNPACKED // (M * k))
        if LEAST <= p < P:
            a = a.reshape(G, 1, M, P // p, p).transpose(3, 0, 1, 2, 4)
            b = b.reshape(G, K // k, k, P // p, p).transpose(3, 0, 1, 4, 2)
            return matmul(a, b).sum(axis=0).transpose(0, 2, 1, 3).reshape(G, M, K)
    return matmul(a, b.transpose(0, 2, 1))


@functools.cache
def _largest_divisor(n: int, most: int) -> int:
    return next((d for d in range(min(n, most), 0, -1) if n % d == 0), 0)

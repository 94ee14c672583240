"""Operations of layers and update rules: the dispatch to backends, and the definitions in `xp`."""

import functools
import importlib
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType
from typing import Any, NamedTuple, ParamSpec, TypeVar

import numpy as np

from xpnet import functions
from xpnet.device import get_array_module, is_on_host
from xpnet.kernels.choice import Backend, Precision
from xpnet.kernels.memory import in_memory_order
from xpnet.typing import Array, DTypeLike

__all__ = [
    "Call",
    "Observer",
    "adam_update",
    "add_at",
    "as_floats",
    "call",
    "gather",
    "kernel",
    "matmul",
    "momentum_update",
    "observing",
    "precision",
    "relu",
    "relu_gradient",
    "scaled_update",
    "sgd_update",
    "softmax_cross_entropy",
    "softmax_cross_entropy_gradient",
    "softmax_cross_entropy_with_gradient",
    "squared_norm",
    "update_average",
    "using",
]

RUN = 2**15
"""Elements that the operations on a long array process at a time, on the host."""


class Call(NamedTuple):
    """A pending call of a method or a kernel.

    Attributes
    ----------
    owner : object or None
        The method's object; None for a kernel.
    name : str
        Name of the method or kernel.
    args : tuple
        Positional arguments.
    run : callable
        Makes the call, with its keyword arguments, and returns the result.
    """

    owner: object
    name: str
    args: tuple[Any, ...]
    run: Callable[[], Any]


Observer = Callable[[Call], Any]
"""Function that makes each call and returns its result: ``lambda call: call.run()`` changes nothing."""


class _Context(NamedTuple):
    """Settings of a thread and context: backend on the CPU, precision on CUDA devices, observer."""

    backend: ModuleType | None = None
    precision: Precision = "float32"
    observer: Observer | None = None


_DEFAULT = _Context()
_context: ContextVar[_Context] = ContextVar("context", default=_DEFAULT)

P = ParamSpec("P")
R = TypeVar("R")


@contextmanager
def using(backend: Backend = "numpy", precision: Precision = "float32") -> Iterator[None]:
    """Set the backend on the CPU and the precision of products on CUDA devices, for this thread and context."""
    module = None if backend == "numpy" else importlib.import_module(f"xpnet.kernels.{backend}")
    token = _context.set(_Context(module, precision, _context.get().observer))
    try:
        yield
    finally:
        _context.reset(token)


@contextmanager
def observing(observer: Observer) -> Iterator[None]:
    """Let an observer make all calls of kernels and all calls by `call`, in this thread and context.

    It also makes nested calls, while the outer call runs. It replaces an observer that is already set.
    """
    backend, precision, _ = _context.get()
    token = _context.set(_Context(backend, precision, observer))
    try:
        yield
    finally:
        _context.reset(token)


def call(owner: object, method: str, *args: Any) -> Any:
    """Return ``owner.method(*args)``. The observer, if set, makes the call."""
    _, _, observer = _context.get()
    function = getattr(owner, method)
    if observer is None:
        return function(*args)
    return observer(Call(owner, method, args, functools.partial(function, *args)))


def precision() -> Precision:
    """Return the current precision of products on CUDA devices."""
    return _context.get().precision


def kernel(definition: Callable[P, R]) -> Callable[P, R]:
    """Dispatch a function to the backend for the first argument's device.

    The definition computes the result if the backend has no version, or its version returns NotImplemented.
    """
    name = definition.__name__

    def compute(version: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        result = version(*args, **kwargs)
        return definition(*args, **kwargs) if result is NotImplemented else result

    @functools.wraps(definition)
    def dispatched(*args: P.args, **kwargs: P.kwargs) -> R:
        backend, _, observer = _context.get()
        if type(args[0]) is not np.ndarray and not is_on_host(args[0]):  # the type first: it is faster than a call
            backend = _for_cuda()
        version = definition if backend is None else getattr(backend, name, definition)
        if observer is not None:
            observed: R = observer(Call(None, name, args, functools.partial(compute, version, *args, **kwargs)))
            return observed
        return version(*args, **kwargs) if version is definition else compute(version, *args, **kwargs)

    return dispatched


@functools.cache
def _for_cuda() -> ModuleType | None:
    return importlib.import_module("xpnet.kernels.cuda")


def as_floats(x: Array, dtype: DTypeLike, out: Array | None = None) -> Array:
    """Convert real numbers to a floating dtype; ``uint8`` pixels are divided by 255, into [0, 1]."""
    xp = get_array_module(x)
    if x.dtype == "uint8":
        return xp.divide(x, 255.0, out=out, dtype=dtype)
    if out is None:
        return x.astype(dtype)
    out[...] = x
    return out


@kernel
def gather(x: Array, index: Array, out: Array) -> Array:
    """Write ``x[index[n]]`` into ``out[n]``, and return `out`.

    `as_floats` converts the samples if the dtypes differ. On the host all indices must be in range. On a CUDA device a
    check would wait for the queue: there the result for an index out of range is NaN, or -1 for integers, which is no
    class id. So the loss of such a sample is NaN.
    """
    same = x.dtype == out.dtype
    if is_on_host(x):
        # Any other mode allocates a temporary of the size of out.
        rows = x.take(index, axis=0, out=out if same else None, mode="clip")
        return rows if same else as_floats(rows, out.dtype, out)
    xp = get_array_module(x)
    valid = (index >= 0) & (index < len(x))
    rows = x.take(xp.where(valid, index, 0), axis=0)
    missing = math.nan if out.dtype.kind == "f" else np.iinfo(out.dtype).max if out.dtype.kind == "u" else -1
    valid = valid.reshape(*index.shape, *[1] * (x.ndim - 1))
    out[...] = xp.where(valid, rows if same else as_floats(rows, out.dtype), missing)
    return out


@kernel
def add_at(total: Array, index: Array, x: Array) -> Array:
    """Add ``x[n]`` to ``total[index[n]]`` for each n, and return `total`. All indices must be in range.

    A CUDA device adds in no fixed order.
    """
    xp, D = get_array_module(total), total.shape[1]
    if not is_on_host(total):
        places = index[..., None] * D + xp.arange(D)
        xp.add.at(total.reshape(-1), places.reshape(-1), x.reshape(-1))
        return total
    # Equal ids side by side: in a training step, NumPy sums such rows many times faster than by add.at.
    index = index.reshape(-1)
    order = index.argsort(kind="stable")
    index = index[order]
    first = xp.flatnonzero(xp.diff(index, prepend=-1))
    if len(first):
        total[index[first]] += xp.add.reduceat(x.reshape(-1, D)[order], first, axis=0)
    return total


@kernel
def matmul(a: Array, b: Array, out: Array | None = None, bias: Array | None = None, sums: Array | None = None) -> Array:
    """Return the matrix product ``a @ b`` (M, N), plus `bias` (N,) in each row; set `sums` (N,) to ``b.sum(axis=0)``.

    `bias` is for the forward pass of an affine layer. `sums` is for its backward pass: the product is the gradient of
    the weights, and the sums are the gradient of the bias. All layers' products use this function: a profile counts
    its calls.
    """
    xp = get_array_module(a)
    if sums is not None:
        b.sum(axis=0, out=sums)
    y = xp.matmul(a, b, out=out)
    return y if bias is None else xp.add(y, bias, out=out)


@kernel
def relu(x: Array, mask: Array | None = None, out: Array | None = None) -> tuple[Array, Array]:
    """Return max(x, 0) and the mask x > 0. NaN stays NaN. `out` may be x."""
    xp = get_array_module(x)
    if is_on_host(x) and getattr(x, "size", 1) >= RUN:  # a graph's numbers may be Python's
        mask = xp.empty_like(x, dtype=bool) if mask is None else mask
        out = xp.empty_like(x) if out is None else out
        if vectors := in_memory_order(x, mask, out):
            zeros = xp.zeros(RUN, x.dtype)  # NumPy's maximum is two to three times faster with an array than a number
            for start in range(0, x.size, RUN):
                part, is_on, y = (vector[start : start + RUN] for vector in vectors)
                xp.greater(part, 0, out=is_on)
                xp.maximum(part, zeros[: len(part)], out=y)
            return out, mask
    mask = xp.greater(x, 0, out=mask)
    return xp.maximum(x, 0, out=out), mask


@kernel
def relu_gradient(dout: Array, mask: Array, out: Array | None = None) -> Array:
    """Return dout where the mask is True, else 0. `out` may be dout."""
    return get_array_module(dout=dout, mask=mask).multiply(dout, mask, out=out)


@kernel
def softmax_cross_entropy(x: Array, t: Array, out: Array | None = None) -> tuple[Array, Array]:
    """Return the mean cross entropy of softmax(x) and the labels, and softmax(x).

    A backend may write softmax(x) into `out`; the definition (`functions.softmax_cross_entropy`) does not.
    """
    return functions.softmax_cross_entropy(x, t)


@kernel
def softmax_cross_entropy_gradient(y: Array, t: Array, scale: Array | float, out: Array | None = None) -> Array:
    """Return (y - t) * scale for softmax outputs y (..., C) and labels t, class ids or one-hot.

    If a row of t does not sum to 1, its y is multiplied by that sum.
    """
    xp = get_array_module(y)
    ids = functions.class_ids(y, t)
    if ids is not None:
        dx = xp.multiply(y, scale, out=out)
        dx.reshape(-1, dx.shape[-1])[xp.arange(ids.size), ids.reshape(-1)] -= scale
        return dx
    t = t.astype(y.dtype, copy=False)
    return xp.multiply(y * t.sum(axis=-1, keepdims=True) - t, scale, out=out)


@kernel
def softmax_cross_entropy_with_gradient(
    x: Array, t: Array, scale: float, y: Array | None = None, dx: Array | None = None, loss: Array | None = None
) -> tuple[Array, Array, Array]:
    """Return the results of `softmax_cross_entropy`, and that of `softmax_cross_entropy_gradient`.

    A backend may write them into `loss`, `y` and `dx`.
    """
    mean, y = softmax_cross_entropy(x, t, y)
    return mean, y, softmax_cross_entropy_gradient(y, t, scale, dx)


@kernel
def sgd_update(p: Array, direction: Array, lr: Array | float, scratch: Array) -> None:
    """Apply the update of SGD in place: p = p - lr * direction. `scratch` is a buffer of the shape of p."""
    p -= get_array_module(p).multiply(direction, lr, out=scratch)


@kernel
def momentum_update(
    p: Array, g: Array, v: Array, lr: Array | float, kept: float, nesterov: bool, scratch: Array
) -> None:
    """Apply the update of SGD with momentum in place: v = kept * v + g, p = p - lr * v.

    With Nesterov's momentum p = p - lr * (kept * v + g).
    """
    xp = get_array_module(p)
    v *= kept
    v += g
    sgd_update(p, xp.add(xp.multiply(v, kept, out=scratch), g, out=scratch) if nesterov else v, lr, scratch)


@kernel
def adam_update(
    p: Array,
    g: Array,
    m: Array,
    v: Array,
    lr: Array | float,
    eps: Array | float,
    betas: tuple[float, float],
    scratch: Array,
) -> None:
    """Apply the update of Adam in place: p = p - lr * m / (sqrt(v) + eps).

    m and v are moving averages of g and g^2 with decay rates `betas`. `lr` and `eps` include the bias correction.
    """
    update_average(m, g, betas[0], scratch)
    update_average(v, get_array_module(p).multiply(g, g, out=scratch), betas[1], scratch)
    scaled_update(p, m, v, lr, eps, scratch)


def update_average(average: Array, x: Array, kept: float, scratch: Array) -> None:
    """Update a moving average in place: average = kept * average + (1 - kept) * x. `scratch` may be `x`."""
    average *= kept
    average += get_array_module(average).multiply(x, 1.0 - kept, out=scratch)


def scaled_update(
    p: Array, direction: Array, squares: Array, lr: Array | float, eps: Array | float, scratch: Array
) -> None:
    """Apply a scaled update in place: p = p - lr * direction / (sqrt(squares) + eps).

    In float16, where the usual eps would be 0, the smallest positive number takes its place.
    """
    xp = get_array_module(p)
    if p.dtype == "float16":
        smallest = float(np.finfo("float16").smallest_subnormal)
        eps = max(eps, smallest) if isinstance(eps, float) else xp.maximum(eps, smallest)
    xp.sqrt(squares, out=scratch)
    scratch += eps
    xp.divide(direction, scratch, out=scratch)
    scratch *= lr
    p -= scratch


def squared_norm(x: Array) -> Array:
    """Return the sum of squares of an array, without CuPy's ``vdot``: a CUDA graph cannot capture it."""
    xp = get_array_module(x)
    return xp.vdot(x, x) if is_on_host(x) else xp.square(x).sum()

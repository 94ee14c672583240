"""The operations of layers and update rules: how a call finds its backend, and their definitions in `xp`."""

import functools
import importlib
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
    "squared_norm",
    "update_average",
    "using",
]

RUN = 2**15
"""Numbers of a long array that operations go through at a time, one after the other, on the host."""


class Call(NamedTuple):
    """A call of a method or a kernel, not yet made.

    Attributes
    ----------
    owner : object or None
        Whose method it is; None for a kernel.
    name : str
        Of the method, or of the kernel.
    args : tuple
        Positional arguments.
    run : callable
        Makes the call, with keyword arguments if there are any, and returns its result.
    """

    owner: object
    name: str
    args: tuple[Any, ...]
    run: Callable[[], Any]


Observer = Callable[[Call], Any]
"""What is given each call in place of it, and returns its result: ``lambda call: call.run()`` changes nothing."""


class _Context(NamedTuple):
    """What holds in a thread and context: the CPU's backend, the precision on CUDA devices, and who observes calls."""

    backend: ModuleType | None = None
    precision: Precision = "float32"
    observer: Observer | None = None


_DEFAULT = _Context()
_context: ContextVar[_Context] = ContextVar("context", default=_DEFAULT)

P = ParamSpec("P")
R = TypeVar("R")


@contextmanager
def using(backend: Backend = "numpy", precision: Precision = "float32") -> Iterator[None]:
    """Let a backend compute on the CPU, and products on CUDA devices have a precision, in this thread and context."""
    module = None if backend == "numpy" else importlib.import_module(f"xpnet.kernels.{backend}")
    token = _context.set(_Context(module, precision, _context.get().observer))
    try:
        yield
    finally:
        _context.reset(token)


@contextmanager
def observing(observer: Observer) -> Iterator[None]:
    """Let an observer make the calls of kernels, and those by `call`, in this thread and context.

    It sees calls within calls, each while the outer one runs, and takes the place of an observer further out.
    """
    backend, precision, _ = _context.get()
    token = _context.set(_Context(backend, precision, observer))
    try:
        yield
    finally:
        _context.reset(token)


def call(owner: object, method: str, *args: Any) -> Any:
    """Return ``owner.method(*args)``, by way of the observer if there is one."""
    _, _, observer = _context.get()
    function = getattr(owner, method)
    if observer is None:
        return function(*args)
    return observer(Call(owner, method, args, functools.partial(function, *args)))


def precision() -> Precision:
    """Return the precision that is in use for products on CUDA devices."""
    return _context.get().precision


def kernel(definition: Callable[P, R]) -> Callable[P, R]:
    """Let the backend for where the first argument is compute a function, where it has a version and that applies."""
    name = definition.__name__

    def compute(version: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        result = version(*args, **kwargs)
        return definition(*args, **kwargs) if result is NotImplemented else result

    @functools.wraps(definition)
    def dispatched(*args: P.args, **kwargs: P.kwargs) -> R:
        backend, _, observer = _context.get()
        if type(args[0]) is not np.ndarray and not is_on_host(args[0]):  # the type first: a call takes longer
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
def matmul(a: Array, b: Array, out: Array | None = None, bias: Array | None = None, sums: Array | None = None) -> Array:
    """Return the matrix product a b (M, N), with `bias` (N,) added to each row; `sums` (N,) are set to b's, by column.

    An affine layer's forward pass is a product with a bias; with the gradient of its weights, the sums are its bias's.
    All layers' products go through here, where a profile counts them.
    """
    xp = get_array_module(a)
    if sums is not None:
        b.sum(axis=0, out=sums)
    y = xp.matmul(a, b, out)
    return y if bias is None else xp.add(y, bias, out=out)


@kernel
def relu(x: Array, mask: Array | None = None, out: Array | None = None) -> tuple[Array, Array]:
    """Return max(x, 0), in which NaN stays NaN, and where x > 0; `out` may be x."""
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
    """Return dout where the mask is, else 0; `out` may be dout."""
    return get_array_module(dout=dout, mask=mask).multiply(dout, mask, out=out)


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
def sgd_update(p: Array, direction: Array, lr: Array | float, scratch: Array) -> None:
    """Change `p` to p - lr * direction in place; `scratch` has room for an intermediate result."""
    p -= get_array_module(p).multiply(direction, lr, out=scratch)


@kernel
def momentum_update(
    p: Array, g: Array, v: Array, lr: Array | float, kept: float, nesterov: bool, scratch: Array
) -> None:
    """Change v to kept * v + g, and p to p - lr * v in place, or with Nesterov to p - lr * (kept * v + g)."""
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
    """Let m and v average g and g^2, with betas for what is kept, and p be p - lr * m / (sqrt(v) + eps), in place."""
    update_average(m, g, betas[0], scratch)
    update_average(v, get_array_module(p).multiply(g, g, out=scratch), betas[1], scratch)
    scaled_update(p, m, v, lr, eps, scratch)


def update_average(average: Array, x: Array, kept: float, scratch: Array) -> None:
    """Let `average` be ``kept * average + (1 - kept) * x``, in place; `scratch` may be `x`."""
    average *= kept
    average += get_array_module(average).multiply(x, 1.0 - kept, out=scratch)


def scaled_update(
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

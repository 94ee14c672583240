"""Calls of operations: which backend computes them, and who observes them.

The backend is chosen for the CPU, and CUDA's own for what is on a CUDA device.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType
from typing import Any, Literal, NamedTuple, ParamSpec, TypeVar, get_args

import numpy as np

from xpnet.device import Device, is_on_host
from xpnet.typing import DTypeLike

__all__ = [
    "Backend",
    "Call",
    "Observer",
    "Precision",
    "call",
    "check_precision",
    "choose_backend",
    "kernel",
    "observing",
    "precision",
    "using",
]

Backend = Literal["numpy", "numba"]
"""What computes on the CPU."""

Precision = Literal["float32", "tf32", "float16"]
"""Of the matrix products of float32 on a CUDA device: in full, or with inputs rounded to TF32's 10 bits, on tensor
cores. Or of a training step of a float32 network, all of whose layers compute in float16 (`xpnet.nets.mixed`)."""


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


def choose_backend(name: Backend | None, dtype: DTypeLike, gains: bool = False) -> Backend:
    """Return the backend's name, having made sure that it is there and computes in that dtype.

    Without a name it is Numba where it can be, and `gains` says that it is much faster for what is to be computed.

    Raises
    ------
    ModuleNotFoundError
        If it is not installed.
    ValueError
        If there is none of that name, or it does not compute in that dtype.
    """
    if name is not None and name not in get_args(Backend):
        raise ValueError(f"backend must be one of {', '.join(map(repr, get_args(Backend)))}, got {name!r}")
    known, installed = np.dtype(dtype) != "float16", importlib.util.find_spec("numba") is not None
    if name is None:
        return "numba" if gains and known and installed else "numpy"
    if name == "numba" and not known:
        raise ValueError("the backend 'numba' computes in float32 and float64, got float16; use 'numpy'")
    if name == "numba" and not installed:
        raise ModuleNotFoundError("the backend 'numba' needs Numba; install it with pip install 'xpnet[numba]'")
    return name


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
    observer = _context.get().observer
    function = getattr(owner, method)
    if observer is None:
        return function(*args)
    return observer(Call(owner, method, args, functools.partial(function, *args)))


def check_precision(name: Precision, device: Device, dtype: DTypeLike) -> Precision:
    """Return a precision, having made sure that products of that dtype have it on that device.

    Raises
    ------
    ValueError
        If they do not.
    """
    if name not in get_args(Precision):
        raise ValueError(f"precision must be one of {', '.join(map(repr, get_args(Precision)))}, got {name!r}")
    if name == "float16" and dtype != "float32":
        raise ValueError(
            f"precision 'float16' is for steps of a float32 network, got {dtype}; pass dtype='float32' to it"
        )
    if name == "tf32" and (device.name == "cpu" or dtype != "float32"):
        raise ValueError(f"precision {name!r} is for float32 on a CUDA device, got {dtype} on {device}")
    return name


def precision() -> Precision:
    """Return the precision that is in use for products on CUDA devices."""
    return _context.get().precision


def kernel(definition: Callable[P, R]) -> Callable[P, R]:
    """Let the backend for where the first argument is compute a function, where it has a version and that applies."""
    name = definition.__name__

    @functools.wraps(definition)
    def dispatched(*args: P.args, **kwargs: P.kwargs) -> R:
        context = _context.get()
        # The type first: a call of is_on_host takes longer.
        backend = context.backend if type(args[0]) is np.ndarray or is_on_host(args[0]) else _for_cuda()
        if context.observer is not None:
            observed: R = context.observer(Call(None, name, args, functools.partial(compute, backend, args, kwargs)))
            return observed
        if backend is None:
            return definition(*args, **kwargs)
        result = getattr(backend, name, definition)(*args, **kwargs)  # what compute does, without its call
        return definition(*args, **kwargs) if result is NotImplemented else result

    def compute(backend: ModuleType | None, args: Any, kwargs: Any) -> R:
        result = getattr(backend, name, definition)(*args, **kwargs)
        return definition(*args, **kwargs) if result is NotImplemented else result

    return dispatched


@functools.cache
def _for_cuda() -> ModuleType | None:
    return importlib.import_module("xpnet.kernels.cuda")

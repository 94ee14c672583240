"""Settings of Numba's compiler, its cache on disk, and checks of arrays."""

import functools
import pickle
import warnings
from collections.abc import Callable
from typing import Any

from numba import config
from numba.core.caching import FunctionCache
from numba.core.registry import CPUDispatcher

from xpnet.typing import Array

__all__ = ["are_compact", "are_one", "compiled", "inlined"]

SETTINGS = {"nopython": True, "nogil": True, "error_model": "numpy"}

UNREADABLE = (
    *(OSError, EOFError, ValueError, LookupError, AttributeError, ImportError, TypeError, RuntimeError, MemoryError),
    pickle.PickleError,
)
"""Exceptions of a cache's files, which are pickles: damaged ones raise almost any exception."""

REMEDY = "set NUMBA_CACHE_DIR to a folder that can be written"


class _Cache(FunctionCache):
    """Numba's cache of a function's compiled versions. Damaged files count as missing, and are replaced."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except UNREADABLE as error:
            _warn(f"Numba's cache in {self.cache_path} cannot be read", error, "damaged files are replaced")
            self._try_to(self.flush)
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        self._try_to(functools.partial(super().save_overload, sig, data))

    def _try_to(self, write: Callable[[], None]) -> None:
        try:
            write()
        except UNREADABLE as error:
            _warn(f"Numba's cache in {self.cache_path} cannot be written", error, REMEDY)


class _Kernel(CPUDispatcher):
    """A function that Numba compiles for each dtype at its first call."""

    def enable_caching(self) -> None:
        """Cache compiled versions beside this file or in the user's cache folder, if one can be written."""
        try:
            self._cache = _Cache(self.py_func)
        except RuntimeError as error:
            _warn("Numba has no folder for its cache", error, REMEDY)


def compiled(function: Callable[..., Any], **settings: Any) -> Any:
    """Decorator that compiles a function."""
    if config.DISABLE_JIT:  # type: ignore[attr-defined]
        return function
    kernel = _Kernel(function, targetoptions=SETTINGS | settings)
    kernel.enable_caching()
    return kernel


def inlined(function: Callable[..., Any]) -> Any:
    """Decorator that compiles a function into each caller.

    A loop over two names of one array is vectorized only if the compiler knows that they are one.
    """
    return compiled(function, inline="always")


def are_compact(*arrays: Array) -> bool:
    """Whether all arrays are in C order, as the kernels require."""
    return all([array.flags.c_contiguous for array in arrays])  # noqa: C419 - a list is faster than a generator


def are_one(x: Array, out: Array) -> bool:
    """Whether both arrays start at the same address."""
    return x is out or x.__array_interface__["data"] == out.__array_interface__["data"]


_warnings: list[str] = []


def _warn(trouble: str, error: Exception, remedy: str) -> None:
    """Warn once in a process: the files of all kernels are in one folder."""
    if not _warnings:
        _warnings.append(
            f"{trouble} ({type(error).__name__}: {error}): kernels are compiled again, some seconds; {remedy}"
        )
        warnings.warn(_warnings[0], RuntimeWarning, stacklevel=2)

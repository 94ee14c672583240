"""Settings of Numba's compiler, and checks of arrays."""

from typing import Any

from numba import njit

from xpnet.typing import Array

__all__ = ["are_compact", "are_one", "compiled", "inlined"]


def _may_cache() -> bool:
    """Whether Numba can write its cache, beside this file or in the user's cache folder."""
    try:
        njit(cache=True)(_may_cache)  # compiles nothing
    except RuntimeError:
        return False
    return True


SETTINGS: dict[str, Any] = {"cache": _may_cache(), "nogil": True, "error_model": "numpy"}
compiled = njit(**SETTINGS)
inlined = njit(**SETTINGS, inline="always")
"""Decorator that compiles a function into each caller.

A loop over two names of one array is vectorized only if the compiler knows that they are one.
"""


def are_compact(*arrays: Array) -> bool:
    """Whether all arrays are in C order, as the kernels require."""
    return all([array.flags.c_contiguous for array in arrays])  # noqa: C419 - a list is faster than a generator


def are_one(x: Array, out: Array) -> bool:
    """Whether both arrays start at the same address."""
    return x is out or x.__array_interface__["data"] == out.__array_interface__["data"]

"""How Numba compiles, and for which arrays."""

from typing import Any

from numba import njit

from xpnet.typing import Array

__all__ = ["are_compact", "are_one", "compiled", "inlined"]


def _may_cache() -> bool:
    """Whether there is a place on disk, beside this file or in the user's cache, that can be written."""
    try:
        njit(cache=True)(_may_cache)  # which only asks
    except RuntimeError:
        return False
    return True


SETTINGS: dict[str, Any] = {"cache": _may_cache(), "nogil": True, "error_model": "numpy"}
compiled = njit(**SETTINGS)
inlined = njit(**SETTINGS, inline="always")
"""Compiled anew where it is called: a loop over two arrays that are one is vectorized only where that is known."""


def are_compact(*arrays: Array) -> bool:
    """Whether all are in C order: what the kernels are compiled for, and can be seen as rows."""
    return all([array.flags.c_contiguous for array in arrays])  # noqa: C419 - a list is faster than a generator


def are_one(x: Array, out: Array) -> bool:
    """Whether both lie at the same place."""
    return x is out or x.__array_interface__["data"] == out.__array_interface__["data"]

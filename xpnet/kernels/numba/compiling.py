"""How Numba compiles, and for which arrays."""

from __future__ import annotations

from typing import Any

from numba import njit

from xpnet.typing import Array

__all__ = ["are_compact", "are_one", "compiled", "inlined"]

SETTINGS: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}
compiled = njit(**SETTINGS)
inlined = njit(**SETTINGS, inline="always")
"""Compiled anew where it is called: a loop over two arrays that are one is vectorized only where that is known."""


def are_compact(*arrays: Array) -> bool:
    """Whether all are in C order: what the kernels are compiled for, and can be seen as rows."""
    return all([array.flags.c_contiguous for array in arrays])  # noqa: C419 - a list is faster than a generator


def are_one(x: Array, out: Array) -> bool:
    """Whether both lie at the same place."""
    return x is out or x.__array_interface__["data"] == out.__array_interface__["data"]

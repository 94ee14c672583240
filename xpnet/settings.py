"""Checks of settings, at the boundary. Each returns a value of Python's or NumPy's own type."""

from __future__ import annotations

import math
import operator
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from xpnet.typing import DTypeLike, Seed

__all__ = [
    "as_dtype",
    "choice",
    "count",
    "fit_in_memory",
    "fraction",
    "generator",
    "not_negative",
    "number",
    "positive",
    "sizes",
]


def not_negative(name: str, value: float) -> float:
    """Return a setting in [0, inf)."""
    return number(name, value, lambda x: 0.0 <= x < math.inf, "be finite and not negative")


def positive(name: str, value: float) -> float:
    """Return a setting in (0, inf)."""
    return number(name, value, lambda x: 0.0 < x < math.inf, "be finite and positive")


def fraction(name: str, value: float) -> float:
    """Return a setting in [0, 1)."""
    return number(name, value, lambda x: 0.0 <= x < 1.0, "be in [0, 1)")


def number(name: str, value: float, is_within: Callable[[float], bool], expected: str) -> float:
    """Return a setting as a Python number, which does not change the dtype of an array.

    Raises
    ------
    ValueError
        If `is_within` is False: the setting must do what is `expected`, such as "be in [0, 1)". NaN is in no range.
    """
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if not is_within(found):
        raise ValueError(f"{name} must {expected}, got {value}")
    return found


def count(name: str, value: int) -> int:
    """Return a setting that is a positive integer, as large as an index may be."""
    try:
        found = operator.index(value)
    except TypeError:
        found = 0
    if found < 1:
        raise ValueError(f"{name} must be a positive integer, got {value!r}")
    if found > sys.maxsize:
        raise ValueError(f"{name} must be at most {sys.maxsize:,}, the largest index, got {found:,}; lower it")
    return found


def fit_in_memory(name: str, value: object, size: int, remedy: str = "lower it") -> None:
    """Check that the arrays of a setting, `size` bytes, are not larger than the memory of this machine.

    Without this check, the system may grant the memory, and kill the process that fills it.

    Raises
    ------
    ValueError
        If they are larger.
    """
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not every system tells
        return
    if size > memory:
        raise ValueError(
            f"{name} must fit in the memory of {memory / 2**30:,.1f} GiB, got {value}, which takes "
            f"{size / 2**30:,.1f} GiB; {remedy}"
        )


def sizes(name: str, value: Iterable[int]) -> tuple[int, ...]:
    """Return a setting that is a tuple of integers, none negative, such as a shape."""
    try:
        found = (-1,) if isinstance(value, bytes) else tuple(map(operator.index, value))
    except TypeError:
        found = (-1,)
    if min(found, default=0) < 0:
        raise ValueError(f"{name} must be a tuple of integers that are not negative, got {value!r}")
    return found


def choice(name: str, value: str, options: Iterable[str]) -> str:
    """Return a setting that is one of some names."""
    if not (isinstance(value, str) and value in options):
        raise ValueError(f"{name} must be one of {', '.join(map(repr, options))}, got {value!r}")
    return value


def as_dtype(name: str, value: DTypeLike) -> np.dtype[Any]:
    """Return a setting as a NumPy dtype.

    Raises
    ------
    TypeError
        If it is none.
    """
    try:
        return np.dtype(value)
    except (TypeError, ValueError, SyntaxError, OverflowError) as error:
        raise TypeError(f"{name} must be a dtype, such as 'float32', got {value!r}") from error


def generator(name: str, seed: Seed) -> np.random.Generator:
    """Return a seed's random generator on the host; a generator is returned unchanged.

    Raises
    ------
    TypeError
        If it is neither.
    ValueError
        If it is negative.
    """
    try:
        return np.random.default_rng(seed)
    except (TypeError, ValueError) as error:
        kind = ValueError if isinstance(error, ValueError) else TypeError
        raise kind(
            f"{name} must be an integer that is not negative, or a numpy.random.Generator, got {seed!r}"
        ) from error

"""Range checks of settings. Each returns a Python number, which does not change the dtype of an array."""

import math
import operator

__all__ = ["count", "fraction", "not_negative", "positive"]


def not_negative(name: str, value: float) -> float:
    """Return a setting in [0, inf)."""
    return _within(name, value, 0.0 <= _number(value) < math.inf, "finite and not negative")


def positive(name: str, value: float) -> float:
    """Return a setting in (0, inf)."""
    return _within(name, value, 0.0 < _number(value) < math.inf, "finite and positive")


def fraction(name: str, value: float) -> float:
    """Return a setting in [0, 1)."""
    return _within(name, value, 0.0 <= _number(value) < 1.0, "in [0, 1)")


def count(name: str, value: int) -> int:
    """Return a setting that is a positive integer."""
    try:
        number = operator.index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise ValueError(f"{name} must be a positive integer, got {value!r}")
    return number


def _number(value: float) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan  # NaN is in no range


def _within(name: str, value: float, is_within: bool, expected: str) -> float:
    if not is_within:
        raise ValueError(f"{name} must be {expected}, got {value}")
    return float(value)

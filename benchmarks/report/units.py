"""Seconds and ratios as people read them."""

from __future__ import annotations

__all__ = ["format_ratio", "format_seconds", "format_span"]

UNITS = {0: "s", -3: "ms", -6: "µs", -9: "ns"}


def format_seconds(seconds: float) -> str:
    """Return a duration to three digits, in the unit that suits it: "163 µs", "2.31 s"."""
    return " ".join(_number_and_unit(seconds))


def format_span(low: float, high: float) -> str:
    """Return two durations, with the unit once if it is the same: "162 to 165 µs"."""
    (first, unit), (last, last_unit) = _number_and_unit(low), _number_and_unit(high)
    return f"{first} to {last} {last_unit}" if unit == last_unit else f"{first} {unit} to {last} {last_unit}"


def format_ratio(ratio: float) -> str:
    """Return a ratio to about three digits: "0.068", "1.36", "12.5", "25,600"."""
    rounded = float(f"{ratio:.3g}")
    if rounded >= 100:
        return f"{ratio:,.0f}" if rounded < 1000 else f"{rounded:,.0f}"
    return f"{ratio:.1f}" if rounded >= 10 else f"{ratio:.2f}" if rounded >= 0.1 else f"{ratio:.2g}"


def _number_and_unit(seconds: float) -> tuple[str, str]:
    mantissa, _, exponent = f"{seconds:.2e}".partition("e")  # rounded first: 999.9 µs are 1.00 ms
    power = min(max(int(exponent) // 3 * 3, -9), 0)
    number = float(mantissa) * 10.0 ** (int(exponent) - power)
    digits = max(2 - max(int(exponent) - power, 0), 0)
    return f"{number:,.{digits}f}", UNITS[power]

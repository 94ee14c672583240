"""Labels of values in a drawing: a number in few digits; shape, mean and norm of an array."""

import math
import re
import unicodedata
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Any

import numpy as np

from xpnet.device import asnumpy

__all__ = ["Quantity", "number_text", "quantity", "shorten", "text_width", "writable"]

LISTED = 4
"""Vectors up to this length are shown by their elements."""
MINUS = "\u2212"
FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 forbids: controls, and halves of surrogate pairs, which no file can hold either."""


@dataclass(frozen=True)
class Quantity:
    """Label of a value.

    Attributes
    ----------
    lines : tuple of str
        Text: one line for a number, up to two lines for an array.
    number : float or None
        The number itself, None for an array.
    """

    lines: tuple[str, ...]
    number: float | None = None


def quantity(value: Any) -> Quantity:
    """Describe a scalar or an array of any device."""
    array = asnumpy(value)
    if array.dtype.kind not in "biuf":
        return Quantity((shorten(str(value)),))
    if array.ndim == 0:
        return Quantity((number_text(float(array)),), float(array))
    if array.ndim == 1 and 0 < array.size <= LISTED:
        return Quantity((f"[{', '.join(number_text(float(x)) for x in array)}]",))
    shape = f"({', '.join(map(str, array.shape))}{',' if array.ndim == 1 else ''})"
    if array.size == 0 or array.dtype.kind != "f":  # the mean of class ids says nothing
        return Quantity((shape,))
    with np.errstate(all="ignore"):
        mean, norm = float(array.mean(dtype="float64")), float(np.linalg.norm(array.astype("float64").ravel()))
    if abs(mean) < 10 * np.finfo(array.dtype).eps * norm / math.sqrt(array.size):
        mean = 0.0  # rounding error of a mean of zero
    return Quantity((shape, f"mean {number_text(mean, 2)} norm {number_text(norm, 2)}"))


def number_text(x: float, digits: int = 4) -> str:
    """Write a number with four significant digits: 220.00000000000003 is 220, 12345.6 is 12346.

    >>> number_text(220.00000000000003), number_text(2 / 3), number_text(1e-7 / 3)
    ('220', '0.6667', '3.333e\u22128')
    """
    if math.isnan(x):
        return "NaN"
    sign, x = (MINUS if x < 0 else ""), abs(x)
    if math.isinf(x):
        return f"{sign}\u221e"
    exact = Decimal(x)
    if not x:
        return "0"
    if 10**digits <= x < 999999.5:
        return f"{sign}{exact.quantize(Decimal(1), ROUND_HALF_UP)}"
    rounded = Context(prec=digits, rounding=ROUND_HALF_UP).plus(exact)  # as JavaScript rounds in page.js
    power = rounded.adjusted()
    if -4 <= power < 6:
        return sign + _without_zeros(f"{rounded:f}")
    mantissa = _without_zeros(f"{rounded.scaleb(-power):f}")
    return f"{sign}{mantissa}e{MINUS if power < 0 else ''}{abs(power)}"


def _without_zeros(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text


def shorten(text: str, length: int = 24) -> str:
    """Shorten a text to one line of characters that XML allows."""
    text = "".join(c if c.isprintable() else _stand_in(c) for c in writable(text))
    return text if len(text) <= length else f"{text[: length - 1]}\u2026"


def _stand_in(c: str) -> str:
    return " " if c.isspace() or unicodedata.category(c) == "Cf" else "\ufffd"


def writable(text: str) -> str:
    """Show each character that XML forbids by the replacement character."""
    return FORBIDDEN.sub("\ufffd", text)


def text_width(text: str, size: float) -> float:
    """Estimate the width of a text. The estimate is rather too wide, since the reader's font is unknown."""
    return size * sum(_em(c) for c in text)


def _em(c: str) -> float:
    if unicodedata.east_asian_width(c) in "WF":
        return 1.0
    if c in "MWmw@\u2026":
        return 0.95
    return 0.36 if c in " .,;:'|!()[]ijlft" else 0.64 if not c.isupper() else 0.72

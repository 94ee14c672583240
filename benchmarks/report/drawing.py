"""Colors, settings and text of the picture, by Matplotlib.

A unit is a pixel: figures have 72 dots per inch, as SVG's points do.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib as mpl
from matplotlib.axes import Axes

from report.units import format_seconds

__all__ = ["BARS", "GRID", "INK", "MUTED", "PAPER", "SMALL", "drawing", "format_tick", "shorten", "strip", "write"]

PAPER = "#ffffff"
"""A background of its own: the same picture stands on white and on dark pages."""

INK, MUTED, GRID = "#1b1f24", "#57606a", "#e1e5ea"

BARS = {"xpnet": "#0067b0", "peer": "#88919b", "limit": "#57606a"}
"""Colors of bars and dots, by the party's role."""

TEXT, SMALL = 13, 12
"""Sizes of text in pixels."""

STYLE = {
    "font.family": "DejaVu Sans",  # Matplotlib brings it, so that the picture is laid out alike everywhere
    "font.size": TEXT,
    "text.parse_math": False,  # a name may have dollar signs
    "svg.fonttype": "path",  # an image in a page has no fonts but its own
    "svg.hashsalt": "xpnet",
    "figure.dpi": 72,
    "savefig.dpi": 72,
}


@contextmanager
def drawing() -> Iterator[None]:
    """Draw and save with the settings that the picture counts on."""
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph", category=UserWarning)  # what the font lacks is a box
        yield


def strip(axes: Axes) -> None:
    """Take away what is not data, but for a quiet grid."""
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, pad=6, labelsize=SMALL, labelcolor=MUTED, color=MUTED)
    axes.grid(color=GRID, linewidth=1)


def format_tick(seconds: float, _position: int | None = None) -> str:
    """Return a duration without needless zeros: "100 µs"."""
    if seconds <= 0:
        return "0"
    number, unit = format_seconds(seconds).split(" ")
    return f"{number.rstrip('0').rstrip('.') if '.' in number else number} {unit}"


def write(axes, text, place, offset, color, *, ha="left", weight="normal", size=TEXT, xycoords="data") -> None:
    """Write text so many pixels from a place."""
    style = {"color": color, "ha": ha, "va": "center_baseline", "weight": weight, "size": size}
    axes.annotate(text, place, offset, xycoords, "offset points", annotation_clip=False, **style)


def shorten(text: str, length: int) -> str:
    """Cut a text that is too long, and show that it was cut."""
    return text if len(text) <= length else f"{text[: length - 1].rstrip()}…"

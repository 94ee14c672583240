"""What all charts share, by Matplotlib. A unit is a pixel: figures have 72 dots per inch, as SVG's points do."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from report.units import format_seconds

__all__ = [
    "NARROW",
    "SMALL",
    "WIDE",
    "Margins",
    "Palette",
    "create_axes",
    "drawing",
    "format_tick",
    "measure_text",
    "shorten",
    "strip",
    "write",
]

WIDE, NARROW = 820, 330
"""Pixels across: for a desktop, for a telephone."""

TEXT, SMALL = 13, 12
"""Sizes of text in pixels."""

FONT = "DejaVu Sans"
"""Matplotlib brings it, so that a chart is laid out alike everywhere; few fonts are wider."""

STYLE = {
    "font.family": FONT,
    "font.size": TEXT,
    "text.parse_math": False,  # a name may have dollar signs
    "svg.fonttype": "none",
    "svg.hashsalt": "xpnet",
    "figure.dpi": 72,
    "savefig.dpi": 72,
}


@dataclass(frozen=True)
class Palette:
    """Colours by what they are for."""

    ink: str
    muted: str
    grid: str
    xpnet: str
    peer: str
    limit: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Margins:
    """Pixels around the axes."""

    left: float
    right: float
    top: float
    bottom: float


@contextmanager
def drawing() -> Iterator[None]:
    """Draw and save with the settings that the charts count on."""
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph", category=UserWarning)  # the reader's font may have it
        yield


def create_axes(width: float, height: float, margins: Margins, **settings: str) -> Axes:
    """Return axes of so many pixels, in a figure of their own that is wider and higher by the margins."""
    across, down = width + margins.left + margins.right, height + margins.top + margins.bottom
    figure = Figure(figsize=(across / 72, down / 72))
    return figure.add_axes((margins.left / across, margins.bottom / down, width / across, height / down), **settings)


def strip(axes: Axes, palette: Palette) -> None:
    """Take away what is not data, but for a quiet grid."""
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, pad=6, labelsize=SMALL, labelcolor=palette.muted, color=palette.muted)
    axes.grid(color=palette.grid, linewidth=1)


def format_tick(seconds: float, _position: int | None = None) -> str:
    """Return a duration without needless zeros: "100 µs"."""
    if seconds <= 0:
        return "0"
    number, unit = format_seconds(seconds).split(" ")
    return f"{number.rstrip('0').rstrip('.') if '.' in number else number} {unit}"


def write(axes, text, place, offset, colour, *, ha="left", weight="normal", size=TEXT, xycoords="data") -> None:
    """Write text so many pixels from a place."""
    style = {"color": colour, "ha": ha, "va": "center_baseline", "weight": weight, "size": size}
    axes.annotate(text, place, offset, xycoords, "offset points", annotation_clip=False, **style)


def measure_text(text: str, weight: str = "normal") -> float:
    """Return how wide a text is."""
    font = FontProperties(family=FONT, size=TEXT, weight=weight)
    return text_to_path.get_text_width_height_descent(text, font, ismath=False)[0]


def shorten(text: str, length: int) -> str:
    """Cut a text that is too long, and show that it was cut."""
    return text if len(text) <= length else f"{text[: length - 1].rstrip()}…"

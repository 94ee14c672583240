"""One picture of the heart of it, for the README: the training step and the gradient, on each device."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence

import matplotlib as mpl
from matplotlib.figure import Figure

from report.bars import VALUE_ROOM, Bar, arrange, has_log_scale, is_cut, paint_bars
from report.comparison import Comparison, compare
from report.drawing import SMALL, Palette, drawing, write
from report.page import comparison_bars
from report.reading import REMEDY, Measurement, Unreadable

__all__ = ["PICTURE_FORMATS", "draw_picture"]

PICTURE_FORMATS = ("png", "svg")

PAPER = "#ffffff"
"""A background of its own: the same picture stands on white and on dark pages."""

COLOURS = Palette(
    ink="#1b1f24", muted="#57606a", grid="#e1e5ea", xpnet="#0067b0", peer="#88919b", limit="#57606a", lines=()
)

TITLES = {"step": "A training step", "gradient": "A gradient, numerical and by backpropagation"}

PANEL, GAP, EDGE, HEAD, FOOT, LINE = 400, 40, 24, 64, 44, 18
"""Pixels: a panel across, between panels, around all, above and below a panel's bars, a line."""


def draw_picture(measurements: Sequence[Measurement], picture_format: str) -> bytes:
    """Return the picture as a file's content.

    Raises
    ------
    Unreadable
        If there is nothing to draw.
    """
    rows = _choose(measurements)
    if not any(rows):
        raise Unreadable(f"the picture needs a training step or a gradient, of two parties or more; {REMEDY}")
    columns = max(map(len, rows))
    width = 2 * EDGE + columns * PANEL + (columns - 1) * GAP
    heights = [max(arrange(comparison_bars(c), narrow=True)[1] for c in row) + HEAD + FOOT for row in rows]
    legend = list(_explain([comparison_bars(comparison) for row in rows for comparison in row]))
    height = sum(heights) + EDGE + LINE * len(legend)
    with drawing(), mpl.rc_context({"svg.fonttype": "path"}):  # an image in a page has no fonts but its own
        figure = Figure(figsize=(width / 72, height / 72), facecolor=PAPER)
        for number, row in enumerate(rows):
            for column, comparison in enumerate(row):
                _paint(figure, comparison, EDGE + column * (PANEL + GAP), sum(heights[:number]))
        for number, text in enumerate(reversed(legend)):
            figure.text(EDGE / width, (EDGE + LINE * number) / height, text, color=COLOURS.muted, size=SMALL)
        stream = io.BytesIO()
        figure.savefig(
            stream, format=picture_format, dpi=144, metadata={"Date": None} if picture_format == "svg" else {}
        )
    return stream.getvalue()


def _explain(charts: Sequence[Sequence[Bar]]) -> Iterable[str]:
    """Say how to read the charts, a line for each thing that is in them."""
    yield "Bars or dots: medians. Whiskers: first to third quartile."
    if any(bar.look == "limit" for bars in charts for bar in bars):
        yield "Dashed line: the matrix products of a step alone."
    if any(has_log_scale(bars) for bars in charts):
        yield "Dots: on a log axis."
    if any(is_cut(bar, bars) for bars in charts for bar in bars):
        yield "Arrow: the third quartile is further out."


def _choose(measurements: Sequence[Measurement]) -> list[list[Comparison]]:
    """Return the first step and the first gradient of each place: side by side, or where there are several, by kind."""
    kinds = []
    for kind in TITLES:
        worthy = [c for c in compare(measurements, kind) if len(c.measurements) > 1]
        kinds.append(list({c.place: c for c in reversed(worthy)}.values())[::-1])
    kinds = [row for row in kinds if row]
    return kinds if max(map(len, kinds), default=0) > 1 else [[c for row in kinds for c in row]]


def _paint(figure: Figure, comparison: Comparison, left: float, top: float) -> None:
    width, height = figure.get_size_inches() * 72
    bars = comparison_bars(comparison)
    _, down = arrange(bars, narrow=True)
    bottom = height - top - HEAD - down
    axes = figure.add_axes((left / width, bottom / height, (PANEL - VALUE_ROOM) / width, down / height))
    paint_bars(axes, bars, COLOURS, narrow=True)
    above = {"xycoords": "axes fraction"}
    write(axes, TITLES[comparison.kind], (0, 1), (-2, 34), COLOURS.ink, weight="bold", size=15, **above)
    subtitle = f"{comparison.work}; {comparison.place.machine}"
    write(axes, subtitle, (0, 1), (-2, 14), COLOURS.muted, size=SMALL, **above)

"""One picture of the heart of it, for the README: the training step and the gradient, on each device."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence

from matplotlib.figure import Figure

from report.bars import VALUE_ROOM, has_cut_whisker, has_log_scale, height_of_bars, paint_bars
from report.comparison import Comparison, compare
from report.drawing import INK, MUTED, PAPER, SMALL, drawing, write
from report.reading import REMEDY, Measurement, Unreadable

__all__ = ["PICTURE_FORMATS", "draw_picture"]

PICTURE_FORMATS = ("png", "svg")

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
    heights = [max(map(height_of_bars, row)) + HEAD + FOOT for row in rows]
    legend = list(_explain([comparison for row in rows for comparison in row]))
    height = sum(heights) + EDGE + LINE * len(legend)
    with drawing():
        figure = Figure(figsize=(width / 72, height / 72), facecolor=PAPER)
        for number, row in enumerate(rows):
            for column, comparison in enumerate(row):
                _paint(figure, comparison, EDGE + column * (PANEL + GAP), sum(heights[:number]))
        for number, text in enumerate(reversed(legend)):
            figure.text(EDGE / width, (EDGE + LINE * number) / height, text, color=MUTED, size=SMALL)
        stream = io.BytesIO()
        figure.savefig(
            stream, format=picture_format, dpi=144, metadata={"Date": None} if picture_format == "svg" else {}
        )
    return stream.getvalue()


def _explain(comparisons: Sequence[Comparison]) -> Iterable[str]:
    """Say how to read the charts, a line for each thing that is in them."""
    yield "Bars or dots: medians. Whiskers: first to third quartile."
    if any(comparison.limit for comparison in comparisons):
        yield "Dashed line: the matrix products of a step alone."
    if any(map(has_log_scale, comparisons)):
        yield "Dots: on a log axis."
    if any(map(has_cut_whisker, comparisons)):
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
    down = height_of_bars(comparison)
    bottom = height - top - HEAD - down
    axes = figure.add_axes((left / width, bottom / height, (PANEL - VALUE_ROOM) / width, down / height))
    paint_bars(axes, comparison)
    above = {"xycoords": "axes fraction"}
    write(axes, TITLES[comparison.kind], (0, 1), (-2, 34), INK, weight="bold", size=15, **above)
    place = comparison.place
    where = place.machine if place.name == place.device else place.name  # two files of a device: tell them apart
    write(axes, f"{comparison.work}; {where}", (0, 1), (-2, 14), MUTED, size=SMALL, **above)

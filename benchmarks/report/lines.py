"""Lines of seconds against the number of parameters, both logarithmic: one for each method."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from report.drawing import NARROW, SMALL, WIDE, Margins, Palette, create_axes, format_tick, shorten, strip, write
from report.reading import Measurement
from report.units import format_count

__all__ = ["draw_lines"]

MARKERS = "os^Dv*"

LABEL_DISTANCE = 20
"""Pixels between two names one below the other."""

TICK_DISTANCE = 58
"""Pixels between two numbers of parameters."""


@dataclass(frozen=True)
class Line:
    """A method's measurements, the smallest network first, and how they are drawn."""

    method: str
    measurements: Sequence[Measurement]
    colour: str
    marker: str
    dashes: str

    @property
    def parameters(self) -> list[int]:
        """Where its points are."""
        return [m.parameters for m in self.measurements]

    def seconds(self, statistic: str) -> list[float]:
        """Return "median", "q1" or "q3" at each point."""
        return [getattr(m.times, statistic) for m in self.measurements]

    @property
    def end(self) -> tuple[int, float]:
        """Its last point."""
        return self.parameters[-1], self.seconds("median")[-1]


def draw_lines(
    methods: Mapping[str, Sequence[Measurement]], palette: Palette, *, narrow: bool, in_pairs: bool = False
) -> Figure:
    """Draw a line for each method, named at its end, or below where the chart is narrow.

    Two that are a pair look alike, but the second is dashed.
    """
    dashes = ("-", "--") if in_pairs else ("-",)
    looks = (
        (*look, dash)
        for look in zip(itertools.cycle(palette.lines), itertools.cycle(MARKERS), strict=False)
        for dash in dashes
    )
    lines = [Line(name, found, *look) for (name, found), look in zip(methods.items(), looks, strict=False)]
    if narrow:
        width, height, margins = NARROW, 250, Margins(left=58, right=26, top=10, bottom=56 + 22 * len(lines))
    else:
        width, height, margins = WIDE, 340, Margins(left=70, right=230, top=10, bottom=50)
    axes = create_axes(width - margins.left - margins.right, height, margins, xscale="log", yscale="log")
    _scale(axes, lines, width - margins.left - margins.right)
    strip(axes, palette)
    axes.set_xlabel("parameters of the network", color=palette.muted, size=SMALL, labelpad=8)
    for line in lines:
        style = {"color": line.colour, "clip_on": False}
        axes.vlines(line.parameters, line.seconds("q1"), line.seconds("q3"), linewidth=1.5, **style)
        axes.plot(
            line.parameters,
            line.seconds("median"),
            marker=line.marker,
            markersize=7,
            linewidth=2,
            linestyle=line.dashes,
            **style,
        )
    (_name_below if narrow else _name_at_ends)(axes, lines, height, palette)
    return axes.figure


def _scale(axes: Axes, lines: Iterable[Line], width: float) -> None:
    sizes = sorted({number for line in lines for number in line.parameters})
    axes.set_xlim(sizes[0] / 1.1, sizes[-1] * 1.05)
    axes.set_ylim(
        min(min(line.seconds("q1")) for line in lines) / 1.5, max(max(line.seconds("q3")) for line in lines) * 2
    )
    axes.xaxis.set_major_locator(FixedLocator(_thin_out(sizes, width)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda number, _: format_count(number)))
    axes.yaxis.set_major_locator(LogLocator(numticks=8))
    axes.yaxis.set_major_formatter(FuncFormatter(format_tick))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_locator(NullLocator())


def _thin_out(sizes: Sequence[int], width: float) -> list[int]:
    """Return the sizes whose numbers have room on an axis, the largest first."""
    pixels_per_log = width / (math.log(sizes[-1] * 1.05) - math.log(sizes[0] / 1.1))
    kept = [sizes[-1]]
    for size in reversed(sizes[:-1]):
        if math.log(kept[-1] / size) * pixels_per_log >= TICK_DISTANCE:
            kept.append(size)
    return kept


def _name_at_ends(axes: Axes, lines: Iterable[Line], height: float, palette: Palette) -> None:
    """Write the names at the right, each as high as its line's end or as high as the name below it allows."""
    lowest = -math.inf
    for line in sorted(lines, key=lambda line: line.end[1]):
        x, y = axes.transAxes.inverted().transform(axes.transData.transform(line.end))
        lowest = max(y * height, lowest + LABEL_DISTANCE)
        style = {"color": line.colour, "linewidth": 1, "linestyle": (0, (1, 2)), "clip_on": False}
        axes.plot([x, 1.02, 1.035], [y, lowest / height, lowest / height], transform=axes.transAxes, **style)
        write(axes, shorten(line.method, 28), (1.035, lowest / height), (4, 0), palette.ink, xycoords="axes fraction")


def _name_below(axes: Axes, lines: Iterable[Line], height: float, palette: Palette) -> None:
    for row, line in enumerate(lines):
        y = -(58 + 22 * row) / height
        style = {"color": line.colour, "marker": line.marker, "markersize": 7, "linewidth": 2, "clip_on": False}
        place = {"markevery": [1], "transform": axes.transAxes, "linestyle": line.dashes}
        axes.plot([-0.18, -0.12, -0.06], [y] * 3, **place, **style)
        write(axes, shorten(line.method, 34), (-0.06, y), (8, 0), palette.ink, xycoords="axes fraction")

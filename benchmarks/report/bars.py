"""A comparison as bars of medians with quartiles as whiskers; as dots on a log axis where bars would be too far apart.

The bars are one below the other, each with its party's name above it and its median at the right.
"""

from __future__ import annotations

import math

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from report.comparison import Comparison
from report.drawing import BARS, GRID, INK, SMALL, format_tick, shorten, strip, write
from report.reading import Measurement
from report.units import format_seconds

__all__ = ["VALUE_ROOM", "has_cut_whisker", "has_log_scale", "height_of_bars", "paint_bars"]

LOG_FROM = 40
"""A bar so many times shorter than the longest can't be seen: from there on dots on a log axis, which has no zero."""

VALUE_ROOM = 76
"""Pixels to the right of the bars for a column of medians."""

ROW, CENTER = 46, 30
"""Pixels: from one bar to the next, and from the top of a bar's row, where the name is, to the middle of the bar."""

LONGEST_LABEL = 46

LONGEST_WHISKER = 1.5
"""Times the longest median: a whisker that goes on would press all bars together, so it is cut."""

ON_TOP = {"clip_on": False, "zorder": 5}

BESIDE = {"xycoords": ("axes fraction", "data")}
"""Coordinates: a fraction of the axes across, a bar's center down."""


def has_cut_whisker(comparison: Comparison) -> bool:
    """Return whether a whisker goes on beyond the axis."""
    return any(m.times.q3 > _end_of_axis(comparison) for m in comparison.measurements)


def has_log_scale(comparison: Comparison) -> bool:
    """Return whether the values are too far apart for bars that start from zero."""
    medians = [m.times.median for m in comparison.measurements]
    return max(medians) >= LOG_FROM * min(medians)


def height_of_bars(comparison: Comparison) -> float:
    """Return the pixels of all bars together."""
    return ROW * len(comparison.measurements) + 4


def paint_bars(axes: Axes, comparison: Comparison) -> None:
    """Fill axes, which are as high as `height_of_bars` says."""
    log, end = has_log_scale(comparison), _end_of_axis(comparison)
    centers = [ROW * row + CENTER for row in range(len(comparison.measurements))]
    axes.set_ylim(height_of_bars(comparison), 0)
    _scale(axes, comparison, log)
    strip(axes)
    for m, center in zip(comparison.measurements, centers, strict=True):
        (_paint_dot if log else _paint_bar)(axes, m, center)
        _paint_whisker(axes, m, center, end)
        weight = "bold" if m is comparison.reference else "normal"
        write(axes, shorten(m.party, LONGEST_LABEL), (0, center), (-2, 17), INK, weight=weight, **BESIDE)
        style = {"ha": "right", "size": SMALL, "weight": weight, **BESIDE}
        write(axes, format_seconds(m.times.median), (1, center), (VALUE_ROOM - 2, 0), INK, **style)
    limits = [m.times.median for m in comparison.measurements if m.role == "limit"]
    if len(limits) == 1:
        ends = [center - 9 for center in centers], [center + 9 for center in centers]  # not over the names
        axes.vlines(limits * len(centers), *ends, color=INK, linewidth=1, linestyle=(0, (2, 3)), zorder=4)


def _scale(axes: Axes, comparison: Comparison, log: bool) -> None:
    lowest, highest = min(m.times.q1 for m in comparison.measurements), _end_of_axis(comparison)
    if log:
        axes.set_xscale("log")
        axes.set_xlim(10 ** math.floor(math.log10(lowest) - 0.05), highest)
        axes.xaxis.set_major_locator(LogLocator(numticks=4))
    else:
        axes.set_xlim(0, highest)
        axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(format_tick))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(NullLocator())


def _end_of_axis(comparison: Comparison) -> float:
    longest = max(m.times.median for m in comparison.measurements)
    return min(max(longest, *(m.times.q3 for m in comparison.measurements)), LONGEST_WHISKER * longest)


def _paint_bar(axes: Axes, m: Measurement, center: float) -> None:
    color, hollow = BARS[m.role], m.role == "limit"
    face = "none" if hollow else color
    axes.barh(center, m.times.median, 14, facecolor=face, edgecolor=color, linewidth=1.2 * hollow, zorder=2)


def _paint_dot(axes: Axes, m: Measurement, center: float) -> None:
    color, hollow = BARS[m.role], m.role == "limit"
    axes.hlines(center, axes.get_xlim()[0], m.times.median, color=GRID, linewidth=1.5, zorder=1)
    style = {"markerfacecolor": "none" if hollow else color, "markeredgecolor": color, **ON_TOP, "zorder": 3}
    axes.plot(m.times.median, center, "o", markersize=9, **style)


def _paint_whisker(axes: Axes, m: Measurement, center: float, end_of_axis: float) -> None:
    """Draw a line from the first to the third quartile, which ends in an arrow where it is cut."""
    style = {"color": INK, "linestyle": "-", "linewidth": 1.2, **ON_TOP}
    end, is_cut = min(m.times.q3, end_of_axis), m.times.q3 > end_of_axis
    axes.plot([m.times.q1, end], [center] * 2, marker="|", markevery=[0], markersize=7, **style)
    axes.plot(end, center, marker=">" if is_cut else "|", markersize=5 if is_cut else 7, **style)

"""Bars of medians with quartiles as whiskers; dots on a log axis where bars would be too far apart."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from report.drawing import (
    NARROW,
    SMALL,
    WIDE,
    Margins,
    Palette,
    create_axes,
    format_tick,
    measure_text,
    shorten,
    strip,
    write,
)
from report.reading import Times
from report.units import format_seconds

__all__ = ["VALUE_ROOM", "Bar", "arrange", "draw_bars", "has_log_scale", "is_cut", "paint_bars"]

LOG_FROM = 40
"""A bar so many times shorter than the longest can't be seen: from there on dots on a log axis, which has no zero."""

VALUE_ROOM = 76
"""Pixels to the right of the bars for a column of medians."""

LONGEST_LABEL = 40

LONGEST_WHISKER = 1.5
"""Times the longest median: a whisker that goes on would press all bars together, so it is cut."""

ON_TOP = {"clip_on": False, "zorder": 5}

BESIDE = {"xycoords": ("axes fraction", "data")}
"""Coordinates: a fraction of the axes across, a bar's centre down."""


@dataclass(frozen=True)
class Bar:
    """A median and its quartiles.

    Attributes
    ----------
    label : str
        What it is.
    times : Times
        Its length is the median, its whiskers are the quartiles.
    look : str
        "xpnet", "peer" or "limit".
    note : str
        For the column at the right.
    follows : bool
        Belongs to the bar above it.
    strong : bool
        What it is all about.
    """

    label: str
    times: Times
    look: str
    note: str = ""
    follows: bool = False
    strong: bool = False

    @property
    def weight(self) -> str:
        """Of the font."""
        return "bold" if self.strong else "normal"


def draw_bars(bars: Sequence[Bar], palette: Palette, *, narrow: bool, note: str = "") -> Figure:
    """Draw bars, one below the other; `note` is the heading of their notes, for which a narrow chart has no room."""
    centres, height = arrange(bars, narrow)
    if narrow:
        margins = Margins(left=18 if has_log_scale(bars) else 4, right=VALUE_ROOM, top=2, bottom=28)
    else:
        labels = max(measure_text(shorten(bar.label, LONGEST_LABEL), bar.weight) for bar in bars)
        notes = measure_text(shorten(note, LONGEST_LABEL)) + 24 if note else 0
        margins = Margins(left=labels + 14, right=VALUE_ROOM + notes, top=22, bottom=28)
    axes = create_axes((NARROW if narrow else WIDE) - margins.left - margins.right, height, margins)
    paint_bars(axes, bars, palette, narrow=narrow)
    if not narrow:
        style = {"ha": "right", "size": SMALL}
        for heading, edge in (("median", VALUE_ROOM), (shorten(note, LONGEST_LABEL), margins.right)):
            write(axes, heading, (1, 1), (edge - 2, 12), palette.muted, xycoords="axes fraction", **style)
        for bar, centre in zip(bars, centres, strict=True):
            write(axes, bar.note, (1, centre), (margins.right - 2, 0), palette.ink, **BESIDE, **style)
    return axes.figure


def is_cut(bar: Bar, bars: Sequence[Bar]) -> bool:
    """Return whether a bar's whisker goes on beyond the axis."""
    return bar.times.q3 > _end_of_axis(bars)


def has_log_scale(bars: Sequence[Bar]) -> bool:
    """Return whether the values are too far apart for bars that start from zero."""
    medians = [bar.times.median for bar in bars]
    return max(medians) >= LOG_FROM * min(medians)


def arrange(bars: Sequence[Bar], narrow: bool) -> tuple[list[float], float]:
    """Return the bars' centres, in pixels from the top, and the height of all together.

    A narrow chart writes the label above the bar, a wide one to its left.
    """
    grouped = any(bar.follows for bar in bars)
    if narrow:
        lead, follow, centre = 46, 38, 30
    elif grouped:
        lead, follow, centre = 32, 22, 21
    else:
        lead, follow, centre = 30, 30, 15
    bottoms = list(itertools.accumulate(follow if bar.follows else lead for bar in bars))
    return [bottom - lead + centre for bottom in bottoms], bottoms[-1] + 4


def paint_bars(axes: Axes, bars: Sequence[Bar], palette: Palette, *, narrow: bool) -> None:
    """Fill axes, which are as high as `arrange` says."""
    centres, height = arrange(bars, narrow)
    log = has_log_scale(bars)
    axes.set_ylim(height, 0)
    _scale(axes, bars, log, narrow)
    strip(axes, palette)
    for bar, centre in zip(bars, centres, strict=True):
        (_paint_dot if log else _paint_bar)(axes, bar, centre, palette)
        end = min(bar.times.q3, _end_of_axis(bars))
        style = {"color": palette.ink, "linestyle": "-", "linewidth": 1.2, **ON_TOP}
        axes.plot([bar.times.q1, end], [centre] * 2, marker="|", markevery=[0], markersize=7, **style)
        axes.plot(
            end, centre, marker=">" if is_cut(bar, bars) else "|", markersize=5 if is_cut(bar, bars) else 7, **style
        )
        _write_label_and_value(axes, bar, centre, palette, narrow)
    limits = [bar.times.median for bar in bars if bar.look == "limit"]
    if len(limits) == 1:
        reach = 9 if narrow else 15  # a narrow chart has labels between the bars
        ends = [c - reach for c in centres], [c + reach for c in centres]
        axes.vlines(limits * len(bars), *ends, color=palette.ink, linewidth=1, linestyle=(0, (2, 3)), zorder=4)


def _scale(axes: Axes, bars: Sequence[Bar], log: bool, narrow: bool) -> None:
    lowest, highest = min(bar.times.q1 for bar in bars), _end_of_axis(bars)
    if log:
        axes.set_xscale("log")
        axes.set_xlim(10 ** math.floor(math.log10(lowest) - 0.05), highest)
        axes.xaxis.set_major_locator(LogLocator(numticks=4 if narrow else 8))
    else:
        axes.set_xlim(0, highest)
        axes.xaxis.set_major_locator(MaxNLocator(4 if narrow else 5, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(format_tick))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(NullLocator())


def _end_of_axis(bars: Sequence[Bar]) -> float:
    longest = max(bar.times.median for bar in bars)
    return min(max(longest, *(bar.times.q3 for bar in bars)), LONGEST_WHISKER * longest)


def _paint_bar(axes: Axes, bar: Bar, centre: float, palette: Palette) -> None:
    colour, hollow = getattr(palette, bar.look), bar.look == "limit"
    face = "none" if hollow else colour
    axes.barh(centre, bar.times.median, 14, facecolor=face, edgecolor=colour, linewidth=1.2 * hollow, zorder=2)


def _paint_dot(axes: Axes, bar: Bar, centre: float, palette: Palette) -> None:
    colour, hollow = getattr(palette, bar.look), bar.look == "limit"
    axes.hlines(centre, axes.get_xlim()[0], bar.times.median, color=palette.grid, linewidth=1.5, zorder=1)
    style = {"markerfacecolor": "none" if hollow else colour, "markeredgecolor": colour, **ON_TOP, "zorder": 3}
    axes.plot(bar.times.median, centre, "o", markersize=9, **style)


def _write_label_and_value(axes: Axes, bar: Bar, centre: float, palette: Palette, narrow: bool) -> None:
    """Write what it is at the left or above, and the median in a column at the right, where no whisker ends."""
    style = {"weight": bar.weight, **BESIDE}
    if narrow:
        write(axes, shorten(bar.label, 46), (0, centre), (-2, 17), palette.ink, **style)
    else:
        write(axes, shorten(bar.label, LONGEST_LABEL), (0, centre), (-10, 0), palette.ink, ha="right", **style)
    value = format_seconds(bar.times.median)
    write(axes, value, (1, centre), (VALUE_ROOM - 2, 0), palette.ink, ha="right", size=SMALL, **style)

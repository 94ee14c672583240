"""A map of the training step: who is fastest at which width and batch, and by what ratio, by Matplotlib."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from report.drawing import GRID, INK, MUTED, PAPER, SMALL, drawing, write
from report.units import format_ratio

__all__ = ["draw_map"]

NEAR = 1.1
"""Ratios within it are even: differences under 10% are noise."""

COLORS = {"xpnet": ("#0067b0", "#ffffff"), "even": ("#e1e5ea", INK), "peer": ("#f2c27b", INK)}
"""Color of a cell and of its text."""

CELL, LEFT, EDGE, HEAD, FOOT, LINE = (112, 46), 76, 24, 60, 52, 18
"""Pixels: a cell across and down, left of the cells, around all, above and below the cells, a line."""


def draw_map(result: Mapping[str, Any]) -> bytes:
    """Return the picture as an SVG file's content.

    Parameters
    ----------
    result : mapping
        What `crossover.py` writes.
    """
    cells = result["cells"]
    devices = list(dict.fromkeys(cell["device"] for cell in cells))
    widths, batches = (sorted({cell[name] for cell in cells}) for name in ("width", "batch"))
    machine = result["environment"]["cpu"]
    legend = (
        "In each cell: the fastest party; by how many times the fastest xpnet beats the fastest peer, or is beaten.",
        "Blue: xpnet is faster. Orange: a peer is. Gray: under 10% apart, which is noise.",
        f"Medians. Rounds: {result['rounds']}. Cores: {machine['cores']} of {machine['processor']}.",
    )
    across, down = CELL[0] * len(batches), CELL[1] * len(widths)
    width = 2 * EDGE + LEFT + max(across, 620)
    height = (HEAD + down + FOOT) * len(devices) + EDGE + LINE * len(legend)
    with drawing():
        figure = Figure(figsize=(width / 72, height / 72), facecolor=PAPER)
        for number, device in enumerate(devices):
            bottom = height - (HEAD + down + FOOT) * number - HEAD - down
            axes = figure.add_axes(((EDGE + LEFT) / width, bottom / height, across / width, down / height))
            _paint(axes, device, [cell for cell in cells if cell["device"] == device], widths, batches)
        for number, text in enumerate(reversed(legend)):
            figure.text(EDGE / width, (EDGE + LINE * number) / height, text, color=MUTED, size=SMALL)
        stream = io.BytesIO()
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue()


def _paint(
    axes: Axes, device: str, cells: Sequence[Mapping[str, Any]], widths: Sequence[int], batches: Sequence[int]
) -> None:
    axes.set_xlim(0, len(batches))
    axes.set_ylim(len(widths), 0)
    axes.spines[:].set_visible(False)
    axes.set_xticks([column + 0.5 for column in range(len(batches))], batches)
    axes.set_yticks([row + 0.5 for row in range(len(widths))], widths)
    axes.tick_params(length=0, labelsize=SMALL, labelcolor=MUTED)
    axes.set_xlabel("samples in a minibatch", color=MUTED, size=SMALL)
    axes.set_ylabel("width W of 784-W-10", color=MUTED, size=SMALL)
    title = {"weight": "bold", "size": 15, "xycoords": "axes fraction"}
    write(axes, f"A training step of 784-W-10, float32, on {device}", (0, 1), (-2, 22), INK, **title)
    for cell in cells:
        corner = batches.index(cell["batch"]), widths.index(cell["width"])
        fastest, ratio = _compare(cell["median_seconds"])
        kind = "even" if ratio is None or 1 / NEAR < ratio < NEAR else "xpnet" if ratio > 1 else "peer"
        color, ink = COLORS[kind]
        axes.add_patch(Rectangle(corner, 1, 1, facecolor=color, edgecolor=PAPER, linewidth=2))
        center = (corner[0] + 0.5, corner[1] + 0.5)
        write(axes, fastest, center, (0, 8), ink, ha="center", size=SMALL)
        if ratio is not None:
            write(
                axes, f"{format_ratio(max(ratio, 1 / ratio))} times", center, (0, -9), ink, ha="center", weight="bold"
            )
    axes.set_facecolor(GRID)


def _compare(seconds: Mapping[str, float]) -> tuple[str, float | None]:
    """Return the fastest party, and the fastest peer's time over the fastest xpnet's; None without a peer."""
    ours = [taken for party, taken in seconds.items() if party.startswith("xpnet")]
    theirs = [taken for party, taken in seconds.items() if not party.startswith("xpnet")]
    return min(seconds, key=seconds.__getitem__), min(theirs) / min(ours) if theirs and ours else None

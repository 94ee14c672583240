"""Pictures of a report, drawn by Matplotlib: SVG in the page's text color, and PNG as data URIs."""

from __future__ import annotations

import base64
import io
import re
import warnings
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

import numpy as np

from xpnet.extras import import_extra
from xpnet.graph.labels import shorten

__all__ = ["draw_confusion", "png", "signed_colors", "svg"]

INK = "#010203"
"""Stands for the page's text color while Matplotlib draws."""

BLUE, ORANGE = (43, 123, 186), (230, 85, 13)
"""Colors that can be seen on white and on black."""

MOST_COUNTS = 20
"""Most classes of a confusion matrix with a number in each cell."""

LONGEST_NAME = 18
"""Most characters of a class name beside the confusion matrix."""

STYLE = {
    "svg.fonttype": "none",  # texts stay texts
    "svg.hashsalt": "xpnet",  # the same ids each time
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "font.size": 10,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
}


def svg(draw: Callable[[Any], None], name: str, description: str, inches: tuple[float, float]) -> str:
    """Return an SVG element.

    Parameters
    ----------
    draw : callable
        Draws into Matplotlib's axes.
    name : str
        Prefix of the ids in the picture, unique in the page.
    description : str
        Text for who cannot see the picture.
    inches : (width, height)
        Size.
    """
    matplotlib = import_extra("matplotlib", "plot")
    stream = io.StringIO()
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        # Matplotlib's fonts only measure the texts. The browser draws them with its own.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure = import_extra("matplotlib.figure", "plot").Figure(figsize=inches, layout="constrained")
        draw(figure.subplots())
        figure.savefig(stream, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = stream.getvalue()
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text[text.index("<svg") :])
    root, rest = text.split(">", 1)
    box = re.findall(r'viewBox="[^"]*"', root)[0]
    return f'<svg {box} role="img" aria-label="{escape(description)}">{rest.replace(INK, "currentColor")}'


def draw_confusion(axes: Any, confusion: np.ndarray, classes: Sequence[str]) -> None:
    """Draw a confusion matrix into Matplotlib's `axes`. A cell's opacity is the root of its share of the row."""
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    opacity = np.sqrt(shares)
    axes.imshow(np.dstack([np.broadcast_to(np.array(BLUE) / 255, (*shares.shape, 3)), opacity]))
    names = [shorten(name, LONGEST_NAME) for name in classes]
    numbers = range(len(names))
    upright = 0 if max(map(len, names)) <= 2 else 90
    small = 10 if len(names) <= MOST_COUNTS else 7
    axes.set_xticks(numbers, names, rotation=upright, parse_math=False, fontsize=small)
    axes.set_yticks(numbers, names, parse_math=False, fontsize=small)
    axes.set(xlabel="prediction", ylabel="label")
    if len(names) <= MOST_COUNTS:
        size = 8 if len(names) <= 10 else 5
        for row, column in zip(*np.nonzero(confusion), strict=True):
            color = "#ffffff" if opacity[row, column] > 0.75 else INK
            axes.text(column, row, str(confusion[row, column]), ha="center", va="center", fontsize=size, color=color)


def png(pixels: np.ndarray) -> str:
    """Return pixels, uint8 (H, W, 3) or (H, W, 4), as the data URI of a PNG file."""
    stream = io.BytesIO()
    image = import_extra("matplotlib.image", "plot")
    image.imsave(stream, np.ascontiguousarray(pixels), format="png", metadata={"Software": None})
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


def signed_colors(values: np.ndarray, largest: float) -> np.ndarray:
    """Return numbers (H, W) as pixels: orange if positive, blue if negative, transparent at 0, opaque at `largest`."""
    colors = np.where((values > 0)[..., None], ORANGE, BLUE)
    opacity = np.rint(255 * np.clip(np.abs(values) / largest, 0, 1))
    return np.dstack([colors, opacity]).astype("uint8")

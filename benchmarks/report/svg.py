"""Figures as SVG inside a page: in its colours and its font, with ids of their own and a text for who can't see."""

from __future__ import annotations

import io
import re
from xml.etree import ElementTree

from markupsafe import Markup
from matplotlib.figure import Figure

from report.drawing import Palette, drawing

__all__ = ["THEME", "inline_svg"]

VARIABLES = ("ink", "muted", "grid", "xpnet", "peer", "limit", "line-1", "line-2", "line-3", "line-4")

STAND_INS = {name: f"#0a0b{number:02x}" for number, name in enumerate(VARIABLES, 16)}
"""A colour for Matplotlib to draw with, for each of the page's."""

THEME = Palette(
    **{name: STAND_INS[name] for name in VARIABLES[:6]}, lines=tuple(STAND_INS[name] for name in VARIABLES[6:])
)
"""The colours that `inline_svg` replaces by the page's, which know light from dark."""


def inline_svg(figure: Figure, name: str, title: str, description: str, layout: str) -> Markup:
    """Return a figure as an element of a page.

    Parameters
    ----------
    figure : Figure
        Drawn with the colours of `THEME`, within `drawing`.
    name : str
        What all its ids begin with; another figure of the page has another.
    title, description : str
        What is said of it to who can't see it.
    layout : str
        Its class: "wide" or "narrow".
    """
    root = _save(figure)
    for parent in list(root.iter()):
        for child in [c for c in parent if c.tag in {"metadata", "style"}]:
            parent.remove(child)
    for element in root.iter():
        element.attrib = {key: _adapt(key, value, name) for key, value in element.attrib.items()}
    width = root.get("viewBox", "").split()[2]
    root.attrib = {
        "viewBox": root.get("viewBox", ""),
        "class": f"chart {layout}",
        "style": f"--width: {float(width):.0f}px",
        "role": "img",
        "aria-labelledby": f"{name}-title {name}-description",
    }
    for position, (tag, text) in enumerate({"title": title, "desc": description}.items()):
        element = ElementTree.Element(tag, id=f"{name}-{'title' if tag == 'title' else 'description'}")
        element.text = text
        root.insert(position, element)
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _save(figure: Figure) -> ElementTree.Element:
    """Return the figure's SVG without XML's namespaces, which HTML has no use for."""
    stream = io.StringIO()
    with drawing():
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    root = ElementTree.fromstring(stream.getvalue())
    for element in root.iter():
        element.tag = _local(element.tag)
        element.attrib = {_local(key): value for key, value in element.attrib.items()}
    return root


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _adapt(key: str, value: str, name: str) -> str:
    """Return an attribute's value with the page's colours and font, and with ids that are this figure's own."""
    if key == "id":
        return f"{name}-{value}"
    if key == "href":
        return f"#{name}-{value.removeprefix('#')}"
    value = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", value)
    for variable, colour in STAND_INS.items():
        value = value.replace(colour, f"var(--{variable})")
    return value.replace("'DejaVu Sans'", "var(--font)")

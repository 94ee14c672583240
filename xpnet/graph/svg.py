"""Drawing of a computational graph in SVG: values above the edges, derivatives below them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from importlib import resources
from typing import TYPE_CHECKING, Any, NamedTuple
from xml.etree import ElementTree

from xpnet.graph.labels import Quantity, quantity, shorten, text_width, writable
from xpnet.graph.layout import Edge, Layout, Node, arrange, long_edges
from xpnet.graph.rules import rule_of
from xpnet.graph.values import Constant, Value
from xpnet.graph.words import description, expression, spoken_names, title

if TYPE_CHECKING:
    from xpnet.graph.graph import Graph

__all__ = ["draw"]

RADIUS = 21.0
LINE = 17.0
"""Line height of an edge's label."""
CLEAR = 6.0
"""Distance between an edge and its label."""
NUMBER_WIDTH = 58.0
"""Smallest width of a number: the page may replace it by any other."""
TITLE, PARAMETER, CAPTION, NUMBER = 15.0, 12.0, 12.0, 14.0
"""Font sizes, as in drawing.css."""
BOLD = 1.08
"""Width of bold text, relative to normal text."""
TAG = 19.0
LEGEND = 30.0
LARGEST = 5000
"""Largest number of values and links in a drawing. A browser needs seconds to show so many."""


class _Figure(NamedTuple):
    """Drawing of one value: a circle with a sign, a box with a title and parameters, or only a name."""

    kind: str
    text: str
    caption: str
    tags: list[str]
    room: Node
    reach: float
    """Distance from the center to the ends of edges."""


class _Flow(NamedTuple):
    """An edge's value and derivative; either may be None. A long edge begins at its source's `name`."""

    source: int
    target: int
    slot: int
    value: Quantity | None
    grad: Quantity | None
    name: str = ""


def draw(graph: Graph, *, interactive: bool = False) -> str:
    """Draw a graph as SVG that adapts to light and dark.

    Parameters
    ----------
    graph : Graph
        The graph. Values and derivatives that are not computed yet are left out.
    interactive : bool, default False
        Whether the drawing is for an interactive page: nodes can be focused, and the page has the description.

    Raises
    ------
    ValueError
        If the graph has more than `LARGEST` values and links.
    """
    size = len(graph.values) + sum(len(value.inputs) for value in graph.values)
    if size > LARGEST:
        raise ValueError(
            f"a drawing has at most {LARGEST:,} values and links, this graph has {size:,}; draw a part of it: "
            "the graph of an earlier value"
        )
    flows = _name_long(graph, list(_flows(graph)))
    named, uses = {flow.source for flow in flows if flow.name}, _uses(graph)
    figures = [_figure(graph, value, uses[value], i in named) for i, value in enumerate(graph.values)] + [_end(graph)]
    layout = arrange([figure.room for figure in figures], [_edge(flow) for flow in flows])
    height = layout.height + LEGEND
    svg = ElementTree.Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "class": "xpnet-graph",
            "viewBox": f"0 0 {_n(layout.width)} {_n(height)}",
            "width": _n(layout.width),
            "height": _n(height),
            "role": "group" if interactive else "img",
        },
    )
    if interactive:
        svg.set("aria-label", shorten(title(graph), 200))
    else:
        _add(svg, "title", shorten(title(graph), 200))
        _add(svg, "desc", shorten(description(graph), 4000))
    _add(svg, "style", resources.files("xpnet.graph").joinpath("drawing.css").read_text("utf-8"))
    _add(svg, "rect", class_="surface", width=layout.width, height=height)
    for number, flow in enumerate(flows):
        _draw_edge(svg, flow, layout, number, figures)
    names = spoken_names(graph)
    for number, (figure, value) in enumerate(zip(figures, [*graph.values, None], strict=True)):
        group = _add(svg, "g", class_=f"node {figure.kind}", data_node=number)
        if value is not None and value.layer is not None:
            if interactive:
                group.set("tabindex", "0")
                group.set("role", "img")
                group.set("aria-label", shorten(expression(value, names), 200))
            else:
                _add(group, "title", shorten(expression(value, names), 200))
        _draw_figure(group, figure, *layout.nodes[number])
    _draw_legend(svg, layout)
    return writable(ElementTree.tostring(svg, encoding="unicode"))


def _figure(graph: Graph, value: Value, uses: int, is_named: bool) -> _Figure:
    """Return the figure of a value with a number of `uses` in the backward pass, with its name if edges refer to it."""
    if value.layer is None:
        text = _name(graph, value)
        kind = "constant" if isinstance(value, Constant) else "input"
        caption = _total(value) if uses > 1 else ""
        width = max(_name_width(text), text_width(caption, CAPTION) + 8)
        return _Figure(kind, text, caption, [], Node(width, 10, 26 if caption else 10), width / 2)
    sign = rule_of(value.layer).sign
    text = value.layer.name if value.name or value.layer.place else graph.names[value]
    caption = shorten(value.name or "") if value is not graph.output else ""
    if is_named and (sign or text != graph.names[value]):
        caption = _name(graph, value)
    extra = LINE if caption else 0.0
    if sign:
        width = max(2 * RADIUS, text_width(caption, CAPTION))
        return _Figure("operation", sign, caption, [], Node(width, RADIUS, RADIUS + extra), RADIUS)
    tags = [f"{name} {tuple(array.shape)}" for name, array in value.layer.parameters().items()]
    width = max(BOLD * text_width(text, TITLE), *(text_width(tag, PARAMETER) + 12 for tag in tags), 40.0) + 20
    half = (36 + len(tags) * TAG + (4 if tags else 0)) / 2
    room = Node(max(width, text_width(caption, CAPTION)), half, half + extra)
    return _Figure("layer", shorten(text), caption, tags, room, width / 2)


def _name(graph: Graph, value: Value) -> str:
    """Return the name of a value in the drawing: a constant's number, or else its name in the graph."""
    if isinstance(value, Constant) and value.name is not None:
        return quantity(value.value).lines[0]
    return shorten(graph.names[value])


def _name_width(text: str) -> float:
    return BOLD * text_width(text, TITLE) + 8


def _uses(graph: Graph) -> Counter[Value]:
    """Count how often the last backward pass used each value."""
    return Counter(source for value in graph.values if value.input_grads is not None for source in value.inputs)


def _total(value: Value) -> str:
    """Return the sum of the derivatives of an input that is used more than once, as a caption."""
    if not value.has_grad or isinstance(value, Constant):
        return ""
    return f"in all {' '.join(quantity(value.grad).lines)}"


def _end(graph: Graph) -> _Figure:
    """Return the end of the last edge: the output's name, if it has one."""
    text = shorten(graph.output.name or "") if graph.output.layer is not None else ""
    width = _name_width(text) if text else 0.0
    return _Figure("end", text, "", [], Node(width, 10, 10), width / 2)


def _flows(graph: Graph) -> Iterator[_Flow]:
    """List the edges in order of their targets, and last the edge out of the output."""
    numbers = {value: number for number, value in enumerate(graph.values)}
    for value in graph.values:
        grads = value.input_grads or ()
        for slot, source in enumerate(value.inputs):
            grad = grads[slot] if slot < len(grads) else None
            yield _flow(source, numbers[source], numbers[value], slot, grad)
    is_fresh = graph.output.layer is None or graph.output.input_grads is not None
    grad = graph.output.grad if is_fresh and graph.output.has_grad else None
    yield _flow(graph.output, numbers[graph.output], len(numbers), 0, grad)


def _flow(source: Value, start: int, end: int, slot: int, grad: Any) -> _Flow:
    if isinstance(source, Constant) and source.name:  # its name shows its value, and its derivative is of no interest
        return _Flow(start, end, slot, None, None)
    value = quantity(source.value) if source.has_value else None
    return _Flow(start, end, slot, value, None if grad is None else quantity(grad))


def _name_long(graph: Graph, flows: list[_Flow]) -> list[_Flow]:
    """Let long edges begin at their source's name."""
    far = long_edges(len(graph.values) + 1, [_edge(flow) for flow in flows])
    return [
        flow._replace(name=_name(graph, graph.values[flow.source])) if is_far else flow
        for flow, is_far in zip(flows, far, strict=True)
    ]


def _edge(flow: _Flow) -> Edge:
    above = flow.value.lines if flow.value else ()
    below = flow.grad.lines if flow.grad else ()
    width = max((text_width(line, NUMBER) for line in (*above, *below)), default=0.0)
    if above or below:
        width = max(width, NUMBER_WIDTH)
    label = Node(width + 8, CLEAR + len(above) * LINE, CLEAR + len(below) * LINE)
    return Edge(flow.source, flow.target, label, Node(_name_width(flow.name), 10, 10) if flow.name else None)


def _draw_edge(svg: Any, flow: _Flow, layout: Layout, number: int, figures: list[_Figure]) -> None:
    route = layout.routes[number]
    target = figures[flow.target]
    start = layout.nodes[flow.source][0] + figures[flow.source].reach
    if route.name is not None:
        start = route.name[0] + _name_width(flow.name) / 2
    x, y = layout.nodes[flow.target][0], route.points[-1][1]
    end = x - target.reach
    if target.kind == "operation":
        end = x - math.sqrt(RADIUS**2 - (y - layout.nodes[flow.target][1]) ** 2)
    group = _add(svg, "g", class_="edge", data_edge=number, data_source=flow.source, data_target=flow.target)
    group.set("data-slot", str(flow.slot))
    _add(group, "path", class_="line", d=_path(start, route.points, end - 6))
    _add(group, "path", class_="head", d=f"M{_n(end - 1)} {_n(y)}l-9 -4.5v9z")
    if route.name is not None:
        _add(group, "text", flow.name, class_="name", x=route.name[0], y=route.name[1] + 5)
    across, middle = route.label
    if flow.value:
        _lines(group, "value", flow.value.lines, across, middle - CLEAR - (len(flow.value.lines) - 1) * LINE)
    if flow.grad:
        _lines(group, "grad", flow.grad.lines, across, middle + CLEAR + 11)


def _path(start: float, points: list[tuple[float, float]], end: float) -> str:
    """Return a path that is straight in columns and bends between them."""
    x, y = points[0]
    parts = [f"M{_n(start)} {_n(y)}"]
    for i, (next_x, next_y) in enumerate(points):
        if i % 2 == 1 and next_y != y:
            middle = _n((x + next_x) / 2)
            parts.append(f"C{middle} {_n(y)} {middle} {_n(next_y)} {_n(next_x)} {_n(next_y)}")
        else:
            parts.append(f"H{_n(next_x)}")
        x, y = next_x, next_y
    return "".join([*parts, f"H{_n(end)}"])


def _lines(group: Any, kind: str, lines: tuple[str, ...], x: float, y: float) -> None:
    text = _add(group, "text", class_=kind, x=x, y=y)
    if len(lines) == 1:
        text.text = lines[0]
        return
    for i, line in enumerate(lines):
        part = _add(text, "tspan", line, x=x, dy=LINE if i else 0)
        part.tail = " " if line is not lines[-1] else None


def _draw_figure(group: Any, figure: _Figure, x: float, y: float) -> None:
    if figure.kind == "operation":
        _add(group, "circle", class_="shape", cx=x, cy=y, r=RADIUS)
        is_long = len(figure.text) > 1
        _add(group, "text", figure.text, class_="sign long" if is_long else "sign", x=x, y=y + (5 if is_long else 7.5))
        _caption(group, figure.caption, "caption", x, y + RADIUS + 15)
        return
    if figure.kind != "layer":
        _add(group, "text", figure.text, class_="constant" if figure.kind == "constant" else "name", x=x, y=y + 5)
        _caption(group, figure.caption, "caption grad", x, y + 22)
        return
    left, top = x - figure.reach, y - figure.room.above
    _add(group, "rect", class_="shape", x=left, y=top, width=2 * figure.reach, height=2 * figure.room.above, rx=9)
    _add(group, "text", figure.text, class_="name", x=x, y=top + 23)
    for i, tag in enumerate(figure.tags):
        width = text_width(tag, PARAMETER) + 12
        _add(group, "rect", class_="tag", x=x - width / 2, y=top + 32 + i * TAG, width=width, height=TAG - 3, rx=4)
        _add(group, "text", tag, class_="parameter", x=x, y=top + 44 + i * TAG)
    _caption(group, figure.caption, "caption", x, y + figure.room.above + 15)


def _caption(group: Any, text: str, kind: str, x: float, y: float) -> None:
    if text:
        _add(group, "text", text, class_=kind, x=x, y=y)


def _draw_legend(svg: Any, layout: Layout) -> None:
    text = _add(svg, "text", class_="caption", x=20, y=layout.height + 8)
    text.set("style", "text-anchor: start")
    _add(text, "tspan", "above: value \u2192", class_="value").tail = " \u00a0 "
    _add(text, "tspan", "below: \u2190 derivative", class_="grad")


def _add(parent: Any, tag: str, text: str = "", **attributes: str | float) -> Any:
    named = {
        key.rstrip("_").replace("_", "-"): value if isinstance(value, str) else _n(value)
        for key, value in attributes.items()
    }
    element = ElementTree.SubElement(parent, tag, named)
    if text:
        element.text = text
    return element


def _n(x: float) -> str:
    """Write a coordinate to a tenth of a pixel."""
    return f"{x:.1f}".removesuffix(".0")

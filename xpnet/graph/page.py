"""HTML page that steps through both passes of a graph. It needs only a browser."""

from __future__ import annotations

import html
import json
import math
from importlib import resources
from string import Template
from typing import TYPE_CHECKING, Any

from xpnet.graph.labels import Quantity, quantity, shorten, writable
from xpnet.graph.rules import rule_of
from xpnet.graph.svg import draw
from xpnet.graph.values import Constant, Input, Value
from xpnet.graph.words import spoken_names, title
from xpnet.theme import style_sheet

if TYPE_CHECKING:
    from xpnet.graph.graph import Graph

__all__ = ["page"]


def page(graph: Graph) -> str:
    """Return the page, with the current values and derivatives of `graph`.

    The reader can change inputs if all values are numbers and the page can compute all nodes (`Rule.is_scalar`).
    """
    files = resources.files("xpnet.graph")
    text = Template(files.joinpath("page.html").read_text("utf-8")).substitute(
        title=html.escape(shorten(title(graph), 200)),
        style=style_sheet() + files.joinpath("page.css").read_text("utf-8"),
        drawing=draw(graph, interactive=True),
        data=_embedded(_facts(graph)),
        script=files.joinpath("page.js").read_text("utf-8"),
    )
    return writable(text)  # names and docstrings come from anywhere


def _embedded(facts: Any) -> str:
    """Write JSON without characters that could end its HTML element."""
    text = json.dumps(facts, ensure_ascii=False, allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _facts(graph: Graph) -> dict[str, Any]:
    """Collect the page's data: nodes, and steps in order."""
    numbers = {value: number for number, value in enumerate(graph.values)}
    names = spoken_names(graph)
    nodes = [_node(value, names[value], numbers) for value in graph.values]
    is_backward_done = graph.output.layer is None or graph.output.input_grads is not None
    dout = graph.output.grad if is_backward_done and graph.output.has_grad else None
    steps = [["forward", node] for node, value in enumerate(graph.values) if value.layer and value.has_value]
    if dout is not None:
        steps.append(["dout", numbers[graph.output]])
        steps += [["backward", numbers[value]] for value in reversed(graph.values) if value.input_grads is not None]
    return {
        "output": numbers[graph.output],
        "dout": None if dout is None else _shown(quantity(dout)),
        "editable": all(_is_number(value) for value in graph.values),
        "steps": steps,
        "nodes": nodes,
    }


def _is_number(value: Value) -> bool:
    if not value.has_value or quantity(value.value).number is None:
        return False
    return value.layer is None or rule_of(value.layer).is_scalar


def _node(value: Value, name: str, numbers: dict[Value, int]) -> dict[str, Any]:
    is_constant = isinstance(value, Constant)
    text = quantity(value.value) if value.has_value else None
    node: dict[str, Any] = {
        "name": name,
        "isNamed": bool(value.name),
        "kind": "input" if isinstance(value, Input) else "constant" if is_constant else type(value.layer).__name__,
        "value": _shown(text),
        "grad": _shown(quantity(value.grad)) if value.has_grad else None,
        "inputs": [numbers[source] for source in value.inputs],
    }
    if value.layer is not None:
        grads = value.input_grads or ()
        node["inputGrads"] = [None if grad is None else _shown(quantity(grad)) for grad in grads]
        node["rule"] = _rule(value)
    return node


def _rule(value: Value) -> dict[str, Any]:
    assert value.layer is not None
    assert value.shared is not None
    rule = rule_of(value.layer)
    parameters = []
    for name in value.layer.parameter_names:
        grad = getattr(value.shared, f"d{name}", None) if value.input_grads is not None else None
        parameters.append(
            {
                "name": name,
                "value": _shown(quantity(getattr(value.shared, name))),
                "formula": rule.parameters.get(name, ""),
                "grad": None if grad is None else _shown(quantity(grad)),
            }
        )
    return {
        "sign": rule.sign,
        "operands": rule.operands,
        "result": rule.result,
        "forward": rule.forward,
        "backward": rule.backward,
        "text": rule.text,
        "parameters": parameters,
    }


def _shown(shown: Quantity | None) -> dict[str, Any] | None:
    """Convert a quantity for JSON, with NaN and infinity as text: JSON has neither."""
    if shown is None:
        return None
    number: Any = shown.number
    if number is not None and not math.isfinite(number):
        number = "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"
    return {"lines": shown.lines, "number": number}

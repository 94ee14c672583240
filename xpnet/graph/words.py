"""Description of a computation in words, for readers who do not see the drawing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xpnet.graph.labels import quantity, shorten
from xpnet.graph.rules import fill_in, rule_of
from xpnet.graph.values import Constant, Input, Value

if TYPE_CHECKING:
    from xpnet.graph.graph import Graph

__all__ = ["description", "expression", "spoken_names", "title"]

LISTED = 24
"""Largest number of nodes to describe; of a larger graph the first ones are described."""
SPOKEN = 28
"""Longest formula that replaces a value in other formulas."""


def title(graph: Graph) -> str:
    """Name the output and the inputs."""
    name = graph.names[graph.output]
    inputs = [str(value.name) for value in graph.values if isinstance(value, Input) and value is not graph.output]
    return f"{name}, computed from {_and(inputs)}" if inputs else name


def description(graph: Graph) -> str:
    """Describe every step, forward and backward, with the current numbers."""
    nodes, names = [value for value in graph.values if value.layer is not None], spoken_names(graph)
    steps = [expression(value, names) for value in nodes[:LISTED]]
    sentences = [f"Forward: {'; '.join(steps)}"] if nodes else []
    if len(nodes) > LISTED:
        sentences.append(f"And {len(nodes) - LISTED} more")
    inputs = [value for value in graph.values if isinstance(value, Input)]
    if graph.output.input_grads is not None:
        grads = [f"{names[value]} {_said(value.grad)}" for value in inputs if value.has_grad]
        start = f"Backward, from {_said(graph.output.grad)} at {names[graph.output]}"
        sentences.append(f"{start}, the derivatives: {'; '.join(grads)}" if grads else start)
    return " ".join(f"{sentence}." for sentence in sentences)


def spoken_names(graph: Graph) -> dict[Value, str]:
    """Name values as in a formula: a constant by its number, an unnamed operation by its formula."""
    spoken: dict[Value, str] = {}
    for value in graph.values:
        name = graph.names[value]
        if isinstance(value, Constant) and value.name:
            name = _said(value.value)
        elif value.layer is not None and not value.name and rule_of(value.layer).sign:
            operation = _operation(value, spoken)
            operation = f"({operation})" if len(value.inputs) > 1 else operation
            name = operation if len(operation) <= SPOKEN else name
        spoken[value] = shorten(name, 60)
    return spoken


def expression(value: Value, names: dict[Value, str]) -> str:
    """Write a node as an equation of names, then of numbers."""
    assert value.layer is not None
    sign = rule_of(value.layer).sign
    parts = [_operation(value, names)]
    if value.name or not sign:
        parts.insert(0, names[value])
    if sign and all(source.has_value for source in value.inputs):
        shown = {source: quantity(source.value) for source in value.inputs}
        if all(one.number is not None for one in shown.values()):
            parts.append(_operation(value, {source: one.lines[0] for source, one in shown.items()}))
    if value.has_value:
        parts.append(_said(value.value))
    return " = ".join(part for i, part in enumerate(parts) if i == 0 or part != parts[i - 1])


def _operation(value: Value, names: dict[Value, str]) -> str:
    """Write a node's formula with its inputs' names or numbers. A box is written as a function."""
    assert value.layer is not None
    rule = rule_of(value.layer)
    said = [names[source] for source in value.inputs]
    if rule.sign:
        return fill_in(rule.forward, dict(zip(rule.operands, said, strict=True)))
    return f"{type(value.layer).__name__}({', '.join(said)})"


def _said(value: object) -> str:
    return " ".join(quantity(value).lines)


def _and(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]

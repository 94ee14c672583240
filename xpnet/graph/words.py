"""A computation in words, for those who do not see the drawing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xpnet.graph.labels import quantity
from xpnet.graph.rules import fill_in, rule_of
from xpnet.graph.values import Input, Value

if TYPE_CHECKING:
    from xpnet.graph.graph import Graph

__all__ = ["description", "expression", "title"]

LISTED = 24
"""Nodes that are described one by one; of a larger graph, the first ones."""


def title(graph: Graph) -> str:
    """Say what is computed, and from what."""
    name = graph.names[graph.output]
    inputs = [str(value.name) for value in graph.values if isinstance(value, Input) and value is not graph.output]
    return f"{name}, computed from {_and(inputs)}" if inputs else name


def description(graph: Graph) -> str:
    """Say every step, forward and backward, with the numbers that are there."""
    nodes = [value for value in graph.values if value.layer is not None]
    sentences = ["Forward: " + "; ".join(expression(graph, value) for value in nodes[:LISTED])] if nodes else []
    if len(nodes) > LISTED:
        sentences.append(f"And {len(nodes) - LISTED} more")
    inputs = [value for value in graph.values if isinstance(value, Input)]
    if graph.output._input_grads is not None:
        grads = [f"{graph.names[value]} {_said(value._grad)}" for value in inputs if value._grad is not None]
        start = f"Backward, from {_said(graph.output._grad)} at {graph.names[graph.output]}"
        sentences.append(f"{start}, the derivatives: {'; '.join(grads)}" if grads else start)
    return " ".join(f"{sentence}." for sentence in sentences)


def expression(graph: Graph, value: Value) -> str:
    """Write one node as an equation of names, then of numbers."""
    assert value.layer is not None
    rule = rule_of(value.layer)
    name = graph.names[value]
    names = [graph.names[source] for source in value.inputs]
    if rule.sign:
        parts = [name, fill_in(rule.forward, dict(zip(rule.operands, names, strict=False)))]
        numbers = [None if source._value is None else quantity(source._value).number for source in value.inputs]
        if value._value is not None and None not in numbers:
            said = [_said(source._value) for source in value.inputs]
            parts.append(fill_in(rule.forward, dict(zip(rule.operands, said, strict=False))))
    else:
        parts = [name, f"{type(value.layer).__name__}({', '.join(names)})"]
    if value._value is not None:
        parts.append(_said(value._value))
    return " = ".join(parts)


def _said(value: object) -> str:
    return " ".join(quantity(value).lines)


def _and(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]

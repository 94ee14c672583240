"""A computational graph: order of its nodes, forward and backward pass."""

import html
from collections import Counter
from typing import Any

import numpy as np

from xpnet.graph.order import in_order
from xpnet.graph.values import Input, Value
from xpnet.layers import Layer
from xpnet.typing import Array

__all__ = ["Graph"]


class Graph:
    """The graph of a value: all nodes that the value is computed from.

    Parameters
    ----------
    output : Value
        The end of the graph.

    Attributes
    ----------
    output : Value
        As given.
    values : list of Value
        Inputs, constants and results, in topological order.
    names : dict of Value to str
        Unique names: a value's own name, or its layer's class with a running number.
    inputs : dict of str to Input
        The inputs by name.

    Raises
    ------
    ValueError
        If the graph has a cycle, or two inputs have the same name.
    """

    def __init__(self, output: Value) -> None:
        if not isinstance(output, Value):
            raise TypeError(f"output must be a value of a graph, got {type(output).__name__}")
        self.output = output
        self.values = in_order(output)
        self.names = _unique_names(self.values)
        self.inputs: dict[str, Input] = {}
        for value in self.values:
            if isinstance(value, Input):
                if value.name in self.inputs:
                    raise ValueError(f"two inputs are called {value.name!r}; give them different names")
                self.inputs[str(value.name)] = value

    def forward(self, **inputs: Any) -> Array:
        """Compute every value once, in topological order, and return the last one.

        Parameters
        ----------
        **inputs
            New values of inputs, by name. Other inputs keep their values.

        Raises
        ------
        ValueError
            If no input has a given name, or a node does not accept its inputs. The message names the node.
        """
        for name, value in inputs.items():
            if name not in self.inputs:
                raise ValueError(f"no input is called {name!r}; there are {', '.join(self.inputs)}")
            self.inputs[name].value = value
        for value in self.values:
            value.input_grads = None  # a drawing must not show derivatives of earlier values
            if value.layer is not None and value.shared is not None:
                value.layer.share_parameters(value.shared)  # parameters may have been replaced
                try:
                    value.value = value.layer.forward(*[source.value for source in value.inputs])
                except (ValueError, TypeError) as error:
                    sources = ", ".join(self.names[source] for source in value.inputs)
                    raise type(error)(f"{self.names[value]} of ({sources}): {error}") from error
        return self.output.value

    def backward(self, dout: Array | float | None = None) -> None:
        """Compute the derivative of the output with respect to every value, in reverse topological order.

        The derivatives of a value that is used more than once are added. So are the derivatives of the parameters of a
        layer that is used more than once.

        Parameters
        ----------
        dout : scalar or array, optional
            Derivative to start with, in the output's shape; by default 1 if the output is a scalar.
        """
        shape = np.shape(self.output.value)
        if dout is None:
            if shape != ():
                raise ValueError(f"the output has shape {shape}; pass backward a dout of that shape")
            dout = 1
        elif np.shape(dout) != shape:
            raise ValueError(f"backward expected dout of the output's shape {shape}, got {np.shape(dout)}")
        for value in self.values:
            value.clear_grads()
        self.output.grad = dout
        collected: dict[tuple[Layer, str], Array] = {}
        for value in reversed(self.values):
            if value.layer is None or value.shared is None or not value.has_grad:
                continue
            grads = value.layer.backward(value.grad)
            value.input_grads = grads if isinstance(grads, tuple) else (grads,)
            for source, grad in zip(value.inputs, value.input_grads, strict=False):
                if grad is not None:  # ids have none
                    source.grad = source.grad + grad if source.has_grad else grad
            for mine, its in zip(value.layer.modules().values(), value.shared.modules().values(), strict=True):
                for name in mine.parameter_names:
                    owner, computed = (its, f"d{name}"), getattr(mine, f"d{name}")
                    collected[owner] = collected[owner] + computed if owner in collected else computed
        for (layer, name), grad in collected.items():
            setattr(layer, name, grad)

    def to_svg(self) -> str:
        """Draw the graph, with values above the edges and derivatives below (`xpnet.graph.svg`).

        A line over more than 16 layers is not drawn: it begins at its source's name, next to its target.

        Raises
        ------
        ValueError
            If the graph is too large for a drawing: over 5,000 values and links.
        """
        from xpnet.graph.svg import draw

        return draw(self)

    def to_html(self) -> str:
        """Return an HTML page that steps through both passes, and recomputes graphs of numbers (`xpnet.graph.page`).

        Raises
        ------
        ValueError
            If the graph is too large for a drawing (`to_svg`).
        """
        from xpnet.graph.page import page

        return page(self)

    def _repr_html_(self) -> str:
        try:
            shown = self.to_svg()
        except ValueError as error:  # a notebook shows every last value: what is too large to draw is no failure there
            shown = html.escape(str(error))
        return f'<div style="overflow-x: auto">{shown}</div>'


def _unique_names(values: list[Value]) -> dict[Value, str]:
    names: dict[Value, str] = {value: str(value.name) for value in values if isinstance(value, Input)}
    taken, counts = set(names.values()), Counter[str]()
    for value in values:
        if value in names:
            continue
        kind = value.name or type(value.layer or value).__name__
        name = value.name
        while name is None or name in taken:
            counts[kind] += 1
            name = f"{kind} ({counts[kind]})" if value.name else f"{kind}{counts[kind]}"
        taken.add(name)
        names[value] = name
    return names

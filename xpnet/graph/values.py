"""Values of a graph, and the operators that build it."""

from __future__ import annotations

import copy
import operator
from typing import Any, Self

import numpy as np

from xpnet import layers
from xpnet.device import as_array
from xpnet.graph.order import flatten
from xpnet.layers import Layer
from xpnet.typing import Array

__all__ = ["Constant", "Input", "Value"]


class Value:
    """The result of a node: a layer applied to other values.

    Writing a computation makes values: ``x * y + 1``, ``affine(x)``, ``x.exp().sum(axis=0)``. `forward` computes them
    and sets ``value``. `backward` sets ``grad``, the derivative of the graph's output with respect to this value.

    Parameters
    ----------
    layer : Layer
        The layer that computes the value. A layer with a node already is copied; the copy shares its parameters.
    inputs : tuple of Value
        Inputs of the layer, in the order of its forward.

    Attributes
    ----------
    layer : Layer or None
        The layer, or its copy with a state of its own. None for inputs and constants.
    shared : Layer or None
        The layer as given, the owner of the parameters.
    inputs : tuple of Value
        As given.
    name : str or None
        Name in the graph; by default the graph uses the layer's class and a number.
    input_grads : tuple or None
        Derivatives with respect to the inputs, from the last backward pass. None before it.
    """

    __array_ufunc__ = None  # NumPy leaves ``array * value`` to the value

    def __init__(self, layer: Layer | None, inputs: tuple[Value, ...] = ()) -> None:
        if layer is not None and len(inputs) != layer.inputs:
            raise ValueError(f"{layer.name} takes {layer.inputs} values, got {len(inputs)}")
        self.shared = layer
        self.layer = layer
        if layer is not None:
            if layer.has_node:
                self.layer = copy.copy(layer)
            layer.has_node = True
        self.inputs = inputs
        self.name: str | None = None
        self._value: Any = None
        self._grad: Any = None
        self.input_grads: tuple[Any, ...] | None = None

    @property
    def has_value(self) -> bool:
        """Whether the value is computed or given."""
        return self._value is not None

    @property
    def value(self) -> Array:
        """Result of the last forward pass."""
        if self._value is None:
            raise RuntimeError(f"{self} has no value yet; run forward on it, or on what is computed from it")
        return self._value

    @value.setter
    def value(self, value: Any) -> None:
        self._value = value

    @property
    def has_grad(self) -> bool:
        """Whether the last backward pass reached the value."""
        return self._grad is not None

    @property
    def grad(self) -> Array:
        """Derivative from the last backward pass."""
        if self._grad is None:
            raise RuntimeError(f"{self} has no gradient yet; run backward on what is computed from it")
        return self._grad

    @grad.setter
    def grad(self, grad: Any) -> None:
        self._grad = grad

    def clear_grads(self) -> None:
        """Drop the derivatives of the last backward pass."""
        self._grad = self.input_grads = None

    def apply_layer(self, layer: Layer, inputs: tuple[Any, ...]) -> Value:
        """Make the node of a layer applied to values. Numbers and arrays become constants.

        `Layer.__call__` calls this for values.
        """
        return Value(layer, tuple(x if isinstance(x, Value) else Constant(x) for x in inputs))

    def forward(self, **inputs: Any) -> Array:
        """Compute this value, and all values that it needs (`Graph.forward`)."""
        from xpnet.graph.graph import Graph

        return Graph(self).forward(**inputs)

    def backward(self, dout: Array | float | None = None) -> None:
        """Compute the derivatives of this value with respect to all values that it needs (`Graph.backward`)."""
        from xpnet.graph.graph import Graph

        Graph(self).backward(dout)

    def _repr_html_(self) -> str:
        from xpnet.graph.graph import Graph

        return Graph(self)._repr_html_()

    def __add__(self, other: Any) -> Value:
        return self.apply_layer(layers.AddLayer(), (self, other))

    def __radd__(self, other: Any) -> Value:
        return self.apply_layer(layers.AddLayer(), (other, self))

    def __sub__(self, other: Any) -> Value:
        return self.apply_layer(layers.SubLayer(), (self, other))

    def __rsub__(self, other: Any) -> Value:
        return self.apply_layer(layers.SubLayer(), (other, self))

    def __mul__(self, other: Any) -> Value:
        return self.apply_layer(layers.MulLayer(), (self, other))

    def __rmul__(self, other: Any) -> Value:
        return self.apply_layer(layers.MulLayer(), (other, self))

    def __truediv__(self, other: Any) -> Value:
        return self.apply_layer(layers.DivLayer(), (self, other))

    def __rtruediv__(self, other: Any) -> Value:
        return self.apply_layer(layers.DivLayer(), (other, self))

    def __pow__(self, other: Any) -> Value:
        return self.apply_layer(layers.PowLayer(), (self, other))

    def __rpow__(self, other: Any) -> Value:
        return self.apply_layer(layers.PowLayer(), (other, self))

    def __matmul__(self, other: Any) -> Value:
        return self.apply_layer(layers.MatMulLayer(), (self, other))

    def __rmatmul__(self, other: Any) -> Value:
        return self.apply_layer(layers.MatMulLayer(), (other, self))

    def __neg__(self) -> Value:
        return self.apply_layer(layers.MulLayer(), (self, -1))

    def exp(self) -> Value:
        """Exponential."""
        return self.apply_layer(layers.ExpLayer(), (self,))

    def log(self) -> Value:
        """Natural logarithm."""
        return self.apply_layer(layers.LogLayer(), (self,))

    def sum(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Value:
        """Sum over axes, by default all."""
        return self.apply_layer(layers.SumLayer(axis, keepdims), (self,))

    def mean(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Value:
        """Mean over axes, by default all."""
        return self.apply_layer(layers.MeanLayer(axis, keepdims), (self,))

    def max(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Value:
        """Maximum over axes, by default all."""
        return self.apply_layer(layers.MaxLayer(axis, keepdims), (self,))

    def __copy__(self) -> Self:
        made = type(self).__new__(type(self))
        vars(made).update(vars(self))
        return made

    def __reduce__(self) -> tuple[Any, ...]:  # for deepcopy and pickle
        return operator.getitem, flatten(self)

    def __repr__(self) -> str:
        return self.name or (type(self.layer).__name__ if self.layer is not None else type(self).__name__)


class Input(Value):
    """A named input. Set ``value`` and run `forward` again.

    Parameters
    ----------
    name : str
        Name in `forward` and in drawings.
    value : scalar or array, optional
        Initial value, on any device. Arrays are read as `xpnet.device.as_array` does, small integers as int64.
    """

    def __init__(self, name: str, value: Any = None) -> None:
        super().__init__(None)
        if not isinstance(name, str) or not name:
            raise ValueError(f"an Input needs a name, got {name!r}")
        self.name = name
        self.value = value

    @property
    def value(self) -> Any:
        """The given value."""
        if self._value is None:
            raise RuntimeError(f"input {self.name!r} has no value; pass it to forward, or set its value")
        return self._value

    @value.setter
    def value(self, value: Any) -> None:
        self._value = _as_number(f"input {self.name!r}", value)


class Constant(Value):
    """A number or array in the computation, such as the 1 of ``1 / (1 + x)``."""

    def __init__(self, value: Any) -> None:
        super().__init__(None)
        self._value = value = _as_number("a constant", value)
        if getattr(value, "shape", ()) == ():
            self.name = f"{value:g}" if isinstance(value, float) else str(value)


def _as_number(name: str, value: Any) -> Any:
    """Return Python's numbers and NumPy's floats as they are, all else as an array. Integers do not overflow as bytes.

    None stands for no value.
    """
    if value is None or isinstance(value, (int, float, np.floating)):
        return value
    array = as_array(name, value)
    return array.astype("int64") if array.dtype.kind in "iu" and array.itemsize < 8 else array

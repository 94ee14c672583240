"""Nodes of an ONNX graph from layers: one converter for each class of layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from xpnet.extras import import_extra
from xpnet.layers import Layer, Loss
from xpnet.typing import Array

__all__ = ["Converter", "GraphBuilder", "converter", "find_converter"]

Converter = Callable[..., str]
"""``convert(graph, layer, *inputs)`` adds the layer's nodes, and returns the name of its output."""

CONVERTERS: dict[type[Layer], Converter] = {}
"""Converters by the class of the layer, or of the loss, whose output are the probabilities."""

C = TypeVar("C", bound=Converter)


def converter(cls: type[Layer]) -> Callable[[C], C]:
    """Declare the conversion of a class of layers to ONNX.

    The decorated function gets a `GraphBuilder`, the layer, and the names of its inputs. It adds the nodes of a
    prediction and returns the name of the output. A converter of a loss gets the scores and returns the probabilities.

    Parameters
    ----------
    cls : type of Layer
        The class. A converter that was declared before is replaced.

    Examples
    --------
    >>> from xpnet.layers import Layer
    >>> class Double(Layer):
    ...     def forward(self, x, train=True):
    ...         return 2.0 * x
    >>> @converter(Double)
    ... def double(graph, layer, x):
    ...     return graph.op("Mul", x, 2.0)
    """
    if not (isinstance(cls, type) and issubclass(cls, Layer)):
        raise TypeError(f"converter expected a class of layers, as in @converter(Scale), got {cls!r}")

    def declare(convert: C) -> C:
        CONVERTERS[cls] = convert
        return convert

    return declare


def find_converter(cls: type[Layer]) -> Converter | None:
    """Return the converter of a class, or of the base that it extends by a constructor only."""
    for base in cls.__mro__:
        if base in CONVERTERS:
            return CONVERTERS[base]
        if any(callable(value) and name != "__init__" for name, value in vars(base).items()):
            return None
    return None


class GraphBuilder:
    """An ONNX graph in the making. Values of the graph are referred to by name.

    Parameters
    ----------
    dtype : dtype
        Dtype of the network.

    Attributes
    ----------
    nodes, initializers : list
        Nodes in order, and constant arrays, as ONNX has them.
    dtype : dtype
        As given. Python's numbers become constants of this dtype.
    """

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.dtype = dtype
        self._onnx = import_extra("onnx", "onnx")
        self._names: set[str] = set()
        self._arrays: dict[tuple[int, str], str] = {}
        self._samples: dict[str, Array] = {}
        self._layer = ""

    def op(self, operator: str, *inputs: str | float | np.ndarray, **attributes: Any) -> str:
        """Add a node, and return the name of its output.

        Parameters
        ----------
        operator : str
            Operator of ONNX, such as ``"Gemm"``.
        *inputs : str, number or array
            Names of values. Numbers and arrays become constants.
        **attributes
            The operator's attributes.
        """
        names = [x if isinstance(x, str) else self.constant(x) for x in inputs]
        output = self.unique(f"{self._layer}.{operator}")
        self.nodes.append(self._onnx.helper.make_node(operator, names, [output], name=output, **attributes))
        return output

    def constant(self, value: float | np.ndarray) -> str:
        """Add a constant, and return its name. Arrays keep their dtype."""
        array = value if isinstance(value, np.ndarray) else np.asarray(value, self.dtype)
        return self._initializer(f"{self._layer}.constant", array)

    def array(self, layer: Layer, attribute: str) -> str:
        """Return the name of an array of a layer, such as ``"W"``, which is stored once."""
        key = id(layer), attribute
        if key not in self._arrays:
            self._arrays[key] = self._initializer(f"{layer.name}.{attribute}", getattr(layer, attribute))
        return self._arrays[key]

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of one sample of a layer's input or output, without the batch axis."""
        return np.shape(self.sample(name))[1:]

    def sample(self, name: str) -> Array:
        """Return a batch of one sample, with the shape and dtype of a layer's input or output.

        Raises
        ------
        ValueError
            If the value is neither, but a result within a converter.
        """
        if name not in self._samples:
            raise ValueError(
                f"{name!r} is no input or output of a layer, so its shape is not known; it is a result of graph.op"
            )
        return self._samples[name]

    def input(self, name: str, sample: Array) -> str:
        """Declare an input of the graph, by a batch of one sample."""
        self._samples[self.unique(name)] = sample
        return name

    def apply(self, layer: Layer, *inputs: str | float | np.ndarray) -> str:
        """Add the nodes of a layer, and return the name of its output.

        Raises
        ------
        TypeError
            If its class has no converter.
        """
        convert = find_converter(type(layer))
        if convert is None:
            cls = type(layer).__name__
            raise TypeError(
                f"ONNX has no operator for {layer.name}, a {cls}; declare its conversion: "
                f"@xpnet.interop.onnx.converter({cls}) on a function (graph, layer, x) that adds nodes by graph.op"
            )
        around, self._layer = self._layer, layer.name
        batches: list[Any] = [self.sample(x) if isinstance(x, str) else x for x in inputs]
        with np.errstate(all="ignore"):  # the sample is all zeros
            y = layer.forward(*batches, **{"train": False} if layer.inputs == 1 else {})
        # NumPy converts the inputs of a layer to a common dtype, ONNX does not.
        dtype = None if layer.inputs == 1 else np.asarray(y).dtype
        inputs = tuple(self._as(dtype, x) for x in inputs)
        output = convert(self, layer, *inputs)
        self._samples[output] = y
        self._layer = around
        return output

    def probabilities(self, loss: Loss, scores: str) -> str | None:
        """Add the nodes from scores to probabilities, and return their name; None for a loss without a converter."""
        convert = find_converter(type(loss))
        self._layer = loss.name
        return None if convert is None else convert(self, loss, scores)

    def output(self, name: str, value: str) -> None:
        """Call a value `name`, as an output of the graph."""
        self.nodes.append(
            self._onnx.helper.make_node("Identity", [value], [name], name=self.unique(f"{name}.Identity"))
        )

    def unique(self, name: str) -> str:
        """Return `name`, or `name` with a number if there is one already, as text that UTF-8 can hold."""
        found = name = name.encode("utf-8", "replace").decode()
        number = 1
        while found in self._names:
            number += 1
            found = f"{name}_{number}"
        self._names.add(found)
        return found

    def _as(self, dtype: np.dtype[Any] | None, x: str | float | np.ndarray) -> str:
        """Return the name of a value, or of a constant, in a dtype; None for its own."""
        if not isinstance(x, str):
            sample = np.asarray(x, dtype)
            name = self.constant(sample)
        else:
            sample = np.asarray(self.sample(x))
            if dtype is None or sample.dtype == dtype:
                return x
            sample = sample.astype(dtype)
            name = self.op("Cast", x, to=self._onnx.helper.np_dtype_to_tensor_dtype(dtype))
        self._samples[name] = sample
        return name

    def _initializer(self, name: str, array: np.ndarray) -> str:
        name = self.unique(name)
        values = np.ascontiguousarray(array).reshape(array.shape)  # which has one axis more for a number
        self.initializers.append(self._onnx.numpy_helper.from_array(values, name))
        return name

"""Nodes of an ONNX graph from layers: one converter for each class of layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from xpnet.extras import import_extra
from xpnet.layers import Layer, Loss
from xpnet.typing import Array, DTypeLike

__all__ = ["Converter", "GraphBuilder", "converter", "find_converter"]

Converter = Callable[..., str]
"""``convert(graph, layer, *inputs)`` adds the layer's nodes, and returns the name of its output."""

CONVERTERS: dict[type[Layer], Converter] = {}
"""Converters by the class of the layer, or of the loss, whose output are the probabilities."""

LENGTHS = (2, 3)
"""Lengths of a dynamic axis for which all layers compute: one alone does not show which axes of an output depend on it.

Neither is 1, which NumPy would broadcast."""

C = TypeVar("C", bound=Converter)


def converter(cls: type[Layer]) -> Callable[[C], C]:
    """Declare the conversion of a class of layers to ONNX.

    The decorated function gets a `GraphBuilder`, the layer, and the names of its inputs. It adds the nodes of a
    prediction and returns the name of the output. A converter of a loss gets the scores and returns the probabilities.
    Within a `PaddedMean`, a layer that takes padding is given the name of that array (N, T) as ``padding=``.

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
        self._arrays: dict[tuple[Any, ...], tuple[str, Array]] = {}
        self._samples: dict[str, list[Array]] = {}  # batches of one sample, one for each length in LENGTHS
        self._axes: dict[tuple[int, ...], str] = {}  # names of dynamic axes by their lengths in these batches
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

    def cast(self, value: str, dtype: DTypeLike) -> str:
        """Add a conversion to a dtype, and return the name of its output."""
        return self.op("Cast", value, to=self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def constant(self, value: float | np.ndarray, name: str = "constant") -> str:
        """Add a constant, called by the layer and `name`, and return its name. Arrays keep their dtype."""
        array = value if isinstance(value, np.ndarray) else np.asarray(value, self.dtype)
        return self._initializer(f"{self._layer}.{name}", array)

    def array(self, layer: Layer, attribute: str) -> str:
        """Return the name of an array of a layer, such as ``"W"``. An array of several layers is stored once."""
        array = getattr(layer, attribute)
        key = array.ctypes.data, array.shape, array.strides, array.dtype
        if key not in self._arrays:  # with the array, so that no other takes its place in memory
            self._arrays[key] = self._initializer(f"{layer.name}.{attribute}", array), array
        return self._arrays[key][0]

    def shape(self, name: str) -> tuple[int | str | None, ...]:
        """Return the shape of one sample of a layer's input or output, without the batch axis.

        A dynamic axis has the name that `input` gave it, or None if its length is computed from that axis.
        """
        lengths = zip(*(batch.shape[1:] for batch in self._batches(name)), strict=True)
        return tuple(each[0] if len({*each}) == 1 else self._axes.get(each) for each in lengths)

    def sample(self, name: str) -> Array:
        """Return a batch of one sample, with the dtype and the number of axes of a layer's input or output.

        Raises
        ------
        ValueError
            If the value is neither, but a result within a converter.
        """
        return self._batches(name)[0]

    def input(self, name: str, shape: tuple[int | str, ...], dtype: DTypeLike) -> str:
        """Declare an input of the graph, by the shape of one sample; texts are names of dynamic axes."""
        names = list(dict.fromkeys(axis for axis in shape if isinstance(axis, str)))
        # Axis i is i longer: so each has lengths of its own. One batch will do if there are none.
        tried = [{axis: length + i * len(LENGTHS) for i, axis in enumerate(names)} for length in LENGTHS]
        self._axes = {tuple(lengths[axis] for lengths in tried): axis for axis in names}
        self._samples[self.unique(name)] = [
            np.zeros((1, *(lengths[axis] if isinstance(axis, str) else axis for axis in shape)), dtype)
            for lengths in tried[: 1 + bool(names)]
        ]
        return name

    def like(self, value: str, x: str) -> str:
        """Declare that a result has the shape and dtype of a layer's input or output `x`, and return its name.

        `apply` takes it then.
        """
        self._samples[value] = self._batches(x)
        return value

    def apply(self, layer: Layer, *inputs: str | float | np.ndarray, padding: str | None = None) -> str:
        """Add the nodes of a layer, and return the name of its output.

        Parameters
        ----------
        layer : Layer
            The layer.
        *inputs : str, number or array
            Its inputs: names of values of layers, or constants.
        padding : str, optional
            Name of an array (N, T), True where sequences are padded, for layers that take it.

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
        y = self._forward(layer, inputs)
        # NumPy converts the inputs of a layer to a common dtype, ONNX does not.
        dtype = None if layer.inputs == 1 else y[0].dtype
        inputs = tuple(self._as(dtype, x) for x in inputs)
        heeded = {"padding": padding} if padding is not None and layer.takes_padding else {}
        output = convert(self, layer, *inputs, **heeded)
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

    def _batches(self, name: str) -> list[Array]:
        if name not in self._samples:
            raise ValueError(
                f"{name!r} is no input or output of a layer, so its shape is not known; it is a result of graph.op"
            )
        return self._samples[name]

    def _forward(self, layer: Layer, inputs: tuple[Any, ...]) -> list[Array]:
        """Return the layer's output for batches of one sample, for each length of the dynamic axes."""
        found = []
        for i in range(1 + bool(self._axes)):
            batches = [self._batches(x)[i] if isinstance(x, str) else x for x in inputs]
            try:
                with np.errstate(all="ignore"):  # the sample is all zeros
                    y = layer.forward(*batches, **{"train": False} if layer.inputs == 1 else {})
            except ValueError as error:
                if not self._axes:
                    raise
                lengths = " and ".join(f"{axis} = {sizes[i]}" for sizes, axis in self._axes.items())
                raise ValueError(
                    f"{layer.name} does not take each length of a dynamic axis; pass numbers as input_shape=. With "
                    f"{lengths}: {error}"
                ) from error
            found.append(np.asarray(y))
        return found

    def _as(self, dtype: np.dtype[Any] | None, x: str | float | np.ndarray) -> str:
        """Return the name of a value, or of a constant, in a dtype; None for its own."""
        if not isinstance(x, str):
            array = np.asarray(x, dtype)
            name = self.constant(array)
            self._samples[name] = [array] * (1 + bool(self._axes))
            return name
        if dtype is None or self.sample(x).dtype == dtype:
            return x
        name = self.cast(x, dtype)
        self._samples[name] = [batch.astype(dtype) for batch in self._batches(x)]
        return name

    def _initializer(self, name: str, array: np.ndarray) -> str:
        name = self.unique(name)
        values = np.ascontiguousarray(array).reshape(array.shape)  # which has one axis more for a number
        self.initializers.append(self._onnx.numpy_helper.from_array(values, name))
        return name

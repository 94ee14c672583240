"""Residual blocks: layers whose output is added to their input."""

import copy
import math
from typing import Any, Self

from xpnet.device import as_array, get_array_module
from xpnet.kernels import call
from xpnet.layers.base import Layer, check_free, name_by_class
from xpnet.typing import Array

__all__ = ["Residual"]


class Residual(Layer):
    """Residual block, y = f(x) + x, with the layers in sequence as f (He et al., 2016).

    dx = f'(x)^T dout + dout: the second term passes the gradient on unchanged.

    Parameters
    ----------
    *layers : Layer
        Layers of the block. Its output has the shape of its input. The layers belong to the block from then on.

    Notes
    -----
    The layers have names in ``parts``, by class and running number, as in a `Sequential`. Errors and a network's
    buffers call them ``Residual1.Affine2``, for example. A network numbers their parameters with its own, in order: W1,
    b1, W2 ...

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet.layers import Affine, Relu
    >>> block = Residual(Affine(np.eye(2), np.zeros(2)), Relu())
    >>> list(block.parts)
    ['Affine1', 'Relu1']
    >>> block.forward(np.array([[1.0, -2.0]]))
    array([[ 2., -2.]])
    """

    saved = ("x_shape",)

    def __init__(self, *layers: Layer) -> None:
        if not layers:
            raise ValueError("a Residual needs at least one layer")
        parts = name_by_class(layers)
        check_free(parts.items())
        for name, layer in parts.items():
            if layer.inputs != 1:
                raise ValueError(f"{name} takes {layer.inputs} inputs; a layer of a Residual gets one")
        self.__setstate__({"parts": parts, "samplewise": all(layer.samplewise for layer in layers)})

    def forward(self, x: Array, train: bool = True) -> Array:
        y = x = as_array("x", x)
        for layer in self.parts.values():
            y = call(layer, "forward", y, train)
        self._expect_same_shape(x.shape, y.shape)
        self.x_shape = x.shape
        return get_array_module(y=y, x=x).add(y, x, out=self.out.get("y"))

    def backward(self, dout: Array) -> Array:
        self._expect_dout(dout, self.x_shape)
        dx = dout
        for layer in reversed([*self.parts.values()]):
            dx = call(layer, "backward", dx)
        return get_array_module(dx=dx, dout=dout).add(dx, dout, out=self.out.get("dx"))

    def config(self) -> dict[str, Any]:
        return {"layers": tuple(self.parts.values())}

    def activation_pattern(self) -> Array | None:
        found = (layer.activation_pattern() for layer in self.parts.values())
        patterns = [p.reshape(len(p), math.prod(p.shape[1:])) for p in found if p is not None]
        return get_array_module(*patterns).concatenate(patterns, axis=1) if patterns else None

    def input_shape(self) -> tuple[int, ...] | None:
        return next(iter(self.parts.values())).input_shape()

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        after, previous = shape, "its input"
        for name, layer in self.parts.items():
            try:
                after = layer.output_shape(after)
            except ValueError as error:
                raise ValueError(f"in {self.name}, {previous} does not fit {name}: {error}") from None
            previous = name
        self._expect_same_shape(("N", *shape), ("N", *after))
        return shape

    def _expect_same_shape(self, x: tuple[object, ...], y: tuple[object, ...]) -> None:
        if x != y:  # broadcasting would hide it
            x_, y_ = (f"({', '.join(map(str, shape))})" for shape in (x, y))
            raise ValueError(
                f"{self.name} adds its input x to the output y of its last layer, but x has the shape {x_} and y {y_}; "
                "let its last layer return the shape that its first one takes"
            )

    def __copy__(self) -> Self:
        """Return a copy that shares the parameters; it has its own state, and so have its sublayers."""
        made = super().__copy__()
        made.__setstate__({"parts": {name: copy.copy(layer) for name, layer in self.parts.items()}})
        return made

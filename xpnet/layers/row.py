"""Layers in a row, as one layer."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from xpnet.device import as_array, get_array_module
from xpnet.kernels import call
from xpnet.layers.base import Layer
from xpnet.layers.members import check_free, name_by_class
from xpnet.typing import Array

__all__ = ["Row", "advance"]


class Row(Layer):
    """Layers in a row, each with the output of the one before: base class of blocks.

    Parameters
    ----------
    *layers : Layer
        The layers. They belong to the block from then on. Their names in ``parts`` are class and running number.
    """

    saved: ClassVar[tuple[str, ...]] = ("y_shape",)
    takes_padding = True

    def __init__(self, *layers: Layer) -> None:
        kind = type(self).__name__
        if not layers:
            raise ValueError(f"a {kind} needs at least one layer")
        parts = name_by_class(layers)
        check_free(parts.items())
        for name, layer in parts.items():
            if layer.inputs != 1:
                raise ValueError(f"{name} takes {layer.inputs} inputs; a layer of a {kind} gets one")
        self.__setstate__({"parts": parts, "samplewise": all(layer.samplewise for layer in layers)})

    def forward(self, x: Array, train: bool = True, padding: Array | None = None) -> Array:
        y = as_array("x", x)
        for layer in self.parts.values():
            y = call(layer, "forward", y, train, *([padding] if layer.takes_padding else []))
        self.y_shape = y.shape
        return y

    def backward(self, dout: Array) -> Array:
        self._expect_dout(dout, self.y_shape)
        for layer in reversed([*self.parts.values()]):
            dout = call(layer, "backward", dout)
        return dout

    def advance(self, x: Array, state: Sequence[Any] | None = None) -> tuple[Array, Sequence[Any]]:
        """Return the output for a piece of sequences, and the layers' states behind it (`advance`)."""
        return advance(self.parts.values(), x, state)

    def config(self) -> dict[str, Any]:
        return {"layers": tuple(self.parts.values())}

    def activation_pattern(self) -> Array | None:
        found = (layer.activation_pattern() for layer in self.parts.values())
        patterns = [p.reshape(len(p), math.prod(p.shape[1:])) for p in found if p is not None]
        return get_array_module(*patterns).concatenate(patterns, axis=1) if patterns else None

    def input_shape(self) -> tuple[int, ...] | None:
        return next(iter(self.parts.values())).input_shape()

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        previous = "its input"
        for name, layer in self.parts.items():
            try:
                shape = layer.output_shape(shape)
            except ValueError as error:
                raise ValueError(f"in {self.name}, {previous} does not fit {name}: {error}") from None
            previous = name
        return shape


def advance(layers: Iterable[Layer], x: Array, states: Sequence[Any] | None = None) -> tuple[Array, list[Any]]:
    """Predict a piece of sequences by layers in a row; return the output and the layers' states behind the piece.

    A layer with a method ``advance(x, state)`` is given its state behind the piece before, None at the beginning. All
    other layers must treat positions one by one, and predict.
    """
    found: list[Any] = []
    layers = list(layers)
    for layer, state in zip(layers, states or [None] * len(layers), strict=True):
        if hasattr(layer, "advance"):
            x, state = layer.advance(x, state)
        else:
            x = call(layer, "forward", x, False)
        found.append(state)
    return x, found

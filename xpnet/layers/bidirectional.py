"""Two recurrent layers in opposite directions."""

from xpnet.device import as_array, get_array_module
from xpnet.kernels import call
from xpnet.layers.base import Layer
from xpnet.layers.members import check_free, name_by_class
from xpnet.typing import Array

__all__ = ["Bidirectional"]


class Bidirectional(Layer):
    """Two recurrent layers in opposite directions (Schuster and Paliwal, 1997).

    y = (f(x), g(x reversed) reversed), side by side at each step. Each layer has its part of dout, and dx is the sum of
    their gradients. ``forward(x, padding=p)`` takes p (N, T), True behind the end of a sequence: it is reversed up to
    its end.

    Parameters
    ----------
    ahead, back : Layer
        Layers f and g over (N, T, D): one reads a sequence from its start, the other from its end. They belong to this
        layer from then on.
    """

    saved = ("split", "y_shape", "order")
    samplewise = True
    takes_padding = True

    def __init__(self, ahead: Layer, back: Layer) -> None:
        parts = name_by_class((ahead, back))
        check_free(parts.items())
        self.__setstate__({"parts": parts, "samplewise": ahead.samplewise and back.samplewise})

    @property
    def ahead(self) -> Layer:
        """The layer that reads from the start."""
        return next(iter(self.parts.values()))

    @property
    def back(self) -> Layer:
        """The layer that reads from the end."""
        return list(self.parts.values())[1]

    def forward(self, x: Array, train: bool = True, padding: Array | None = None) -> Array:
        x = as_array("x", x)
        xp = get_array_module(x=x, padding=x if padding is None else padding)
        self.output_shape(x.shape[1:])
        order = None if padding is None else _reversed_order(as_array("padding", padding))
        first = call(self.ahead, "forward", x, train)
        second = call(self.back, "forward", _reversed(x, order), train)
        self.split = first.shape[-1]
        y = xp.concatenate([first, _reversed(second, order)], axis=-1)
        self.y_shape, self.order = y.shape, order
        return y

    def backward(self, dout: Array) -> Array:
        self._expect_dout(dout, self.y_shape)
        first = call(self.ahead, "backward", dout[..., : self.split])
        second = call(self.back, "backward", _reversed(dout[..., self.split :], self.order))
        return first + _reversed(second, self.order)

    def input_shape(self) -> tuple[int, ...] | None:
        return self.ahead.input_shape()

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        (T, first), (_, second) = (layer.output_shape(shape) for layer in (self.ahead, self.back))
        return T, first + second


def _reversed_order(padding: Array) -> Array:
    """Return the steps (N, T) of sequences from the last one to the first; padding stays in its place."""
    xp = get_array_module(padding)
    steps = xp.arange(padding.shape[1])
    return xp.where(padding, steps, (~padding).sum(axis=1, keepdims=True) - 1 - steps)


def _reversed(x: Array, order: Array | None) -> Array:
    """Return sequences (N, T, D) in the order of `_reversed_order`, or all steps reversed."""
    return x[:, ::-1] if order is None else x[get_array_module(x).arange(len(x))[:, None], order]

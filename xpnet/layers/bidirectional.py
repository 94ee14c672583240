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
    their gradients.

    Parameters
    ----------
    ahead, back : Layer
        Layers f and g over (N, T, D): one reads a sequence from its start, the other from its end. They belong to this
        layer from then on.
    """

    saved = ("split", "y_shape")
    samplewise = True

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

    def forward(self, x: Array, train: bool = True) -> Array:
        x = as_array("x", x)
        xp = get_array_module(x)
        self.output_shape(x.shape[1:])
        first = call(self.ahead, "forward", x, train)
        second = call(self.back, "forward", x[:, ::-1], train)
        self.split = first.shape[-1]
        y = xp.concatenate([first, second[:, ::-1]], axis=-1)
        self.y_shape = y.shape
        return y

    def backward(self, dout: Array) -> Array:
        self._expect_dout(dout, self.y_shape)
        first = call(self.ahead, "backward", dout[..., : self.split])
        second = call(self.back, "backward", dout[:, ::-1, self.split :])
        return first + second[:, ::-1]

    def input_shape(self) -> tuple[int, ...] | None:
        return self.ahead.input_shape()

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        (T, first), (_, second) = (layer.output_shape(shape) for layer in (self.ahead, self.back))
        return T, first + second

"""Residual blocks: layers whose output is added to their input."""

from collections.abc import Sequence
from typing import Any

from xpnet.device import as_array, get_array_module
from xpnet.layers.row import Row
from xpnet.typing import Array

__all__ = ["Residual"]


class Residual(Row):
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

    saved = ("y_shape",)

    def forward(self, x: Array, train: bool = True, padding: Array | None = None) -> Array:
        x = as_array("x", x)
        y = super().forward(x, train, padding)
        self._expect_same_shape(x.shape, y.shape)
        return get_array_module(y=y, x=x).add(y, x, out=self.out.get("y"))

    def backward(self, dout: Array) -> Array:
        dx = super().backward(dout)
        return get_array_module(dx=dx, dout=dout).add(dx, dout, out=self.out.get("dx"))

    def advance(self, x: Array, state: Sequence[Any] | None = None) -> tuple[Array, Sequence[Any]]:
        y, state = super().advance(x, state)
        return y + x, state

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        self._expect_same_shape(("N", *shape), ("N", *super().output_shape(shape)))
        return shape

    def _expect_same_shape(self, x: tuple[object, ...], y: tuple[object, ...]) -> None:
        if x != y:  # broadcasting would hide it
            x_, y_ = (f"({', '.join(map(str, shape))})" for shape in (x, y))
            raise ValueError(
                f"{self.name} adds its input x to the output y of its last layer, but x has the shape {x_} and y {y_}; "
                "let its last layer return the shape that its first one takes"
            )

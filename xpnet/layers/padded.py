"""Sequences of different lengths in one minibatch."""

import operator
from typing import Any

from xpnet.device import as_array, get_array_module, is_on_host
from xpnet.layers.base import Layer
from xpnet.layers.row import Row
from xpnet.typing import Array

__all__ = ["PaddedMean"]


class PaddedMean(Row):
    """Layers in a row over padded sequences of ids, and the mean of their outputs over the steps without padding.

    A sequence gives what it gives alone, without padding: y_n = 1 / T_n sum_t f(x_n)_t, with T_n the ids in front of
    the padding. Outputs of f at the padding count neither here nor in gradients.

    Parameters
    ----------
    *layers : Layer
        An `Embedding`, and layers over (N, T, D). They belong to this layer from then on. No output may depend on a
        later step, unless the layer heeds the padding (`Layer.takes_padding`): `Bidirectional`, attention and blocks.
    padding_id : int
        Id of the padding, one of the embedding's, behind the last id of a sequence. A sequence of padding
        alone gives 0.

    Notes
    -----
    ``forward`` takes ids x of shape (N, T) and returns (N, D).
    """

    saved = ("y_shape", "weights")
    samplewise = True
    takes_ids = True

    def __init__(self, *layers: Layer, padding_id: int) -> None:
        super().__init__(*layers)
        self.padding_id = operator.index(padding_id)

    def forward(self, x: Array, train: bool = True, padding: Array | None = None) -> Array:
        x = as_array("x", x)
        xp = get_array_module(x)
        padding = x == self.padding_id
        if is_on_host(x) and (padding[:, :-1] & ~padding[:, 1:]).any():
            raise ValueError(f"{self.name} expected padding ({self.padding_id}) only behind the last id of a sequence")
        y = super().forward(x, train, padding)
        counted = ~padding
        lengths = xp.maximum(counted.sum(axis=1, keepdims=True), 1)
        weights = (counted / lengths)[..., None].astype(y.dtype)
        self.weights = weights
        return xp.where(counted[..., None], y * weights, 0.0).sum(axis=1)

    def backward(self, dout: Array) -> Array:
        self._expect_dout(dout, (self.y_shape[0], self.y_shape[2]))
        get_array_module(dout=dout, weights=self.weights)
        return super().backward(dout[:, None] * self.weights)

    def config(self) -> dict[str, Any]:
        return super().config() | {"padding_id": self.padding_id}

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return super().output_shape(shape)[1:]

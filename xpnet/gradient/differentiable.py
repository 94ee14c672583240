"""Protocols of the networks that numerical gradients accept."""

from collections.abc import Sequence
from typing import Any, Protocol, Self, TypeVar

import numpy as np

from xpnet.device import Device
from xpnet.layers import Layer, Loss
from xpnet.layers.base import weight_arguments
from xpnet.parameters import ParameterVector
from xpnet.typing import Array, DTypeLike

__all__ = ["Differentiable", "Parameter", "deterministic_copy"]


class Parameter(Protocol):
    """A parameter of a network: its layer, the layer's attribute, and the name in the network's vector."""

    @property
    def layer(self) -> Layer: ...
    @property
    def attribute(self) -> str: ...
    @property
    def name(self) -> str: ...


class Differentiable(Protocol):
    """A network with its parameters in one vector and a loss. `xpnet.nets.Network` documents the members."""

    params: ParameterVector
    last_layer: Loss

    @property
    def device(self) -> Device: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def slots(self) -> Sequence[Parameter]: ...
    @property
    def row(self) -> list[Layer] | None: ...
    def copy(self) -> Self: ...
    def to(self, device: Device | str | None = None, dtype: DTypeLike | None = None) -> Self: ...
    def modules(self) -> dict[str, Layer]: ...
    def as_array(self, name: str, x: Any) -> Array: ...
    def as_input(self, x: Any) -> Array: ...
    def predict(self, x: Array, train: bool = False) -> Array: ...
    def loss(self, x: Array, t: Array, train: bool = False) -> Array: ...
    def gradient(self, x: Array, t: Array) -> ParameterVector: ...
    def activation_patterns(self) -> list[Array]: ...


N = TypeVar("N", bound=Differentiable)


def deterministic_copy(net: N, dtype: DTypeLike, sample_weight: Array | None = None) -> N:
    """Return a copy that computes the same function at each call, even in training (`Layer.fixed_buffers`).

    With weights of the samples, its loss is the weighted one.
    """
    net = net.copy().to(dtype=dtype)
    for layer in net.modules().values():
        layer.fixed_buffers = True
    if sample_weight is not None:
        net.last_layer = _Weighted(net.last_layer, net.as_array("sample_weight", sample_weight))
    return net


class _Weighted(Loss):
    """A loss with given weights of the samples."""

    def __init__(self, loss: Loss, sample_weight: Array) -> None:
        self.loss, self.weight, self.place = loss, weight_arguments(loss, sample_weight), loss.name

    def forward(self, x: Array, t: Array) -> Array:  # type: ignore[override]
        return self.loss.forward(x, t, *self.weight)

    def forward_each(self, x: Array, t: Array) -> Array:  # type: ignore[override]
        return self.loss.forward_each(x, t, *self.weight)

    def backward(self, dout: Array | float = 1.0) -> Array:
        return self.loss.backward(dout)

    def activation_pattern(self) -> Array | None:
        return self.loss.activation_pattern()

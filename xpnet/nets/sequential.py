"""Stacks of layers, with a check of their shapes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import numpy as np

from xpnet import settings
from xpnet.device import Device
from xpnet.layers import Affine, Layer, Loss, SoftmaxWithLoss
from xpnet.layers.members import name_by_class
from xpnet.layers.registry import activation_layer
from xpnet.nets.network import Network
from xpnet.tables import format_table
from xpnet.typing import DTypeLike, Seed

__all__ = ["Sequential", "perceptron"]


class Sequential(Network):
    """A stack of layers: each layer's output is the next layer's input.

    The layers are named by class and running number: ``Affine1``, ``Relu1``, ``Affine2`` ...

    Parameters
    ----------
    layers : iterable of Layer, or mapping of str to Layer
        Layers from input to scores, optionally by name. The network owns them from now on, see `Network`.
    loss : Loss, optional
        By default `SoftmaxWithLoss`.
    input_shape : tuple of int, optional
        Shape of one sample. Needed only if the layers' parameters do not determine it, as for images.
    device, dtype
        As in `Network`.

    Raises
    ------
    ValueError
        If a known output shape does not fit the next layer.

    Examples
    --------
    >>> from xpnet.layers import Affine, Relu
    >>> net = Sequential([Affine.from_sizes(784, 50, rng=0), Relu(), Affine.from_sizes(50, 10, rng=1)])
    >>> print(net.summary())
    layer    output shape  parameters
    ---------------------------------
    Affine1  (N, 50)           39,250
    Relu1    (N, 50)                0
    Affine2  (N, 10)              510
    ---------------------------------
    total                      39,760
    """

    def __init__(
        self,
        layers: Iterable[Layer] | Mapping[str, Layer],
        loss: Loss | None = None,
        *,
        input_shape: tuple[int, ...] | None = None,
        device: Device | str | None = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        if not isinstance(layers, Iterable):
            raise TypeError(f"layers must be layers in order, or layers by name, got {type(layers).__name__}")
        named = dict(layers) if isinstance(layers, Mapping) else name_by_class(layers)
        if not named:
            raise ValueError("a Sequential needs at least one layer")
        self.input_shape = None if input_shape is None else settings.sizes("input_shape", input_shape)
        super().__init__(named, SoftmaxWithLoss() if loss is None else loss, device=device, dtype=dtype)

    @staticmethod
    def mlp(
        sizes: Sequence[int],
        activation: str = "relu",
        std: float | str | None = None,
        loss: Loss | None = None,
        *,
        device: Device | str = "cpu",
        dtype: DTypeLike = "float32",
        seed: Seed = None,
    ) -> Sequential:
        """Create a multi-layer perceptron: affine layers with activations between them.

        Parameters
        ----------
        sizes : sequence of int
            Numbers of inputs, units of each hidden layer, and outputs.
        activation : str, default "relu"
            Activation of the hidden layers (`xpnet.layers.registry.ACTIVATIONS`).
        std : float or str, optional
            Standard deviation of the initial weights, or the name of a rule (`xpnet.initializers.initial_weights`); by
            default the rule for the activation. Biases start at 0.
        loss, device, dtype
            As in `Sequential` and `Network`.
        seed : int or numpy.random.Generator, optional
            Seed of the initial weights, which are drawn on the host.

        Examples
        --------
        >>> net = Sequential.mlp([784, 100, 100, 10], activation="gelu", seed=0)
        >>> list(net.layers)
        ['Affine1', 'Gelu1', 'Affine2', 'Gelu2', 'Affine3']
        """
        device = Device(device)  # before any weight is drawn: a missing GPU is reported first
        layers = perceptron(sizes, activation, activation if std is None else std, device.rng(seed), dtype)
        return Sequential(layers, loss, device=device)

    def summary(self, input_shape: tuple[int, ...] | None = None) -> str:
        """Return a table of the layers, their output shapes and numbers of parameters.

        Parameters
        ----------
        input_shape : tuple of int, optional
            Shape of one sample. Needed only if neither the network nor its layers' parameters determine it.
        """
        shapes = self._output_shapes(input_shape)
        rows = []
        for name, layer in self.layers.items():
            shape = shapes.get(name)
            text = "?" if shape is None else f"({', '.join(['N', *map(str, shape)])})"
            rows.append((name, text, f"{sum(p.size for p in layer.parameters().values()):,}"))
        return format_table(
            ("layer", "output shape", "parameters"), rows, footer=("total", "", f"{self.params.size:,}"), align="<<>"
        )

    def largest(self, sample: tuple[int, ...]) -> int:
        return max(map(math.prod, (sample, *self._output_shapes(sample).values())))

    def _check_connections(self) -> None:
        for name, layer in self.layers.items():
            if layer.inputs != 1:
                raise ValueError(f"{name} takes {layer.inputs} inputs; a layer of a Sequential gets one")
        self._output_shapes(None)

    def _output_shapes(self, shape: tuple[int, ...] | None) -> dict[str, tuple[int, ...]]:
        """Return the layers' output shapes for one sample, from the first layer whose input shape is known."""
        shapes: dict[str, tuple[int, ...]] = {}
        shape = shape or self.input_shape
        previous = "the input"
        for name, layer in self.layers.items():
            if shape is None:
                shape = layer.input_shape()
            if shape is not None:
                try:
                    shape = layer.output_shape(shape)
                except ValueError as error:
                    raise ValueError(f"{previous} does not fit {name}: {error}") from None
                shapes[name] = shape
            previous = name
        return shapes


def perceptron(
    sizes: Sequence[int], activation: str, std: float | str, rng: np.random.Generator, dtype: DTypeLike
) -> list[Layer]:
    """Return affine layers with activations between them; see `Sequential.mlp` for the arguments."""
    sizes = settings.sizes("sizes", sizes)
    if len(sizes) < 2 or 0 in sizes:
        raise ValueError(
            f"sizes must be two or more positive integers, of input, hidden layers and output, got {list(sizes)}"
        )
    layers: list[Layer] = []
    for inputs, outputs in pairwise(sizes):
        layers += [Affine.from_sizes(inputs, outputs, std=std, rng=rng, dtype=dtype), activation_layer(activation)]
    return layers[:-1]

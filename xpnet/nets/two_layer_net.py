"""The book's network of two affine layers (sections 4.5 and 5.7)."""

from __future__ import annotations

from typing import Literal

import numpy as np

from xpnet.device import Device
from xpnet.layers import Affine, Layer, Relu, Sigmoid
from xpnet.nets.sequential import Sequential
from xpnet.typing import DTypeLike, Seed

__all__ = ["TwoLayerNet"]

ACTIVATIONS: dict[str, type[Layer]] = {"relu": Relu, "sigmoid": Sigmoid}


class TwoLayerNet(Sequential):
    """Affine - activation - affine, ended by softmax with cross entropy (section 5.7.2).

    Parameters
    ----------
    input_size, hidden_size, output_size : int
        Numbers of inputs, hidden units and classes.
    weight_init_std : float or {"he", "relu", "xavier", "sigmoid"}, default 0.01
        Standard deviation of the initial weights, see `xpnet.initializers.normal`. Biases start at 0.
    activation : {"relu", "sigmoid"}, default "relu"
        Of the hidden layer: chapter 5's network, or chapter 4's.
    device : Device or str, default "cpu"
        Where to compute.
    dtype : dtype, default "float32"
        Of parameters and computation.
    seed : int or numpy.random.Generator, optional
        Of the initial weights, which are drawn on the host.

    Attributes
    ----------
    params : ParameterVector
        ``W1`` (input_size, hidden_size), ``b1`` (hidden_size,), ``W2`` (hidden_size, output_size),
        ``b2`` (output_size,).
    layers : dict of str to Layer
        ``Affine1``, ``Relu1`` (or ``Sigmoid1``), ``Affine2``.

    Examples
    --------
    >>> import numpy as np
    >>> net = TwoLayerNet(784, 50, 10, seed=0)
    >>> net.predict(np.zeros((3, 784), "float32")).shape
    (3, 10)
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        output_size: int,
        weight_init_std: float | str = 0.01,
        *,
        activation: Literal["relu", "sigmoid"] = "relu",
        device: Device | str = "cpu",
        dtype: DTypeLike = "float32",
        seed: Seed = None,
    ) -> None:
        for name, size in [("input_size", input_size), ("hidden_size", hidden_size), ("output_size", output_size)]:
            if not isinstance(size, (int, np.integer)) or size < 1:
                raise ValueError(f"{name} must be a positive integer, got {size!r}")
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation must be 'relu' or 'sigmoid', got {activation!r}")
        device = Device(device)  # before any weight is drawn: a missing GPU is the first thing to say
        rng = device.rng(seed)
        super().__init__(
            [
                Affine.from_sizes(input_size, hidden_size, std=weight_init_std, rng=rng, dtype=dtype),
                ACTIVATIONS[activation](),
                Affine.from_sizes(hidden_size, output_size, std=weight_init_std, rng=rng, dtype=dtype),
            ],
            device=device,
        )

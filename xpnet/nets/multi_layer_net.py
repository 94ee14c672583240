"""The networks of chapter 6: any number of hidden layers, weight decay, batch normalization and dropout."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from xpnet.device import Device
from xpnet.layers import Affine, BatchNormalization, Dropout, Layer
from xpnet.nets.sequential import Sequential, perceptron
from xpnet.settings import count, not_negative, sizes
from xpnet.typing import DTypeLike, Seed

__all__ = ["MultiLayerNet", "MultiLayerNetExtend"]


class MultiLayerNet(Sequential):
    """Affine layers with activations between them, ended by softmax with cross entropy (chapter 6).

    Parameters
    ----------
    input_size : int
        Number of inputs.
    hidden_size_list : sequence of int
        Numbers of units of the hidden layers.
    output_size : int
        Number of classes.
    activation : str, default "relu"
        Activation of the hidden layers (`xpnet.layers.registry.ACTIVATIONS`).
    weight_init_std : float or str, default "relu"
        Standard deviation of the initial weights, or the name of a rule (`xpnet.initializers.initial_weights`). Biases
        start at 0.
    weight_decay_lambda : float, default 0
        Strength of the L2 penalty on weights: the loss includes lambda / 2 times the sum of their squares.
    device : Device or str, default "cpu"
        Where to compute.
    dtype : dtype, default "float32"
        Dtype of parameters and computation.
    seed : int or numpy.random.Generator, optional
        Seed of the initial weights, which are drawn on the host, and of dropout.

    Attributes
    ----------
    params : ParameterVector
        ``W1``, ``b1``, ``W2`` and so on.

    Examples
    --------
    >>> net = MultiLayerNet(784, [100, 100], 10, seed=0)
    >>> list(net.layers)
    ['Affine1', 'Relu1', 'Affine2', 'Relu2', 'Affine3']
    """

    def __init__(
        self,
        input_size: int,
        hidden_size_list: Sequence[int],
        output_size: int,
        activation: str = "relu",
        weight_init_std: float | str = "relu",
        weight_decay_lambda: float = 0.0,
        *,
        device: Device | str = "cpu",
        dtype: DTypeLike = "float32",
        seed: Seed = None,
    ) -> None:
        strength = not_negative("weight_decay_lambda", weight_decay_lambda)
        device = Device(device)  # before any weight is drawn: a missing GPU is reported first
        rng = device.rng(seed)
        hidden = sizes("hidden_size_list", hidden_size_list)
        row = [count("input_size", input_size), *hidden, count("output_size", output_size)]
        layers = perceptron(row, activation, weight_init_std, rng, dtype)
        super().__init__(self._extended(layers, rng), device=device)
        self.weight_decay_lambda = strength

    def _extended(self, layers: list[Layer], rng: np.random.Generator) -> list[Layer]:
        """Return the layers, with further layers of a subclass between them."""
        return layers


class MultiLayerNetExtend(MultiLayerNet):
    """`MultiLayerNet` with batch normalization and dropout (sections 6.3 and 6.4.3).

    Behind each affine layer but the last: batch normalization, the activation, dropout.

    Parameters
    ----------
    input_size, hidden_size_list, output_size, activation, weight_init_std, weight_decay_lambda
        As in `MultiLayerNet`, like the keyword arguments.
    use_dropout : bool, default False
        Whether to use dropout.
    dropout_ration : float, default 0.5
        Share of units that dropout sets to 0. The spelling is the book's.
    use_batchnorm : bool, default False
        Whether to use batch normalization, with parameters ``gamma1``, ``beta1`` and so on.

    Examples
    --------
    >>> net = MultiLayerNetExtend(784, [100], 10, use_dropout=True, use_batchnorm=True, seed=0)
    >>> list(net.layers)
    ['Affine1', 'BatchNormalization1', 'Relu1', 'Dropout1', 'Affine2']
    """

    def __init__(
        self,
        input_size: int,
        hidden_size_list: Sequence[int],
        output_size: int,
        activation: str = "relu",
        weight_init_std: float | str = "relu",
        weight_decay_lambda: float = 0.0,
        use_dropout: bool = False,
        dropout_ration: float = 0.5,
        use_batchnorm: bool = False,
        *,
        device: Device | str = "cpu",
        dtype: DTypeLike = "float32",
        seed: Seed = None,
    ) -> None:
        self._dropout_ratio = float(dropout_ration) if use_dropout else None
        self._normalizes = use_batchnorm
        super().__init__(
            input_size,
            hidden_size_list,
            output_size,
            activation,
            weight_init_std,
            weight_decay_lambda,
            device=device,
            dtype=dtype,
            seed=seed,
        )

    def _extended(self, layers: list[Layer], rng: np.random.Generator) -> list[Layer]:
        extended: list[Layer] = []
        for layer in layers[:-1]:
            extended.append(layer)
            if isinstance(layer, Affine):
                if self._normalizes:
                    units, dtype = len(layer.b), layer.b.dtype
                    extended.append(BatchNormalization(np.ones(units, dtype), np.zeros(units, dtype)))
            elif self._dropout_ratio is not None:
                extended.append(Dropout(self._dropout_ratio, seed=rng))
        return [*extended, layers[-1]]

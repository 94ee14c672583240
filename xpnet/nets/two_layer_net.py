"""The book's network of two affine layers (sections 4.5 and 5.7)."""

from xpnet.device import Device
from xpnet.nets.sequential import Sequential, perceptron
from xpnet.settings import count
from xpnet.typing import DTypeLike, Seed

__all__ = ["TwoLayerNet"]


class TwoLayerNet(Sequential):
    """Affine - activation - affine, ended by softmax with cross entropy (section 5.7.2).

    Parameters
    ----------
    input_size, hidden_size, output_size : int
        Numbers of inputs, hidden units and classes.
    weight_init_std : float or str, default 0.01
        Standard deviation of the initial weights, or the name of a rule (`xpnet.initializers.initial_weights`). Biases
        start at 0.
    activation : str, default "relu"
        Activation of the hidden layer: ``"relu"`` for chapter 5's network, ``"sigmoid"`` for chapter 4's, or another
        name (`xpnet.layers.registry.ACTIVATIONS`).
    device : Device or str, default "cpu"
        Where to compute.
    dtype : dtype, default "float32"
        Dtype of parameters and computation.
    seed : int or numpy.random.Generator, optional
        Seed of the initial weights, which are drawn on the host.

    Attributes
    ----------
    params : ParameterVector
        ``W1`` (input_size, hidden_size), ``b1`` (hidden_size,), ``W2`` (hidden_size, output_size),
        ``b2`` (output_size,).
    layers : dict of str to Layer
        ``Affine1``, ``Relu1`` (or another activation), ``Affine2``.

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
        activation: str = "relu",
        device: Device | str = "cpu",
        dtype: DTypeLike = "float32",
        seed: Seed = None,
    ) -> None:
        device = Device(device)  # before any weight is drawn: a missing GPU is reported first
        named = {"input_size": input_size, "hidden_size": hidden_size, "output_size": output_size}
        sizes = [count(name, size) for name, size in named.items()]
        super().__init__(perceptron(sizes, activation, weight_init_std, device.rng(seed), dtype), device=device)

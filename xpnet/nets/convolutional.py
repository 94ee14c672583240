"""Networks for images: the book's SimpleConvNet (section 7.5) and DeepConvNet (section 8.1), and LeNet-5."""

import math
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType

from xpnet.device import Device
from xpnet.layers import Affine, Convolution, Dropout, Layer, Pooling, Relu
from xpnet.nets.sequential import Sequential
from xpnet.settings import count, sizes
from xpnet.typing import DTypeLike, Seed

__all__ = ["DeepConvNet", "LeNet5", "SimpleConvNet"]

ImageShape = tuple[int, int, int]

CONV_PARAM = MappingProxyType({"filter_num": 30, "filter_size": 5, "pad": 0, "stride": 1})


class SimpleConvNet(Sequential):
    """Convolution - ReLU - max pooling - affine - ReLU - affine, ended by softmax with cross entropy (section 7.5).

    Parameters
    ----------
    input_dim : (int, int, int), default (1, 28, 28)
        Channels, height and width of the images.
    conv_param : mapping, optional
        ``filter_num`` (30), ``filter_size`` (5), ``pad`` (0) and ``stride`` (1) of the convolution. The numbers in
        brackets are the defaults.
    hidden_size, output_size : int
        Numbers of hidden units and classes.
    weight_init_std : float or str, default 0.01
        Standard deviation of the initial weights, or the name of a rule (`xpnet.initializers.initial_weights`). Biases
        start at 0.
    device : Device or str, default "cpu"
        Where to compute.
    dtype : dtype, default "float32"
        Dtype of parameters and computation.
    seed : int or numpy.random.Generator, optional
        Seed of the initial weights, which are drawn on the host.

    Attributes
    ----------
    params : ParameterVector
        ``W1`` (filters), ``b1``, ``W2``, ``b2``, ``W3``, ``b3``.
    layers : dict of str to Layer
        ``Conv1``, ``Relu1``, ``Pool1``, ``Affine1``, ``Relu2``, ``Affine2``.

    Examples
    --------
    >>> import numpy as np
    >>> net = SimpleConvNet(seed=0)
    >>> net.predict(np.zeros((3, 1, 28, 28), "float32")).shape
    (3, 10)
    """

    def __init__(
        self,
        input_dim: ImageShape = (1, 28, 28),
        conv_param: Mapping[str, int] = CONV_PARAM,
        hidden_size: int = 100,
        output_size: int = 10,
        weight_init_std: float | str = 0.01,
        *,
        device: Device | str = "cpu",
        dtype: DTypeLike = "float32",
        seed: Seed = None,
    ) -> None:
        if not isinstance(conv_param, Mapping):
            raise TypeError(f"conv_param must be a mapping, got {type(conv_param).__name__}")
        if unknown := conv_param.keys() - CONV_PARAM.keys():
            raise ValueError(f"conv_param may hold {', '.join(CONV_PARAM)}, got {', '.join(sorted(unknown))}")
        conv = CONV_PARAM | conv_param
        device = Device(device)  # before any weight is drawn: a missing GPU is reported first
        rng = device.rng(seed)
        convolution = partial(Convolution.from_sizes, std=weight_init_std, rng=rng, dtype=dtype)
        affine = partial(Affine.from_sizes, std=weight_init_std, rng=rng, dtype=dtype)
        layers: dict[str, Layer] = {
            "Conv1": convolution(
                channels_of(input_dim), conv["filter_num"], conv["filter_size"], stride=conv["stride"], pad=conv["pad"]
            ),
            "Relu1": Relu(),
            "Pool1": Pooling(2, 2),
        }
        layers["Affine1"] = affine(values_behind(layers, input_dim), count("hidden_size", hidden_size))
        layers["Relu2"] = Relu()
        layers["Affine2"] = affine(hidden_size, count("output_size", output_size))
        super().__init__(layers, input_shape=input_dim, device=device)


class LeNet5(Sequential):
    """LeNet-5 in today's form, with ReLU, max pooling and a softmax.

    Convolution of 6 filters, 5 x 5 with padding 2 - ReLU - pooling - convolution of 16 filters, 5 x 5 - ReLU - pooling
    - affine 120 - ReLU - affine 84 - ReLU - affine.

    The network of 1998 had sigmoid units, average pooling with learned factors, filters on subsets of the six channels,
    and radial basis functions at the end (LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to
    document recognition").

    Parameters
    ----------
    input_dim : (int, int, int), default (1, 28, 28)
        Channels, height and width of the images.
    output_size : int, default 10
        Number of classes.
    weight_init_std : float or str, default "he"
        As in `SimpleConvNet`, like the keyword arguments.
    """

    def __init__(
        self,
        input_dim: ImageShape = (1, 28, 28),
        output_size: int = 10,
        weight_init_std: float | str = "he",
        *,
        device: Device | str = "cpu",
        dtype: DTypeLike = "float32",
        seed: Seed = None,
    ) -> None:
        device = Device(device)
        rng = device.rng(seed)
        convolution = partial(Convolution.from_sizes, std=weight_init_std, rng=rng, dtype=dtype)
        affine = partial(Affine.from_sizes, std=weight_init_std, rng=rng, dtype=dtype)
        layers: dict[str, Layer] = {
            "Conv1": convolution(channels_of(input_dim), 6, 5, pad=2),
            "Relu1": Relu(),
            "Pool1": Pooling(2, 2),
            "Conv2": convolution(6, 16, 5),
            "Relu2": Relu(),
            "Pool2": Pooling(2, 2),
        }
        layers["Affine1"] = affine(values_behind(layers, input_dim), 120)
        layers["Relu3"] = Relu()
        layers["Affine2"] = affine(120, 84)
        layers["Relu4"] = Relu()
        layers["Affine3"] = affine(84, count("output_size", output_size))
        super().__init__(layers, input_shape=input_dim, device=device)


class DeepConvNet(Sequential):
    """The book's network of eight layers, which exceeds 99% on MNIST (section 8.1.1).

    Three blocks of two 3 x 3 convolutions, each with a ReLU, and pooling - affine 50 - ReLU - dropout - affine -
    dropout. The blocks have 16, 32 and 64 filters. As in the book, the fourth convolution has padding 2 and the others
    1, and the last dropout is applied to the scores.

    Parameters
    ----------
    input_dim : (int, int, int), default (1, 28, 28)
        Channels, height and width of the images.
    hidden_size, output_size : int
        Numbers of hidden units and classes.
    weight_init_std : float or str, default "he"
        As in `SimpleConvNet`, like the keyword arguments.

    Attributes
    ----------
    layers : dict of str to Layer
        ``Conv1`` to ``Conv6``, ``Relu1`` to ``Relu7``, ``Pool1`` to ``Pool3``, ``Affine1``, ``Affine2``, ``Dropout1``,
        ``Dropout2``.
    """

    def __init__(
        self,
        input_dim: ImageShape = (1, 28, 28),
        hidden_size: int = 50,
        output_size: int = 10,
        weight_init_std: float | str = "he",
        *,
        device: Device | str = "cpu",
        dtype: DTypeLike = "float32",
        seed: Seed = None,
    ) -> None:
        device = Device(device)
        rng = device.rng(seed)
        affine = partial(Affine.from_sizes, std=weight_init_std, rng=rng, dtype=dtype)
        layers: dict[str, Layer] = {}
        channels = channels_of(input_dim)
        for i, (filters, pad) in enumerate([(16, 1), (16, 1), (32, 1), (32, 2), (64, 1), (64, 1)], start=1):
            layers[f"Conv{i}"] = Convolution.from_sizes(
                channels, filters, 3, pad=pad, std=weight_init_std, rng=rng, dtype=dtype
            )
            layers[f"Relu{i}"] = Relu()
            if i % 2 == 0:
                layers[f"Pool{i // 2}"] = Pooling(2, 2)
            channels = filters
        layers["Affine1"] = affine(values_behind(layers, input_dim), count("hidden_size", hidden_size))
        layers["Relu7"] = Relu()
        layers["Dropout1"] = Dropout(0.5, seed=rng)
        layers["Affine2"] = affine(hidden_size, count("output_size", output_size))
        layers["Dropout2"] = Dropout(0.5, seed=rng)
        super().__init__(layers, input_shape=input_dim, device=device)


def channels_of(input_dim: ImageShape) -> int:
    """Return the number of channels of images of this shape, after a check."""
    shape = sizes("input_dim", input_dim)
    if len(shape) != 3:
        raise ValueError(f"input_dim must be (channels, height, width), got {shape}")
    return shape[0]


def values_behind(layers: Mapping[str, Layer], shape: tuple[int, ...]) -> int:
    """Return the number of values per sample behind the layers, for samples of this shape."""
    for layer in layers.values():
        shape = layer.output_shape(shape)
    return math.prod(shape)

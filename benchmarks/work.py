"""The work that is compared: a network, its batch and dtype, the weights to start from and the minibatches to take."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from dataclasses import dataclass
from typing import Self

import numpy as np

from xpnet import Device, initializers, nets
from xpnet.datasets import load_mnist
from xpnet.layers import Affine, Relu
from xpnet.nets import Sequential

TOLERANCES = {"float32": 1e-5, "float64": 1e-10, "tf32": 1e-2}
"""How far the parameters of two parties may be apart after a few steps."""


STEPS_ON_CUDA = 200
"""Steps in a timed call on a CUDA device, at least: a shorter one would never launch xpnet's graph of fifty steps."""


class Training:
    """What works of training on MNIST by gradient descent have in common."""

    network: str
    parameters: int
    batch: int
    dtype: str
    precision: str = "float32"
    steps: int

    def __str__(self) -> str:
        return f"{self.network}, batch {self.batch}, {'TF32' if self.precision == 'tf32' else self.dtype}"

    @property
    def tolerance(self) -> float:
        """How far the parameters of two parties may be apart after a few steps."""
        return TOLERANCES["tf32" if self.precision == "tf32" else self.dtype]

    def facts(self) -> dict[str, str | int]:
        """Return what the record says of the work."""
        names = ("network", "parameters", "batch", "dtype", "precision")
        return {name: getattr(self, name) for name in names}

    def on(self, device: Device) -> Self:
        """Return the work with the number of steps in a call that suits a device."""
        return self if device.name == "cpu" else dataclasses.replace(self, steps=max(self.steps, STEPS_ON_CUDA))

    def minibatches(self, steps: int, seed: int = 0) -> np.ndarray:
        """Return the samples of so many steps, (steps, batch), drawn with replacement."""
        return np.random.default_rng([seed, 1]).integers(0, 60_000, (steps, self.batch))


@dataclass(frozen=True)
class Work(Training):
    """Training of a row of affine layers.

    Attributes
    ----------
    sizes : tuple of int
        Inputs, hidden units, classes: affine layers with ReLU in between, softmax with cross entropy at the end.
    batch : int
        Samples per step.
    dtype : str
        Of parameters and computation.
    lr : float
        Learning rate.
    steps : int
        Steps in a timed call: enough for what a call costs but once to weigh little.
    precision : {"float32", "tf32"}
        Of float32 matrix products on CUDA devices: in full, or with inputs rounded to TF32.
    """

    sizes: tuple[int, ...]
    batch: int
    dtype: str
    lr: float = 0.1
    steps: int = 50
    precision: str = "float32"

    @property
    def network(self) -> str:
        """The sizes, as in "784-50-10"."""
        return "-".join(map(str, self.sizes))

    @property
    def parameters(self) -> int:
        """How many numbers are learned."""
        return sum((inputs + 1) * outputs for inputs, outputs in itertools.pairwise(self.sizes))

    def initial_parameters(self, seed: int = 0) -> dict[str, np.ndarray]:
        """Return the weights that all start from: "W1" (784, 50), "b1" (50,) and so on."""
        rng = np.random.default_rng(seed)
        parameters = {}
        for number, (inputs, outputs) in enumerate(itertools.pairwise(self.sizes), 1):
            parameters[f"W{number}"] = initializers.normal((inputs, outputs), "he", rng, self.dtype)
            parameters[f"b{number}"] = np.zeros(outputs, self.dtype)
        return parameters

    def build_network(self, device, seed: int = 0) -> Sequential:
        """Return xpnet's network of these sizes, with the initial parameters."""
        parameters = self.initial_parameters(seed)
        layers = []
        for number in range(1, len(self.sizes)):
            layers += [Affine(parameters[f"W{number}"], parameters[f"b{number}"]), Relu()]
        return Sequential(layers[:-1], device=device, dtype=self.dtype)

    def data(self) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
        """Return MNIST in the work's dtype, labels as class ids; every call returns the same arrays."""
        return _mnist(self.dtype)


@dataclass(frozen=True)
class ImageWork(Training):
    """Training of a convolutional network of `xpnet.nets`, on images (N, 1, 28, 28).

    Attributes
    ----------
    network : {"SimpleConvNet", "LeNet5"}
        Which.
    batch, dtype, lr, steps
        As of `Work`.
    """

    network: str
    batch: int
    dtype: str
    lr: float = 0.1
    steps: int = 5

    @property
    def parameters(self) -> int:
        """How many numbers are learned."""
        return self.build_network("cpu").params.size

    def initial_parameters(self, seed: int = 0) -> dict[str, np.ndarray]:
        """Return the weights that all start from: "W1" (F, C, h, w), "b1" (F,) and so on."""
        return self.build_network("cpu", seed).params.asnumpy()

    def build_network(self, device, seed: int = 0) -> Sequential:
        """Return xpnet's network."""
        return getattr(nets, self.network)(weight_init_std="he", device=device, dtype=self.dtype, seed=seed)

    def data(self) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
        """Return MNIST as images."""
        return tuple((x.reshape(-1, 1, 28, 28), t) for x, t in _mnist(self.dtype))


@functools.cache
def _mnist(dtype: str):
    (x_train, t_train), (x_test, t_test) = load_mnist() if dtype == "float32" else _mnist("float32")
    return (x_train.astype(dtype, copy=False), t_train), (x_test.astype(dtype, copy=False), t_test)

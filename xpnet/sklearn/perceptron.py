"""Perceptrons as scikit-learn defines them: initial weights, penalty, losses."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from xpnet.device import get_array_module
from xpnet.layers import Affine, BatchNormalization, Dropout, Layer, Loss, PoissonWithLoss, SigmoidWithLoss
from xpnet.layers.registry import activation_layer
from xpnet.nets import Sequential
from xpnet.typing import Array, DTypeLike

__all__ = ["CountsWithLoss", "LabelsWithLoss", "Perceptron"]

NAMES = {"logistic": "sigmoid"}
"""scikit-learn's names of activations, and xpnet's. All others are xpnet's."""


class Perceptron(Sequential):
    """A perceptron with scikit-learn's penalty, alpha / 2 sum of W^2 divided by the weight of the minibatch.

    Parameters
    ----------
    sizes : sequence of int
        Numbers of inputs, units of each hidden layer, and outputs.
    activations : sequence of str
        Activation of each hidden layer: ``"identity"``, ``"logistic"`` or a name of xpnet's.
    loss : Loss
        The loss.
    dropout : float
        Share of the hidden units that dropout sets to 0.
    batch_normalization : bool
        Whether batch normalization stands before each activation.
    rng : numpy.random.RandomState
        Draws weights and biases in scikit-learn's order, evenly from Glorot's range.
    device, dtype
        As in `Network`.

    Attributes
    ----------
    alpha : float
        Strength of the penalty.
    mean_weight : float
        Mean weight of a training sample. A minibatch of B samples has about the weight B mean_weight. (The exact sum
        would make a CUDA device wait.)
    """

    def __init__(
        self,
        sizes: Sequence[int],
        activations: Sequence[str],
        loss: Loss,
        dropout: float,
        batch_normalization: bool,
        rng: np.random.RandomState,
        device: Any,
        dtype: DTypeLike,
    ) -> None:
        layers: list[Layer] = []
        for place, (inputs, outputs) in enumerate(pairwise(sizes)):
            activation = activations[place] if place < len(activations) else None
            bound = np.sqrt((2.0 if "logistic" in activations else 6.0) / (inputs + outputs))
            W = rng.uniform(-bound, bound, (inputs, outputs)).astype(dtype)
            layers.append(Affine(W, rng.uniform(-bound, bound, outputs).astype(dtype)))
            if batch_normalization and activation is not None:
                layers.append(BatchNormalization(np.ones(outputs, dtype), np.zeros(outputs, dtype)))
            if activation not in (None, "identity"):
                layers.append(activation_layer(NAMES.get(activation, activation)))
            if dropout and activation is not None:
                layers.append(Dropout(dropout, seed=int(rng.randint(2**31 - 1))))
        super().__init__(layers, loss, device=device)
        self.alpha, self.mean_weight = 0.0, 1.0

    def penalize(self, alpha: float, weight: np.ndarray | None) -> None:
        """Set the strength of the penalty for training with these weights of samples."""
        self.alpha, self.mean_weight = alpha, 1.0 if weight is None else float(weight.mean())

    def weight_decay_of(self, samples: int) -> float:
        return self.alpha / (samples * self.mean_weight)


class _SummedOutputs(Loss):
    """A loss summed over the outputs of a sample, as in scikit-learn, for losses that are their mean in xpnet."""

    def forward(self, x: Array, t: Array, sample_weight: Array | None = None) -> Array:  # type: ignore[override]
        return super().forward(x, t, sample_weight) * x.shape[-1]

    def forward_each(self, x: Array, t: Array, sample_weight: Array | None = None) -> Array:
        return super().forward_each(x, t, sample_weight) * x.shape[-1]

    def backward(self, dout: Array | float = 1.0) -> Array:
        return super().backward(dout * self.x.shape[-1])


class LabelsWithLoss(_SummedOutputs, SigmoidWithLoss):
    """Binary cross entropy summed over the labels of a sample."""


class CountsWithLoss(_SummedOutputs, PoissonWithLoss):
    """Half of Poisson's deviance summed over the targets of a sample: 0 if each rate is its target."""

    def _each(self, x: Array, t: Array) -> Array:
        xp = get_array_module(x)
        return super()._each(x, t) + t * xp.log(xp.where(t > 0, t, 1.0)) - t

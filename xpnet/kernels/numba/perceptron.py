"""Arguments of the compiled training step of a perceptron: the network, its data, the update rule."""

from typing import Any, NamedTuple

from xpnet.typing import Array

__all__ = ["Perceptron", "Rule", "Samples"]


class Perceptron(NamedTuple):
    """Affine layers with activations between them.

    Attributes
    ----------
    layers : (L, 5) int64
        One row per affine layer: numbers of inputs and outputs, offsets of W and b in `params`, and the activation
        behind the layer (`rows.RELU`, ...).
    block_width : int
        Columns per block of gathered samples.
    params : (P,)
        Parameters.
    weight_decay : float
        Strength lambda of the penalty, lambda / 2 sum of W^2.
    """

    layers: Array
    block_width: int
    params: Array
    weight_decay: float


class Samples(NamedTuple):
    """Samples and their divisor.

    Attributes
    ----------
    rows : (N, D)
        Floats, or pixels as ``uint8``.
    divisor : scalar of the network's dtype
        255 for pixels, else 1.
    """

    rows: Array
    divisor: Any


class Rule(NamedTuple):
    """An update rule of the compiled step.

    Attributes
    ----------
    kind : int
        `rows.DESCENT`, ``MOMENTUM`` or ``MOMENTS``; ``OTHER`` for a rule that the caller applies between the steps.
    coefficients : (S, 3) float64
        One row per step: two coefficients of the rule, and the factor of decoupled weight decay.
    settings : (4,) float64
        Weight decay as a part of the gradient, decoupled weight decay (both may be 0), and two settings of the rule:
        momentum and whether it is Nesterov's, or both betas.
    state : two vectors (P,)
        State of the rule; unused vectors may have any content.
    """

    kind: int
    coefficients: Array
    settings: Array
    state: tuple[Array, Array]

"""What the compiled training step of a perceptron is told: the network, its data, the update rule."""

from typing import Any, NamedTuple

from xpnet.typing import Array

__all__ = ["Perceptron", "Rule", "Samples"]


class Perceptron(NamedTuple):
    """Affine layers with activations between them.

    Attributes
    ----------
    layers : (L, 5) int64
        Of each affine layer: inputs, outputs, the places of W and b in `params`, and the activation behind it
        (`rows.RELU`, ...).
    block_width : int
        Columns of the blocks into which samples are gathered.
    params : (P,)
        The vector of parameters.
    """

    layers: Array
    block_width: int
    params: Array


class Samples(NamedTuple):
    """Samples, and the number by which they are divided.

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
    """An update rule, as far as the compiled step knows it.

    Attributes
    ----------
    kind : int
        `rows.DESCENT`, ``MOMENTUM`` or ``MOMENTS``; ``OTHER`` for one that is called in between.
    coefficients : (S, 3) float64
        Of each step: two coefficients of the rule, and the factor of decoupled weight decay.
    settings : (4,) float64
        Weight decay, as a part of the gradient and decoupled (or 0); and two settings of the rule: momentum and
        whether it is Nesterov's, or both betas.
    state : two vectors of P numbers
        What the rule remembers; what it does not need may be any vector.
    """

    kind: int
    coefficients: Array
    settings: Array
    state: tuple[Array, Array]

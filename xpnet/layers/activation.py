"""Activations: input, output and both gradients have one shape (section 5.5)."""

import math
from typing import ClassVar, Literal

from xpnet import functions, kernels
from xpnet.device import get_array_module
from xpnet.layers.base import Formula, Layer
from xpnet.layers.registry import activation
from xpnet.settings import choice, not_negative, number
from xpnet.typing import Array

__all__ = [
    "Elu",
    "Gelu",
    "LeakyRelu",
    "Relu",
    "Sigmoid",
    "Silu",
    "Softmax",
    "Softplus",
    "Tanh",
]


@activation("relu", gain=2.0)
class Relu(Layer):
    """Rectified linear unit, y = max(x, 0) (section 5.5.1).

    dx = dout where x > 0, else 0: the unit is a switch, and at 0 it is off.
    """

    formula = Formula("max(x, 0)", "dout where x > 0, else 0", is_scalar=True)
    saved = ("mask",)
    samplewise = True
    in_place = True

    def forward(self, x: Array, train: bool = True) -> Array:
        y, self.mask = kernels.relu(x, self.out.get("mask"), self.out.get("y"))
        return y

    def backward(self, dout: Array) -> Array:
        self._expect_dout(dout, self.mask.shape)
        return kernels.relu_gradient(dout, self.mask, self.out.get("dx"))

    def activation_pattern(self) -> Array:
        return self.mask


@activation("leaky_relu", gain=2.0)
class LeakyRelu(Layer):
    """ReLU that lets some of a negative input through, y = max(x, a x) (Maas et al., 2013).

    dx = dout where x > 0, else a dout.

    Parameters
    ----------
    negative_slope : float, default 0.01
        a, in (0, 1].
    """

    formula = Formula("max(x, a \xd7 x)", "dout where x > 0, else a \xd7 dout")
    saved = ("mask",)
    samplewise = True

    def __init__(self, negative_slope: float = 0.01) -> None:
        self.negative_slope = number(
            "negative_slope", negative_slope, lambda a: 0 < a <= 1, "lie in (0, 1] (a slope of 0 is Relu)"
        )

    def forward(self, x: Array, train: bool = True) -> Array:
        xp, x, y = get_array_module(x), functions.as_floating(x), self.out.get("y")
        self.mask = xp.greater(x, 0, out=self.out.get("mask"))
        return xp.maximum(x, xp.multiply(x, self.negative_slope, out=y), out=y)

    def backward(self, dout: Array) -> Array:
        xp = get_array_module(dout=dout, mask=self.mask)
        self._expect_dout(dout, self.mask.shape)
        return xp.where(self.mask, dout, xp.multiply(dout, self.negative_slope))

    def activation_pattern(self) -> Array:
        return self.mask


@activation("elu", gain=2.0)
class Elu(Layer):
    """Exponential linear unit, y = x where x > 0, else a (exp(x) - 1) (Clevert et al., 2016).

    Its derivative needs only the output: dx = dout where y > 0, else dout * (y + a).

    Parameters
    ----------
    alpha : float, default 1.0
        a, at least 0. For a other than 1, y has a kink at x = 0.
    """

    formula = Formula("x where x > 0, else a \xd7 (exp x \u2212 1)", "dout where x > 0, else dout \xd7 (y + a)")
    saved = ("y",)
    samplewise = True

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = not_negative("alpha", alpha)

    def forward(self, x: Array, train: bool = True) -> Array:
        xp, x, y = get_array_module(x), functions.as_floating(x), self.out.get("y")
        below = xp.expm1(xp.minimum(x, 0, out=y), out=y)
        self.y = y = xp.add(xp.multiply(below, self.alpha, out=y), xp.maximum(x, 0), out=y)
        return y

    def backward(self, dout: Array) -> Array:
        xp = get_array_module(dout=dout, y=self.y)
        self._expect_dout(dout, self.y.shape)
        slope = xp.where(self.y > 0, 1.0, self.y + self.alpha)
        return xp.multiply(dout, slope, out=self.out.get("dx"))

    def activation_pattern(self) -> Array | None:
        return None if self.alpha == 1 else self.y > 0


@activation("sigmoid", gain=1.0)
class Sigmoid(Layer):
    """Logistic activation, y = 1 / (1 + exp(-x)) (section 5.5.2).

    Its derivative needs only the output: dx = dout * y * (1 - y).
    """

    formula = Formula("1 \xf7 (1 + exp(\u2212x))", "dout \xd7 y \xd7 (1 \u2212 y)", is_scalar=True)
    saved = ("y",)
    samplewise = True

    def forward(self, x: Array, train: bool = True) -> Array:
        self.y = y = functions.sigmoid(x, out=self.out.get("y"))
        return y

    def backward(self, dout: Array) -> Array:
        xp = get_array_module(dout=dout, y=self.y)
        self._expect_dout(dout, self.y.shape)
        dx = xp.multiply(dout, self.y, out=self.out.get("dx"))
        return xp.multiply(dx, 1.0 - self.y, out=self.out.get("dx"))


@activation("tanh", gain=1.0)
class Tanh(Layer):
    """Hyperbolic tangent, y = tanh(x).

    Its derivative needs only the output: dx = dout * (1 - y^2).
    """

    formula = Formula("tanh x", "dout \xd7 (1 \u2212 y \xd7 y)", is_scalar=True)
    saved = ("y",)
    samplewise = True

    def forward(self, x: Array, train: bool = True) -> Array:
        self.y = y = get_array_module(x).tanh(functions.as_floating(x), out=self.out.get("y"))
        return y

    def backward(self, dout: Array) -> Array:
        xp, dx = get_array_module(dout=dout, y=self.y), self.out.get("dx")
        self._expect_dout(dout, self.y.shape)
        slope = xp.subtract(1.0, xp.square(self.y, out=dx), out=dx)
        return xp.multiply(dout, slope, out=dx)


@activation("softplus", gain=2.0)
class Softplus(Layer):
    """Smooth ReLU, y = log(1 + exp(x)) (Dugas et al., 2001).

    Its derivative, the sigmoid of x, needs only the output: dx = dout * (1 - exp(-y)).
    """

    formula = Formula("log(1 + exp x)", "dout \xd7 (1 \u2212 exp(\u2212y))", is_scalar=True)
    saved = ("y",)
    samplewise = True

    def forward(self, x: Array, train: bool = True) -> Array:
        self.y = y = functions.softplus(x, out=self.out.get("y"))
        return y

    def backward(self, dout: Array) -> Array:
        xp, dx = get_array_module(dout=dout, y=self.y), self.out.get("dx")
        self._expect_dout(dout, self.y.shape)
        minus_slope = xp.expm1(xp.negative(self.y, out=dx), out=dx)
        return xp.negative(xp.multiply(dout, minus_slope, out=dx), out=dx)


@activation("silu", gain=2.0)
class Silu(Layer):
    """Sigmoid linear unit, also called swish, y = x g with g = 1 / (1 + exp(-x)) (Elfwing et al., 2017).

    dx = dout * (g + x g (1 - g)).
    """

    formula = Formula(
        "x \xf7 (1 + exp(\u2212x))",
        "dout \xd7 (g + y \xd7 (1 \u2212 g)), with g = 1 \xf7 (1 + exp(\u2212x))",
        is_scalar=True,
    )

    FLAT: ClassVar[float] = 800.0
    """For larger abs(x), g is 0 or 1 to the last bit of a float64. x is clipped: infinity times 0 is NaN."""

    saved = ("x", "gate")
    samplewise = True

    def forward(self, x: Array, train: bool = True) -> Array:
        xp = get_array_module(x)
        x = xp.maximum(functions.as_floating(x), -self.FLAT)
        clipped = xp.minimum(x, self.FLAT, out=self.out.get("x"))
        gate = functions.sigmoid(clipped, out=self.out.get("gate"))
        self.x, self.gate = clipped, gate
        return xp.multiply(x, gate, out=self.out.get("y"))

    def backward(self, dout: Array) -> Array:
        xp, dx = get_array_module(dout=dout, x=self.x), self.out.get("dx")
        self._expect_dout(dout, self.x.shape)
        slope = xp.multiply(self.x, self.gate * (1.0 - self.gate), out=dx)
        return xp.multiply(dout, xp.add(slope, self.gate, out=dx), out=dx)


@activation("gelu", gain=2.0)
class Gelu(Layer):
    """Gaussian error linear unit, y = x g, with g the normal distribution function (Hendrycks and Gimpel, 2016).

    g = (1 + erf(x / sqrt 2)) / 2 and g' = exp(-x^2 / 2) / sqrt(2 pi), or by the paper's approximation
    g = (1 + tanh u) / 2 with u = sqrt(2 / pi) (x + 0.044715 x^3) and g' = 2 g (1 - g) du/dx; dx = dout * (g + x g').

    Parameters
    ----------
    approximate : {"none", "tanh"}, default "none"
        Approximation of g. "tanh" takes a third of the time for a layer of 100 x 50, with errors up to 5e-4.
    """

    formula = Formula("x \xd7 g, with g the normal distribution function", "dout \xd7 (g + x \xd7 its density)")

    saved = ("slope",)
    samplewise = True

    def __init__(self, approximate: Literal["none", "tanh"] = "none") -> None:
        self.approximate = choice("approximate", approximate, ("none", "tanh"))

    def forward(self, x: Array, train: bool = True) -> Array:
        x = functions.as_floating(x)
        approximated = kernels.gelu if self.approximate == "none" else _gelu_by_tanh
        y, slope = approximated(x, self.out.get("y"), self.out.get("slope"))
        self.slope = slope
        return y

    def backward(self, dout: Array) -> Array:
        xp = get_array_module(dout=dout, slope=self.slope)
        self._expect_dout(dout, self.slope.shape)
        return xp.multiply(dout, self.slope, out=self.out.get("dx"))


def _gelu_by_tanh(x: Array, y: Array | None, slope: Array | None) -> tuple[Array, Array]:
    """Return the approximation x g and its slope g + x g'."""
    xp = get_array_module(x)
    x = xp.maximum(x, -kernels.GELU_LIMIT)
    clipped = xp.minimum(x, kernels.GELU_LIMIT)
    squares = clipped * clipped
    gate = 0.5 * (1.0 + xp.tanh(clipped * (math.sqrt(2 / math.pi) * (1.0 + 0.044715 * squares))))
    du = math.sqrt(2 / math.pi) * (1.0 + 3 * 0.044715 * squares)
    return xp.multiply(x, gate, out=y), xp.add(gate, clipped * (2.0 * gate * (1.0 - gate) * du), out=slope)


class Softmax(Layer):
    """Softmax over the last axis, y_k = exp(x_k) / sum_i exp(x_i) (section 3.5).

    dx = y * (dout - sum_k dout_k y_k): every output depends on every score of its sample. At the end of a network
    use `SoftmaxWithLoss` instead.

    ``forward`` takes x of shape (N, ..., C).
    """

    formula = Formula("exp x \xf7 \u03a3 exp x", "y \xd7 (dout \u2212 \u03a3 dout \xd7 y)")
    saved = ("y",)
    samplewise = True

    def forward(self, x: Array, train: bool = True) -> Array:
        self.y = y = functions.softmax(x, out=self.out.get("y"))
        return y

    def backward(self, dout: Array) -> Array:
        xp, dx = get_array_module(dout=dout, y=self.y), self.out.get("dx")
        self._expect_dout(dout, self.y.shape)
        mean = xp.multiply(dout, self.y, out=dx).sum(axis=-1, keepdims=True)
        return xp.multiply(xp.subtract(dout, mean, out=dx), self.y, out=dx)

"""Activations: elementwise, so input, output and both gradients have one shape (section 5.5)."""

from __future__ import annotations

from xpnet import functions, kernels
from xpnet.device import get_array_module
from xpnet.layers.base import Layer
from xpnet.typing import Array

__all__ = ["Relu", "Sigmoid"]


class Relu(Layer):
    """Rectified linear unit, y = max(x, 0) (section 5.5.1).

    dx = dout where x > 0, else 0: the unit is a switch, and at 0 it is off.
    """

    saved = ("mask",)
    samplewise = True

    def forward(self, x: Array, train: bool = True) -> Array:
        y, self.mask = kernels.relu(x, self.out.get("mask"), self.out.get("y"))
        return y

    def backward(self, dout: Array) -> Array:
        self._expect_dout(dout, self.mask.shape)
        return kernels.relu_gradient(dout, self.mask, self.out.get("dx"))

    def activation_pattern(self) -> Array:
        return self.mask


class Sigmoid(Layer):
    """Logistic activation, y = 1 / (1 + exp(-x)) (section 5.5.2).

    Its derivative needs only the output: dx = dout * y * (1 - y).
    """

    saved = ("y",)
    samplewise = True

    def forward(self, x: Array, train: bool = True) -> Array:
        self.y = functions.sigmoid(x, out=self.out.get("y"))
        return self.y

    def backward(self, dout: Array) -> Array:
        xp = get_array_module(dout=dout, y=self.y)
        self._expect_dout(dout, self.y.shape)
        dx = xp.multiply(dout, self.y, out=self.out.get("dx"))
        return xp.multiply(dx, 1.0 - self.y, out=self.out.get("dx"))

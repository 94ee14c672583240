"""Numerical gradients, and the check of backpropagation against them (sections 4.4 and 5.7.3).

`numerical_gradient` differentiates any function. ``net.numerical_gradient`` differentiates a network, many coordinates
at a time. `gradient_check` compares backpropagation with numerical derivatives, coordinate by coordinate or along
random directions.
"""

from xpnet.gradient.check import GradientCheck, ParameterCheck, gradient_check
from xpnet.gradient.numerical import numerical_gradient

__all__ = ["GradientCheck", "ParameterCheck", "gradient_check", "numerical_gradient"]

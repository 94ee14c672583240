r"""
5.5 Activation layers
=====================

The layers of a network take arrays. An activation treats each element by itself, so the rules for numbers still hold.
"""

# %%
# ReLU
# ----
#
# .. math::
#
#    y = \begin{cases} x & (x > 0) \\ 0 & (x \le 0) \end{cases} \qquad
#    \frac{\partial y}{\partial x} = \begin{cases} 1 & (x > 0) \\ 0 & (x \le 0) \end{cases}
#
# The unit is a switch. If it is on, values and derivatives pass. If it is off, neither does.
# :class:`~xpnet.layers.Relu` keeps which elements were on in ``mask``.

from math import isclose
from pathlib import Path

import numpy as np

from xpnet.graph import Graph, Input
from xpnet.layers import Relu, Sigmoid

x = np.array([[1.0, -0.5], [-2.0, 3.0]])
relu = Relu()
print(relu.forward(x))
print(relu.mask)
print(relu.backward(np.ones((2, 2))))
assert (relu.mask == [[True, False], [False, True]]).all()

# %%
# Sigmoid
# -------
#
# .. math::
#
#    y = \frac{1}{1 + \exp(-x)}
#
# The formula has four operations: times -1, the exponential, plus 1, and 1 divided by the result. The graph has a node
# for each.

value = Input("x", 0.5)
exponential = (-value).exp()
y = 1 / (1 + exponential)
y.name = "y"
graph = Graph(y)
graph.forward()
graph.backward()

Path("sigmoid.html").write_text(graph.to_html(), encoding="utf-8")

# %%
# Go through the backward pass from the right. With :math:`y = 1/u` the division has the derivative
# :math:`-1/u^2 = -y^2`. The addition passes it on. The exponential multiplies it by its output, and the last node
# by -1:
#
# .. math::
#
#    \frac{\partial y}{\partial x} = (-y^2) \cdot 1 \cdot \exp(-x) \cdot (-1) = y^2 \exp(-x)
#
# Since :math:`y \, (1 + \exp(-x)) = 1`, the product :math:`y \exp(-x)` is :math:`1 - y`. What remains needs the output
# alone:
#
# .. math::
#
#    \frac{\partial y}{\partial x} = y \, (1 - y)

print(f"by the graph  {value.grad:.15f}")
print(f"y^2 exp(-x)   {y.value**2 * exponential.value:.15f}")
print(f"y (1 - y)     {y.value * (1 - y.value):.15f}")
assert isclose(value.grad, y.value * (1 - y.value))

# %%
# :class:`~xpnet.layers.Sigmoid` is the four nodes as one. It keeps ``y`` and no intermediate result. The user of a
# layer sees one node, and need not know its parts.

sigmoid = Sigmoid()
sigmoid.forward(np.array([0.5]))
print(sigmoid.backward(np.array([1.0])))
assert isclose(sigmoid.backward(np.array([1.0]))[0], value.grad)

# %%
# Next: :doc:`the matrix product, and the loss <6_affine_and_loss>`.

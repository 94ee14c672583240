r"""
5.2 The chain rule
==================

A backward pass runs against the edges. It multiplies derivatives on its way. This page shows why that is right.
"""

# %%
# One node backward
# -----------------
# Take a node :math:`y = f(x)` inside a graph that ends in :math:`L`. From the right it receives
# :math:`\partial L / \partial y`. It multiplies this by its local derivative, and passes the product to the left:
#
# .. math::
#
#    \frac{\partial L}{\partial x} = \frac{\partial L}{\partial y} \, \frac{\partial y}{\partial x}
#
# For a square the local derivative is :math:`2x`. The layer :class:`~xpnet.layers.PowLayer` applies it to the number
# that it receives, ``dout`` in the code.

from math import isclose
from pathlib import Path

import numpy as np

from xpnet.gradient import numerical_gradient
from xpnet.graph import Graph, Input
from xpnet.layers import PowLayer

square = PowLayer()
print("y ", square.forward(3.0, 2))
dx, _ = square.backward(1.0)
print("dx", dx)
assert dx == 6.0

# %%
# A composite function
# --------------------
# :math:`z = (x + y)^2` is two functions in a row:
#
# .. math::
#
#    t = x + y, \qquad z = t^2
#
# The chain rule says that the derivative of a composite function is the product of the derivatives of its parts:
#
# .. math::
#
#    \frac{\partial z}{\partial x} = \frac{\partial z}{\partial t} \, \frac{\partial t}{\partial x} = 2t \cdot 1
#    = 2 (x + y)
#
# The graph has a node for each part. ``backward`` starts with :math:`\partial z / \partial z = 1` at the right.

x, y = Input("x", 1.0), Input("y", 2.0)
t = x + y
z = t**2
t.name, z.name = "t", "z"

graph = Graph(z)
graph.forward()
graph.backward()
print(f"z = {z.value:g}, dz/dt = {t.grad:g}, dz/dx = {x.grad:g}, dz/dy = {y.grad:g}")
assert (z.value, t.grad, x.grad, y.grad) == (9, 6, 6, 6)

Path("square_of_a_sum.html").write_text(graph.to_html(), encoding="utf-8")

# %%
# The square multiplies 1 by :math:`2t = 6`. The addition passes the 6 on to both inputs. The exponent is an input of
# its node as well, so it has a derivative too. Nobody needs it here.
#
# The backward pass *is* the chain rule: it computes the product factor by factor, from the right.
#
# A check
# -------
# :func:`~xpnet.gradient.numerical_gradient` knows nothing of graphs. It moves each input a little to both sides, and
# divides the difference of the results by the distance.

numerical = numerical_gradient(lambda v: (v[0] + v[1]) ** 2, np.array([1.0, 2.0]))
print(numerical)
assert isclose(numerical[0], x.grad, rel_tol=1e-6)

# %%
# Next: :doc:`what the common nodes do backward <3_backpropagation>`.

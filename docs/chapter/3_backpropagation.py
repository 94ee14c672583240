r"""
5.3 Backpropagation
===================

Two kinds of nodes make up the price of the apples: additions and multiplications. Each has a simple rule backward.
"""

# %%
# The addition
# ------------
# For :math:`z = x + y` both local derivatives are 1:
#
# .. math::
#
#    \frac{\partial z}{\partial x} = 1, \qquad \frac{\partial z}{\partial y} = 1
#
# So an addition passes on what it receives, unchanged, to both inputs.

from math import isclose
from pathlib import Path

from xpnet.graph import Graph, Input

x, y = Input("x", 10), Input("y", 5)
total = x + y
total.forward()
total.backward(1.3)
print(f"sum {total.value:g}, dx = {x.grad:g}, dy = {y.grad:g}")
assert (x.grad, y.grad) == (1.3, 1.3)

# %%
# The multiplication
# ------------------
# For :math:`z = xy` each local derivative is the other input:
#
# .. math::
#
#    \frac{\partial z}{\partial x} = y, \qquad \frac{\partial z}{\partial y} = x
#
# So a multiplication swaps its inputs: what flows back to :math:`x` is multiplied by :math:`y`, and the other way
# around. It needs its inputs again, so it keeps them from the forward pass. An addition need not.

product = x * y
product.forward()
product.backward(1.3)
print(f"product {product.value:g}, dx = {x.grad:g}, dy = {y.grad:g}")
assert isclose(x.grad, 6.5)
assert isclose(y.grad, 13)

# %%
# The apples
# ----------
# Now the graph of :doc:`5.1 <1_graphs>`, backward. The start is 1, the derivative of the price with respect to itself.

apple, number, tax = Input("apple", 100), Input("number", 2), Input("tax", 1.1)
price = apple * number * tax
price.name = "price"
graph = Graph(price)
graph.forward()
graph.backward()

for name, value in graph.inputs.items():
    print(f"{name:>6} {value.grad:g}")
assert isclose(apple.grad, 2.2)
assert isclose(number.grad, 110)
assert isclose(tax.grad, 200)

# %%
# If an apple costs 1 more, the price rises by 2.2, as found by trial before. One backward pass has also found the other
# two numbers. They have other units: a rise of the tax by 1 means 100%, and adds the 200 that the apples cost.

Path("apple_backward.html").write_text(graph.to_html(), encoding="utf-8")

# %%
# An exercise
# -----------
# With the oranges of 5.1 the graph has an addition too. Find the five derivatives by hand, from right to left, before
# you step through it.

apple, apples = Input("apple", 100), Input("apples", 2)
orange, oranges = Input("orange", 150), Input("oranges", 3)
tax = Input("tax", 1.1)
price = (apple * apples + orange * oranges) * tax
price.name = "price"
graph = Graph(price)
graph.forward()
graph.backward()
expected = {"apple": 2.2, "apples": 110, "orange": 3.3, "oranges": 165, "tax": 650}
assert all(isclose(graph.inputs[name].grad, number) for name, number in expected.items())

Path("apple_orange_backward.html").write_text(graph.to_html(), encoding="utf-8")

# %%
# Next: :doc:`a node as a class <4_simple_layers>`.

"""Computational graphs that can be run and drawn (chapter 5).

A computation with named inputs builds its graph. Every operator and every layer that is applied to a value of the graph
makes a node with the layer's own forward and backward.

>>> from xpnet.graph import Input
>>> apple, number, tax = Input("apple", 100), Input("number", 2), Input("tax", 1.1)
>>> price = apple * number * tax
>>> round(price.forward(), 9)
220.0
>>> price.backward()
>>> round(apple.grad, 9), round(number.grad, 9), round(tax.grad, 9)
(2.2, 110.0, 200)
"""

from xpnet.graph.graph import Graph
from xpnet.graph.values import Constant, Input, Value

__all__ = ["Constant", "Graph", "Input", "Value"]

"""
5.1 Computational graphs
========================

A computational graph draws a calculation. A node is an operation. An edge carries a value from one node to the next.
"""

# %%
# Solving by a graph
# ------------------
# An apple costs 100. We buy two and pay 10% tax. Each operation on an :class:`~xpnet.graph.Input` adds a node.

from math import isclose
from pathlib import Path

from xpnet.graph import Graph, Input

apple, number, tax = Input("apple", 100), Input("number", 2), Input("tax", 1.1)
price = apple * number * tax
price.name = "price"

# %%
# Nothing is computed so far. The *forward pass* computes the nodes from the inputs to the output.

graph = Graph(price)
print(f"price {graph.forward():g}")
assert isclose(price.value, 220)

# %%
# :meth:`~xpnet.graph.Graph.to_html` writes the graph as a page. Step through it, or change an input.

Path("apple.html").write_text(graph.to_html(), encoding="utf-8")

# %%
# Three oranges at 150 join the apples. The two prices meet in an addition, and the tax comes last.

orange, oranges = Input("orange", 150), Input("oranges", 3)
apple_price, orange_price = apple * number, orange * oranges
basket = Graph((apple_price + orange_price) * tax)
print(f"price {basket.forward():g}")
assert isclose(basket.output.value, 715)

# %%
# Local computation
# -----------------
# A node reads its own inputs and nothing else. The addition gets 200 and 450. It need not know that these are prices
# of fruit, nor how they came about. So a graph of any size is made of simple steps.

for value in basket.values:
    print(f"{basket.names[value]:>10} {value.value:g}")

# %%
# Why graphs?
# -----------
# Local computation is one reason. Another is that the graph keeps every intermediate result, as the list above shows.
# The main reason is the derivative. How much does the price rise if an apple costs a little more? One way to find out
# is to try.

rise = graph.forward(apple=101) - graph.forward(apple=100)
print(f"rise {rise:g}")
assert isclose(rise, 2.2)

# %%
# The price rises 2.2 times as much as the apple's. Each such trial costs a forward pass, and there is one trial per
# input. A *backward pass* finds the derivatives for all inputs at once. It rests on
# :doc:`the chain rule <2_chain_rule>`, the next page.

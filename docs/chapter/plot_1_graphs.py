"""
1. Computational graphs
=======================

A computational graph shows a calculation as nodes and edges (section 5.1). A node is an operation. An edge carries a
value from one node to the next.
"""

# %%
# Two apples at 100 each are bought, with 10% tax. Every operation on an ``Input`` adds a node.

from pathlib import Path

from xpnet.graph import Graph, Input

apple, number, tax = Input("apple", 100), Input("number", 2), Input("tax", 1.1)
price = apple * number * tax

# %%
# The forward pass computes from left to right.

print(price.forward())

# %%
# Each node sees its own inputs and nothing else. That is what the chapter calls local computation: however large the
# graph is, a node's work stays simple.
#
# The graph as a page. Step through it, or change an input.

Path("apple.html").write_text(Graph(price).to_html())

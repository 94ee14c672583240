"""
5.4 Simple layers
=================

A layer is a node as a class. ``forward`` computes its output. ``backward`` turns the derivative with respect to the
output, ``dout``, into those with respect to the inputs.
"""

# %%
# A multiplication layer
# ----------------------
# :class:`~xpnet.layers.MulLayer` keeps its two inputs in ``forward``, because ``backward`` needs them. A layer keeps
# the inputs of one call, so each node of the graph is a layer of its own.

from math import isclose
from pathlib import Path

from xpnet.graph import Graph, Input
from xpnet.layers import AddLayer, MulLayer

mul_apple_layer, mul_tax_layer = MulLayer(), MulLayer()

apple_price = mul_apple_layer.forward(100, 2)
price = mul_tax_layer.forward(apple_price, 1.1)
print(f"price {price:g}")
assert isclose(price, 220)

# %%
# Backward, the layers are called in reverse order. What one returns, the layer before it takes.

dapple_price, dtax = mul_tax_layer.backward(1)
dapple, dapple_num = mul_apple_layer.backward(dapple_price)
print(f"dapple {dapple:g}, dapple_num {dapple_num:g}, dtax {dtax:g}")
assert isclose(dapple, 2.2)
assert isclose(dapple_num, 110)
assert dtax == 200

# %%
# An addition layer
# -----------------
# :class:`~xpnet.layers.AddLayer` passes ``dout`` on to both inputs. Together the two layers compute apples and oranges.

mul_orange_layer, add_layer = MulLayer(), AddLayer()

apple_price = mul_apple_layer.forward(100, 2)
orange_price = mul_orange_layer.forward(150, 3)
all_price = add_layer.forward(apple_price, orange_price)
price = mul_tax_layer.forward(all_price, 1.1)

dall_price, dtax = mul_tax_layer.backward(1)
dapple_price, dorange_price = add_layer.backward(dall_price)
dorange, dorange_num = mul_orange_layer.backward(dorange_price)
dapple, dapple_num = mul_apple_layer.backward(dapple_price)

print(f"price {price:g}")
print(f"dapple {dapple:g}, dapple_num {dapple_num:g}, dtax {dtax:g}")
print(f"dorange {dorange:g}, dorange_num {dorange_num:g}")
derivatives = dapple, dapple_num, dorange, dorange_num, dtax
assert isclose(price, 715)
assert all(map(isclose, derivatives, (2.2, 110, 3.3, 165, 650)))

# %%
# A graph calls the layers
# ------------------------
# Writing these calls by hand is tedious, and an error in their order is easily made. A graph keeps the order. It
# applies the same layers: ``x * y`` of two inputs is ``MulLayer()(x, y)``.

apple, apple_num, tax = Input("apple", 100), Input("apple_num", 2), Input("tax", 1.1)
orange, orange_num = Input("orange", 150), Input("orange_num", 3)
total = AddLayer()(MulLayer()(apple, apple_num), MulLayer()(orange, orange_num))
graph = Graph(MulLayer()(total, tax))
graph.forward()
graph.backward()
assert (graph.output.value, orange.grad, tax.grad) == (price, dorange, dtax)

Path("simple_layers.html").write_text(graph.to_html(), encoding="utf-8")

# %%
# Next: :doc:`layers of a neural network <5_activations>`, first the activations.

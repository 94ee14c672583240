r"""
5.7 A network
=============

The layers make a network, which learns to read handwritten digits. Learning is a loop of four parts:

1. Draw a minibatch of the training data.
2. Compute the gradient of the loss with respect to each parameter.
3. Move the parameters a little against the gradient.
4. Repeat.

Backpropagation is the second part.
"""

# sphinx_gallery_thumbnail_number = -1

# %%
# Two layers
# ----------
# :class:`~xpnet.nets.TwoLayerNet` is an affine layer, an activation and a second affine layer. The loss ends it. The
# parameters of all layers are in ``params``.

from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt

from xpnet.datasets import load_mnist
from xpnet.gradient import gradient_check
from xpnet.graph import Graph, Input
from xpnet.nets import TwoLayerNet
from xpnet.training import Trainer
from xpnet.training.plots import draw_losses, draw_metric

(x_train, t_train), (x_test, t_test) = load_mnist(one_hot_label=True)
network = TwoLayerNet(input_size=784, hidden_size=50, output_size=10, seed=0)

print(*network.layers, type(network.last_layer).__name__)
for name, parameter in network.params.items():
    print(name, parameter.shape)

# %%
# ``predict`` calls each layer's ``forward`` in order. ``gradient`` calls the loss, and then each layer's ``backward``
# in reverse order. The same pass, written out for three images:

x_batch, t_batch = x_train[:3], t_train[:3]

scores = x_batch
for layer in network.layers.values():
    scores = layer.forward(scores)
network.last_layer.forward(scores, t_batch)

dout = network.last_layer.backward()
for layer in reversed(network.layers.values()):
    dout = layer.backward(dout)

grads = network.gradient(x_batch, t_batch)
assert np.allclose(network.layers["Affine1"].dW, grads["W1"])

# %%
# As a graph, with the arrays of these images:

value = Input("x", x_batch)
for layer in network.layers.values():
    value = layer(value)
loss = network.last_layer(value, Input("t", t_batch))
loss.name = "loss"
graph = Graph(loss)
graph.forward()
graph.backward()

Path("two_layer_network.html").write_text(graph.to_html(), encoding="utf-8")

# %%
# The gradient check
# ------------------
# Is the gradient right? A numerical gradient is slow and hard to get wrong. Backpropagation is fast and easy to get
# wrong. So the first checks the second, in float64 and on a few images:

exact = TwoLayerNet(784, 50, 10, dtype="float64", seed=0)
numerical = exact.numerical_gradient(x_batch, t_batch)
backprop = exact.gradient(x_batch, t_batch)
for name in numerical:
    difference = np.abs(backprop[name] - numerical[name]).mean()
    print(f"{name} {difference:.1e}")
    assert difference < 1e-9

# %%
# The differences are as small as rounding allows. :func:`~xpnet.gradient.gradient_check` makes the same comparison,
# with a verdict for each parameter and the time of both.

report = gradient_check(network, x_batch, t_batch)
print(report)
assert report.ok

# %%
# There are 39,760 parameters. The numerical gradient needs the loss twice for each of them. The check computes many at
# a time, and backpropagation is still far ahead.
#
# Training
# --------
# :class:`~xpnet.training.Trainer` runs the loop: 10,000 minibatches of 100 images, with a learning rate of 0.1. It
# evaluates the network after each epoch of 600 minibatches.

trainer = Trainer(
    network,
    x_train,
    t_train,
    x_test,
    t_test,
    mini_batch_size=100,
    steps=10_000,
    optimizer="sgd",
    optimizer_param={"lr": 0.1},
    seed=0,
)
trainer.train()
assert 0.965 < trainer.test_acc_list[-1] < 0.975

# %%
# The network reads about 97% of the test images right. The curves of training and test set stay close together, so the
# network has not merely learned its training set by heart.

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
draw_losses(left, trainer.history)
draw_metric(right, trainer.history)

# %%
# On a GPU
# --------
# The layers compute in the array library of their arrays. One flag moves the network, and the trainer moves the data:
#
# .. code-block:: python
#
#    network = TwoLayerNet(784, 50, 10, device="cuda", seed=0)
#
# The command line does the whole of it, with files of the curves and of the network:
#
# .. code-block:: console
#
#    $ xpnet train --device cuda --plot
#
# :doc:`The loop written out </gallery/train_mnist>`, line by line, is among the examples. Next:
# :doc:`where to go from here <8_and_then>`.

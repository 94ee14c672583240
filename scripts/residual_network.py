"""
A residual network
==================

Written as a computation, checked, trained on MNIST and drawn (section 5.7 and beyond).
"""

from pathlib import Path

from xpnet.datasets import load_mnist
from xpnet.gradient import gradient_check
from xpnet.graph import Graph, Input
from xpnet.layers import Affine, Relu, SoftmaxWithLoss
from xpnet.nets import GraphNetwork
from xpnet.training import Trainer

(x_train, t_train), (x_test, t_test) = load_mnist()

x, t = Input("x"), Input("t")
h = Relu()(Affine.from_sizes(784, 50, std="he", rng=0)(x))
h = h + Relu()(Affine.from_sizes(50, 50, std="he", rng=1)(h))  # a block, and a connection that skips it
loss = SoftmaxWithLoss()(Affine.from_sizes(50, 10, std="he", rng=2)(h), t)

net = GraphNetwork(loss)
print(gradient_check(net, x_train[:3], t_train[:3], method="directional"))
Trainer(net, x_train, t_train, x_test, t_test, epochs=5, optimizer_param={"lr": 0.1}, seed=0).train()

loss.forward(x=x_train[:100], t=t_train[:100])
loss.backward()
Path("residual_network.html").write_text(Graph(loss).to_html())

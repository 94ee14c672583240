"""
Filters of a convolutional network
==================================

Trains SimpleConvNet on MNIST, and draws its filters before and after (sections 7.5 and 7.6.1).
"""

import argparse

from matplotlib import pyplot as plt

from xpnet import asnumpy
from xpnet.datasets import load_mnist
from xpnet.nets import SimpleConvNet
from xpnet.training import Trainer

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--device", default="cpu")
parser.add_argument("--steps", type=int, default=3000)
parser.add_argument("--out", default="filters.png")
arguments = parser.parse_args()

(x_train, t_train), (x_test, t_test) = load_mnist(normalize=False, flatten=False)
net = SimpleConvNet(device=arguments.device, seed=0)
before = asnumpy(net.params["W1"]).copy()
Trainer(net, x_train, t_train, x_test, t_test, optimizer="adam", steps=arguments.steps, seed=0,
        evaluate_sample_num_per_epoch=2000).train()  # fmt: skip

figure, halves = plt.subplots(1, 2, figsize=(10, 5), layout="constrained")
for axes, filters, title in zip(halves, [before, asnumpy(net.params["W1"])], ["before", "after training"], strict=True):
    axes.imshow(filters.reshape(5, 6, 5, 5).transpose(0, 2, 1, 3).reshape(25, 30), cmap="gray")
    axes.set(xticks=[4.5 + 5 * i for i in range(5)], yticks=[4.5 + 5 * i for i in range(4)], title=title)
    axes.grid(color="white", linewidth=2)
    axes.tick_params(length=0, labelbottom=False, labelleft=False)
figure.savefig(arguments.out, dpi=150)

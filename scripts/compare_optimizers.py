"""
Update rules
============

The loss of one network on MNIST under each rule (section 6.1.8).
"""

import argparse

from matplotlib import pyplot as plt

from xpnet.datasets import load_mnist
from xpnet.nets import MultiLayerNet
from xpnet.optimizers import AdaGrad, Adam, AdamW, Lion, Momentum, Nesterov, RMSprop

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--steps", type=int, default=2000)
parser.add_argument("--out", default="optimizers.png")
arguments = parser.parse_args()

(x_train, t_train), _ = load_mnist(normalize=False)
rules = [Momentum(), Nesterov(), AdaGrad(), RMSprop(0.001), Adam(), AdamW(), Lion(0.0003)]

figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
for rule in rules:
    net = MultiLayerNet(784, [100, 100, 100, 100], 10, seed=0)  # the same initial weights and minibatches for all
    indices = net.device.rng(1).integers(0, len(x_train), (arguments.steps, 128))
    losses = net.compile(rule, batch_size=128).run(x_train, t_train, indices)
    window = max(min(50, len(losses) // 2), 1)
    smooth = [losses[i : i + window].mean() for i in range(0, len(losses), window)]
    axes.plot(range(0, len(losses), window), smooth, label=type(rule).__name__)
    print(f"{type(rule).__name__:10} loss of the last {window} steps {smooth[-1]:.4f}")

axes.set(xlabel="step", ylabel="training loss", yscale="log", title="784-100-100-100-100-10 on MNIST, batch 128")
axes.legend(frameon=False, ncols=2)
figure.savefig(arguments.out, dpi=150)

"""
Initial weights
===============

What they make of a deep network's activations, and of its training (section 6.2).
"""

import argparse

from matplotlib import pyplot as plt

from xpnet.datasets import load_mnist
from xpnet.nets import MultiLayerNet
from xpnet.optimizers import SGD

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--steps", type=int, default=2000)
parser.add_argument("--out", default="weight_init.png")
arguments = parser.parse_args()

(x_train, t_train), _ = load_mnist(normalize=False)
rules = {"std 0.01": 0.01, "Xavier": "xavier", "He": "he", "orthogonal": "orthogonal"}

figure, (histogram, curves) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
for i, (name, std) in enumerate(rules.items()):
    net = MultiLayerNet(784, [100] * 5, 10, weight_init_std=std, seed=0)
    x = x_train[:1000] / 255.0
    spread = []
    for layer in net.layers.values():
        x = layer.forward(x)
        spread += [x.std()] if type(layer).__name__ == "Relu" else []
    histogram.plot(range(1, 6), spread, "o-", color=f"C{i}", label=name)

    indices = net.device.rng(1).integers(0, len(x_train), (arguments.steps, 128))
    losses = net.compile(SGD(0.01), batch_size=128).run(x_train, t_train, indices)
    window = max(min(50, len(losses) // 2), 1)
    smooth = [losses[start : start + window].mean() for start in range(0, len(losses), window)]
    curves.plot(range(0, len(losses), window), smooth, color=f"C{i}", label=name)
    print(f"{name:10} spread of the last hidden layer {spread[-1]:.2e}, last loss {smooth[-1]:.4f}")

histogram.set(xlabel="hidden layer", ylabel="standard deviation of its output", yscale="log", title="before training")
curves.set(xlabel="step", ylabel="training loss", title="in training, SGD with learning rate 0.01")
curves.legend(frameon=False)
figure.savefig(arguments.out, dpi=150)

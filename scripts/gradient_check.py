"""
Gradient check
==============

Backpropagation against numerical gradients on the first three images of MNIST (section 5.7.3).
"""

import argparse

from matplotlib import pyplot as plt

from xpnet import Device, asnumpy
from xpnet.datasets import load_mnist
from xpnet.nets import TwoLayerNet

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--device", default="cpu", type=Device, help="cpu, cuda, cuda:N or auto")
parser.add_argument("--out", default="gradient_check.png")
arguments = parser.parse_args()
device = arguments.device

(x_train, t_train), _ = load_mnist(one_hot_label=True)
network = TwoLayerNet(784, 50, 10, device=device, dtype="float64", seed=0)

x_batch = device.asarray(x_train[:3])
t_batch = device.asarray(t_train[:3])

grad_numerical = network.numerical_gradient(x_batch, t_batch)
grad_backprop = network.gradient(x_batch, t_batch)

figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
for key in grad_numerical:
    backprop, numerical = asnumpy(grad_backprop[key]), asnumpy(grad_numerical[key])
    differences = abs(backprop - numerical)
    print(f"{key}: {differences.mean()}")
    axes.plot(abs(backprop).ravel(), differences.ravel(), ".", markersize=3, label=key)

axes.set(xscale="log", yscale="log", xlabel="derivative by backpropagation", ylabel="difference from the numerical one")
axes.legend(frameon=False, markerscale=4)
figure.savefig(arguments.out, dpi=150)

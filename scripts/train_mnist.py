"""
A training loop, written out
============================

The loop of section 5.7.4, on MNIST.
"""

# sphinx_gallery_thumbnail_path = "images/learning_curves.png"

import argparse

import numpy as np

from xpnet import Device
from xpnet.datasets import load_mnist
from xpnet.nets import TwoLayerNet

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--device", default="cpu", type=Device, help="cpu, cuda, cuda:N or auto")
parser.add_argument("--iters", default=10_000, type=int, help="number of steps")
args = parser.parse_args()

(x_train, t_train), (x_test, t_test) = (map(args.device.asarray, part) for part in load_mnist())
rng = np.random.default_rng(0)
network = TwoLayerNet(784, 50, 10, device=args.device, seed=rng)

train_size, batch_size, learning_rate = len(x_train), 100, 0.1
iter_per_epoch = train_size // batch_size
train_loss_list = []

for i in range(1, args.iters + 1):
    batch_mask = args.device.asarray(rng.integers(0, train_size, batch_size))
    x_batch, t_batch = x_train[batch_mask], t_train[batch_mask]

    loss, grads = network.loss_and_gradient(x_batch, t_batch)
    for key in ("W1", "b1", "W2", "b2"):
        network.params[key] -= learning_rate * grads[key]
    train_loss_list.append(loss)  # stays on the device: nothing here waits for it

    if i % iter_per_epoch == 0 or i == args.iters:
        train_acc = network.accuracy(x_train, t_train)
        test_acc = network.accuracy(x_test, t_test)
        print(f"step {i:5d}  loss {float(train_loss_list[-1]):.4f}  train {train_acc:.4f}  test {test_acc:.4f}")

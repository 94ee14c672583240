"""
Batch normalization
===================

Trains with and without it, from initial weights of several sizes (section 6.3.2).
"""

import argparse

import numpy as np
from matplotlib import pyplot as plt

from xpnet.datasets import load_mnist
from xpnet.nets import MultiLayerNetExtend
from xpnet.training import Trainer

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--epochs", type=int, default=20)
parser.add_argument("--out", default="batch_normalization.png")
arguments = parser.parse_args()

(x_train, t_train), (x_test, t_test) = load_mnist(normalize=False)
x_train, t_train = x_train[:1000], t_train[:1000]

figure, grid = plt.subplots(2, 4, figsize=(12, 6), sharex=True, sharey=True, layout="constrained")
for std, axes in zip(np.geomspace(1, 1e-4, 8), grid.flat, strict=True):
    for use_batchnorm, style in [(True, "-"), (False, "--")]:
        net = MultiLayerNetExtend(784, [100] * 5, 10, weight_init_std=std, use_batchnorm=use_batchnorm, seed=0)
        trainer = Trainer(net, x_train, t_train, x_test[:1000], t_test[:1000], epochs=arguments.epochs, verbose=False,
                          optimizer_param={"lr": 0.01}, seed=0)  # fmt: skip
        try:
            trainer.train()
        except FloatingPointError:
            print(f"std {std:.0e}: diverged without batch normalization")
        axes.plot(trainer.train_acc_list, style, label="batch normalization" if use_batchnorm else "without")
    axes.set_title(f"std {std:.4g}", fontsize=10)

grid[0, 0].legend(frameon=False, fontsize=8)
figure.supxlabel("epoch")
figure.supylabel("accuracy on the training set")
figure.savefig(arguments.out, dpi=150)

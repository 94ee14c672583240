"""
Overfitting and its remedies
============================

Overfits on 300 images; then holds weights small, or switches units off (sections 6.4.1 to 6.4.3).
"""

import argparse

from matplotlib import pyplot as plt

from xpnet.datasets import load_mnist
from xpnet.nets import MultiLayerNetExtend
from xpnet.training import Trainer

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--epochs", type=int, default=201)
parser.add_argument("--out", default="overfitting.png")
arguments = parser.parse_args()

(x_train, t_train), (x_test, t_test) = load_mnist(normalize=False)
remedies = {
    "nothing": {},
    "weight decay": {"weight_decay_lambda": 0.1},
    "dropout": {"use_dropout": True, "dropout_ration": 0.2},
}

figure, row = plt.subplots(1, 3, figsize=(12, 4), sharey=True, layout="constrained")
for axes, (name, remedy) in zip(row, remedies.items(), strict=True):
    net = MultiLayerNetExtend(784, [100] * 6, 10, seed=0, **remedy)
    trainer = Trainer(net, x_train[:300], t_train[:300], x_test, t_test, epochs=arguments.epochs, verbose=False,
                      optimizer_param={"lr": 0.01}, seed=0)  # fmt: skip
    trainer.train()
    axes.plot(trainer.train_acc_list, label="training set")
    axes.plot(trainer.test_acc_list, label="test set")
    axes.set(xlabel="epoch", title=name)
    gap = trainer.train_acc_list[-1] - trainer.test_acc_list[-1]
    print(f"{name:13} test accuracy {trainer.test_acc_list[-1]:.4f}, {gap:.4f} below the training set's")

row[0].set_ylabel("accuracy")
row[0].legend(frameon=False, loc="lower right")
figure.savefig(arguments.out, dpi=150)

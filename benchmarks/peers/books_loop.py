"""The book's loop: `book.py` or `book_convnet.py`, in float64 as the book has it, whatever the dtype of the work."""

from __future__ import annotations

import numpy as np
from book import BookNet, train_step
from book_convnet import BookConvNet

from xpnet.datasets import load_mnist

from . import Missing, Party


class BooksLoop(Party):
    """Images in float32 and weights in float64, labels one-hot, as the book loads and draws them."""

    def __init__(self, work, device, seed=0):
        if device.name != "cpu":
            raise Missing("the book's loop runs on the CPU")
        images = work.network == "SimpleConvNet"
        if not images and len(getattr(work, "sizes", ())) != 3:
            raise Missing("the book's networks are SimpleConvNet and one of one hidden layer")
        (self.x, self.t), (self.x_test, self.t_test) = load_mnist(one_hot_label=True, flatten=not images)
        self.lr = work.lr
        initial = {name: values.astype("float64") for name, values in work.initial_parameters(seed).items()}
        if images:
            self.network = BookConvNet(initial)
        else:
            self.network = BookNet(*work.sizes, np.random.default_rng(seed))
            self.network.params = initial

    def run(self, indices):
        for index in indices:
            self.loss = train_step(self.network, self.x[index], self.t[index], self.lr)

    def synchronize(self):
        pass

    def parameters(self):
        return {name: values.copy() for name, values in self.network.params.items()}

    def accuracy(self):
        return self.network.accuracy(self.x_test, self.t_test)

"""The training of chapter 5 as its reader would write it, without xpnet: the baseline of the comparisons.

What makes the book's loop slow is kept on purpose: float64 weights, a new array for every result, one-hot labels,
exponentials computed twice in the softmax, a backward pass down to the image, and a second forward pass for the loss it
records. Run as a script it is the book's run: 784-50-10, batches of 100, learning rate 0.1, 10,000 steps, accuracies on
both sets once an epoch.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np

from xpnet.datasets import load_mnist


class BookNet:
    """Affine - ReLU - affine - softmax with cross entropy."""

    def __init__(self, input_size, hidden_size, output_size, rng, weight_init_std=0.01):
        self.params = {
            "W1": weight_init_std * rng.standard_normal((input_size, hidden_size)),
            "b1": np.zeros(hidden_size),
            "W2": weight_init_std * rng.standard_normal((hidden_size, output_size)),
            "b2": np.zeros(output_size),
        }

    def predict(self, x):
        """Return the scores, and keep what the backward pass needs."""
        self.x = x
        self.z = np.dot(x, self.params["W1"]) + self.params["b1"]
        self.mask = self.z <= 0
        self.a = self.z.copy()
        self.a[self.mask] = 0
        return np.dot(self.a, self.params["W2"]) + self.params["b2"]

    def loss(self, x, t):
        """Return the mean cross entropy of one-hot labels."""
        scores = self.predict(x)
        scores = scores.T - np.max(scores, axis=1)
        self.y = (np.exp(scores) / np.sum(np.exp(scores), axis=0)).T
        self.t = t
        labels = t.argmax(axis=1)
        return -np.sum(np.log(self.y[np.arange(len(x)), labels] + 1e-7)) / len(x)

    def accuracy(self, x, t):
        """Return the share of samples classified correctly, predicted all at once."""
        return np.mean(np.argmax(self.predict(x), axis=1) == np.argmax(t, axis=1))

    def gradient(self, x, t):
        """Return the gradients by backpropagation."""
        self.loss(x, t)
        dscores = (self.y - self.t) / len(x)
        grads = {"W2": np.dot(self.a.T, dscores), "b2": np.sum(dscores, axis=0)}
        da = np.dot(dscores, self.params["W2"].T)
        da[self.mask] = 0
        grads["W1"], grads["b1"] = np.dot(self.x.T, da), np.sum(da, axis=0)
        np.dot(da, self.params["W1"].T)  # the first layer's input gradient, which nobody reads
        return grads

    def numerical_gradient(self, x, t, h=1e-4):
        """Return the gradients by central differences, a coordinate at a time."""
        grads = {}
        for key, values in self.params.items():
            grads[key] = np.zeros_like(values)
            for index in np.ndindex(values.shape):
                original = values[index]
                values[index] = original + h
                upper = self.loss(x, t)
                values[index] = original - h
                lower = self.loss(x, t)
                grads[key][index] = (upper - lower) / (2 * h)
                values[index] = original
        return grads


def train_step(network, x_batch, t_batch, lr):
    """Take one step; return the loss after it."""
    grads = network.gradient(x_batch, t_batch)
    for key in network.params:
        network.params[key] -= lr * grads[key]
    return network.loss(x_batch, t_batch)


def train(steps=10_000, batch_size=100, lr=0.1, seed=0):
    """Run the book's loop; return the test accuracies."""
    (x_train, t_train), (x_test, t_test) = load_mnist(one_hot_label=True)
    rng = np.random.default_rng(seed)
    network = BookNet(784, 50, 10, rng)
    losses, accuracies = [], []
    for i in range(steps):
        batch = rng.choice(len(x_train), batch_size)
        losses.append(train_step(network, x_train[batch], t_train[batch], lr))
        if i % (len(x_train) // batch_size) == 0:
            accuracies.append((network.accuracy(x_train, t_train), network.accuracy(x_test, t_test)))
    return network, accuracies


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=10_000)
    arguments = parser.parse_args()
    start = time.perf_counter()
    network, accuracies = train(arguments.steps)
    print(json.dumps({"seconds": time.perf_counter() - start, "test_accuracy": float(accuracies[-1][1])}))

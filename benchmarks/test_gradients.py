"""The chapter's experiment (section 5.7.3): what a gradient costs, numerically and by backpropagation.

784-50-10 on the first three images of MNIST, in float64; then how the cost grows with the number of parameters.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest
from book import BookNet
from contest import Contestant, Group, Missing, Repeated

from xpnet import asnumpy
from xpnet.datasets import load_mnist
from xpnet.nets import TwoLayerNet

IMAGES = 3

TOLERANCE = 1e-6
"""How far central differences may be from the gradient by backpropagation."""

SLOW_ROUNDS = 3
"""Rounds at most: a loop over the coordinates takes seconds."""

METHODS = {
    "backpropagation": lambda net, x, t: net.gradient(x, t),
    "numerical, batched": lambda net, x, t: net.numerical_gradient(x, t, method="batched"),
    "numerical, loop": lambda net, x, t: net.numerical_gradient(x, t, method="loop"),
}

BOOKS_LOOP = "numerical, the book's loop"

HIDDEN = (5, 10, 20, 50, 100)

MOST_FOR_LOOP = 20_000
"""Parameters of the largest network that the loop is measured on."""


def describe(hidden):
    """Return what the record says of a network."""
    parameters = 784 * hidden + hidden + hidden * 10 + 10
    return {"network": f"784-{hidden}-10", "parameters": parameters, "batch": IMAGES, "dtype": "float64"}


@pytest.mark.parametrize("method", [*METHODS, BOOKS_LOOP])
def test_gradient(record, device, method):
    def contestants():
        ours = [Contestant(name, functools.partial(enter, name, 50, device), party=name) for name in METHODS]
        return [*ours, Contestant(BOOKS_LOOP, functools.partial(enter_book, 50, device), party=BOOKS_LOOP, role="peer")]

    facts = describe(50)
    work = f"{facts['network']}, batch {IMAGES}, float64"
    record(Group("gradient", "gradient", work, facts, contestants, TOLERANCE, SLOW_ROUNDS), method)


def list_growth():
    """Return methods and hidden units: all but the loop on the large networks."""
    return [
        (method, hidden)
        for hidden in HIDDEN
        for method in METHODS
        if method != "numerical, loop" or describe(hidden)["parameters"] <= MOST_FOR_LOOP
    ]


@pytest.mark.parametrize(("method", "hidden"), list_growth())
def test_growth_with_the_number_of_parameters(record, device, method, hidden):
    def contestants():
        return [
            Contestant(
                f"784-{h}-10 {name}",
                functools.partial(enter, name, h, device),
                party=name,
                facts=describe(h),
                reference=f"784-{h}-10 backpropagation",
            )
            for name, h in list_growth()
        ]

    facts = {"batch": IMAGES, "dtype": "float64"}
    group = Group("growth", "growth", f"784-h-10, batch {IMAGES}, float64", facts, contestants, TOLERANCE, SLOW_ROUNDS)
    record(group, f"784-{hidden}-10 {method}")


def enter(method, hidden, device):
    """Return the entry of one of xpnet's methods."""
    (x, t), _ = load_mnist()
    net = TwoLayerNet(784, hidden, 10, device=device, dtype="float64", seed=0)
    x, t = device.asarray(x[:IMAGES]), device.asarray(t[:IMAGES])

    def call():
        call.grads = METHODS[method](net, x, t)
        device.synchronize()

    def result():
        call()
        return {name: asnumpy(values) for name, values in call.grads.items()}

    return Repeated(call, result)


def enter_book(hidden, device):
    """Return the entry of the book's loop, on the same weights."""
    if device.name != "cpu":
        raise Missing("the book's loop runs on the CPU")
    (x, t), _ = load_mnist(one_hot_label=True)
    x, t = x[:IMAGES].astype("float64"), t[:IMAGES]
    net = BookNet(784, hidden, 10, np.random.default_rng(0))
    net.params = dict(TwoLayerNet(784, hidden, 10, dtype="float64", seed=0).params)

    return Repeated(lambda: net.numerical_gradient(x, t), lambda: net.numerical_gradient(x, t))

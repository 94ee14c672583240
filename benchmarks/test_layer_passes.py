"""Each layer of 784-50-10 on its own, forward and backward, at batch 100."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from contest import Contestant, Group, Repeated
from work import Work

from xpnet.layers import Affine, Relu, Sigmoid, SoftmaxWithLoss

WORKS = [Work((784, 50, 10), batch=100, dtype=dtype) for dtype in ("float32", "float64")]

LAYERS = ("Affine 784-50", "Relu", "Sigmoid", "Affine 50-10", "SoftmaxWithLoss")

PASSES = ("forward", "backward")

REPETITIONS = 100
"""Passes in a timed call: a wait for a GPU takes as long as a few of them."""


@pytest.mark.parametrize("direction", PASSES)
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("work", WORKS, ids=str)
def test_layer(record, device, work, layer, direction):
    def contestants():
        return [
            Contestant(
                f"{name} {way}", functools.partial(enter, name, way, work, device), facts={"layer": name, "pass": way}
            )
            for name in LAYERS
            for way in PASSES
        ]

    record(Group("layer", "layers", str(work), work.facts(), contestants), f"{layer} {direction}")


def enter(name, direction, work, device):
    """Return the entry of a layer's pass."""
    layer, arguments = build(name, work, device)
    y = layer.forward(*arguments)
    dout = 1.0 if y.ndim == 0 else device.asarray(np.full(y.shape, 0.01, work.dtype))

    def call():
        for _ in range(REPETITIONS):
            if direction == "forward":
                layer.forward(*arguments)
            else:
                layer.backward(dout)
        device.synchronize()

    return Repeated(call, steps=REPETITIONS)


def build(name, work, device):
    """Return a layer and what its forward pass takes: images at the start, random numbers further in."""
    rng = np.random.default_rng(0)
    parameters = {key: device.asarray(values) for key, values in work.initial_parameters().items()}
    images, labels = (device.asarray(array[: work.batch]) for array in work.data()[0])
    hidden, scores = (device.asarray(rng.standard_normal((work.batch, n)).astype(work.dtype)) for n in work.sizes[1:])
    return {
        "Affine 784-50": lambda: (Affine(parameters["W1"], parameters["b1"]), (images,)),
        "Relu": lambda: (Relu(), (hidden,)),
        "Sigmoid": lambda: (Sigmoid(), (hidden,)),
        "Affine 50-10": lambda: (Affine(parameters["W2"], parameters["b2"]), (hidden,)),
        "SoftmaxWithLoss": lambda: (SoftmaxWithLoss(), (scores, labels)),
    }[name]()

"""A training step: xpnet, its peers and the bare limit on the same work, and how xpnet's own step divides up.

A step gathers a minibatch from the training set, which is on the device, computes the loss and its gradient, and
updates the parameters. All parties start from the same weights, and must have the same parameters after ten steps.
"""

from __future__ import annotations

import functools

import peers
import pytest
from contest import Contestant, Group, Repeated
from work import ImageWork, Work

WORKS = [
    Work((784, 50, 10), batch=100, dtype="float32"),
    Work((784, 50, 10), batch=100, dtype="float64"),
    Work((784, 1024, 1024, 10), batch=256, dtype="float32", steps=4),
]

GPU_WORKS = [
    Work((784, 1024, 1024, 10), batch=1024, dtype="float32", steps=20, precision=precision)
    for precision in ("float32", "tf32")
]

IMAGE_WORKS = [
    ImageWork("SimpleConvNet", batch=100, dtype="float32"),
    ImageWork("LeNet5", batch=100, dtype="float32"),
]

IMAGE_PARTIES = ("xpnet", "xpnet, Numba", peers.BOOK, "PyTorch eager", "PyTorch compiled", "PyTorch CUDA graph")

PARTS = ("forward", "forward and backward", "training step")


@pytest.mark.parametrize("party", peers.PARTIES)
@pytest.mark.parametrize("work", WORKS, ids=str)
def test_training_step(record, device, work, party):
    record(contest_of(peers.PARTIES, work, device), party)


@pytest.mark.parametrize("party", peers.PARTIES)
@pytest.mark.parametrize("work", GPU_WORKS, ids=str)
def test_training_step_for_a_gpu(record, device, work, party):
    if device.name == "cpu":
        pytest.skip("work for a CUDA device")
    record(contest_of(peers.PARTIES, work, device), party)


@pytest.mark.parametrize("party", IMAGE_PARTIES)
@pytest.mark.parametrize("work", IMAGE_WORKS, ids=str)
def test_training_step_on_images(record, device, work, party):
    record(contest_of(IMAGE_PARTIES, work, device), party)


def contest_of(parties, work, device):
    """Return the group of a training step's contestants."""
    work = work.on(device)

    def contestants():
        builds = {name: functools.partial(peers.enter_steps, name, work, device) for name in parties}
        return [peers.as_contestant(name, work, build) for name, build in builds.items()]

    return Group("step", "training step", str(work), work.facts(), contestants, work.tolerance)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("work", WORKS, ids=str)
def test_parts_of_a_training_step(record, device, work, part):
    work = work.on(device)

    def contestants():
        calls = divide_step(work, device)
        return [
            Contestant(name, functools.partial(Repeated, calls[name], steps=work.steps), party=f"xpnet, {name}")
            for name in PARTS
        ]

    record(Group("step", "training step", f"parts of {work}", work.facts(), contestants), part)


def divide_step(work, device):
    """Return xpnet's forward pass, both passes, and the whole step as calls of `work.steps` steps each."""
    party = peers.enter("xpnet", work, device)
    network = party.network
    indices = work.minibatches(work.steps)
    x, t = (device.asarray(array[indices[0]]) for array in work.data()[0])
    grads = network.params.zeros_like()

    def forward():
        for _ in indices:
            network.predict(x)
        party.synchronize()

    def both():
        for _ in indices:
            network.loss_and_gradient(x, t, out=grads)
        party.synchronize()

    def step():
        party.run(indices)
        party.synchronize()

    return dict(zip(PARTS, (forward, both, step), strict=True))

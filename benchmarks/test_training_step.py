"""A training step: xpnet, its peers and the bare limit on the same work, and how xpnet's own step divides up.

A step gathers a minibatch from the training set, which is on the device, computes the loss and its gradient, and
updates the parameters. All parties start from the same weights, and must have the same parameters after ten steps.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools

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

CHECKED_STEPS = 10

STEPS_ON_CUDA = 200
"""Steps in a timed call on a CUDA device, at least: a shorter one would never launch xpnet's graph of fifty steps."""

BLOCKS = 20
"""Calls with minibatches of their own."""

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
    work = for_device(work, device)

    def contestants():
        builds = {name: functools.partial(enter, name, work, device) for name in parties}
        return [peers.as_contestant(name, work, build) for name, build in builds.items()]

    return Group("step", "training step", str(work), work.facts(), contestants, work.tolerance)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("work", WORKS, ids=str)
def test_parts_of_a_training_step(record, device, work, part):
    work = for_device(work, device)

    def contestants():
        calls = divide_step(work, device)
        return [
            Contestant(name, functools.partial(Repeated, calls[name], steps=work.steps), party=f"xpnet, {name}")
            for name in PARTS
        ]

    record(Group("step", "training step", f"parts of {work}", work.facts(), contestants), part)


def for_device(work, device):
    """Return the work with the number of steps in a call that suits a device."""
    return work if device.name == "cpu" else dataclasses.replace(work, steps=max(work.steps, STEPS_ON_CUDA))


def enter(name, work, device):
    """Return a party's entry: ten steps to be compared, and blocks of steps to be timed."""
    party = peers.enter(name, work, device)
    batches = work.minibatches(BLOCKS * work.steps).reshape(BLOCKS, work.steps, work.batch)
    blocks = itertools.cycle(batches)

    def result():
        party.run(work.minibatches(CHECKED_STEPS, seed=1))
        return party.parameters()

    def call():
        party.run(next(blocks))
        party.synchronize()

    return Repeated(call, result, work.steps)


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

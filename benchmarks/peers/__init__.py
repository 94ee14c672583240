"""The parties of the comparisons, a module each: the same training, written as each library's users would write it.

All start from the same weights and take the same minibatches. A party's library is imported when the party enters; one
that is not installed is missing, with a reason, and the others go on.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
from contest import Contestant, Entry, Missing, Repeated
from work import Work

from xpnet import Device, environment


class Party(ABC):
    """A network in training.

    Parameters
    ----------
    work : Work
        What is trained, and how.
    device : Device
        Where.
    seed : int
        Of the initial weights.
    """

    @abstractmethod
    def __init__(self, work: Work, device: Device, seed: int = 0) -> None: ...

    @abstractmethod
    def run(self, indices: np.ndarray) -> None:
        """Take len(indices) steps.

        Each gathers the samples `indices[i]` from the whole training set, computes their loss and its gradient, and
        updates the parameters. May return before the device is done.
        """

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until the device is done."""

    @abstractmethod
    def parameters(self) -> dict[str, np.ndarray] | None:
        """Return the parameters as the work names and shapes them; None where nothing is learned."""

    def accuracy(self) -> float:
        """Return the accuracy on the test set."""
        raise NotImplementedError(f"{type(self).__name__} does not classify")


PARTIES = {
    "xpnet": ("xpnet_compiled", "XpnetCompiled"),
    "xpnet, Numba": ("xpnet_compiled", "XpnetNumba"),
    "matrix products alone": ("matrix_products", "MatrixProducts"),
    "the book": ("books_loop", "BooksLoop"),
    "scikit-learn": ("scikit_learn", "ScikitLearn"),
    "PyTorch eager": ("pytorch", "PyTorchEager"),
    "PyTorch compiled": ("pytorch", "PyTorchCompiled"),
    "PyTorch CUDA graph": ("pytorch", "PyTorchCudaGraph"),
    "JAX jit": ("jax_training", "JaxJit"),
    "JAX scanned": ("jax_training", "JaxScanned"),
}
"""Modules and classes by the parties' names; xpnet first, since all must agree with it."""

LIMIT = "matrix products alone"

BOOK = "the book"

CHECKED_STEPS = 10
"""Steps after which all parties must have the same parameters."""

BLOCKS = 20
"""Calls with minibatches of their own."""

PACKAGES = ("numba", "torch", "jax", "jaxlib", "scikit-learn")


def enter(name: str, work: Work, device: Device, seed: int = 0) -> Party:
    """Return the party of that name, ready to train.

    Raises
    ------
    Missing
        If its library is not installed, or it cannot do this work on this device.
    """
    module, cls = PARTIES[name]
    try:
        return getattr(importlib.import_module(f"peers.{module}"), cls)(work, device, seed)
    except ModuleNotFoundError as error:
        raise Missing(f"{name}: {error.name} is not installed") from error


def enter_steps(name: str, work: Work, device: Device) -> Repeated:
    """Return a party's training steps: ten of them to be compared, and blocks of `work.steps` to be timed."""
    party = enter(name, work, device)
    batches = work.minibatches(BLOCKS * work.steps).reshape(BLOCKS, work.steps, work.batch)
    blocks = itertools.cycle(batches)

    def result():
        party.run(work.minibatches(CHECKED_STEPS, seed=1))
        return party.parameters()

    def call():
        party.run(next(blocks))
        party.synchronize()

    return Repeated(call, result, work.steps)


def as_contestant(name: str, work: Work, build: Callable[[], Entry]) -> Contestant:
    """Return the party as a contestant; the book computes in float64 whatever the work says, so its record does."""
    role = "xpnet" if name.startswith("xpnet") else "limit" if name == LIMIT else "peer"
    if name == BOOK and work.dtype != "float64":
        return Contestant(name, build, f"{BOOK}, float64", role, {"dtype": "float64"})
    return Contestant(name, build, name, role)


def describe(device: Device) -> dict[str, Any]:
    """Return what the figures depend on."""
    return {**environment.describe(device), "peers": versions()}


def versions() -> dict[str, str]:
    """Return the versions of the peers' libraries that are installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


__all__ = [
    "BOOK",
    "LIMIT",
    "PARTIES",
    "Missing",
    "Party",
    "as_contestant",
    "describe",
    "enter",
    "enter_steps",
    "versions",
]

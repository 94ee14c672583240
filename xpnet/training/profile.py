"""Where the time of a training step goes, layer by layer, and what the matrix products alone would take."""

from __future__ import annotations

import copy
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from xpnet import kernels
from xpnet.device import Device
from xpnet.kernels import Call, observing
from xpnet.nets import Network
from xpnet.optimizers import Optimizer
from xpnet.tables import format_table
from xpnet.timing import median_seconds
from xpnet.typing import Array

__all__ = ["Part", "StepProfile", "profile_step"]


@dataclass(frozen=True)
class Part:
    """What a part of the step takes, in seconds a step.

    Attributes
    ----------
    name : str
        A layer's name, ``"loss"``, ``"gather"`` or ``"update"``.
    forward, backward : float
        Of both passes; what is done once, such as the update, counts as forward.
    products : float
        The layer's matrix products alone, with their results preallocated.
    """

    name: str
    forward: float
    backward: float
    products: float


@dataclass(frozen=True)
class StepProfile:
    """The report of `profile_step`; ``print`` shows it as a table.

    Attributes
    ----------
    parts : tuple of Part
        In the order of the step, each timed by itself, on CUDA with a wait before and after: they need not add up to
        the step.
    step : float
        Seconds of a whole step, with nothing in it timed.
    batch_size : int
        Samples per step.
    device : str
        Where.
    how : str
        How whole steps are driven (`Runner.name`); the parts are always timed one by one.
    """

    parts: tuple[Part, ...]
    step: float
    batch_size: int
    device: str
    how: str

    @property
    def products(self) -> float:
        """Seconds of all matrix products of a step alone: what no implementation gets below."""
        return sum(part.products for part in self.parts)

    def __str__(self) -> str:
        rows = [
            (
                part.name,
                *(f"{1e6 * value:,.1f}" if value else "" for value in (part.forward, part.backward, part.products)),
            )
            for part in self.parts
        ]
        totals = (
            "together",
            f"{1e6 * sum(part.forward for part in self.parts):,.1f}",
            f"{1e6 * sum(part.backward for part in self.parts):,.1f}",
            f"{1e6 * self.products:,.1f}",
        )
        header = ("µs a step", "forward", "backward", "products alone")
        return "\n".join(
            [
                format_table(header, rows, footer=totals, align="<>>>"),
                "",
                f"a whole step of {self.batch_size} samples on {self.device}, {self.how}: {1e6 * self.step:,.1f} µs, "
                f"of which its matrix products alone are {self.products / self.step:.0%}",
            ]
        )


def profile_step(
    network: Network,
    optimizer: Optimizer,
    x: Array,
    t: Array,
    batch_size: int = 100,
    precision: kernels.Precision = "float32",
    steps: int = 200,
) -> StepProfile:
    """Time the training step and its parts, on a copy of the network.

    Parameters
    ----------
    network : Network
        What is trained; it is left as it is.
    optimizer : Optimizer
        The update rule; it is left as it is, too.
    x : (N, ...)
        Samples on the network's device.
    t : (N, C) or (N,) integers
        Their labels, there as well.
    batch_size : int, default 100
        Samples per step.
    precision : {"float32", "tf32", "float16"}, default "float32"
        See `Network.compile`.
    steps : int, default 200
        Steps of which the medians are taken.
    """
    network, optimizer, device = network.copy(), copy.deepcopy(optimizer), network.device
    step = network.compile(optimizer, batch_size, precision=precision)
    indices = device.asarray(device.rng(0).integers(0, len(x), (steps, batch_size)))
    step.run(x, t, indices)
    whole = median_seconds(lambda: step.run(x, t, indices), device, repetitions=5) / steps
    how = step.runners[0].name

    step.runners = step.runners[-1:]  # one by one: of others the parts cannot be timed
    step.run(x, t, indices)  # warm
    layers = {**step.gradient.net.layers, "loss": network.last_layer}
    timer = _Timer(device, {layer: name for name, layer in layers.items()} | {optimizer: "update", None: "gather"})
    with observing(timer):
        step.run(x, t, indices)

    def part(name: str) -> Part:
        products = [
            median_seconds(partial(kernels.matmul, a, b, out=out), device, repetitions=steps) * calls / steps
            for (a, b, out), calls in timer.products(name)
        ]
        return Part(
            name, timer.per_step(name, "forward", steps), timer.per_step(name, "backward", steps), sum(products)
        )

    with device.activate(), kernels.using(precision=precision):
        parts = tuple(part(name) for name in ("gather", *layers, "update"))
    return StepProfile(parts, whole, batch_size, str(device), how)


class _Timer:
    """An observer that records what calls of layers, of the update and of the gathering take.

    Parameters
    ----------
    device : Device
        Where they run.
    names : dict of object to str
        Whose calls are timed, and what they are called; of kernels (None) `gather` alone.
    """

    def __init__(self, device: Device, names: dict[Any, str]) -> None:
        self._device, self._names = device, names
        self._seconds: dict[tuple[str, str], dict[Any, list[float]]] = {}  # by what is timed, and the argument's shape
        self._running: list[tuple[str, str]] = []
        self._products: dict[Any, tuple[Array, Array, Array]] = {}  # by whose they are, and the operands' shapes
        self._calls: Counter[Any] = Counter()

    def __call__(self, call: Call) -> Any:
        if call.owner is None and call.name == "matmul":
            return self._count_product(call)
        if call.owner not in self._names or (call.owner is None and call.name != "gather"):
            return call.run()
        key = self._names[call.owner], "backward" if call.name in {"backward", "backward_parameters"} else "forward"
        self._running.append(key)
        self._device.synchronize()
        start = time.perf_counter()
        try:
            return call.run()
        finally:
            self._device.synchronize()
            seconds = time.perf_counter() - start
            shape = getattr(call.args[0], "shape", None) if call.args else None
            self._seconds.setdefault(key, {}).setdefault(shape, []).append(seconds)
            self._running.pop()

    def products(self, name: str) -> list[tuple[tuple[Array, Array, Array], int]]:
        """Return a layer's products, one of each kind, and how many there were of it."""
        return [(arrays, self._calls[key]) for key, arrays in self._products.items() if key[0] == name]

    def per_step(self, name: str, direction: str, steps: int) -> float:
        """Return the median call times the calls per step: an interruption of one call does not count.

        Calls for arrays of different shapes, samples and labels say, take different times: each has its median.
        """
        durations = self._seconds.get((name, direction), {}).values()
        return sum(float(np.median(alike)) * len(alike) for alike in durations) / steps

    def _count_product(self, call: Call) -> Any:
        result = call.run()
        a, b = call.args[:2]
        key = (*self._running[-1], a.shape, b.shape)
        self._products.setdefault(key, (a, b, result))
        self._calls[key] += 1
        return result

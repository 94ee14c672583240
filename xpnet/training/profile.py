"""Profile of a training step: time per layer, and time of the matrix products alone."""

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
    """Time of a part of the step, in seconds per step.

    Attributes
    ----------
    name : str
        A layer's name, ``"loss"``, ``"gather"`` or ``"update"``.
    forward, backward : float
        Time of each pass. Parts without passes, such as the update, count as forward.
    products : float
        Time of the layer's matrix products alone, with preallocated results.
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
        Parts in the order of the step. Each is timed alone, on CUDA with a synchronization before and after. So their
        sum may differ from `step`.
    step : float
        Seconds of a whole step, measured without timing its parts.
    batch_size : int
        Samples per step.
    device : str
        Device of the network.
    how : str
        The runner of whole steps (`Runner.name`). Parts are always run one by one.
    """

    parts: tuple[Part, ...]
    step: float
    batch_size: int
    device: str
    how: str

    @property
    def products(self) -> float:
        """Seconds of all matrix products of a step, by the BLAS and each alone.

        A step without the BLAS, or with matrices still in the cache, may take less.
        """
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
        share = self.products / self.step
        whole = f"a whole step of {self.batch_size} samples on {self.device}, {self.how}: {1e6 * self.step:,.1f} µs, "
        if share <= 1:
            whole += f"of which its matrix products alone are {share:.0%}"
        else:
            whole += f"less than its matrix products by the BLAS, {1e6 * self.products:,.1f} µs"
        return f"{format_table(header, rows, footer=totals, align='<>>>')}\n\n{whole}"


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
        The network to train. It is not changed.
    optimizer : Optimizer
        The update rule. It is not changed.
    x : (N, ...)
        Samples on the network's device.
    t : (N, C) or (N,) integers
        Labels, on the same device.
    batch_size : int, default 100
        Samples per step.
    precision : {"float32", "tf32", "float16"}, default "float32"
        See `Network.compile`.
    steps : int, default 200
        Number of steps. The medians of their times are reported.
    """
    network, optimizer, device = network.copy(), copy.deepcopy(optimizer), network.device
    step = network.compile(optimizer, batch_size, precision=precision)
    indices = device.asarray(device.rng(0).integers(0, len(x), (steps, batch_size)))
    step.run(x, t, indices)
    whole = median_seconds(lambda: step.run(x, t, indices), device, repetitions=5) / steps
    how = step.runners[0].name

    step.runners = step.runners[-1:]  # the last one runs steps one by one: other runners hide the parts
    step.run(x, t, indices)  # warm up
    twin = step.gradient.net
    with twin.reordered():
        row = twin.row
    layers = dict(twin.layers) if row is None else {layer.name: layer for layer in row}
    layers["loss"] = network.last_layer
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
    """An observer that times the calls of layers, update and gathering.

    Parameters
    ----------
    device : Device
        Device of the calls.
    names : dict of object to str
        Names of the objects whose calls are timed. Of kernels (None) only `gather` is timed.
    """

    def __init__(self, device: Device, names: dict[Any, str]) -> None:
        self._device, self._names = device, names
        self._seconds: dict[tuple[str, str], dict[Any, list[float]]] = {}  # by part and pass, then by shape
        self._running: list[tuple[str, str]] = []
        self._products: dict[Any, tuple[Array, Array, Array]] = {}  # by part, pass and shapes
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
        """Return the operands of a layer's products, one per pair of shapes, with the number of calls."""
        return [(arrays, self._calls[key]) for key, arrays in self._products.items() if key[0] == name]

    def per_step(self, name: str, direction: str, steps: int) -> float:
        """Return the median time of a call, multiplied by the calls per step. A median ignores interruptions.

        Calls with arrays of different shapes, such as samples and labels, have medians of their own.
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

"""Sources of a trainer's minibatches: arrays and a sampler, or any iterable of minibatches."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from xpnet.datasets import Windows
from xpnet.device import Device, as_array, check_equally_many
from xpnet.settings import fit_in_memory
from xpnet.steps import STEPS_PER_EXECUTION, TrainingStep
from xpnet.training.feed import Feed, HostFeed, MappedFeed
from xpnet.training.sampling import RandomDraws, Sampler
from xpnet.typing import Array

__all__ = ["ArraySource", "BatchSource", "Source", "WindowSource"]


class Source(Protocol):
    """Minibatches for training steps, with a place in the epoch.

    Attributes
    ----------
    name : str
        Name of the way in which samples are chosen.
    epoch : float
        Passes over the samples so far.
    at_epoch_end : bool
        Whether the last minibatch ended an epoch.
    """

    @property
    def name(self) -> str: ...
    @property
    def epoch(self) -> float: ...
    @property
    def at_epoch_end(self) -> bool: ...

    def run(self, step: TrainingStep, losses: Array) -> None:
        """Take at most a step for each entry of `losses`, up to the end of the epoch, and set the losses.

        After an interruption the source is where the steps are.
        """

    def state(self) -> dict[str, Any]:
        """Return the place in the epoch, and the generator, as numbers and texts for JSON."""

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore the result of `state`."""


class ArraySource:
    """Minibatches of arrays, drawn by a sampler.

    Parameters
    ----------
    device : Device
        The network's device.
    arrays : sequence of arrays
        Samples, labels and, if any, weights: on the device, or on the host.
    sampler : Sampler
        Draws the indices.
    batch_size : int
        Samples per minibatch.
    mapped : bool
        Whether samples are mapped from a file.
    """

    def __init__(
        self, device: Device, arrays: Sequence[Array], sampler: Sampler, batch_size: int, mapped: bool = False
    ) -> None:
        self.device, self.arrays, self.sampler = device, arrays, sampler
        self.feed: Feed | None = None
        if not device.holds(arrays[0]):
            self.feed = HostFeed(device, arrays, batch_size)
        elif mapped:
            self.feed = MappedFeed(arrays)

    @property
    def name(self) -> str:
        return self.sampler.name

    @property
    def epoch(self) -> float:
        return self.sampler.epoch

    @property
    def at_epoch_end(self) -> bool:
        return self.sampler.at_epoch_end

    def run(self, step: TrainingStep, losses: Array) -> None:
        indices, before = self.sampler.draw(len(losses)), step.steps
        try:
            self._take(step, indices, losses[: len(indices)])
        finally:
            self.sampler.put_back(len(indices) - (step.steps - before))

    def _take(self, step: TrainingStep, indices: Array, losses: Array) -> None:
        """Take a step for each minibatch of `indices` (S, B), on the host."""
        if self.feed is None:
            x, t, *weight = self.arrays
            step.run(x, t, self.device.asarray(indices), losses, *weight)
        else:
            for part, (x, t, *weight), places in self.feed.windows(indices):
                step.run(x, t, places, losses[part], *weight)

    def state(self) -> dict[str, Any]:
        return self.sampler.state()

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.sampler.load_state(state)


class WindowSource(ArraySource):
    """Minibatches of windows that are cut from a sequence of ids.

    Random draws cut it anywhere; all other samplers take the windows side by side.

    Parameters
    ----------
    device : Device
        The network's device.
    windows : Windows
        The sequence. It is moved to the device.
    sampler : Sampler
        Draws the windows.
    batch_size : int
        Windows per minibatch.
    """

    def __init__(self, device: Device, windows: Windows, sampler: Sampler, batch_size: int) -> None:
        super().__init__(device, [device.asarray(windows.ids)], sampler, batch_size)
        self._apart = 1 if isinstance(sampler, RandomDraws) else windows.length
        self._reach = device.xp.arange(windows.length)
        # Always the same arrays: a CUDA graph reads what it has captured.
        shape, dtype = (STEPS_PER_EXECUTION * batch_size, windows.length), windows.ids.dtype
        if device.name == "cpu":
            fit_in_memory("mini_batch_size", f"{batch_size:,}", 2 * math.prod(shape) * dtype.itemsize)
        self._x, self._t = (device.xp.zeros(shape, dtype) for _ in range(2))

    def _take(self, step: TrainingStep, indices: Array, losses: Array) -> None:
        xp, ids = self.device.xp, self.arrays[0]
        for start in range(0, len(indices), STEPS_PER_EXECUTION):
            part = slice(start, start + STEPS_PER_EXECUTION)
            places = self.device.asarray(indices[part]).reshape(-1, 1) * self._apart + self._reach
            self._x[: len(places)], self._t[: len(places)] = ids[places], ids[places + 1]
            step.run(self._x, self._t, xp.arange(len(places)).reshape(indices[part].shape), losses[part])


class BatchSource:
    """Minibatches of an iterable of ``(x, t)`` or ``(x, t, sample_weight)``, such as a PyTorch DataLoader.

    A pass over the iterable is an epoch. A thread fetches the next minibatch while a step runs. To continue a run at
    its place in the epoch, the iterable must give the same minibatches again.

    Parameters
    ----------
    device : Device
        The network's device. Minibatches are moved to it.
    batches : iterable
        The minibatches. An iterator, which ends for good, is one epoch.
    """

    name = "iterable"

    def __init__(self, device: Device, batches: Iterable[Any]) -> None:
        self.device, self.batches = device, batches
        self.passes = self.place = 0
        self._iterator: Iterator[Any] = iter(())
        self._ahead: list[list[Array]] = []
        self._start(0)
        if not self._ahead:
            raise ValueError("the iterable x_train has no minibatches")

    @property
    def first(self) -> list[Array]:
        """The next minibatch, without taking it."""
        return self._ahead[0]

    @property
    def steps_per_epoch(self) -> int | None:
        """Number of minibatches of the iterable, if it has a length."""
        return len(self.batches) if isinstance(self.batches, Sized) else None

    @property
    def epoch(self) -> float:
        return self.passes + self.place / (self.steps_per_epoch or max(self.place + 1, 1))

    @property
    def at_epoch_end(self) -> bool:
        return self.place == 0 and self.passes > 0

    def run(self, step: TrainingStep, losses: Array) -> None:
        with ThreadPoolExecutor(1) as pool:
            for i in range(len(losses)):
                if not self._ahead:
                    self._start(0)
                    if not self._ahead:
                        raise ValueError(
                            f"the iterator x_train ended after {self.passes} epochs; pass an iterable that can be "
                            "iterated again, such as a list or a DataLoader"
                        )
                fetched, before = pool.submit(self._fetch), step.steps
                x, t, *weight = self._ahead[0]
                step.batch_size = max(step.batch_size, len(x))
                try:
                    step.run(x, t, self.device.xp.arange(len(x))[None], losses[i : i + 1], *weight)
                finally:
                    if step.steps > before:
                        self._ahead.pop(0)
                        self.place += 1
                    self._ahead += fetched.result()
                    if not self._ahead:
                        self.passes, self.place = self.passes + 1, 0
                if self.place == 0:
                    return

    def state(self) -> dict[str, Any]:
        return {"passes": self.passes, "place": self.place}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.passes, self.place = state["passes"], state["place"]
        self._start(self.place)

    def _start(self, place: int) -> None:
        """Begin a pass, at some place."""
        self._iterator = iter(self.batches)
        for _ in range(place):
            next(self._iterator, None)
        self._ahead = self._fetch()

    def _fetch(self) -> list[list[Array]]:
        """Return the next minibatch on the device, as a list of one; empty at the end."""
        for batch in self._iterator:
            if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
                raise TypeError(
                    f"a minibatch of the iterable x_train must be (x, t) or (x, t, sample_weight), got "
                    f"{type(batch).__name__}"
                )
            named = dict(zip(("x", "t", "sample_weight"), batch, strict=False))
            arrays = {name: as_array(name, array) for name, array in named.items()}
            check_equally_many(**arrays)
            with self.device.activate():
                return [[self.device.asarray(array) for array in arrays.values()]]
        return []

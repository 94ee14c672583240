"""Feeds of minibatches from arrays that stay on the host: too large for a CUDA device, or mapped from a file."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np

from xpnet.device import Device
from xpnet.steps import STEPS_PER_EXECUTION
from xpnet.typing import Array

__all__ = ["Feed", "HostFeed", "MappedFeed"]

STEPS_AHEAD = 10
"""Minibatches that are read from a mapped file at a time."""


class Feed(Protocol):
    """Minibatches of samples that stay on the host."""

    def windows(self, indices: np.ndarray) -> Iterator[tuple[slice, list[Array], Array]]:
        """Bring some minibatches at a time.

        Parameters
        ----------
        indices : (S, B) integers, on the host
            Indices of the minibatches' samples.

        Yields
        ------
        part : slice
            Range of the minibatches.
        arrays : list of arrays on the device
            Their samples, labels ... They are valid until the next iteration.
        places : (s, B) integers on the device
            Indices of the minibatches in `arrays`.
        """


class HostFeed:
    """Minibatches for a CUDA device.

    While the device computes on some minibatches, the host gathers the next ones into pinned memory. From there they
    are copied asynchronously, always to the same arrays.

    Parameters
    ----------
    device : Device
        A CUDA device.
    arrays : sequence of arrays on the host
        Samples, labels ..., a row each.
    batch_size : int
        Largest number of samples in a minibatch.
    """

    def __init__(self, device: Device, arrays: Sequence[np.ndarray], batch_size: int) -> None:
        self.device = device
        with device.activate():
            self._stream = device.xp.cuda.Stream(non_blocking=True)
            self._channels = [_Channel(device, data, STEPS_PER_EXECUTION * batch_size) for data in arrays]

    def windows(self, indices: np.ndarray) -> Iterator[tuple[slice, list[Array], Array]]:
        for part, places in _parts(indices, STEPS_PER_EXECUTION):
            rows = indices[part].reshape(-1)
            arrays = [channel.bring(rows, self._stream) for channel in self._channels]
            yield part, arrays, self.device.asarray(places)


class MappedFeed:
    """Minibatches for the CPU, from arrays that are mapped from files.

    A thread reads the next minibatches while the steps of the earlier ones run.

    Parameters
    ----------
    arrays
        As for `HostFeed`.
    """

    def __init__(self, arrays: Sequence[np.ndarray]) -> None:
        self.arrays = arrays

    def windows(self, indices: np.ndarray) -> Iterator[tuple[slice, list[Array], Array]]:
        def read(part: slice) -> list[np.ndarray]:
            return [data.take(indices[part].reshape(-1), axis=0, mode="clip") for data in self.arrays]

        parts = list(_parts(indices, STEPS_AHEAD))
        with ThreadPoolExecutor(1) as pool:
            ahead = pool.submit(read, parts[0][0])
            for i, (part, places) in enumerate(parts):
                arrays = ahead.result()
                if i + 1 < len(parts):
                    ahead = pool.submit(read, parts[i + 1][0])
                yield part, arrays, places


def _parts(indices: np.ndarray, at_a_time: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield ranges of minibatches, and the places of their samples if these follow one another."""
    size = indices.shape[1]
    for start in range(0, len(indices), at_a_time):
        part = slice(start, min(start + at_a_time, len(indices)))
        yield part, np.arange((part.stop - start) * size).reshape(-1, size)


class _Channel:
    """Transfer of one array's rows to the device."""

    def __init__(self, device: Device, data: np.ndarray, rows: int) -> None:
        import cupyx

        self.data, self.device = data, device
        shape = (rows, *data.shape[1:])
        self.pinned = cupyx.empty_pinned(shape, data.dtype)
        self.landed, self.current = (device.xp.empty(shape, data.dtype) for _ in range(2))
        self.copied = self.taken = None

    def bring(self, index: np.ndarray, stream: Array) -> Array:
        """Return an array on the device that begins with the rows ``data[index]``."""
        n = len(index)
        if self.copied is not None:
            self.copied.synchronize()  # wait: the last copy may still read pinned memory
        self.data.take(index, axis=0, out=self.pinned[:n], mode="clip")
        if self.taken is not None:
            stream.wait_event(self.taken)
        self.landed[:n].set(self.pinned[:n], stream=stream)
        self.copied = stream.record()
        main = self.device.xp.cuda.get_current_stream()
        main.wait_event(self.copied)
        self.current[:n] = self.landed[:n]  # on the main stream: after the steps that still read it
        self.taken = main.record()
        return self.current

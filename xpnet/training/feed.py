"""Data that are too large for a CUDA device: brought there a few minibatches at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from xpnet.device import Device
from xpnet.steps import STEPS_PER_EXECUTION
from xpnet.typing import Array

__all__ = ["HostFeed"]


class HostFeed:
    """Minibatches of samples that stay on the host.

    While the device works on some minibatches, the host gathers the next ones into pinned memory, from where they are
    copied without its help.

    Parameters
    ----------
    device : Device
        A CUDA device.
    x, t : (N, ...), (N, ...) arrays on the host
        Samples and labels.
    batch_size : int
        Samples of a minibatch.
    """

    def __init__(self, device: Device, x: np.ndarray, t: np.ndarray, batch_size: int) -> None:
        self.device, self.batch_size = device, batch_size
        with device.activate():
            self._stream = device.xp.cuda.Stream(non_blocking=True)
            self._channels = [_Channel(device, data, STEPS_PER_EXECUTION * batch_size) for data in (x, t)]

    def windows(self, indices: np.ndarray) -> Iterator[tuple[slice, Array, Array, Array]]:
        """Bring minibatches to the device, some at a time; valid until the next ones are asked for.

        Parameters
        ----------
        indices : (S, batch_size) integers, on the host
            The minibatches.

        Yields
        ------
        part : slice
            Which of the minibatches.
        x, t : arrays on the device
            Their samples and labels, each time the same arrays.
        indices : (s, batch_size) integers on the device
            Where in these they are.
        """
        places = self.device.xp.arange(STEPS_PER_EXECUTION * self.batch_size).reshape(-1, self.batch_size)
        for start in range(0, len(indices), STEPS_PER_EXECUTION):
            part = slice(start, min(start + STEPS_PER_EXECUTION, len(indices)))
            x, t = (channel.bring(indices[part].reshape(-1), self._stream) for channel in self._channels)
            yield part, x, t, places[: part.stop - part.start]


class _Channel:
    """The way of one array's rows to the device."""

    def __init__(self, device: Device, data: np.ndarray, rows: int) -> None:
        import cupyx

        self.data, self.device = data, device
        shape = (rows, *data.shape[1:])
        self.pinned = cupyx.empty_pinned(shape, data.dtype)
        self.landed, self.current = (device.xp.empty(shape, data.dtype) for _ in range(2))
        self.copied = self.taken = None

    def bring(self, index: np.ndarray, stream: Array) -> Array:
        """Return an array on the device whose first rows are those of the data that `index` names."""
        n = len(index)
        if self.copied is not None:
            self.copied.synchronize()  # what was pinned before has left
        self.data.take(index, axis=0, out=self.pinned[:n], mode="clip")
        if self.taken is not None:
            stream.wait_event(self.taken)
        self.landed[:n].set(self.pinned[:n], stream=stream)
        self.copied = stream.record()
        main = self.device.xp.cuda.get_current_stream()
        main.wait_event(self.copied)
        self.current[:n] = self.landed[:n]  # behind the steps that still read what is there
        self.taken = main.record()
        return self.current

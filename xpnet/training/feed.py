"""Feed of minibatches from the host, for data that are too large for a CUDA device."""

from collections.abc import Iterator

import numpy as np

from xpnet.device import Device
from xpnet.steps import STEPS_PER_EXECUTION
from xpnet.typing import Array

__all__ = ["HostFeed"]


class HostFeed:
    """Minibatches of samples that stay on the host.

    While the device computes on some minibatches, the host gathers the next ones into pinned memory. From there they
    are copied asynchronously.

    Parameters
    ----------
    device : Device
        A CUDA device.
    x, t : (N, ...), (N, ...) arrays on the host
        Samples and labels.
    batch_size : int
        Samples per minibatch.
    """

    def __init__(self, device: Device, x: np.ndarray, t: np.ndarray, batch_size: int) -> None:
        self.device, self.batch_size = device, batch_size
        with device.activate():
            self._stream = device.xp.cuda.Stream(non_blocking=True)
            self._channels = [_Channel(device, data, STEPS_PER_EXECUTION * batch_size) for data in (x, t)]

    def windows(self, indices: np.ndarray) -> Iterator[tuple[slice, Array, Array, Array]]:
        """Copy minibatches to the device, `STEPS_PER_EXECUTION` at a time.

        The arrays are reused: they are valid until the next iteration.

        Parameters
        ----------
        indices : (S, batch_size) integers, on the host
            Indices of the minibatches' samples.

        Yields
        ------
        part : slice
            Range of the minibatches.
        x, t : arrays on the device
            Their samples and labels, the same arrays each time.
        indices : (s, batch_size) integers on the device
            Indices of the minibatches in `x` and `t`.
        """
        places = self.device.xp.arange(STEPS_PER_EXECUTION * self.batch_size).reshape(-1, self.batch_size)
        for start in range(0, len(indices), STEPS_PER_EXECUTION):
            part = slice(start, min(start + STEPS_PER_EXECUTION, len(indices)))
            x, t = (channel.bring(indices[part].reshape(-1), self._stream) for channel in self._channels)
            yield part, x, t, places[: part.stop - part.start]


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

"""The fake's streams: what would stall a GPU is counted, and a capture writes down what is done, for its launches."""

from types import SimpleNamespace
from typing import ClassVar

import numpy as np


class Counts(SimpleNamespace):
    """What a GPU would have had to wait for."""

    def reset(self) -> None:
        self.transfers = self.synchronizations = 0


counts = Counts(transfers=0, synchronizations=0)


class CUDARuntimeError(RuntimeError):
    """What CuPy raises for a failed call of the CUDA runtime."""


class Capture:
    """What is done while a stream captures: nothing, so far, but written down.

    Results have to have a shape, so it is done all the same, and taken back at the end. New memory then holds garbage,
    until a launch of the graph fills it.
    """

    def __init__(self):
        self.calls, self.saved, self.made, self.launched = [], [], [], 0

    def do(self, call, writes):
        """Do something, and again in each launch; it writes into these arrays."""
        self.saved += [(array, array.copy()) for array in writes]
        self.calls.append(call)
        return call()

    def make(self, values, call):
        """Take note of a new array, and of how each launch is to fill it."""
        self.made.append(values)
        self.calls.append(lambda: np.copyto(values, call()))

    def end(self):
        for array, before in reversed(self.saved):
            array[...] = before
        for array in self.made:
            array.fill(np.nan if array.dtype.kind == "f" else 1)
        self.saved = []

    def launch(self, stream=None):
        self.launched += 1
        with np.errstate(all="ignore"):  # a device warns of nothing
            for call in self.calls:
                call()

    upload = staticmethod(lambda stream=None: None)


capturing = []
"""The capture that is under way, if any."""


def wait_for_host(what):
    """Count what stalls the queue, and refuse it where there is no queue, in a capture."""
    counts.synchronizations += 1
    if capturing:
        raise CUDARuntimeError(f"cudaErrorStreamCaptureUnsupported: {what}")


class Stream:
    """A queue; whatever is put into it is done at once."""

    current: ClassVar[list] = []
    ptr = 0

    def __init__(self, null=False, non_blocking=False):
        pass

    def __enter__(self):
        self.current.insert(0, self)
        return self

    def __exit__(self, *_):
        self.current.remove(self)

    def begin_capture(self, mode=None):
        capturing.append(Capture())

    def end_capture(self):
        capture = capturing.pop()
        capture.end()
        return capture

    def record(self, event=None):
        return SimpleNamespace(synchronize=lambda: None)

    def wait_event(self, event):
        pass

    def synchronize(self):
        wait_for_host("a wait for the stream")


def get_current_stream():
    return Stream.current[0] if Stream.current else Stream()

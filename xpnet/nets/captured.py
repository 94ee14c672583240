"""Training steps as a CUDA graph: captured once, launched again and again.

A launched graph asks the CPU for nothing, where a step by itself is some fifteen launches of kernels, each of which
takes the CPU longer than the GPU. But it does always the same, with the same memory. So what changes from step to step
lies in arrays that are filled before a launch, the minibatches and the optimizer's numbers, and what comes out, the
losses, is copied away behind it.
"""

from __future__ import annotations

import contextlib
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from xpnet.device import Device
from xpnet.layers import Layer
from xpnet.optimizers import Optimizer
from xpnet.typing import Array

__all__ = ["GraphedSteps"]

UNROLLED = 50
"""Steps in a graph; what is left of a run are graphs of one step."""

WARM_UP = 2
"""Steps taken before a capture: they make the arrays that the graph writes into, and fill its pool."""

Steps = Callable[[Array, Array, Array, Array, "Sequence[Array] | None"], None]
"""Takes samples, labels, minibatches, losses to be written, and the optimizer's numbers for each step."""


class GraphedSteps:
    """Takes training steps on a CUDA device, as graphs once it has seen how they go.

    Parameters
    ----------
    device : Device
        Where.
    steps : function
        Takes steps one by one, see `Steps`; what is captured.
    optimizer : Optimizer
        Whose numbers the graphs are given.
    """

    HOW = "as a CUDA graph"

    def __init__(self, device: Device, steps: Steps, optimizer: Optimizer) -> None:
        self.device, self.steps, self.optimizer = device, steps, optimizer
        cuda = device.xp.cuda
        with device.activate():
            # Blocking, so that it and the default stream wait for each other.
            self._stream = cuda.Stream()
            # A graph's temporaries are free between launches, but only for graphs: nobody else has this pool.
            self._pool = cuda.MemoryPool()
        self._graphs: dict[int, _Graph] = {}
        self._basis: list[Any] = []
        self._taken = 0
        self._possible = True

    def run(self, x: Array, t: Array, indices: Array, losses: Array, on_taken: Callable[[int], None]) -> None:
        """Take a step for each row of `indices`, and say so each time that some were taken."""
        with self._own_stream():
            numbers = self._numbers(len(indices), losses.dtype)
            done = 0
            while done < len(indices):
                n = UNROLLED if len(indices) - done >= UNROLLED else 1
                graph = self._graph(n, x, t, indices, numbers)
                part = slice(done, done + (n if graph else 1))
                if graph:
                    graph.launch(indices[part], numbers[part], losses[part])
                else:
                    self.steps(x, t, indices[part], losses[part], numbers[part])
                self._taken += 1
                self.optimizer.steps += part.stop - part.start
                done = part.stop
                on_taken(part.stop - part.start)

    def _numbers(self, steps: int, dtype: Any) -> Array:
        """Return the optimizer's numbers of the next steps, a row each, on the device."""
        rows = [self.optimizer._numbers(ahead) for ahead in range(steps)]
        return self.device.asarray(np.array(rows, dtype).reshape(steps, -1))

    def _graph(self, n: int, x: Array, t: Array, indices: Array, numbers: Array) -> _Graph | None:
        """Return the graph of n steps; None while there can be none."""
        basis = [x, t, *_settings(self.optimizer)]
        if not _same(basis, self._basis):
            self._graphs, self._basis, self._taken = {}, basis, 0
        if self._taken < WARM_UP or not self._possible:
            return None
        if n not in self._graphs:
            try:
                self._graphs[n] = _Graph(self, x, t, indices[:n], numbers[:n])
            except Exception as error:
                self._possible = False
                warnings.warn(
                    f"training goes on step by step, without a CUDA graph: {_whose(error)} cannot be captured "
                    f"({type(error).__name__}: {error})",
                    RuntimeWarning,
                    stacklevel=5,
                )
                return None
        return self._graphs[n]

    @contextlib.contextmanager
    def _own_stream(self) -> Iterator[None]:
        """Work on this object's stream and memory: behind what was queued before, and before what will be behind."""
        cuda = self.device.xp.cuda
        callers = cuda.get_current_stream()
        self._stream.wait_event(callers.record())
        try:
            with self._stream, cuda.using_allocator(self._pool.malloc):
                yield
        finally:
            callers.wait_event(self._stream.record())


class _Graph:
    """Some steps, captured, and the arrays that they read from and write to."""

    def __init__(self, owner: GraphedSteps, x: Array, t: Array, indices: Array, numbers: Array) -> None:
        xp = owner.device.xp
        self.indices, self.numbers = indices.copy(), numbers.copy()
        self.losses = xp.zeros(len(indices), numbers.dtype)
        stream = owner._stream
        stream.begin_capture()
        try:
            owner.steps(x, t, self.indices, self.losses, self.numbers)
        except Exception:
            with contextlib.suppress(Exception):  # what has failed leaves nothing to end
                stream.end_capture()
            raise
        self._graph = stream.end_capture()

    def launch(self, indices: Array, numbers: Array, losses: Array) -> None:
        self.indices[...] = indices
        self.numbers[...] = numbers
        self._graph.launch()
        losses[...] = self.losses


def _settings(optimizer: Optimizer) -> list[Any]:
    """Return what of an optimizer is fixed in a graph: its settings, and where its memory is."""
    fixed = {name: value for name, value in vars(optimizer).items() if isinstance(value, (int, float, type(None)))}
    return [{name: value for name, value in fixed.items() if name not in {"steps", "_lr"}}, *optimizer.state.values()]


def _same(now: list[Any], before: list[Any]) -> bool:
    return len(now) == len(before) and all(
        a == b if isinstance(a, dict) and isinstance(b, dict) else a is b for a, b in zip(now, before, strict=True)
    )


def _whose(error: Exception) -> str:
    """Return the name of the layer that an exception comes from."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    owners = [frame.f_locals.get("self") for frame in reversed(frames)]
    return next((owner.name for owner in owners if isinstance(owner, Layer)), "the step")

"""Training steps as a CUDA graph: captured once, launched again and again.

A step by itself is some fifteen kernel launches, each of which takes the CPU longer than the GPU. A graph is one
launch. But a graph always repeats the same kernels with the same memory. So everything that changes from step to step
lies in arrays. Minibatches and the optimizer's numbers are copied there before a launch. The losses are copied out
after it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import traceback
import warnings
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from xpnet.layers import Layer
from xpnet.steps.protocols import Steps
from xpnet.steps.step import STEPS_PER_EXECUTION, Minibatches
from xpnet.typing import Array

__all__ = ["CudaGraph"]

_retired: set[Any] = set()
"""Pools of graphs that are gone, with arrays that are not: the layers' and the optimizer's, from the warm-up."""

WARM_UP = 2
"""Steps before a capture. They allocate the arrays of the graph, and fill its memory pool."""


class CudaGraph:
    """A runner that captures the steps of another runner, and launches them.

    Parameters
    ----------
    steps : Steps
        The steps to capture, of a network on a CUDA device.
    """

    name = "as a CUDA graph"

    def __init__(self, steps: Steps) -> None:
        self.steps, self.optimizer, self.device = steps, steps.optimizer, steps.gradient.net.device
        cuda = self.device.xp.cuda
        with self.device.activate():
            # A blocking stream: it and the default stream wait for each other.
            self._stream = cuda.Stream()
            # A pool for graphs alone: their temporaries are free between launches, and no other code may reuse them.
            self._pool = cuda.MemoryPool()
        self.graphs: dict[tuple[int, ...], _Graph] = {}
        _give_back()
        weakref.finalize(self, _retire, self.graphs, self._pool).atexit = False  # at exit the driver takes all back
        self._basis: list[Any] = []
        self._taken: Counter[int] = Counter()  # launches and steps, by the number of samples in a minibatch
        self._possible = True

    def run(self, batches: Minibatches, losses: Array, on_taken: Callable[[int], None]) -> int:
        # Allocated from the caller's pool: a launch overwrites free memory of the graphs' own pool.
        coefficients = self._coefficients(len(batches), losses.dtype)
        gradient, done = self.steps.gradient, 0
        with self._own_stream():
            try:
                while done < len(batches):
                    n = _steps_of_next_graph(len(batches) - done)
                    rows = gradient.upcoming(coefficients, done, n)
                    graph = self._graph(batches[done : done + n], rows)
                    part = slice(done, done + (n if graph else 1))
                    if graph:
                        graph.launch(batches.indices[part], rows, losses[part])
                    else:
                        self.steps.take(batches[part], losses[part], rows)
                    self._taken[batches.indices.shape[1]] += 1
                    done = part.stop
                    on_taken(part.stop - part.start)
            finally:
                gradient.count(done)
        return done

    def _coefficients(self, steps: int, dtype: Any) -> Array:
        """Return the optimizer's numbers of the next steps, a row each, on the device."""
        rows = [self.optimizer.numbers(ahead) for ahead in range(steps)]
        return self.device.asarray(np.array(rows, dtype).reshape(steps, -1))

    def _graph(self, batches: Minibatches, coefficients: Array) -> _Graph | None:
        """Return the graph for these minibatches; None before the warm-up, or if a capture has failed."""
        data = batches.x, batches.t, batches.weights
        basis = [*data, self.optimizer.fixed_settings(), *self.optimizer.state.values()]
        if not _same(basis, self._basis):
            self.graphs.clear()
            self._basis, self._taken = basis, Counter()
        if self._taken[batches.indices.shape[1]] < WARM_UP or not self._possible:
            return None
        if batches.indices.shape not in self.graphs:
            try:
                self.graphs[batches.indices.shape] = _Graph(self.steps, self._stream, batches, coefficients)
            except Exception as error:  # noqa: BLE001 - whatever a layer raises in a capture
                self._possible = False
                warnings.warn(
                    f"training goes on step by step, without a CUDA graph: {_culprit(error)} cannot be captured "
                    f"({type(error).__name__}: {error})",
                    RuntimeWarning,
                    stacklevel=5,
                )
                return None
        return self.graphs[batches.indices.shape]

    def __reduce__(self) -> tuple[type[CudaGraph], tuple[Steps]]:
        # Streams, pools and graphs have no copies: the copy captures its own.
        return CudaGraph, (self.steps,)

    @contextlib.contextmanager
    def _own_stream(self) -> Iterator[None]:
        """Context on this runner's stream and pool, between the caller's earlier and later work."""
        cuda = self.device.xp.cuda
        callers = cuda.get_current_stream()
        self._stream.wait_event(callers.record())
        try:
            with self._stream, cuda.using_allocator(self._pool.malloc):
                yield
        finally:
            callers.wait_event(self._stream.record())


class _Graph:
    """Captured steps, with their input and output arrays."""

    def __init__(self, steps: Steps, stream: Any, batches: Minibatches, coefficients: Array) -> None:
        xp = steps.gradient.net.device.xp
        self.indices, self.coefficients = batches.indices.copy(), coefficients.copy()
        self.losses = xp.zeros(len(batches), coefficients.dtype)
        with _without_garbage_collection():
            stream.begin_capture()
            try:
                steps.take(dataclasses.replace(batches, indices=self.indices), self.losses, self.coefficients)
            except Exception:
                with contextlib.suppress(Exception):  # a failed capture may have ended already
                    stream.end_capture()
                raise
            self.captured = stream.end_capture()

    def launch(self, indices: Array, coefficients: Array, losses: Array) -> None:
        self.indices[...] = indices
        self.coefficients[...] = coefficients
        self.captured.launch()
        losses[...] = self.losses


def _steps_of_next_graph(left: int) -> int:
    """Return the number of steps in the largest graph for the steps that are left: 50, 10 or 1."""
    return next(n for n in (STEPS_PER_EXECUTION, STEPS_PER_EXECUTION // 5, 1) if 0 < n <= left)


def _retire(graphs: dict[tuple[int, ...], _Graph], pool: Any) -> None:
    graphs.clear()
    _retired.add(pool)
    _give_back()


def _give_back() -> None:
    """Return what is free in the pools of former graphs to the device. CuPy does not, even if a pool is deleted."""
    for pool in tuple(_retired):
        pool.free_all_blocks()
        if not pool.total_bytes():
            _retired.discard(pool)


@contextlib.contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Context of a capture: the memory of arrays that are garbage cannot be freed within it."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _same(now: list[Any], before: list[Any]) -> bool:
    """Whether arrays are identical and settings equal."""
    return len(now) == len(before) and all(
        a == b if isinstance(a, dict) and isinstance(b, dict) else a is b for a, b in zip(now, before, strict=True)
    )


def _culprit(error: Exception) -> str:
    """Return the name of the layer that raised an exception."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    owners = [frame.f_locals.get("self") for frame in reversed(frames)]
    return next((owner.name for owner in owners if isinstance(owner, Layer)), "the step")

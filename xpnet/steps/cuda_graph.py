"""Training steps as a CUDA graph: captured once, launched again and again.

A launched graph asks the CPU for nothing, where a step by itself is some fifteen launches of kernels, each of which
takes the CPU longer than the GPU. But it always does the same, with the same memory. So whatever changes from step to
step lies in arrays: minibatches and the optimizer's numbers are copied there before a launch, and the losses are copied
away behind it.
"""

from __future__ import annotations

import contextlib
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from xpnet.layers import Layer
from xpnet.steps.step import STEPS_PER_EXECUTION, Minibatches, OneByOne
from xpnet.typing import Array

__all__ = ["CudaGraph"]

WARM_UP = 2
"""Steps taken before a capture: they make the arrays that the graph writes into, and fill its pool."""


class CudaGraph:
    """A runner that captures the steps of another one, and launches them.

    Parameters
    ----------
    steps : OneByOne
        The steps to capture, of a network on a CUDA device.
    """

    name = "as a CUDA graph"

    def __init__(self, steps: OneByOne) -> None:
        self.steps, self.optimizer, self.device = steps, steps.optimizer, steps.gradient.net.device
        cuda = self.device.xp.cuda
        with self.device.activate():
            # Blocking, so that it and the default stream wait for each other.
            self._stream = cuda.Stream()
            # A graph's temporaries are free between launches, but only for graphs: nobody else has this pool.
            self._pool = cuda.MemoryPool()
        self.graphs: dict[tuple[int, ...], _Graph] = {}
        self._basis: list[Any] = []
        self._taken: Counter[int] = Counter()  # launches and steps, by the number of samples in a minibatch
        self._possible = True

    def run(self, batches: Minibatches, losses: Array, on_taken: Callable[[int], None]) -> int:
        # In memory of the caller's, which no launch writes over.
        coefficients = self._coefficients(len(batches), losses.dtype)
        with self._own_stream():
            done = 0
            while done < len(batches):  # the rest takes graphs of one step
                n = STEPS_PER_EXECUTION if len(batches) - done >= STEPS_PER_EXECUTION else 1
                graph = self._graph(batches[done : done + n], coefficients[done : done + n])
                part = slice(done, done + (n if graph else 1))
                if graph:
                    graph.launch(batches.indices[part], coefficients[part], losses[part])
                else:
                    self.steps.take(batches[part], losses[part], coefficients[part])
                self._taken[batches.indices.shape[1]] += 1
                self.optimizer.steps += part.stop - part.start
                done = part.stop
                on_taken(part.stop - part.start)
        return done

    def _coefficients(self, steps: int, dtype: Any) -> Array:
        """Return the optimizer's numbers of the next steps, a row each, on the device."""
        rows = [self.optimizer.numbers(ahead) for ahead in range(steps)]
        return self.device.asarray(np.array(rows, dtype).reshape(steps, -1))

    def _graph(self, batches: Minibatches, coefficients: Array) -> _Graph | None:
        """Return the graph of so many steps on these data; None while there can be none."""
        basis = [batches.x, batches.t, self.optimizer.fixed_settings(), *self.optimizer.state.values()]
        if not _same(basis, self._basis):
            self.graphs, self._basis, self._taken = {}, basis, Counter()
        if self._taken[batches.indices.shape[1]] < WARM_UP or not self._possible:
            return None
        if batches.indices.shape not in self.graphs:
            try:
                self.graphs[batches.indices.shape] = _Graph(self.steps, self._stream, batches, coefficients)
            except Exception as error:
                self._possible = False
                warnings.warn(
                    f"training goes on step by step, without a CUDA graph: {_culprit(error)} cannot be captured "
                    f"({type(error).__name__}: {error})",
                    RuntimeWarning,
                    stacklevel=5,
                )
                return None
        return self.graphs[batches.indices.shape]

    def __reduce__(self) -> tuple[type[CudaGraph], tuple[OneByOne]]:
        # Streams, pools and graphs have no copies: the copy captures its own.
        return CudaGraph, (self.steps,)

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
    """Some steps, captured on a stream, and the arrays that they read from and write to."""

    def __init__(self, steps: OneByOne, stream: Any, batches: Minibatches, coefficients: Array) -> None:
        xp = steps.gradient.net.device.xp
        self.indices, self.coefficients = batches.indices.copy(), coefficients.copy()
        self.losses = xp.zeros(len(batches), coefficients.dtype)
        stream.begin_capture()
        try:
            steps.take(Minibatches(batches.x, batches.t, self.indices), self.losses, self.coefficients)
        except Exception:
            with contextlib.suppress(Exception):  # what has failed leaves nothing to end
                stream.end_capture()
            raise
        self.captured = stream.end_capture()

    def launch(self, indices: Array, coefficients: Array, losses: Array) -> None:
        self.indices[...] = indices
        self.coefficients[...] = coefficients
        self.captured.launch()
        losses[...] = self.losses


def _same(now: list[Any], before: list[Any]) -> bool:
    """Tell whether these are the same arrays and mappings of settings as before."""
    return len(now) == len(before) and all(
        a == b if isinstance(a, dict) and isinstance(b, dict) else a is b for a, b in zip(now, before, strict=True)
    )


def _culprit(error: Exception) -> str:
    """Return the name of the layer that an exception comes from."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    owners = [frame.f_locals.get("self") for frame in reversed(frames)]
    return next((owner.name for owner in owners if isinstance(owner, Layer)), "the step")

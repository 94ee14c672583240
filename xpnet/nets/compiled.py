"""A network's training step, with its arrays allocated once."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from xpnet import kernels
from xpnet.device import is_on_host
from xpnet.interrupts import HeldInterrupts
from xpnet.layers import Layer
from xpnet.nets.captured import UNROLLED, GraphedSteps
from xpnet.nets.halved import HalvedSteps
from xpnet.optimizers import Optimizer
from xpnet.typing import Array, DTypeLike

if TYPE_CHECKING:
    from xpnet.nets.network import Network

__all__ = ["CompiledStep"]

GATHERED = 2**23
"""Bytes that gathered samples take on the host, those of several steps.

What a core writes must first leave the caches of those that read it in the step before. So a step's samples are written
where the other cores have no longer any: a step of 784-50-10 on two cores that share no cache takes a tenth less time
than with an eighth of this, and on two that do the same.
"""


class CompiledStep:
    """Training steps on minibatches of data that lie on the device: gather, forward, loss, backward, update.

    The same numbers as from ``net.loss_and_gradient`` and ``optimizer.update``, with fewer calls and allocations:
    layers write their results into the arrays that they made in the first step (`Layer.out`), a ReLU into those that it
    is given, and on a CUDA device the samples of several steps are gathered at a time. There many steps are launched at
    once (`GraphedSteps`); on the host, with Numba, two cores share those of a perceptron (`HalvedSteps`). Made by
    `Network.compile`.

    Attributes
    ----------
    steps : int
        Steps taken so far.
    backend : {"numpy", "numba"}
        What computes on the CPU.
    precision : {"float32", "tf32", "float16"}
        Of products on a CUDA device, or, with ``"float16"``, of the layers (`MixedStep`).
    """

    def __init__(
        self,
        net: Network,
        optimizer: Optimizer,
        batch_size: int,
        backend: kernels.Backend | None = None,
        precision: kernels.Precision = "float32",
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.precision = kernels.check_precision(precision, net.device, net.dtype)
        on_host, halved = net.device.name == "cpu", HalvedSteps.suit(net, batch_size)
        self.backend = kernels.choose_backend(
            backend,
            "float16" if precision == "float16" else net.dtype,
            on_host and (halved or any(layer.gains_by_numba for layer in net._all_layers().values())),
        )
        self.net, self.optimizer, self.batch_size = net, optimizer, batch_size
        self.steps = 0
        self._params, self._grads = net.params, net.params.zeros_like()
        self._worker, self._worker_grads = net, self._grads  # whose layers compute, and where their gradients go
        self._arrays: dict[Layer, dict[str, Array]] = {}
        self._gathered: dict[str, Array] = {}
        self._many: GraphedSteps | HalvedSteps | None = None  # takes many steps at once
        if halved and self.backend == "numba":
            self._many = HalvedSteps(net, optimizer, self._grads, batch_size, self._take)
        # A rule with an `update` of its own may do there what is not the same in each step.
        if not on_host and type(optimizer).update is Optimizer.update:
            self._many = GraphedSteps(net.device, self._take, optimizer)

    def run(self, x: Array, t: Array, indices: Array, losses: Array | None = None) -> Array:
        """Take a step for each row of `indices`; return the loss of each minibatch before its step.

        Interrupted, by Ctrl-C too, the network is left as after the last whole step, and ``steps`` says how many there
        were.

        Parameters
        ----------
        x : (N, ...)
            Samples on the network's device: floats, or pixels as ``uint8`` (`Network.predict`).
        t : (N, C) or (N,) integers
            Their labels, there as well.
        indices : (S, batch_size) integers in [0, N), there as well
            The minibatches.
        losses : (S,), optional
            Where to write the losses; by default a new array on the device.

        Returns
        -------
        losses
        """
        if indices.ndim != 2 or indices.shape[1] != self.batch_size:
            raise ValueError(f"indices must have the shape (S, {self.batch_size}), got {indices.shape}")
        net = self.net
        self._check_not_moved()
        x, t = net._asarray("x", x), net._asarray("t", t)
        with (
            net.device.activate(),
            kernels.using(self.backend, "tf32" if self.precision == "tf32" else "float32"),
            self._own_arrays(),
            HeldInterrupts() as interrupts,
        ):

            def on_taken(steps: int) -> None:
                self.steps += steps
                interrupts.release()

            if losses is None:
                losses = net.device.xp.zeros(len(indices), dtype=net.dtype)
            if self._many:
                self._many.run(x, t, indices, losses, on_taken)
            else:
                self._take(x, t, indices, losses, None, on_taken)
        return losses

    def accuracy(self, x: Array, t: Array) -> float:
        """Return `Network.accuracy`, computed as the steps are: by their backend, of perceptrons by two cores."""
        self._check_not_moved()
        with kernels.using(self.backend):
            return (self._many if isinstance(self._many, HalvedSteps) else self.net).accuracy(x, t)

    def _check_not_moved(self) -> None:
        if self.net.params is not self._params:
            raise RuntimeError("the network has been moved to another device or dtype since; compile its step again")

    def _take(
        self,
        x: Array,
        t: Array,
        indices: Array,
        losses: Array,
        numbers: Sequence[Array] | None,
        on_taken: Callable[[int], None] = lambda steps: None,
    ) -> None:
        """Take steps one by one, with the optimizer's numbers if they are given, else by its own `update`."""
        for i, (x_batch, t_batch) in enumerate(self._batches(x, t, indices)):
            step = self._step if self._arrays else self._first_step
            losses[i] = step(x_batch, t_batch, None if numbers is None else numbers[i])
            on_taken(1)

    def _step(self, x: Array, t: Array, numbers: Sequence[Array] | None) -> Array:
        net = self.net
        loss = net._loss_of(net.predict(x, True), t)
        net.backward(net.last_layer.backward())
        net._collect_gradients(self._grads)
        self._update(numbers)
        return loss

    def _update(self, numbers: Sequence[Array] | None) -> None:
        if numbers is None:
            self.optimizer.update(self.net.params, self._grads)
        else:
            self.optimizer._apply(self.net.params, self._grads, numbers)

    def _first_step(self, x: Array, t: Array, numbers: Sequence[Array] | None) -> Array:
        """Take a step, and keep the arrays that the layers make for the next ones."""
        layers = (*self._worker._all_layers().values(), self.net.last_layer)
        made: dict[Layer, dict[str, Array]] = {layer: {} for layer in layers}
        with contextlib.ExitStack() as stack:
            for layer, arrays in made.items():
                stack.enter_context(_recorded(layer, "forward", arrays, "y"))
                stack.enter_context(_recorded(layer, "backward", arrays, "dx"))
            loss = self._step(x, t, numbers)
        for layer, arrays in made.items():
            arrays.update({name: getattr(layer, name) for name in layer.saved})
        self._share_arrays(made)
        for layer, arrays in made.items():
            layer.out = {**arrays, **layer.out}
        self._arrays = made
        return loss

    def _share_arrays(self, made: dict[Layer, dict[str, Array]]) -> None:
        """Let layers that can write over what they are given, where whoever gave it has no more use for it."""
        shared: dict[int, Array] = {}
        for front, behind in itertools.pairwise(self._worker._row() or []):
            for giver, taker, name in ((front, behind, "y"), (behind, front, "dx")):
                given, own = made[giver].get(name), made[taker].get(name)
                if giver.hands_over and taker.in_place and given is not None and own is not None:
                    shared[id(own)] = given
        for arrays in made.values():  # the layer behind may have saved what it was given
            arrays.update({name: shared.get(id(array), array) for name, array in arrays.items()})

    def _batches(self, x: Array, t: Array, indices: Array) -> Iterator[tuple[Array, Array]]:
        dtype = self._worker._input_dtype(x.dtype)
        size = self.batch_size
        sample = max(x[:1].size * dtype.itemsize, 1)
        room = GATHERED if is_on_host(x) else kernels.scratch_size(x)
        at_a_time = max(min(room // (sample * size), UNROLLED), 1)
        samples = self._buffer("x", (at_a_time * size, *x.shape[1:]), dtype)
        labels = self._buffer("t", (at_a_time * size, *t.shape[1:]), t.dtype)
        part = size if is_on_host(x) else at_a_time * size  # on the host a step's own, to find them in the cache
        for start in range(0, len(indices), at_a_time):
            index = indices[start : start + at_a_time].reshape(-1)
            kernels.gather(t, index, labels[: len(index)])
            for i in range(0, len(index), size):
                if i % part == 0:
                    kernels.gather(x, index[i : i + part], samples[i : min(i + part, len(index))])
                yield samples[i : i + size], labels[i : i + size]

    def _buffer(self, name: str, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        buffer = self._gathered.get(name)
        if buffer is None or buffer.shape != shape or buffer.dtype != dtype:
            buffer = self._gathered[name] = self.net.device.xp.empty(shape, dtype=dtype)
        return buffer

    @contextlib.contextmanager
    def _own_arrays(self) -> Iterator[None]:
        """Let the layers write into this step's arrays, and no longer."""
        self._worker._direct_results(self._worker_grads, self._arrays)
        try:
            yield
        finally:
            self._worker._direct_results(None)


@contextlib.contextmanager
def _recorded(layer: Layer, method: str, results: dict[str, Array], name: str) -> Iterator[None]:
    """Keep what a method of the layer returns."""
    own = vars(layer).get(method)
    function: Callable[..., Any] = getattr(layer, method)

    def recording(*args: Any) -> Any:
        results[name] = function(*args)
        return results[name]

    setattr(layer, method, recording)
    try:
        yield
    finally:
        delattr(layer, method)
        if own is not None:
            setattr(layer, method, own)

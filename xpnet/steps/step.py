"""A training step: gather a minibatch, compute its gradient, update the parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from xpnet import kernels
from xpnet.device import as_indices, check_equally_many, is_on_host
from xpnet.functions import floating
from xpnet.interrupts import HeldInterrupts
from xpnet.kernels import call
from xpnet.nets import Network
from xpnet.optimizers import Optimizer
from xpnet.steps.layer_arrays import LayerArrays, recorded_arrays
from xpnet.steps.protocols import Evaluator, Gradient, Runner, SharingRunner
from xpnet.typing import Array, DTypeLike
from xpnet.weights import check_weights

__all__ = ["STEPS_PER_EXECUTION", "FullPrecision", "Minibatches", "OneByOne", "TrainingStep"]

GATHERED = 2**23
"""Size in bytes of the buffer for gathered samples on the host. The buffer holds the samples of several steps.

A write to memory in another core's cache waits until that core gives it up. In a buffer of this size, a step writes to
memory that has left the other caches. On two cores without a shared cache, a step of 784-50-10 takes a tenth less time
than with an eighth of this size; on two cores with a shared cache, it takes the same time.
"""

STEPS_PER_EXECUTION = 50
"""Steps in one CUDA graph, and the largest number of minibatches gathered or copied from the host at a time."""


@dataclass(frozen=True)
class Minibatches:
    """Minibatches of data on the device, one per step.

    ``batches[3:5]`` has two of the minibatches, and the same data.

    Attributes
    ----------
    x : (N, ...)
        Samples.
    t : (N, C) or (N,) integers
        Labels.
    indices : (S, B) integers in [0, N)
        Samples of each minibatch. B may differ from one call of `Runner.run` to the next.
    weights : (N, ...), optional
        Weights of the samples (`xpnet.layers.Loss`).
    """

    x: Array
    t: Array
    indices: Array
    weights: Array | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, steps: slice) -> Minibatches:
        return Minibatches(self.x, self.t, self.indices[steps], self.weights)


class TrainingStep:
    """Training steps on data on the device: gather, forward, loss, backward, update.

    In full precision the results equal those of ``net.loss_and_gradient`` and ``optimizer.update`` to rounding, with
    fewer calls and allocations. `Network.compile` creates a TrainingStep.

    Attributes
    ----------
    steps : int
        Steps taken so far.
    runners : list of Runner
        Runners to try, in order.
    backend : {"numpy", "numba"}
        Backend for arrays on the CPU.
    precision : {"float32", "tf32", "float16"}
        Precision of products on a CUDA device; with ``"float16"``, of all layers.
    """

    def __init__(
        self,
        net: Network,
        optimizer: Optimizer,
        batch_size: int,
        gradient: Gradient,
        runners: list[Runner],
        evaluator: Evaluator,
        backend: kernels.Backend,
        precision: kernels.Precision,
        sharing: SharingRunner | None = None,
    ) -> None:
        self.net, self.optimizer, self.batch_size = net, optimizer, batch_size
        self.gradient, self.runners = gradient, runners
        self.backend, self.precision = backend, precision
        self.steps = 0
        self._evaluator = evaluator
        self._params = net.params
        self._sharing = sharing
        if sharing is not None:
            self._share(sharing, sharing.shares)

    def run(
        self, x: Array, t: Array, indices: Array, losses: Array | None = None, sample_weight: Array | None = None
    ) -> Array:
        """Take a step for each row of `indices`; return the loss of each minibatch before its step.

        An interrupt, also by Ctrl-C, leaves the network as after the last whole step. ``steps`` counts whole steps.

        Parameters
        ----------
        x : (N, ...)
            Samples on the network's device: floats, or pixels as ``uint8`` (`Network.predict`).
        t : (N, C) or (N,) integers
            Labels, on the same device.
        indices : (S, B) integers in [0, N), on the same device
            Samples of each minibatch. B is at most ``batch_size``.
        losses : (S,), optional
            Output array; by default a new array on the device.
        sample_weight : (N,), optional, on the same device
            Weights of the samples in the means over their minibatches (`xpnet.layers.Loss`).

        Returns
        -------
        losses

        Raises
        ------
        IndexError
            If an index is out of range. On a CUDA device a check would wait for the queue: there the loss is NaN.
        TypeError
            If the indices are not integers.
        ValueError
            If minibatches are too large or empty, there are not as many labels or weights as samples, `losses` has
            another shape, or a weight on the host is negative or not finite.
        """
        self._check_not_moved()
        net = self.net
        x, t = net.as_array("x", x), net.as_array("t", t)
        check_equally_many(x=x, t=t)
        indices = as_indices("indices", net.as_array("indices", indices), len(x))
        if indices.ndim != 2 or not 0 < indices.shape[1] <= self.batch_size:
            raise ValueError(
                f"indices must have the shape (S, {self.batch_size}), got {indices.shape}; "
                f"a minibatch may have 1 to {self.batch_size} samples"
            )
        if losses is None:
            losses = net.device.xp.zeros(len(indices), dtype=net.dtype)
        elif losses.shape != (len(indices),):
            raise ValueError(f"losses must have the shape ({len(indices)},), a number per step, got {losses.shape}")
        if sample_weight is not None:
            sample_weight = net.as_array("sample_weight", sample_weight)
            check_equally_many(x=x, sample_weight=sample_weight)
            check_weights(sample_weight)
        batches = Minibatches(x, t, indices, sample_weight)
        with (
            net.device.activate(),
            kernels.using(self.backend, "tf32" if self.precision == "tf32" else "float32"),
            HeldInterrupts() as interrupts,
        ):

            def on_taken(steps: int) -> None:
                self.steps += steps
                interrupts.release()

            taken = 0
            for runner in self.runners:
                if taken < len(batches):
                    taken += runner.run(batches[taken:], losses[taken:], on_taken)
        return losses

    def accuracy(self, x: Array, t: Array) -> float:
        """Return `Network.accuracy`, computed with the steps' backend; by threads with `TwoThreads` and `Replicas`."""
        self._check_not_moved()
        with kernels.using(self.backend):
            return self._evaluator.accuracy(x, t)

    def evaluate(self, x: Array, t: Array) -> dict[str, float]:
        """Return `Network.evaluate`, computed like `accuracy`."""
        self._check_not_moved()
        with kernels.using(self.backend):
            return self._evaluator.evaluate(x, t)

    def state(self) -> dict[str, float]:
        """Return the state besides parameters and optimizer: the loss scale in float16, the number of shares.

        A checkpoint needs this state, the network's parameters and buffers, and the optimizer's state.
        """
        return self.gradient.state() | ({"shares": self.shares} if self.shares > 1 else {})

    def load_state(self, state: Mapping[str, float]) -> None:
        """Restore the result of `state`. The steps go on with its number of shares, so with the same results.

        Raises
        ------
        ValueError
            If `state` is from steps in another precision.
        """
        state = dict(state)
        shares = int(state.pop("shares", 1))
        expected = self.gradient.state().keys()
        if state.keys() != expected:
            raise ValueError(
                f"the state of steps in {self.precision} has the entries {sorted(expected)}, got {sorted(state)}"
            )
        self.gradient.load_state(state)
        if self._sharing is not None:  # other runners, such as that of a GPU, take whole minibatches
            self._share(self._sharing, shares)

    @property
    def shares(self) -> int:
        """Number of shares that a minibatch is divided into (`compile_step`)."""
        return 1 if self._sharing is None else self._sharing.shares

    def _share(self, runner: SharingRunner, shares: int) -> None:
        """Divide minibatches into this number of shares: with 1, the runner is not in the list."""
        runner.shares = shares
        others = [other for other in self.runners if other is not runner]
        self.runners = [*others[:-1], runner, *others[-1:]] if shares > 1 else others

    def _check_not_moved(self) -> None:
        if self.net.params is not self._params:
            raise RuntimeError("the network has been moved to another device or dtype; compile its step again")


class OneByOne:
    """A runner that takes the steps one by one, layer by layer: the definition of a training step.

    The first step of each minibatch size allocates the layers' arrays. Later steps write into them (`LayerArrays`).

    Parameters
    ----------
    gradient : Gradient
        Computation of a minibatch's gradient.
    optimizer : Optimizer
        The update rule.
    """

    name = "one by one"

    def __init__(self, gradient: Gradient, optimizer: Optimizer) -> None:
        self.gradient, self.optimizer = gradient, optimizer
        self._arrays: dict[int, LayerArrays] = {}  # by the number of samples in a minibatch
        self._gathered: dict[tuple[str, int], Array] = {}

    def run(self, batches: Minibatches, losses: Array, on_taken: Callable[[int], None]) -> int:
        self.take(batches, losses, None, on_taken)
        return len(batches)

    def take(
        self,
        batches: Minibatches,
        losses: Array,
        coefficients: Array | None = None,
        on_taken: Callable[[int], None] = lambda steps: None,
    ) -> None:
        """Take a step for each minibatch, with the given coefficients (`Gradient.update`)."""
        net, size, done = self.gradient.net, batches.indices.shape[1], 0
        with net.reordered():
            if size not in self._arrays and len(batches):
                gradients = net.gradient_arrays(self.gradient.layer_grads)
                with net.writing_to(gradients), recorded_arrays(net) as made:
                    self._take(batches, range(1), losses, coefficients, on_taken, {})
                self._arrays[size] = {layer: {**arrays, **gradients.get(layer, {})} for layer, arrays in made.items()}
                done = 1
            arrays = self._arrays.get(size, {})
            with net.writing_to(arrays):
                of_loss = arrays.get(net.last_layer, {})
                self._take(batches, range(done, len(batches)), losses, coefficients, on_taken, of_loss)

    def _take(
        self,
        batches: Minibatches,
        steps: range,
        losses: Array,
        coefficients: Array | None,
        on_taken: Callable[[int], None],
        of_loss: dict[str, Array],
    ) -> None:
        for i, batch in zip(steps, self._gather(batches[steps.start : steps.stop]), strict=True):
            of_loss["loss"] = losses[i, ...]
            loss = self.gradient.compute(*batch)
            if loss is not of_loss["loss"]:
                losses[i] = loss
            self.gradient.update(coefficients, i)
            on_taken(1)
        of_loss.pop("loss", None)  # the caller's array

    def __getstate__(self) -> dict[str, Any]:
        # Copies of the arrays would be no views of the copied gradient.
        return {**vars(self), "_arrays": {}, "_gathered": {}}

    def _gather(self, batches: Minibatches) -> Iterator[tuple[Array, ...]]:
        """Copy the samples of each minibatch into a buffer, converted to the dtype that the layers compute in.

        Yields samples, labels and, if there are any, weights.
        """
        x, t, w, (steps, size) = batches.x, batches.t, batches.weights, batches.indices.shape
        dtype = self.gradient.net.input_dtype(x.dtype)
        sample = max(x[:1].size * dtype.itemsize, 1)
        room = GATHERED if is_on_host(x) else kernels.scratch_size(x)
        at_a_time = max(min(room // (sample * size), STEPS_PER_EXECUTION), 1)
        samples = self._buffer("x", size, (at_a_time * size, *x.shape[1:]), dtype)
        labels = [self._buffer("t", size, (at_a_time * size, *t.shape[1:]), t.dtype)]
        if w is not None:  # of a floating dtype: an index out of range makes a weight NaN
            labels.append(self._buffer("w", size, (at_a_time * size, *w.shape[1:]), floating(w.dtype)))
        part = size if is_on_host(x) else at_a_time * size  # on the host one step's, which stay in the cache
        for start in range(0, steps, at_a_time):
            index = batches.indices[start : start + at_a_time].reshape(-1)
            for given, gathered in zip((t, w), labels, strict=False):
                kernels.gather(given, index, gathered[: len(index)])
            for i in range(0, len(index), size):
                if i % part == 0:
                    kernels.gather(x, index[i : i + part], samples[i : min(i + part, len(index))])
                yield samples[i : i + size], *[gathered[i : i + size] for gathered in labels]

    def _buffer(self, name: str, size: int, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        # One buffer per minibatch size: a CUDA graph keeps writing into the buffer of its capture.
        buffer = self._gathered.get((name, size))
        if buffer is None or buffer.shape != shape or buffer.dtype != dtype:
            buffer = self._gathered[name, size] = self.gradient.net.device.xp.empty(shape, dtype=dtype)
        return buffer


class FullPrecision:
    """The gradient of a minibatch in the network's own dtype, see `Gradient`."""

    def __init__(self, net: Network, optimizer: Optimizer) -> None:
        self.net, self.optimizer = net, optimizer
        self.grads = self.layer_grads = net.params.zeros_like()

    def compute(self, x: Array, t: Array, sample_weight: Array | None = None) -> Array:
        if sample_weight is None:
            return self.net.backpropagate(x, t, self.grads)
        return self.net.backpropagate(x, t, self.grads, sample_weight=sample_weight)

    def update(self, coefficients: Array | None, step: int) -> None:
        if coefficients is None:
            call(self.optimizer, "update", self.net.params, self.grads)
        else:
            self.optimizer.apply(self.net.params, self.grads, coefficients[step])

    def upcoming(self, coefficients: Array, start: int, steps: int) -> Array:
        return coefficients[start : start + steps]

    def count(self, steps: int) -> None:
        self.optimizer.steps += steps

    def state(self) -> dict[str, float]:
        return {}

    def load_state(self, state: Mapping[str, float]) -> None:
        pass  # no state

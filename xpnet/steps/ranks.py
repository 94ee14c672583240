"""Training steps by several processes (ranks), each with a slice of every minibatch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace

from xpnet.blas import blas
from xpnet.layers import BatchNormalization
from xpnet.nets import Network, evaluation
from xpnet.optimizers import Optimizer
from xpnet.parallel import Communicator, RankTeam, sum_in_float16
from xpnet.steps.step import Minibatches
from xpnet.steps.sums import MeanGradient, obstacle, placed, slices, steps_of
from xpnet.threads import are_available
from xpnet.typing import Array

__all__ = ["Ranks"]


class Ranks:
    """A runner that gives each rank its slice of every minibatch. All ranks run it, with the same minibatches.

    A rank computes the gradient of the sum of its samples' losses. One all-reduce adds up the gradients, the losses and
    the divisors. Each rank divides and updates. So all have the same parameters, those of one process to rounding.

    Parameters
    ----------
    net : Network
        The network to train. All ranks have the same parameters.
    optimizer : Optimizer
        The update rule.
    communicator : Communicator
        Connection to the other ranks.
    microbatch : int, optional
        Largest number of samples that a rank computes at a time (`Microbatches`).

    Raises
    ------
    ValueError
        If a layer or the loss mixes samples. Batch normalization does, and sums over the ranks itself, but not over
        microbatches.
    """

    name = "by ranks"

    def __init__(
        self, net: Network, optimizer: Optimizer, communicator: Communicator, microbatch: int | None = None
    ) -> None:
        self.net, self.optimizer, self.communicator = net, optimizer, communicator
        self.gradient = _TotalGradient(net, optimizer, communicator)
        self._steps = steps_of(self.gradient, optimizer, microbatch)
        self._connected = microbatch is None
        self._check()

    def run(self, batches: Minibatches, losses: Array, on_taken: Callable[[int], None]) -> int:
        with self._alone():
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
        self._check()
        size = batches.indices.shape[1]
        part = slices(size, self.communicator.size)[self.communicator.rank]
        self.gradient.samples, self.gradient.counts = size, part.start < part.stop
        if not self.gradient.counts:  # computes the first sample for nothing, as the counters of dropout count steps
            part = slice(0, 1)
        dropping = placed(self.net)
        normalizing = [layer for layer in self.net.modules().values() if isinstance(layer, BatchNormalization)]
        try:
            for normalization in normalizing:
                normalization.across = self.gradient.sum
            for layer in dropping:
                layer.first_sample = part.start
            own = replace(batches, indices=batches.indices[:, part])
            self._steps.take(own, losses, coefficients, on_taken)
        finally:
            for layer in dropping:
                layer.first_sample = 0
            for normalization in normalizing:
                normalization.across = None

    def accuracy(self, x: Array, t: Array) -> float:
        """Return `Network.accuracy`. Ranks predict the batches."""
        if type(self.net).accuracy is not Network.accuracy:
            return self.net.accuracy(x, t)
        with self._alone():
            return evaluation.accuracy(self.net, *self.net.as_pairs(x, t), RankTeam(self.communicator))

    def evaluate(self, x: Array, t: Array) -> dict[str, float]:
        """Return `Network.evaluate`. Ranks predict the batches."""
        if type(self.net).evaluate is not Network.evaluate:
            return self.net.evaluate(x, t)
        with self._alone():
            return evaluation.evaluate(self.net, *self.net.as_pairs(x, t), RankTeam(self.communicator))

    def _check(self) -> None:
        if (reason := obstacle(self.net, connected=self._connected)) is not None:
            raise ValueError(
                f"{self.communicator.size} processes cannot share the minibatches of this network: {reason}"
            )

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Limit BLAS to one thread: the other cores are for the other ranks."""
        with blas if are_available() else contextlib.nullcontext():
            yield


class _TotalGradient(MeanGradient):
    """The gradient of a minibatch of which this rank has a slice.

    Attributes
    ----------
    samples : int
        Size of the minibatch.
    counts : bool
        Whether the samples of this rank are part of the minibatch.
    """

    samples = 0
    counts = True

    def __init__(self, net: Network, optimizer: Optimizer, communicator: Communicator) -> None:
        super().__init__(net, optimizer)
        self.communicator = communicator
        # One message for gradient, loss and divisor: the time of a small message is all latency.
        self._message = net.device.xp.zeros(self.grads.flat.size + 2, dtype=net.dtype)

    def sum(self, array: Array) -> None:
        """Replace an array by its sum over the ranks whose samples count."""
        if not self.counts:
            array.fill(0.0)
        self.communicator.sum(array)

    def completed(self, loss: Array | float, amount: Array | float, samples: int) -> Array | float:
        vector, message = self.grads.flat, self._message
        message[-2], message[-1] = loss, amount
        if self.communicator.compression is None:
            message[:-2] = vector
            self.sum(message)
            vector[...] = message[:-2]
        else:
            self.sum(message[-2:])
            if not self.counts:
                vector.fill(0.0)
            sum_in_float16(self.communicator, vector)
        return super().completed(message[-2], message[-1], self.samples)

"""Interfaces between a training step and its parts, of which `compile_step` chooses implementations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from xpnet.nets import Network
from xpnet.optimizers import Optimizer
from xpnet.parameters import ParameterVector
from xpnet.typing import Array

if TYPE_CHECKING:
    from xpnet.steps.step import Minibatches

__all__ = ["Evaluator", "Gradient", "Runner", "SharingRunner", "Steps"]


class Gradient(Protocol):
    """Computation of a minibatch's gradient, and the update with it."""

    net: Network
    """Network that runs forward and backward."""
    layer_grads: ParameterVector
    """Gradients that the layers of `net` write."""
    grads: ParameterVector
    """Gradient of the trained parameters, set by `compute`."""

    def compute(self, x: Array, t: Array, sample_weight: Array | None = None) -> Array:
        """Compute the gradient of a minibatch into ``grads``; return the loss, a scalar on the device."""

    def update(self, coefficients: Array | None, step: int) -> None:
        """Update the parameters with ``grads``.

        Parameters
        ----------
        coefficients : (S, k) array on the device, or None
            Result of `upcoming`. None calls the rule's own ``update``.
        step : int
            Index of this step among the S.
        """

    def upcoming(self, coefficients: Array, start: int, steps: int) -> Array:
        """Return the coefficients of some of a run's steps, from the rows of all its updates (`Optimizer.numbers`)."""

    def count(self, steps: int) -> None:
        """Add the updates of a run with coefficients, of this number of steps, to `Optimizer.steps`."""

    def state(self) -> dict[str, float]:
        """Return the state besides parameters and optimizer, as numbers on the host."""

    def load_state(self, state: Mapping[str, float]) -> None:
        """Restore the result of `state`."""


class Runner(Protocol):
    """A loop of training steps.

    Attributes
    ----------
    name : str
        Name in a profile, such as ``"as a CUDA graph"``.
    """

    name: str

    def run(self, batches: Minibatches, losses: Array, on_taken: Callable[[int], None]) -> int:
        """Take a step for each minibatch, or for the first ones only.

        Parameters
        ----------
        batches : Minibatches
            S minibatches.
        losses : (S,)
            Output: loss of each minibatch before its step.
        on_taken : function
            Called after each step, or group of steps, with their number.

        Returns
        -------
        int
            Number of steps taken. The next runner in the list takes the others.
        """


class Steps(Runner, Protocol):
    """A runner whose steps can be captured in a CUDA graph."""

    optimizer: Optimizer

    @property
    def gradient(self) -> Gradient:
        """Computation of a minibatch's gradient."""

    def take(
        self,
        batches: Minibatches,
        losses: Array,
        coefficients: Array | None = None,
        on_taken: Callable[[int], None] = ...,
    ) -> None:
        """Take a step for each minibatch, with the given coefficients (`Gradient.update`)."""


class SharingRunner(Runner, Protocol):
    """A runner that divides each minibatch into shares."""

    shares: int
    """Number of shares. With 1, another runner takes the steps."""


class Evaluator(Protocol):
    """Evaluation of a network on any number of samples: the network, or threads that share the work."""

    def accuracy(self, x: Array, t: Array) -> float: ...
    def evaluate(self, x: Array, t: Array) -> dict[str, float]: ...

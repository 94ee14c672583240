"""Samplers: which samples a minibatch has."""

from collections.abc import Mapping
from typing import Any, Protocol, get_args

import numpy as np

from xpnet.typing import Sampling

__all__ = ["InOrder", "RandomDraws", "Sampler", "Shuffled", "get_sampler"]


class Sampler(Protocol):
    """Draws minibatches of samples. It owns the generator and the place in the epoch.

    Attributes
    ----------
    name : str
        Its name, see `get_sampler`.
    steps : int
        Minibatches drawn so far.
    epoch : float
        Passes over the samples so far.
    at_epoch_end : bool
        Whether the last minibatch ended an epoch.
    """

    name: str
    steps: int

    @property
    def epoch(self) -> float: ...
    @property
    def at_epoch_end(self) -> bool: ...

    def steps_in(self, epochs: int) -> int:
        """Return the number of minibatches in so many epochs."""

    def draw(self, most: int) -> np.ndarray:
        """Return the indices of the next minibatches, (S, B) with 1 <= S <= `most`, up to the end of the epoch."""

    def put_back(self, number: int) -> None:
        """Put back some minibatches of the last draw, the last ones, to be drawn again."""

    def state(self) -> dict[str, Any]:
        """Return the state as numbers and texts for JSON."""

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore the result of `state`."""


class RandomDraws:
    """Minibatches drawn with replacement, as in the book (section 5.7.4).

    An epoch of N samples in minibatches of B ends at step int(N / B), 2 N / B, ... (at least one step each).

    Parameters
    ----------
    rng : numpy.random.Generator
        Draws the indices.
    samples : int
        N.
    batch_size : int
        B.
    places : int, optional
        Number of indices to draw from, by default N. A text has a window at each place, but an epoch is one text.
    """

    name = "random"

    def __init__(self, rng: np.random.Generator, samples: int, batch_size: int, places: int | None = None) -> None:
        self.rng, self.samples, self.batch_size, self.steps = rng, samples, batch_size, 0
        self.places = samples if places is None else places
        self._before: Mapping[str, Any] = {}
        self._drawn = 0

    @property
    def epoch(self) -> float:
        return self.steps / max(self.samples / self.batch_size, 1.0)

    @property
    def at_epoch_end(self) -> bool:
        return self.steps > 0 and self._epoch_end(self.steps - 1) == self.steps

    def steps_in(self, epochs: int) -> int:
        return max(epochs * self.samples // self.batch_size, epochs)

    def draw(self, most: int) -> np.ndarray:
        self._before = self.rng.bit_generator.state
        self._drawn = min(most, self._epoch_end(self.steps) - self.steps)
        self.steps += self._drawn
        return self.rng.integers(0, self.places, (self._drawn, self.batch_size))

    def put_back(self, number: int) -> None:
        if number:
            self.rng.bit_generator.state = self._before
            self.rng.integers(0, self.places, (self._drawn - number, self.batch_size))
            self.steps -= number

    def state(self) -> dict[str, Any]:
        return {"steps": self.steps, "generator": self.rng.bit_generator.state}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.rng.bit_generator.state = state["generator"]
        self.steps = state["steps"]

    def _epoch_end(self, step: int) -> int:
        """Return the step at which the epoch ends that the next step belongs to."""
        epoch = max(min((step + 1) * self.batch_size // self.samples, step + 1), 1)
        return next(end for end in map(self.steps_in, range(epoch, step + 3)) if end > step)


class _WholeEpochs:
    """Base of samplers whose epochs have the same number of steps."""

    steps: int
    _per_epoch: int

    @property
    def epoch(self) -> float:
        return self.steps / self._per_epoch

    @property
    def at_epoch_end(self) -> bool:
        return self.steps > 0 and self.steps % self._per_epoch == 0

    def steps_in(self, epochs: int) -> int:
        return epochs * self._per_epoch


class Shuffled(_WholeEpochs):
    """Minibatches that visit each sample once in an epoch, in shuffled order. The last one may be smaller.

    Parameters
    ----------
    rng, samples, batch_size
        As for `RandomDraws`.
    """

    name = "shuffled"

    def __init__(self, rng: np.random.Generator, samples: int, batch_size: int) -> None:
        self.rng, self.samples, self.batch_size, self.steps = rng, samples, batch_size, 0
        self._per_epoch = -(-samples // batch_size)
        self._order = np.arange(0)
        self._before = rng.bit_generator.state  # at the start of the epoch

    def draw(self, most: int) -> np.ndarray:
        place = self.steps % self._per_epoch
        if place == 0:
            self._shuffle()
        whole = self.samples // self.batch_size - place  # minibatches of the full size that are left
        number = min(most, whole) if whole > 0 else 1
        part = self._order[place * self.batch_size :][: number * self.batch_size]
        self.steps += number
        return part.reshape(number, -1)

    def put_back(self, number: int) -> None:
        self.steps -= number
        if number and self.steps % self._per_epoch == 0:
            self.rng.bit_generator.state = self._before  # draw shuffles once more

    def state(self) -> dict[str, Any]:
        inside = self.steps % self._per_epoch > 0
        return {"steps": self.steps, "generator": self._before if inside else self.rng.bit_generator.state}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.rng.bit_generator.state = state["generator"]
        self.steps = state["steps"]
        if self.steps % self._per_epoch:
            self._shuffle()

    def _shuffle(self) -> None:
        self._before = self.rng.bit_generator.state
        self._order = self.rng.permutation(self.samples)


class InOrder(_WholeEpochs):
    """Minibatches in order, without randomness: sample b of a minibatch is followed by sample b of the next one.

    The samples are B streams of N / B samples, rounded down; what is left over is not used. So a recurrent layer can
    carry its state from one minibatch to the next.

    Parameters
    ----------
    samples, batch_size
        As for `RandomDraws`.

    Raises
    ------
    ValueError
        If there are fewer samples than a minibatch has.
    """

    name = "in-order"

    def __init__(self, samples: int, batch_size: int) -> None:
        self.batch_size, self.steps = batch_size, 0
        self._per_epoch = samples // batch_size
        if not self._per_epoch:
            raise ValueError(
                f"sampling in order needs at least {batch_size:,} samples for a minibatch, got {samples:,}; lower "
                "mini_batch_size"
            )

    def draw(self, most: int) -> np.ndarray:
        place = self.steps % self._per_epoch
        number = min(most, self._per_epoch - place)
        self.steps += number
        return np.arange(place, place + number)[:, None] + np.arange(self.batch_size) * self._per_epoch

    def put_back(self, number: int) -> None:
        self.steps -= number

    def state(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.steps = state["steps"]


def get_sampler(
    name: Sampling, rng: np.random.Generator, samples: int, batch_size: int, places: int | None = None
) -> Sampler:
    """Return a sampler by name: ``"random"`` (`RandomDraws`), ``"shuffled"`` (`Shuffled`), ``"in-order"`` (`InOrder`).

    `places` is for random draws alone.

    Raises
    ------
    ValueError
        If no sampler has this name.
    """
    if name not in get_args(Sampling):
        raise ValueError(f"sampling must be one of {', '.join(map(repr, get_args(Sampling)))}, got {name!r}")
    if name == "random":
        return RandomDraws(rng, samples, batch_size, places)
    return Shuffled(rng, samples, batch_size) if name == "shuffled" else InOrder(samples, batch_size)

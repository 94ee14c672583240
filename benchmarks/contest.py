"""Contests: parties that do the same work, checked against each other, then timed in turn.

A machine that others use too slows down and recovers within seconds. So the parties of a contest are not timed one
after the other: each round gives every party a turn, and whatever happens to the machine happens to all of them.

Worker threads of BLAS and OpenMP keep spinning after the work is done, OpenBLAS's for 0.1 s, on cores that the next
party needs. So a turn starts with a pause, and with a call that is not timed, after which its own threads are awake.
"""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from statistics import median
from typing import Any, Protocol

import numpy as np

Clock = Callable[[], float]

PAUSE = 0.15
"""Seconds before each turn, in which the threads of the party before go to sleep."""

TURN = 0.1
"""Seconds that the timed calls of a turn may take together; one call there is in any case."""

MOST_CALLS = 200
"""Timed calls in a turn at most."""

LONG = 1.0
"""A call of so many seconds needs no other call before it: waking the threads is no part of what it takes."""


class Missing(Exception):  # noqa: N818 - no fault: the party is not there
    """A party that cannot take part on this machine or in this work, and why."""


class Disagreement(AssertionError):  # noqa: N818 - it fails a test, as an assertion
    """A party whose numbers are not those of the reference: it did other work, and its time means nothing."""


class Entry(Protocol):
    """What a contestant brings: a result to be compared, and turns to be timed."""

    def result(self) -> Mapping[str, np.ndarray] | None:
        """Return the numbers in which all must agree; None for one that computes none, such as the bare limit."""

    def turn(self, number: int, clock: Clock) -> list[float]:
        """Take the turn of round `number`; return the seconds per step of each timed call."""

    def facts(self) -> dict[str, Any]:
        """Return what else there is to say once all rounds are over."""


@dataclass(frozen=True)
class Contestant:
    """A party before the contest.

    Attributes
    ----------
    name : str
        What tells it from the others of its contest.
    enter : function
        Builds the `Entry`, or raises `Missing`.
    party, role : str
        Whose work it is; and "xpnet", "peer" or "limit".
    facts : mapping
        What else goes into the record.
    reference : str, optional
        The name of the contestant whose result it must have; by default the contest's first.
    """

    name: str
    enter: Callable[[], Entry]
    party: str = "xpnet"
    role: str = "xpnet"
    facts: Mapping[str, Any] = field(default_factory=dict)
    reference: str | None = None


@dataclass(frozen=True)
class Group:
    """What is compared.

    Attributes
    ----------
    kind, title : str
        Sort of comparison, and how the table calls it.
    work : str
        What all do.
    facts : dict
        Network, parameters, batch and dtype.
    contestants : function
        Returns who takes part.
    tolerance : float
        How far the contestants' results may be apart.
    most_rounds : int, optional
        For a group of slow contestants.
    """

    kind: str
    title: str
    work: str
    facts: dict[str, Any]
    contestants: Callable[[], list[Contestant]]
    tolerance: float = 0.0
    most_rounds: int | None = None


class Repeated:
    """A call that can be made any number of times.

    Parameters
    ----------
    call : function
        Does the work, and returns when it is done, on the device too.
    result : function, optional
        See `Entry.result`.
    steps : int
        How many steps of the work a call is: seconds are recorded per step.
    """

    def __init__(
        self,
        call: Callable[[], object],
        result: Callable[[], Mapping[str, np.ndarray] | None] = lambda: None,
        steps: int = 1,
    ) -> None:
        self.call = call
        self.result = result
        self.steps = steps

    def turn(self, number: int, clock: Clock) -> list[float]:
        """Call once without a record, then as often as a turn has room for; a long call is made once."""
        first = timed(self.call, clock)
        if first >= LONG:
            return [first / self.steps]
        calls = min(max(int(TURN / max(first, 1e-9)), 1), MOST_CALLS)
        return [timed(self.call, clock) / self.steps for _ in range(calls)]

    def facts(self) -> dict[str, Any]:
        return {}


class ColdRuns:
    """A run from a cold start in each round, with the round's number as its seed.

    Parameters
    ----------
    start : function
        Takes the seed, prepares a run untimed, and returns it: a function that returns the number of steps it took.
    result : function
        See `Entry.result`.
    """

    def __init__(
        self, start: Callable[[int], Callable[[], int]], result: Callable[[], Mapping[str, np.ndarray]]
    ) -> None:
        self.start = start
        self.result = result
        self._steps: list[int] = []

    def turn(self, number: int, clock: Clock) -> list[float]:
        """Time one run."""
        run = self.start(number)
        return [timed(lambda: self._steps.append(run()), clock)]

    def facts(self) -> dict[str, Any]:
        return {"steps": int(median(self._steps))}


def timed(call: Callable[[], object], clock: Clock) -> float:
    """Return the seconds that a call takes."""
    started = clock()
    call()
    return clock() - started


class Contest:
    """One comparison. It is held when the first outcome is asked for.

    Parameters
    ----------
    contestants : iterable of Contestant
        Who takes part. A reference comes before those that must agree with it.
    rounds : int
        How many turns each gets.
    tolerance : float
        How far results may be apart, relative and absolute.
    clock, pause : functions
        As `time.perf_counter` and `time.sleep`.
    """

    def __init__(
        self,
        contestants: Iterable[Contestant],
        rounds: int,
        tolerance: float = 0.0,
        clock: Clock = time.perf_counter,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self.contestants = {contestant.name: contestant for contestant in contestants}
        self.rounds = rounds
        self.tolerance = tolerance
        self._clock = clock
        self._pause = pause
        self._held = False
        self._seconds: dict[str, list[float]] = {}
        self._facts: dict[str, dict[str, Any]] = {}
        self._failures: dict[str, Exception] = {}

    def outcome(self, name: str) -> tuple[list[float], dict[str, Any]]:
        """Return the recorded seconds per step of a contestant, and its facts.

        Raises
        ------
        Missing
            If it could not take part.
        Disagreement
            If its numbers are not the reference's.
        """
        if not self._held:
            self._held = True
            self._hold()
        if name in self._failures:
            raise self._failures[name]
        return self._seconds[name], self._facts[name]

    def _hold(self) -> None:
        entries = self._enter()
        for number in range(self.rounds):
            for name, entry in entries.items():
                if name not in self._failures:
                    with self._spoiling_only(name):
                        self._pause(PAUSE)
                        self._seconds[name] += take_turn_without_collector(entry, number, self._clock)
        for name, entry in entries.items():
            if name not in self._failures:
                self._facts[name] = {**self.contestants[name].facts, **entry.facts()}

    def _enter(self) -> dict[str, Entry]:
        """Let all enter, and compare what each computes with the reference's result."""
        entries: dict[str, Entry] = {}
        results: dict[str, Mapping[str, np.ndarray] | None] = {}
        first = next(iter(self.contestants))
        for name, contestant in self.contestants.items():
            reference = contestant.reference or first
            with self._spoiling_only(name):
                if reference in self._failures:
                    raise self._failures[reference]
                entries[name], self._seconds[name] = contestant.enter(), []
                results[name] = entries[name].result()
                check_agreement(name, results[name], reference, results[reference], self.tolerance)
        return entries

    @contextlib.contextmanager
    def _spoiling_only(self, name: str) -> Iterator[None]:
        """Keep a party's exception for when its outcome is asked for; the others go on."""
        try:
            yield
        except Exception as failure:  # noqa: BLE001 - raised again by `outcome`
            self._failures[name] = failure


def take_turn_without_collector(entry: Entry, number: int, clock: Clock) -> list[float]:
    """Take a turn with the garbage collector off.

    With all libraries in one process it has far more to walk through than a user of any one of them.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        return entry.turn(number, clock)
    finally:
        if collecting:
            gc.enable()


def check_agreement(
    name: str,
    result: Mapping[str, np.ndarray] | None,
    reference: str,
    expected: Mapping[str, np.ndarray] | None,
    tolerance: float,
) -> None:
    """Raise a `Disagreement` unless two results are the same, up to `tolerance`; one that is None agrees with all."""
    if result is None or expected is None:
        return
    if result.keys() != expected.keys():
        raise Disagreement(f"{name} computed {', '.join(result)}; {reference} computed {', '.join(expected)}")
    for key, value in expected.items():
        if result[key].shape != value.shape:
            raise Disagreement(f"{key} of {name} has the shape {result[key].shape}, of {reference} {value.shape}")
        if not np.allclose(result[key], value, rtol=tolerance, atol=tolerance):
            apart = np.abs(result[key] - value).max()
            raise Disagreement(f"{key} of {name} is up to {apart} apart from that of {reference}, allowed {tolerance}")


def replay(durations: Iterable[float]) -> Clock:
    """Return a timer that reads 0 before each round and its recorded duration after it; `conftest` says what for."""
    readings = chain.from_iterable((0.0, duration) for duration in durations)

    def replayed() -> float:
        return next(readings)

    return replayed

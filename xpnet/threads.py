"""Threads that share a computation, each with a BLAS of one thread."""

import contextvars
import importlib.util
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from typing import Protocol, Self, TypeVar

from xpnet.blas import blas

__all__ = ["Sharing", "Team", "are_available", "submitted"]

T = TypeVar("T")


def are_available() -> bool:
    """Whether the BLAS can be limited to one thread: beside others, its own threads wait for a core."""
    return importlib.util.find_spec("threadpoolctl") is not None


def submitted(pool: ThreadPoolExecutor | None, task: Callable[[], T]) -> Future[T] | None:
    """Start a task in a thread of the pool; None if there is no pool, or no thread can be started."""
    try:
        return pool.submit(task) if pool else None
    except RuntimeError:  # the main thread has ended, or the process has as many threads as it may
        return None


class Sharing(Protocol):
    """Threads, or processes, that share tasks: `Team`, or `xpnet.parallel.RankTeam`.

    Attributes
    ----------
    threads : int
        Their number.
    together_here : int
        Number of tasks that run at a time in this process. Tasks whose numbers differ by a multiple of it never do.
    """

    threads: int

    @property
    def together_here(self) -> int: ...

    def together(self, tasks: Sequence[Callable[[], T]]) -> list[T]:
        """Run tasks, and return their results in order."""


class Team:
    """Context with a number of threads, the caller's among them, in which the BLAS uses one thread.

    Parameters
    ----------
    threads : int, optional
        Number of threads; by default that of the BLAS.

    Examples
    --------
    >>> with Team(2) as team:
    ...     team.together([lambda: 1, lambda: 2, lambda: 3])
    [1, 2, 3]
    """

    def __init__(self, threads: int | None = None) -> None:
        self._wanted = threads
        self.threads = 1

    def __enter__(self) -> Self:
        of_blas = blas.__enter__()
        self.threads = self._wanted or of_blas
        self._pool = ThreadPoolExecutor(self.threads - 1) if self.threads > 1 else None
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._pool:
                self._pool.shutdown()
        finally:
            blas.__exit__()

    @property
    def together_here(self) -> int:
        """Number of tasks that run at a time."""
        return self.threads

    def together(self, tasks: Sequence[Callable[[], T]]) -> list[T]:
        """Run tasks, and return their results in order.

        Tasks run in the caller's context (`contextvars`). All have ended when this method returns or raises.
        """
        groups = [range(start, len(tasks), self.threads) for start in range(min(self.threads, len(tasks)))]
        results: dict[int, T] = {}

        def work(group: range) -> None:
            for i in group:
                results[i] = tasks[i]()

        helpers: list[Future[None]] = []
        try:
            for group in groups[1:]:
                helper = submitted(self._pool, partial(contextvars.copy_context().run, work, group))
                if helper is None:
                    work(group)
                else:
                    helpers.append(helper)
            for group in groups[:1]:
                work(group)
        finally:
            wait(helpers)
        for helper in helpers:
            helper.result()
        return [results[i] for i in range(len(tasks))]

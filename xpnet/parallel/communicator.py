"""The interface of a connection between processes, and the connection of a process that is alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, Protocol, TypeAlias, TypeVar

from xpnet.typing import Array

__all__ = ["Communicator", "Compression", "Kind", "Local", "RankTeam", "communicator", "device_name", "ending_all"]

Kind: TypeAlias = Literal["local", "mpi", "nccl"]

Compression: TypeAlias = Literal["float16"]

T = TypeVar("T")


class Communicator(Protocol):
    """A connection between the processes that train one network.

    Every method but `abort` is called by all ranks, in the same order: a rank waits for the others.

    Attributes
    ----------
    rank : int
        Number of this process, from 0.
    size : int
        Number of processes.
    local_rank : int
        Number of this process among those on the same machine. It chooses the GPU.
    compression : "float16" or None
        Form in which gradients travel, see `communicator`.
    capturable : bool
        Whether a CUDA graph can capture sums of GPU arrays. It cannot if they go by the host.
    """

    rank: int
    size: int
    local_rank: int
    compression: Compression | None
    capturable: bool

    def sum(self, array: Array) -> None:
        """Replace an array, in place, by its sum over the ranks. All ranks get the same bits."""

    def exchange(self, blocks: Array) -> Array:
        """Send each rank its row of an array, (size, n); return the rows that the ranks have sent, in their order."""

    def broadcast(self, value: T) -> T:
        """Return rank 0's value."""

    def gather(self, value: T) -> list[T]:
        """Return the values of all ranks, in their order."""

    def abort(self, message: str, status: int) -> None:
        """End the processes of all ranks at once, with a message that names this rank, and this exit status."""


class Local:
    """The connection of a process that is alone."""

    rank = 0
    size = 1
    local_rank = 0
    compression: Compression | None = None
    capturable = True

    def sum(self, array: Array) -> None:
        pass  # the sum of one array

    def exchange(self, blocks: Array) -> Array:
        return blocks

    def broadcast(self, value: T) -> T:
        return value

    def gather(self, value: T) -> list[T]:
        return [value]

    def abort(self, message: str, status: int) -> None:
        pass  # there is no other process to end


class RankTeam:
    """Ranks that share tasks, as the threads of `xpnet.threads.Team` do.

    Attributes
    ----------
    threads : int
        Number of ranks.
    together_here : int
        1: a process runs its tasks one after the other.
    """

    together_here = 1

    def __init__(self, communicator: Communicator) -> None:
        self.communicator, self.threads = communicator, communicator.size

    def together(self, tasks: Sequence[Callable[[], T]]) -> list[T]:
        """Run tasks, the same ones on all ranks, and return their results in order, to each rank."""
        ranks = self.communicator
        done = ranks.gather([task() for task in tasks[ranks.rank :: ranks.size]])
        rows = itertools.zip_longest(*done)
        return list(itertools.islice(itertools.chain.from_iterable(rows), len(tasks)))


def communicator(kind: Kind, compression: Compression | None = None) -> Communicator:
    """Return the connection of this process to the others.

    Parameters
    ----------
    kind : {"local", "mpi", "nccl"}
        ``"local"`` is one process. ``"mpi"`` connects the processes that ``mpiexec`` started; arrays of a GPU go by the
        host. ``"nccl"`` is for one GPU per process: its arrays go by NCCL, all else by MPI.
    compression : "float16", optional
        With ``"mpi"``, gradients of float32 networks travel in float16 (`xpnet.parallel.float16`). This pays on slow
        networks between machines.

    Raises
    ------
    ValueError
        If there is no such kind or compression, or the kind cannot compress.
    ModuleNotFoundError
        If mpi4py or CuPy is not installed.
    DeviceError
        If NCCL is asked for, and CuPy has no CUDA device or cannot load NCCL.
    """
    if compression not in (None, "float16"):
        raise ValueError(f"compression must be 'float16' or None, got {compression!r}")
    if compression is not None and kind != "mpi":
        raise ValueError(f"compression must be None with {kind!r}, got {compression!r}: only 'mpi' compresses")
    if kind == "local":
        return Local()
    if kind == "mpi":
        from xpnet.parallel.mpi import MPI

        return MPI(compression)
    if kind == "nccl":
        from xpnet.parallel.nccl import NCCL

        return NCCL()
    raise ValueError(f"the kind of a communicator must be 'local', 'mpi' or 'nccl', got {kind!r}")


@contextmanager
def ending_all(communicator: Communicator) -> Iterator[None]:
    """Context of which an exception on any rank ends all ranks: else they would wait for that one for ever."""
    try:
        yield
    except BaseException as error:
        code = error.code if isinstance(error, SystemExit) else 1
        text = " ".join(str(error).split())
        communicator.abort(f"{type(error).__name__}: {text}", code if isinstance(code, int) else 1)
        raise


def device_name(name: str, communicator: Communicator) -> str:
    """Return the name of this rank's device: a GPU of its own for each process on a machine."""
    return f"cuda:{communicator.local_rank}" if communicator.size > 1 and name.startswith("cuda") else name

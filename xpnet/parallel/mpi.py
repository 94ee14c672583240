"""Processes connected by MPI."""

from __future__ import annotations

import sys
import traceback
from types import TracebackType
from typing import TypeVar

import numpy as np

from xpnet.device import asnumpy, get_array_module, is_on_host
from xpnet.extras import import_extra
from xpnet.parallel.communicator import Compression
from xpnet.typing import Array

__all__ = ["MPI"]

T = TypeVar("T")

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""


class MPI:
    """The processes that ``mpiexec`` started, or this one alone, see `xpnet.parallel.Communicator`.

    An exception that nothing catches ends all ranks, not this one alone: the others would wait for it for ever. The
    object replaces ``sys.excepthook`` for that. Nobody catches the end of a process by a signal; ``mpiexec`` ends the
    others then.
    """

    capturable = False

    def __init__(self, compression: Compression | None = None) -> None:
        self.compression = compression
        self._mpi = import_extra("mpi4py.MPI", "mpi")
        self._world = self._mpi.COMM_WORLD
        self.rank, self.size = self._world.rank, self._world.size
        here = self._world.Split_type(self._mpi.COMM_TYPE_SHARED)
        self.local_rank = here.rank
        here.Free()
        self._shown_by = sys.excepthook
        if self.size > 1:
            sys.excepthook = self._end_all

    def sum(self, array: Array) -> None:
        if is_on_host(array):
            self._world.Allreduce(self._mpi.IN_PLACE, array)
            return
        # MPI that knows nothing of CUDA would read the address of a GPU's memory, and crash.
        total = np.ascontiguousarray(asnumpy(array))
        self._world.Allreduce(self._mpi.IN_PLACE, total)
        array.set(total)

    def exchange(self, blocks: Array) -> Array:
        sent = np.ascontiguousarray(asnumpy(blocks))
        received = np.empty_like(sent)
        byte = self._mpi.BYTE
        self._world.Alltoall([sent.view("uint8"), byte], [received.view("uint8"), byte])
        return received if is_on_host(blocks) else get_array_module(blocks).asarray(received)

    def broadcast(self, value: T) -> T:
        received: T = self._world.bcast(value)
        return received

    def gather(self, value: T) -> list[T]:
        values: list[T] = self._world.allgather(value)
        return values

    def abort(self, message: str, status: int) -> None:
        if self.size > 1:
            print(f"xpnet: rank {self.rank} of {self.size} ends all ranks: {message}", file=sys.stderr, flush=True)
            self._world.Abort(status)

    def _end_all(self, kind: type[BaseException], error: BaseException, place: TracebackType | None) -> None:
        self._shown_by(kind, error, place)
        message = traceback.format_exception_only(error)[-1].strip()
        self.abort(message, INTERRUPTED if issubclass(kind, KeyboardInterrupt) else 1)

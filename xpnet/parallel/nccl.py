"""Processes with a GPU each, connected by NCCL."""

from __future__ import annotations

from xpnet.device import Device, DeviceError, get_device, is_on_host
from xpnet.parallel.mpi import MPI
from xpnet.typing import Array

__all__ = ["NCCL"]


class NCCL(MPI):
    """Sums of GPU arrays by NCCL, on the current stream; all else by MPI.

    The GPU of a process is that of its `local_rank`. Its first sum connects the GPUs. CUDA graphs can capture sums.
    """

    capturable = True

    def __init__(self) -> None:
        super().__init__()
        self.device = Device(f"cuda:{self.local_rank}")
        self._nccl = self.device.xp.cuda.nccl
        if not self._nccl.available:
            raise DeviceError(
                "CuPy cannot load NCCL, which its wheels leave out; install it with pip install nvidia-nccl-cu13 (or "
                "nvidia-nccl-cu12, as your CUDA), or use --parallel mpi, which sums by the host"
            )
        identity = self.broadcast(self._nccl.get_unique_id() if self.rank == 0 else None)
        with self.device.activate():
            self._gpus = self._nccl.NcclCommunicator(self.size, identity, self.rank)

    def sum(self, array: Array) -> None:
        if is_on_host(array):
            super().sum(array)
            return
        if get_device(array) != self.device:
            raise DeviceError(
                f"rank {self.rank} sums by NCCL on {self.device}, got an array on {get_device(array)}; build the "
                "network on device=communicator.device"
            )
        kind = {"float32": self._nccl.NCCL_FLOAT32, "float64": self._nccl.NCCL_FLOAT64}[array.dtype.name]
        stream, address = self.device.xp.cuda.get_current_stream().ptr, array.data.ptr
        self._gpus.allReduce(address, address, array.size, kind, self._nccl.NCCL_SUM, stream)

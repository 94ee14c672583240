"""Processes (ranks) that train one network together, and what they tell each other.

`communicator` returns the connection: to nobody (``"local"``), by MPI, or by NCCL between GPUs. `Trainer` takes it.
The training steps are in `xpnet.steps.ranks`; this package knows arrays, and no networks.
"""

from xpnet.parallel.communicator import (
    Communicator,
    Compression,
    Kind,
    Local,
    RankTeam,
    communicator,
    device_name,
    ending_all,
)
from xpnet.parallel.float16 import sum_in_float16

__all__ = [
    "Communicator",
    "Compression",
    "Kind",
    "Local",
    "RankTeam",
    "communicator",
    "device_name",
    "ending_all",
    "sum_in_float16",
]

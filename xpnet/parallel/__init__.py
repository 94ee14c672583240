"""Processes (ranks) that train one network together, and what they tell each other.

`communicator` returns the connection: to nobody (``"local"``), by MPI, or by NCCL between GPUs. `Trainer` takes it.
The training steps are in `xpnet.steps.ranks`; this package knows arrays, and no networks.
"""

from xpnet.parallel.communicator import (
    Communicator,
    Kind,
    Local,
    RankTeam,
    communicator,
    device_name,
    ending_all,
)

__all__ = ["Communicator", "Kind", "Local", "RankTeam", "communicator", "device_name", "ending_all"]

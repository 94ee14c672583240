"""How long a call takes, on any device."""

import statistics
import time
from collections.abc import Callable

from xpnet.device import Device

__all__ = ["median_seconds"]


def median_seconds(call: Callable[[], object], device: Device, repetitions: int) -> float:
    """Return the median time of a call in seconds, each with the wait until the device is done."""
    durations = []
    device.synchronize()
    for _ in range(repetitions):
        start = time.perf_counter()
        call()
        device.synchronize()
        durations.append(time.perf_counter() - start)
    return statistics.median(durations)

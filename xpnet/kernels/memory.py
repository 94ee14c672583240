"""Memory of arrays: sizes of temporaries, order of elements, and synchronization."""

from collections.abc import Iterator

from xpnet.device import is_on_host
from xpnet.typing import Array

__all__ = ["in_memory_order", "may_hold", "scratch_size", "share_memory_order", "slabs"]

SLAB = 2**20
"""Bytes per slab on the host: the slab stays in a core's cache from one operation to the next."""

HOST_SCRATCH = 8 * 2**20
DEVICE_SCRATCH = 256 * 2**20
"""Bytes of the temporaries of matrix products, see `scratch_size`."""


def scratch_size(x: Array) -> int:
    """Return the size in bytes of a temporary that is written and read part by part, on the device of `x`.

    On the host a part is still in the cache when it is read. On a CUDA device parts are larger, to launch few kernels.
    """
    return HOST_SCRATCH if is_on_host(x) else DEVICE_SCRATCH


def slabs(x: Array) -> Iterator[slice]:
    """Cut an array along its first axis into slabs that stay in the cache; on a CUDA device into one."""
    length = len(x)
    at_a_time = max(SLAB * length // max(x.nbytes, 1), 1) if is_on_host(x) else max(length, 1)
    for start in range(0, length, at_a_time):
        yield slice(start, start + at_a_time)


def in_memory_order(*arrays: Array) -> list[Array] | None:
    """Return 1-D views of arrays of one shape, with elements in the order of the host's memory.

    None if the arrays have different memory orders, or gaps.
    """
    return [x.ravel(order="K") for x in arrays] if share_memory_order(*arrays) else None


def share_memory_order(*arrays: Array) -> bool:
    """Whether arrays of one shape have their elements in the same order in memory, without gaps."""
    first = arrays[0]
    steps = [stride // first.itemsize for stride in first.strides]
    dense = sum((n - 1) * step for n, step in zip(first.shape, steps, strict=True)) + 1 == first.size
    return dense and all([stride // x.itemsize for stride in x.strides] == steps for x in arrays)


def may_hold(mask: Array) -> bool:
    """Tell whether any element of a mask may be True. On a CUDA device always True: a look would wait for the queue."""
    return not is_on_host(mask) or bool(mask.any())

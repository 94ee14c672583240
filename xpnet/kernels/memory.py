"""Memory of arrays: how large temporaries are, in which order numbers lie, and where a look at them is free."""

from collections.abc import Iterator

from xpnet.device import is_on_host
from xpnet.typing import Array

__all__ = ["in_memory_order", "may_hold", "scratch_size", "slabs"]

SLAB = 2**20
"""Bytes of an array that several operations go through one after the other, on the host: what a core's cache holds."""

HOST_SCRATCH = 8 * 2**20
DEVICE_SCRATCH = 256 * 2**20
"""Bytes of a temporary that is built for one matrix product after the other: see `scratch_size`."""


def scratch_size(x: Array) -> int:
    """Return how many bytes a temporary should have that is written and read again part by part, where `x` is.

    On the host so few that they are still in the cache when read; on a CUDA device more, to launch few kernels.
    """
    return HOST_SCRATCH if is_on_host(x) else DEVICE_SCRATCH


def slabs(x: Array) -> Iterator[slice]:
    """Cut an array along its first axis: on the host into slabs that stay in the cache, on a CUDA device not at all."""
    length = len(x)
    at_a_time = max(SLAB * length // max(x.nbytes, 1), 1) if is_on_host(x) else max(length, 1)
    for start in range(0, length, at_a_time):
        yield slice(start, start + at_a_time)


def in_memory_order(*arrays: Array) -> list[Array] | None:
    """Return arrays of one shape as vectors, views in the order in which they lie in the host's memory.

    None if they lie there in different orders, or with gaps.
    """
    first = arrays[0]
    steps = [stride // first.itemsize for stride in first.strides]
    if sum((n - 1) * step for n, step in zip(first.shape, steps, strict=True)) + 1 != first.size:
        return None
    if any([stride // x.itemsize for stride in x.strides] != steps for x in arrays):
        return None
    return [x.ravel(order="K") for x in arrays]


def may_hold(mask: Array) -> bool:
    """Tell whether a condition may hold anywhere; on a CUDA device, where looking stalls the queue, it always may."""
    return not is_on_host(mask) or bool(mask.any())

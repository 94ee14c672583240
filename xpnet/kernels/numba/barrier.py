"""A barrier of two threads in compiled code, which spin: a wait by the system takes longer than theirs."""

import os

from numba import types
from numba.extending import intrinsic

from xpnet.kernels.numba.compiling import compiled

__all__ = ["GONE", "LINE", "wait"]

GONE = 2**62
"""The number of arrivals of a thread that the other need not wait for."""

LINE = 16
"""Numbers from one counter to the other: they must share no cache line, nor two that are fetched together."""

PATIENCE = 20_000
"""Looks at the other thread's counter before this one gives up its core, which the other may be waiting for."""

_give_up_core = types.ExternalFunction("sched_yield" if os.name == "posix" else "SwitchToThread", types.int32())


@compiled
def wait(arrivals, thread):
    """Wait until the other thread has arrived as often as this one.

    Parameters
    ----------
    arrivals : (2, LINE) int64
        How often either thread, 0 or 1, has arrived, in the first of its numbers.
    thread : int
        The calling thread.

    Returns
    -------
    bool
        Whether the other has arrived; else it is `GONE`.
    """
    number = arrivals[thread, 0] + 1
    _store(arrivals[thread], number)  # type: ignore[call-arg]  # Numba gives the first
    looks, others = 0, _load(arrivals[1 - thread])
    while others < number:
        looks += 1
        if looks % PATIENCE == 0:
            _give_up_core()
        others = _load(arrivals[1 - thread])
    return others < GONE


@intrinsic
def _store(_, counter, number):
    """Write a counter so that a thread that reads it sees all that this one has written before."""

    def generate(context, builder, signature, arguments):
        place = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        builder.store_atomic(arguments[1], place, "release", 8)
        return context.get_dummy_value()

    return types.void(counter, types.int64), generate


@intrinsic
def _load(_, counter):
    """Read a counter, see `_store`."""

    def generate(context, builder, signature, arguments):
        place = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.load_atomic(place, "acquire", 8)

    return types.int64(counter), generate

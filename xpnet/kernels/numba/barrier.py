"""A barrier of two threads in compiled code. Threads spin: a wait by the operating system would take longer."""

import os

from numba import types
from numba.extending import intrinsic

from xpnet.kernels.numba.compiling import compiled

__all__ = ["GONE", "LINE", "wait"]

GONE = 2**62
"""Number of arrivals that releases the other thread from waiting."""

LINE = 16
"""Distance of the counters, in elements: they share no cache line, and no pair of lines that is fetched together."""

PATIENCE = 20_000
"""Reads of the other counter before a thread yields its core: the other thread may be waiting for the core."""

_give_up_core = types.ExternalFunction("sched_yield" if os.name == "posix" else "SwitchToThread", types.int32())


@compiled
def wait(arrivals, thread):
    """Wait for the other thread to arrive as often as this one.

    Parameters
    ----------
    arrivals : (2, LINE) int64
        Number of arrivals of thread i, in ``arrivals[i, 0]``.
    thread : int
        The calling thread, 0 or 1.

    Returns
    -------
    bool
        True if the other thread arrived, False if it is `GONE`.
    """
    number = arrivals[thread, 0] + 1
    _store(arrivals[thread], number)  # type: ignore[call-arg]  # Numba passes the first
    looks, others = 0, _load(arrivals[1 - thread])
    while others < number:
        looks += 1
        if looks % PATIENCE == 0:
            _give_up_core()
        others = _load(arrivals[1 - thread])
    return others < GONE


@intrinsic
def _store(_, counter, number):
    """Write a counter with release semantics: a thread that reads it sees all earlier writes of this one."""

    def generate(context, builder, signature, arguments):
        place = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        builder.store_atomic(arguments[1], place, "release", 8)
        return context.get_dummy_value()

    return types.void(counter, types.int64), generate


@intrinsic
def _load(_, counter):
    """Read a counter with acquire semantics, see `_store`."""

    def generate(context, builder, signature, arguments):
        place = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.load_atomic(place, "acquire", 8)

    return types.int64(counter), generate

"""Where two threads of compiled code wait for each other, without the system, whose help takes longer than the wait."""

from __future__ import annotations

import os

from numba import types
from numba.extending import intrinsic

from xpnet.kernels.numba.compiling import compiled

__all__ = ["GONE", "LINE", "meet"]

GONE = 2**62
"""The turn of a thread that the other need not wait for."""

LINE = 16
"""Numbers from one thread's turn to the other's: they must share no cache line, nor two that are fetched together."""

PATIENCE = 20_000
"""Looks at the other thread's turn before this one gives up its core, which the other may be waiting for."""

_give_up_core = types.ExternalFunction("sched_yield" if os.name == "posix" else "SwitchToThread", types.int32())


@compiled
def meet(turns, thread):
    """Wait until the other thread has come here as often as this one.

    Parameters
    ----------
    turns : (2, LINE) int64
        How often either thread, 0 or 1, has come, in the first of its numbers.
    thread : int
        Which this is.

    Returns
    -------
    bool
        Whether the other has come; else it is `GONE`.
    """
    turn = turns[thread, 0] + 1
    _set_turn(turns[thread], turn)  # type: ignore[call-arg]  # Numba gives the first
    looks, others = 0, _turn(turns[1 - thread])
    while others < turn:
        looks += 1
        if looks % PATIENCE == 0:
            _give_up_core()
        others = _turn(turns[1 - thread])
    return others < GONE


@intrinsic
def _set_turn(_, turns, turn):
    """Write a number so that a thread that reads it sees all that this one has written before."""

    def generate(context, builder, signature, arguments):
        place = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        builder.store_atomic(arguments[1], place, "release", 8)
        return context.get_dummy_value()

    return types.void(turns, types.int64), generate


@intrinsic
def _turn(_, turns):
    """Read such a number."""

    def generate(context, builder, signature, arguments):
        place = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.load_atomic(place, "acquire", 8)

    return types.int64(turns), generate

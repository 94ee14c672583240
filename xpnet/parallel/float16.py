"""Sums of float32 arrays over ranks, whose messages are float16: half the bytes of an all-reduce."""

from __future__ import annotations

import numpy as np

from xpnet.device import get_array_module
from xpnet.parallel.communicator import Communicator
from xpnet.typing import Array

__all__ = ["sum_in_float16"]

TOP = 14
"""A block is scaled to largest values in [2^13, 2^14), far from float16's largest, 65,504.

Values down to 2^-27 of the largest one keep float16's 11 bits, and smaller ones fewer, down to 2^-38.
"""

LEAST = -112
"""Exponent of the smallest scale: its inverse is still a float32."""


def sum_in_float16(ranks: Communicator, array: Array) -> None:
    """Replace a float32 vector, in place, by its sum over the ranks. All ranks get the same bits.

    Each rank adds up one block, in float32, of which all ranks send it their terms. Then it sends all ranks the sum.
    Terms and sum are rounded to float16 once each. A power of two scales each block, so that nothing overflows.
    """
    xp, width = get_array_module(array), -(-array.size // ranks.size)
    blocks = xp.zeros((ranks.size, width), "float32")
    blocks.reshape(-1)[: array.size] = array
    own = _unpacked(ranks.exchange(_packed(blocks))).sum(axis=0, keepdims=True)
    sums = _unpacked(ranks.exchange(xp.repeat(_packed(own), ranks.size, axis=0)))
    array[...] = sums.reshape(-1)[: array.size]


def _packed(blocks: Array) -> Array:
    """Return the rows in float16, with the exponent of each row's scale behind it."""
    xp = get_array_module(blocks)
    largest = xp.maximum(blocks.max(axis=1, keepdims=True), -blocks.min(axis=1, keepdims=True))
    exponents = xp.maximum(xp.frexp(largest)[1], LEAST)
    packed = xp.empty((len(blocks), blocks.shape[1] + 1), "float16")
    with np.errstate(over="ignore", invalid="ignore"):  # infinite values and NaN stay so
        packed[:, :-1] = blocks * xp.ldexp(xp.float32(1.0), TOP - exponents)
    packed[:, -1:] = exponents
    return packed


def _unpacked(packed: Array) -> Array:
    xp = get_array_module(packed)
    blocks = packed[:, :-1].astype("float32")
    blocks *= xp.ldexp(xp.float32(1.0), packed[:, -1:].astype("int32") - TOP)
    return blocks

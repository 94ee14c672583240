"""Dropout (section 6.4.3)."""

from __future__ import annotations

import math

import numpy as np

from xpnet.device import get_array_module, get_device
from xpnet.layers.base import Layer
from xpnet.typing import Array, Seed

__all__ = ["Dropout"]

# Of Pelle Evensen's mixer "moremur" (2019), and minus the golden ratio's step of SplitMix64: odd numbers below 2**63,
# which either module takes for an unsigned 64-bit integer.
_STEP, _MULTIPLIERS = 0x61C8864680B583EB, ((27, 0x3C79AC492BA7B653), (33, 0x1C69B3F74AC4AE35))


class Dropout(Layer):
    """Switch off units at random in training (section 6.4.3; Srivastava and others, 2014).

    In training y = x mask / (1 - p), where each element of the mask is 1 with probability 1 - p; dx = dout mask /
    (1 - p). Otherwise y = x. So what is expected of a unit is the same in both.

    Parameters
    ----------
    dropout_ratio : float in [0, 1), default 0.5
        p, the share that is switched off.
    scale_at_test : bool, default False
        Whether to scale as the book does: y = x mask in training, and y = (1 - p) x otherwise.
    seed : int or numpy.random.Generator, optional
        Of the masks: the same ones on every device.

    Notes
    -----
    A mask is not drawn on the host, from where it would have to be carried to a GPU: it is a function of the seed, the
    number of the call and that of the element, a hash of them, and is computed where x is. So it is the same on every
    device. What changes from call to call, ``state``, is an array there too.
    """

    saved = ("mask",)
    buffer_names = ("state",)

    def __init__(self, dropout_ratio: float = 0.5, *, scale_at_test: bool = False, seed: Seed = None) -> None:
        if not 0 <= dropout_ratio < 1:
            raise ValueError(f"dropout_ratio must lie in [0, 1), got {dropout_ratio}")
        self.dropout_ratio = float(dropout_ratio)
        self.scale_at_test = bool(scale_at_test)
        self.state: Array = np.random.default_rng(seed).integers(2**64, size=1, dtype="uint64")

    def forward(self, x: Array, train: bool = True) -> Array:
        xp = get_array_module(x)
        kept = 1.0 - self.dropout_ratio
        if not train:
            self.mask = None
            return x * kept if self.scale_at_test else x
        mask = self._random(x) >= math.ceil(self.dropout_ratio * 2**32)
        factor = 1.0 if self.scale_at_test else 1.0 / kept
        self.mask = xp.multiply(mask, factor, out=self.out.get("mask"), dtype=x.dtype)
        return xp.multiply(x, self.mask, out=self.out.get("y"))

    def backward(self, dout: Array) -> Array:
        if self.mask is None:
            return dout * (1.0 - self.dropout_ratio) if self.scale_at_test else dout
        xp = get_array_module(dout=dout, mask=self.mask)
        self._expect_dout(dout, self.mask.shape)
        return xp.multiply(dout, self.mask, out=self.out.get("dx"))

    def _random(self, x: Array) -> Array:
        """Return integers in [0, 2**32), of the shape of x; other ones in each call, unless its buffers are fixed."""
        device = get_device(x)
        if not device.holds(self.state):  # a layer that works alone
            self.state = device.asarray(self.state)
        stream = _mix(self.state.copy())
        if not self.fixed_buffers:
            self.state += _STEP
        elements = device.xp.arange(x.size, dtype="uint64")
        elements *= _STEP
        elements += stream
        return (_mix(elements) >> 32).reshape(x.shape)


def _mix(z: Array) -> Array:
    """Scramble unsigned 64-bit integers in place, and return them: each bit moves about half of the result's."""
    for shift, multiplier in _MULTIPLIERS:
        z ^= z >> shift
        z *= multiplier
    z ^= z >> 27
    return z

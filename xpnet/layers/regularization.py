"""Dropout (section 6.4.3)."""

import math
from typing import Any

from xpnet import functions, kernels
from xpnet.device import Device, get_array_module, get_device
from xpnet.layers.base import Layer
from xpnet.settings import fraction, generator
from xpnet.typing import Array, Seed

__all__ = ["Dropout"]


class Dropout(Layer):
    """Dropout: set units to 0 at random in training (section 6.4.3; Srivastava and others, 2014).

    In training y = x mask / (1 - p) and dx = dout mask / (1 - p). Each element of the mask is 1 with probability 1 - p,
    else 0. In prediction y = x. The expected value of a unit is the same in both.

    Parameters
    ----------
    dropout_ratio : float in [0, 1), default 0.5
        Probability p that a unit is set to 0.
    scale_at_test : bool, default False
        Whether to scale as the book does: y = x mask in training, and y = (1 - p) x in prediction.
    seed : int or numpy.random.Generator, optional
        Seed of the masks, which are the same on every device.

    Notes
    -----
    The mask is a hash of the seed, the number of the call and the index of the element. It is computed on the device of
    x, so nothing is copied from the host, and all devices have the same masks. ``state``, which changes from call to
    call, is an array on that device too.
    """

    saved = ("mask",)
    buffer_names = ("state",)
    first_sample = 0

    def __init__(self, dropout_ratio: float = 0.5, *, scale_at_test: bool = False, seed: Seed = None) -> None:
        self.dropout_ratio = fraction("dropout_ratio", dropout_ratio)
        self.scale_at_test = bool(scale_at_test)
        self.state: Array = generator("seed", seed).integers(2**64, size=1, dtype="uint64")

    def forward(self, x: Array, train: bool = True) -> Array:
        x = functions.as_floating(x)
        kept = 1.0 - self.dropout_ratio
        if not train:
            self.mask = None
            return x * kept if self.scale_at_test else x
        state, least = self._state_on(get_device(x)), math.ceil(self.dropout_ratio * 2**32)
        factor, first = 1.0 if self.scale_at_test else 1.0 / kept, self.first_sample * math.prod(x.shape[1:])
        y, self.mask = kernels.dropout(x, state, least, factor, self.out.get("mask"), self.out.get("y"), first)
        if not self.fixed_buffers:
            kernels.advance(state)
        return y

    def backward(self, dout: Array) -> Array:
        if self.mask is None:
            return dout * (1.0 - self.dropout_ratio) if self.scale_at_test else dout
        xp = get_array_module(dout=dout, mask=self.mask)
        self._expect_dout(dout, self.mask.shape)
        return xp.multiply(dout, self.mask, out=self.out.get("dx"))

    def config(self) -> dict[str, Any]:
        return {"dropout_ratio": self.dropout_ratio, "scale_at_test": self.scale_at_test}  # the seed is in the state

    def _state_on(self, device: Device) -> Array:
        """Return the state on the device of x: in a layer that works alone it may be on another one."""
        if not device.holds(self.state):
            self.state = device.asarray(self.state)
        return self.state

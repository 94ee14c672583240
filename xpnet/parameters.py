"""Flat vectors of all parameters of a network, or of all gradients, with named views."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

import numpy as np

from xpnet.device import ALIGNMENT, Device, asnumpy
from xpnet.settings import as_dtype
from xpnet.typing import Array, DTypeLike

__all__ = ["ParameterVector"]


class ParameterVector(MutableMapping[str, Array]):
    """Named arrays that are views into one contiguous vector.

    An update, a copy to another device or an all-reduce of a whole network is one operation on ``flat``;
    ``params["W1"]`` is an ordinary array. Each view starts on a 256-byte boundary, in float16 on a
    128-byte one. The gaps are zero, and stay zero
    under elementwise updates by a vector of the same layout.

    Parameters
    ----------
    shapes : mapping of str to tuple of int
        Names and shapes of the arrays, in order.
    dtype : dtype, default "float32"
        Floating dtype.
    device : Device, optional
        Device of the vector; by default the CPU.

    Attributes
    ----------
    flat : (size with gaps,)
        The whole vector.
    shapes : dict of str to tuple of int
        Names and shapes, as given.
    layout : tuple
        Names, shapes, dtype and device. Vectors with equal layouts correspond element by element in ``flat``.
    lineage : object
        The same for a vector and for what `to` makes of it; each other vector has its own. An optimizer recognizes its
        network by it.
    size : int
        Number of parameters, gaps not counted.

    Notes
    -----
    ``params["W1"] = array`` copies into the view; the shape must fit. ``params["W1"] -= step`` works in place. Names
    are fixed.

    Examples
    --------
    >>> params = ParameterVector({"W": (2, 3), "b": (3,)})
    >>> params["b"] += 1.0
    >>> float(params.flat.sum())
    3.0
    """

    def __init__(
        self, shapes: Mapping[str, tuple[int, ...]], dtype: DTypeLike = "float32", device: Device | None = None
    ) -> None:
        dtype = as_dtype("dtype", dtype).newbyteorder("=")
        if dtype.kind != "f":
            raise TypeError(f"parameters must have a floating dtype, got {dtype}")
        self.shapes = dict(shapes)
        self.device = device or Device("cpu")
        self.dtype = dtype
        self.lineage = object()
        self.layout = (*self.shapes.items(), dtype, self.device)
        # float16 as float32, in numbers of elements: one copy then converts a whole vector to the other dtype.
        step = ALIGNMENT // max(dtype.itemsize, 4)
        starts, end = [], 0
        for shape in self.shapes.values():
            starts.append(end)
            end += -(-math.prod(shape) // step) * step
        self.flat = self.device.zeros(end, dtype)
        self._views = {
            name: self.flat[start : start + math.prod(shape)].reshape(shape)
            for (name, shape), start in zip(self.shapes.items(), starts, strict=True)
        }

    @property
    def size(self) -> int:
        """Number of parameters, gaps not counted."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def zeros_like(self) -> ParameterVector:
        """Return a vector of zeros with the same layout, for gradients or momenta."""
        return ParameterVector(self.shapes, self.dtype, self.device)

    def to(self, device: Device | None = None, dtype: DTypeLike | None = None) -> ParameterVector:
        """Return a copy with the given device or dtype."""
        moved = ParameterVector(self.shapes, self.dtype if dtype is None else dtype, device or self.device)
        for name, value in self.items():
            moved[name] = moved.device.asarray(value, moved.dtype)
        moved.lineage = self.lineage
        return moved

    def asnumpy(self) -> dict[str, np.ndarray]:
        """Copy every array to the host, by name."""
        return {name: np.array(asnumpy(value)) for name, value in self.items()}

    def __getitem__(self, name: str) -> Array:
        return self._views[name]

    def __setitem__(self, name: str, value: Array) -> None:
        if name not in self._views:
            raise KeyError(f"no parameter is called {name!r}; there are {', '.join(self._views)}")
        view = self._views[name]
        if value is view:  # the second half of `params[name] -= step`
            return
        shape = np.shape(value)
        if shape != view.shape:
            raise ValueError(f"{name!r} has shape {view.shape}, cannot be set to an array of shape {shape}")
        with self.device.activate():
            view[...] = self.device.asarray(value, self.dtype)

    def __delitem__(self, name: str) -> None:
        raise TypeError(f"{name!r} cannot be removed: the names of a ParameterVector are fixed")

    def __iter__(self) -> Iterator[str]:
        return iter(self._views)

    def __len__(self) -> int:
        return len(self._views)

    # By identity: a Mapping would compare arrays, which gives no single bool.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __repr__(self) -> str:
        arrays = ", ".join(f"{name} {shape}" for name, shape in self.shapes.items())
        return f"ParameterVector({arrays}; {self.size:,} x {self.dtype} on {self.device})"

    def __getstate__(self) -> dict[str, Any]:
        return {"shapes": self.shapes, "dtype": self.dtype, "device": self.device, "arrays": self.asnumpy()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Rebuilt: copies of the views would not share memory with a copied vector.
        self.__init__(state["shapes"], state["dtype"], state["device"])  # type: ignore[misc]
        self.update(state["arrays"])

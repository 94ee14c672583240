"""Layers and a loss with all parameters in one vector: names, moves, copies, files."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from xpnet.device import Device, asnumpy, get_device
from xpnet.files import save_arrays
from xpnet.layers import Layer, Loss
from xpnet.layers.members import check_free
from xpnet.nets import assembly
from xpnet.parameters import ParameterVector
from xpnet.typing import Array, DTypeLike

__all__ = ["Container"]


class Container:
    """Layers and a loss whose parameters are views of one vector. `Network` adds the passes.

    Parameters and attributes are those of `Network`.
    """

    params: ParameterVector

    def __init__(
        self,
        layers: Mapping[str, Layer],
        loss: Loss,
        device: Device | str | None = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        self.layers = dict(layers)
        self.last_layer = loss
        check_free(self.layers.items())
        if not isinstance(loss, Loss):
            raise TypeError(f"loss must be an xpnet.layers.Loss, got {type(loss).__name__}")
        check_free([("loss", loss)])
        self._check_connections()
        self.slots = assembly.number_parameters(self.modules().values())
        self.tied = assembly.tied_parameters(self.modules(), self.slots)
        arrays = {slot.name: getattr(slot.layer, slot.attribute) for slot in self.slots}
        if device is None:
            device = get_device(next(iter(arrays.values()))) if arrays else Device("cpu")
        if dtype is None:
            dtype = assembly.common_dtype(arrays)
        self.params = ParameterVector({name: array.shape for name, array in arrays.items()}, dtype, Device(device))
        self.params.update(arrays)
        for layer in (*self.layers.values(), loss):
            layer.to(self.params.device, self.params.dtype)
        self._bind()

    def to(self, device: Device | str | None = None, dtype: DTypeLike | None = None) -> Self:
        """Move the network to another device or dtype, in place, and return it."""
        target = self.params.device if device is None else Device(device)
        self.params = self.params.to(target, dtype)
        for layer in (*self.layers.values(), self.last_layer):
            layer.to(target, dtype)
        self._bind()
        return self

    def copy(self) -> Self:
        """Return an independent copy of the network."""
        return copy.deepcopy(self)

    def replica(self) -> Self:
        """Return a copy that shares the parameters, and nothing else: both may compute at a time."""
        return copy.deepcopy(self, {id(self.params): self.params})

    def modules(self) -> dict[str, Layer]:
        """Return the layers and their parts by name: ``"Residual1"``, ``"Residual1.Affine1"`` ..."""
        return {key: part for name, layer in self.layers.items() for key, part in layer.modules(name).items()}

    def buffers(self) -> dict[str, Array]:
        """Return the layers' buffers (`Layer.buffer_names`), such as ``"BatchNormalization1.running_mean"``."""
        return {f"{name}.{key}": b for name, layer in self.layers.items() for key, b in layer.buffers().items()}

    def share_buffers(self, owner: Container) -> None:
        """Use the buffers of `owner`, without a copy. This network must be a copy of `owner`."""
        for layer, its in zip(self.modules().values(), owner.modules().values(), strict=True):
            vars(layer).update({name: getattr(its, name) for name in its.buffer_names})
        self._bind()

    def state(self) -> dict[str, np.ndarray]:
        """Return copies of parameters and buffers by name, on the host."""
        return {name: np.array(asnumpy(array)) for name, array in {**self.params, **self.buffers()}.items()}

    def load_state(self, state: Mapping[str, Array]) -> None:
        """Restore the result of `state`, from arrays of any device.

        Raises
        ------
        ValueError
            If names or shapes differ from this network's. Nothing is changed then.
        """
        arrays = {**self.params, **self.buffers()}
        shapes, wanted = ({name: np.shape(a) for name, a in found.items()} for found in (state, arrays))
        if shapes != wanted:
            raise ValueError(f"the state has arrays {shapes}, this network has {wanted}")
        with self.params.device.activate():
            for name, array in arrays.items():
                array[...] = self.params.device.asarray(state[name], array.dtype)

    def save_params(self, file: str | Path) -> None:
        """Write parameters and buffers to `file` in NumPy's ``.npz`` format, atomically."""
        save_arrays(file, self.state())

    def load_params(self, file: str | Path) -> None:
        """Read parameters written by `save_params`, by earlier versions too. All are checked before any is changed.

        Raises
        ------
        ValueError
            If `file` has another format, other names or shapes than this network's, or values that are not finite real
            numbers in its dtype.
        """
        wanted = {**self.params, **self.buffers()}
        self.load_state(assembly.read_parameters(file, wanted, self.slots, self.params.device))

    def _bind(self) -> None:
        """Make the layers' parameters views of the vector, and set the layers' places."""
        for name, layer in (*self.modules().items(), (type(self.last_layer).__name__, self.last_layer)):
            layer.place = name
        for slot in self.slots:
            vars(slot.layer)[slot.attribute] = self.params[slot.name]

    def _check_connections(self) -> None:
        """Raise a ValueError if the layers do not fit together, before any layer is changed."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Copying and unpickling turn the layers' views into arrays; make them views of the new vector.
        self.__dict__.update(state)
        self._bind()

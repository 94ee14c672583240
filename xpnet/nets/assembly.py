"""Assembly of a network: names of parameters, their dtype, the order of layers, weight decay, errors."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from xpnet import kernels
from xpnet.device import Device, DeviceError, get_device, is_on_host
from xpnet.files import StoredArray, stored_arrays
from xpnet.layers import Layer, Pooling, Relu
from xpnet.layers.pooling import RectifiedPooling
from xpnet.parameters import ParameterVector
from xpnet.typing import Array, DTypeLike

__all__ = [
    "Order",
    "Slot",
    "add_penalty_gradient",
    "common_dtype",
    "number_parameters",
    "penalty",
    "read_parameters",
    "tied_parameters",
    "unexpected_device",
    "unexpected_shape",
]


class Slot(NamedTuple):
    """One parameter of a network: a layer's attribute, and its name in the network's vector.

    Attributes
    ----------
    layer : Layer
        The owner.
    attribute, gradient : str
        The layer's attributes of the parameter and its gradient: ``"W"`` and ``"dW"``.
    name : str
        The parameter's name in the network: ``"W1"``.
    """

    layer: Layer
    attribute: str
    gradient: str
    name: str


def number_parameters(layers: Iterable[Layer]) -> list[Slot]:
    """Name the parameters of layers, in order, by attribute and the layer's number.

    That is one more than the highest among its own attribute names so far, or the next number that makes no name
    twice: an embedding and an affine layer have W1; W2, b2; a batch normalization behind them gamma1, beta1.

    Raises
    ------
    TypeError
        If a layer has not set a parameter that it declares.
    """
    numbers: Counter[str] = Counter()
    names: set[str] = set()
    slots = []
    for layer in layers:
        number = 1 + max((numbers[attribute] for attribute in layer.parameter_names), default=0)
        while any(f"{attribute}{number}" in names for attribute in layer.parameter_names):  # W1 + 1 and W + 11
            number += 1
        for attribute in layer.parameter_names:
            if not hasattr(getattr(layer, attribute, None), "shape"):
                raise TypeError(
                    f"{layer.name} declares the parameter {attribute!r}, which must be an array: "
                    f"set self.{attribute} in its __init__"
                )
            numbers[attribute] = number
            names.add(f"{attribute}{number}")
            slots.append(Slot(layer, attribute, f"d{attribute}", f"{attribute}{number}"))
    return slots


def tied_parameters(layers: Mapping[str, Layer], slots: Iterable[Slot]) -> list[Slot]:
    """Return the uses of tied parameters (`Layer.tied`): each layer, with the parameter's name in the network.

    Raises
    ------
    ValueError
        If the owner is not in the network.
    """
    names = {(slot.layer, slot.attribute): slot.name for slot in slots}
    tied = []
    for place, layer in layers.items():
        for attribute, owner in layer.tied.items():
            if (owner, attribute) not in names:
                raise ValueError(
                    f"{place} uses {attribute} of a layer ({type(owner).__name__}) that is not in the network; "
                    "add it, or use the network's own"
                )
            tied.append(Slot(layer, attribute, f"d{attribute}", names[owner, attribute]))
    return tied


def read_parameters(
    file: str | Path, wanted: Mapping[str, Array], slots: Sequence[Slot], device: Device
) -> dict[str, Array]:
    """Read arrays like those in `wanted` from a file, onto a device. Their headers are compared before any is read.

    Raises
    ------
    ValueError
        If the file has another format, or other arrays, or values that are not finite real numbers in the dtype of
        the wanted array.
    """
    with stored_arrays(file) as found:
        stored = current_names(found, slots)
        shapes = {name: array.shape for name, array in stored.items()}
        expected = {name: array.shape for name, array in wanted.items()}
        if shapes != expected:
            raise ValueError(f"{file} holds parameters {shapes}, this network has {expected}")
        for name, array in stored.items():
            if array.dtype.kind not in "fiu" or not np.can_cast(array.dtype, wanted[name].dtype, "same_kind"):
                raise ValueError(f"{file} holds {array.dtype} as {name!r}, this network has {wanted[name].dtype}")
        arrays = {}
        for name, array in stored.items():
            with np.errstate(over="ignore"):
                values = array.read().astype(wanted[name].dtype)
            if not np.isfinite(values).all():
                raise ValueError(f"{file} holds values in {name!r} that are not finite in {values.dtype}")
            arrays[name] = device.asarray(values)
    return arrays


def current_names(arrays: Mapping[str, StoredArray], slots: Sequence[Slot]) -> Mapping[str, StoredArray]:
    """Rename the parameters of a file of an earlier version, which numbered each attribute by itself."""
    if {slot.name for slot in slots} <= arrays.keys():
        return arrays
    counts: Counter[str] = Counter()
    names = {}
    for slot in slots:
        counts[slot.attribute] += 1
        names[f"{slot.attribute}{counts[slot.attribute]}"] = slot.name
    return {names.get(name, name): array for name, array in arrays.items()}


def common_dtype(arrays: Mapping[str, Array]) -> DTypeLike:
    """Return the dtype of all parameters; float32 if there are none.

    Raises
    ------
    ValueError
        If the dtypes differ.
    """
    dtypes = {str(array.dtype) for array in arrays.values()}
    if len(dtypes) > 1:
        found = ", ".join(f"{name} {array.dtype}" for name, array in arrays.items())
        raise ValueError(f"the layers' parameters have different dtypes ({found}); pass dtype=")
    return dtypes.pop() if dtypes else "float32"


class Order:
    """Order of execution of a row of layers.

    Attributes
    ----------
    forward : list of Layer
        The layers, first to last.
    backward : list of Layer
        The layers whose `Layer.backward` runs, last to first. It ends at the first layer with parameters: the gradient
        of the network's input is not used.
    first : list of Layer
        That first layer, which computes the gradient of its parameters only; empty without parameters.
    """

    def __init__(self, layers: Iterable[Layer]) -> None:
        self.forward = row = list(layers)
        start = next((i for i, layer in enumerate(row) if layer.parameters()), len(row))
        self.first = row[start : start + 1]
        self.backward = row[:start:-1] if self.first else []

    def fastest(self) -> Order:
        """Return the order with max pooling before a ReLU in front of it.

        The maximum of max(x, 0) is max(maximum of x, 0). If it is positive, the same pixel is the maximum. So values
        and gradients are the same to the last bit, and the ReLU has a fraction of the work.
        """
        row = list(self.forward)
        for i, (layer, behind) in enumerate(pairwise(self.forward)):
            if type(layer) is Relu and type(behind) is Pooling:
                row[i : i + 2] = behind, layer
        return Order(row)

    def fused(self) -> Order:
        """Return the order with one layer for max pooling and a ReLU behind it, with the same bits.

        It is for CUDA devices, where each operation is a launch.
        """
        row = list(self.forward)
        for i in reversed(range(len(row) - 1)):
            layer, behind = row[i : i + 2]
            if type(layer) is Pooling and type(behind) is Relu:
                row[i : i + 2] = [RectifiedPooling.of(layer)]
                row[i].place = f"{layer.place}, {behind.place}"
        return Order(row)


def penalty(params: ParameterVector, strength: float) -> Array:
    """Return the L2 penalty strength / 2 * sum of W^2, over all parameters ``W...``."""
    return sum(kernels.squared_norm(W) for W in _weights(params)) * (0.5 * strength)


def add_penalty_gradient(grads: ParameterVector, params: ParameterVector, strength: float) -> None:
    """Add the gradient of the penalty, strength * W, in place."""
    for W, dW in zip(_weights(params), _weights(grads), strict=True):
        dW += W * strength


def _weights(vector: ParameterVector) -> list[Array]:
    return [values for name, values in vector.items() if name.startswith("W")]


def unexpected_shape(network: str, shape: tuple[int, ...], expected: tuple[int, ...]) -> ValueError:
    """Return an error about an unexpected shape of samples, with a hint at the remedy."""
    sizes = ", ".join(map(str, expected))
    hint = ""
    if len(shape) == 1 and expected == (1,):
        hint = "; samples of one feature need its axis: x[:, None]"
    elif shape == expected:
        hint = "; a single sample needs a batch axis: x[None]"
    elif shape[1:] == (math.prod(expected),):
        hint = f"; these samples are flat, see load_mnist(flatten=False), or x.reshape(-1, {sizes})"
    return ValueError(f"{network} expected x of shape (N, {sizes}), got {shape}{hint}")


def unexpected_device(network: str, device: Device, name: str, x: Any) -> DeviceError:
    """Return the error that an argument is not on the network's device."""
    where = "on the host" if is_on_host(x) else f"on {get_device(x)}"
    return DeviceError(f"{network} is on {device}, but {name} is {where}; move it with net.device.asarray({name})")

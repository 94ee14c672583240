"""Weights of networks in the layout of PyTorch's ``state_dict``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from xpnet import layers
from xpnet.device import as_array, asnumpy
from xpnet.extras import import_extra
from xpnet.layers import Layer
from xpnet.nets import Network

__all__ = ["load_state_dict", "to_state_dict"]

NAMES: dict[type[Layer], dict[str, str]] = {
    layers.Affine: {"W": "weight", "b": "bias"},
    layers.Convolution: {"W": "weight", "b": "bias"},
    layers.Embedding: {"W": "weight"},
    layers.LayerNorm: {"gamma": "weight", "beta": "bias"},
    layers.BatchNormalization: {"gamma": "weight", "beta": "bias"},
    layers.Dropout: {"state": ""},  # PyTorch's has none
}
"""PyTorch's names of a layer's arrays, empty for what it does not have. Other arrays keep their names."""

COUNT = "num_batches_tracked"
"""A number in PyTorch's batch normalization, which only its cumulative average uses. xpnet has no such average."""


class _Entry(NamedTuple):
    """An array of a network, and its place in a ``state_dict``.

    Attributes
    ----------
    layer : Layer
        The owner.
    array : array
        The parameter or buffer.
    state : str
        Its name in `Network.state`.
    module, name : str
        Names of the module and the array in PyTorch: ``"0"`` and ``"weight"``.
    """

    layer: Layer
    array: Any
    state: str
    module: str
    name: str

    @property
    def key(self) -> str:
        return f"{self.module}.{self.name}"

    def transposed(self, array: Any) -> Any:
        """Return an array of one library in the layout of the other. PyTorch's linear layers have (outputs, inputs)."""
        return array.T if isinstance(self.layer, layers.Affine) else array


def to_state_dict(net: Network) -> dict[str, Any]:
    """Return copies of a network's parameters and buffers as a ``state_dict``. Needs ``xpnet[torch]``.

    The names are those of a ``torch.nn.Sequential`` with a module for each layer: ``"0.weight"``, ``"0.bias"``,
    ``"2.weight"`` ... The layers of a `Residual` count from 0 again: ``"1.0.weight"``.

    Parameters
    ----------
    net : Network
        A network of any device.

    Returns
    -------
    dict of str to torch.Tensor
        Tensors on the CPU, for ``module.load_state_dict``. For a module with other names but the same order::

            module.load_state_dict(dict(zip(module.state_dict(), to_state_dict(net).values())))
    """
    torch = import_extra("torch", "torch")
    found = {}
    for entry in _entries(net):
        found[entry.key] = torch.from_numpy(np.array(entry.transposed(asnumpy(entry.array)), order="C"))
        if isinstance(entry.layer, layers.BatchNormalization) and entry.name == "running_var":
            found[f"{entry.module}.{COUNT}"] = torch.tensor(0)
    return found


def load_state_dict(net: Network, state_dict: Mapping[str, Any], names: Mapping[str, str] | None = None) -> None:
    """Read a ``state_dict`` into a network, in place. All arrays are checked before any is changed.

    The modules of `state_dict` are taken by name if it has the names of `to_state_dict`, else in its order. Files of
    safetensors are in another order. There names that differ in numbers only are taken in the order of the numbers;
    others need `names`. Within a module arrays are taken by name. A linear or convolutional module without a bias has
    the bias 0.

    Parameters
    ----------
    net : Network
        A network of any device.
    state_dict : mapping of str to tensor or array
        From ``module.state_dict()``, ``torch.load`` or ``safetensors.torch.load_file``.
    names : mapping of str to str, optional
        The module of `state_dict` for each module of `to_state_dict`: ``{"0": "features.conv", "3": "head"}``.

    Raises
    ------
    ValueError
        If modules, arrays or shapes differ from the network's. Nothing is changed then.
    """
    entries = _entries(net)
    mine = list(dict.fromkeys(entry.module for entry in entries))
    partner = _partners(mine, state_dict) if names is None else _named(names, mine, _modules(state_dict))
    state = net.state()
    used = set()
    for entry in entries:
        key = ".".join(filter(None, (partner[entry.module], entry.name)))
        value = _value(entry, key, state_dict, net.dtype)
        if entry.transposed(value).shape != entry.array.shape:
            wanted = entry.transposed(entry.array).shape
            raise ValueError(
                f"{entry.state} of {entry.layer.name} is {entry.key} of shape {wanted} in PyTorch, but {key} of "
                f"state_dict has shape {value.shape}"
            )
        state[entry.state] = entry.transposed(value)
        used.add(key)
    left = [key for key in state_dict if key not in used and key.rpartition(".")[2] != COUNT]
    if left:
        raise ValueError(f"state_dict has {left[0]}, which has no counterpart in this {type(net).__name__}")
    net.load_state(state)


def _entries(net: Network) -> list[_Entry]:
    """Return the arrays of a network in PyTorch's order."""
    if not isinstance(net, Network):
        raise TypeError(f"net must be an xpnet.nets.Network, got {type(net).__name__}")
    parameters = {(slot.layer, slot.attribute): slot.name for slot in net.slots}
    found = []
    for path, place, layer in _numbered(net.layers, "", ""):
        names = next((NAMES[cls] for cls in type(layer).__mro__ if cls in NAMES), {})
        for attribute in (*layer.parameter_names, *layer.buffer_names):
            if name := names.get(attribute, attribute):
                state = parameters.get((layer, attribute), f"{place}.{attribute}")
                found.append(_Entry(layer, getattr(layer, attribute), state, path, name))
    return found


def _numbered(parts: Mapping[str, Layer], path: str, place: str) -> Iterator[tuple[str, str, Layer]]:
    """Iterate over layers and their parts: the numbers that lead there, the name in the network, the layer."""
    for i, (name, layer) in enumerate(parts.items()):
        yield f"{path}{i}", f"{place}{name}", layer
        yield from _numbered(layer.parts, f"{path}{i}.", f"{place}{name}.")


def _modules(state_dict: Mapping[str, Any]) -> list[str]:
    """Return the names of the modules with arrays, in the order of `state_dict`."""
    if not all(isinstance(key, str) for key in state_dict):
        raise TypeError(f"the names in state_dict must be texts, got {[*state_dict]}")
    return list(dict.fromkeys(key.rpartition(".")[0] for key in state_dict if not key.endswith(COUNT)))


def _partners(mine: list[str], state_dict: Mapping[str, Any]) -> dict[str, str]:
    """Match modules by name, or else by order."""
    modules = _modules(state_dict)
    if set(mine) == set(modules):
        return {module: module for module in mine}
    if len(mine) != len(modules):
        raise ValueError(
            f"state_dict has {len(modules)} modules with arrays ({', '.join(modules)}), the network has {len(mine)} "
            f"({', '.join(mine)})"
        )
    if len(modules) > 1 and not _has_order_of_pytorch(list(state_dict)):
        if len({re.sub(r"[\d.]+", "", module) for module in modules}) > 1:
            raise ValueError(
                "state_dict is not in the order of a module's layers, as of a safetensors file; pass names=, a mapping "
                f"from {', '.join(mine)} to {', '.join(modules)}"
            )
        modules.sort(key=lambda module: [int(number) for number in re.findall(r"\d+", module)])
    return dict(zip(mine, modules, strict=True))


def _has_order_of_pytorch(keys: list[str]) -> bool:
    """Whether names can be in the order of a ``state_dict``, where each weight comes before its bias."""
    place = {key: i for i, key in enumerate(keys)}
    weights = {key: f"{key.removesuffix('bias')}weight" for key in keys if key.endswith("bias")}
    return keys != sorted(keys) and all(place.get(weight, -1) < place[bias] for bias, weight in weights.items())


def _named(names: Mapping[str, str], mine: list[str], modules: list[str]) -> dict[str, str]:
    """Check a mapping of modules."""
    if names.keys() != set(mine):
        raise ValueError(f"names must have the keys {', '.join(mine)}, the modules of the network; got {[*names]}")
    if missing := [name for name in names.values() if name not in modules]:
        raise ValueError(f"names has {missing[0]!r}, but the modules of state_dict are {', '.join(modules)}")
    return dict(names)


def _value(entry: _Entry, key: str, state_dict: Mapping[str, Any], dtype: np.dtype[Any]) -> Any:
    """Return an array of a ``state_dict`` on the host."""
    if key not in state_dict:
        if entry.name == "bias" and isinstance(entry.layer, (layers.Affine, layers.Convolution)):
            return np.zeros(entry.array.shape, dtype)
        raise ValueError(f"state_dict has no {key}, for {entry.state} of {entry.layer.name}")
    value = state_dict[key]
    if hasattr(value, "detach"):  # a tensor: of a device, with a gradient, or of a dtype that NumPy does not have
        torch = import_extra("torch", "torch")
        value = value.detach().to("cpu", getattr(torch, dtype.name)).numpy()
    return asnumpy(as_array(key, value))

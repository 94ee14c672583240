"""Weights of networks in the layout of PyTorch's ``state_dict``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from xpnet import layers
from xpnet.device import as_array, asnumpy
from xpnet.extras import import_extra
from xpnet.interop.recurrent import hidden_bias, is_one_layer
from xpnet.layers import Layer
from xpnet.layers.recurrent import Recurrent
from xpnet.nets import Network

__all__ = ["load_state_dict", "to_state_dict"]

NAMES: dict[type[Layer], dict[str, str]] = {
    layers.Affine: {"W": "weight", "b": "bias"},
    layers.Convolution: {"W": "weight", "b": "bias"},
    layers.Embedding: {"W": "weight"},
    layers.Unembedding: {"W": "weight"},
    layers.LearnedPositionalEncoding: {"W": "weight"},
    layers.LayerNorm: {"gamma": "weight", "beta": "bias"},
    layers.BatchNormalization: {"gamma": "weight", "beta": "bias"},
    layers.MultiHeadAttention: {
        "W": "in_proj_weight",
        "b": "in_proj_bias",
        "Wo": "out_proj.weight",
        "bo": "out_proj.bias",
    },
    Recurrent: {"Wx": "weight_ih_l0", "Wh": "weight_hh_l0", "b": "bias_ih_l0", "bn": "", "state": ""},
    layers.Dropout: {"state": ""},  # PyTorch's has none
}
"""PyTorch's names of a layer's arrays, empty for what it does not have. Other arrays keep their names."""

HIDDEN_BIAS = "bias_hh_l0"
"""PyTorch's second bias of a recurrent layer (`xpnet.interop.recurrent.hidden_bias`)."""

BIASED = (layers.Affine, layers.Convolution, layers.MultiHeadAttention, Recurrent)
"""Layers whose module in PyTorch may have no bias."""

TRANSPOSED = (layers.Affine, layers.MultiHeadAttention, Recurrent)
"""Layers whose matrices have the axes (outputs, inputs) in PyTorch."""

COUNT = "num_batches_tracked"
"""A number in PyTorch's batch normalization, which only its cumulative average uses. xpnet has no such average."""


class _Entry(NamedTuple):
    """An array of a ``state_dict``, and its place in a network.

    Attributes
    ----------
    layer : Layer
        The layer that uses it.
    attribute : str
        The layer's parameter or buffer, or `HIDDEN_BIAS`.
    array : array
        Its value, in PyTorch's layout.
    state : str
        Name of the parameter or buffer in `Network.state`.
    key : str
        Name in PyTorch: ``"0.weight"``.
    tied : bool
        Whether the parameter is of another layer.
    """

    layer: Layer
    attribute: str
    array: Any
    state: str
    key: str
    tied: bool = False

    @property
    def module(self) -> str:
        return self.key.rpartition(".")[0]

    @property
    def name(self) -> str:
        return self.key.rpartition(".")[2]


def to_state_dict(net: Network) -> dict[str, Any]:
    """Return copies of a network's parameters and buffers as a ``state_dict``. Needs ``xpnet[torch]``.

    The names are those of a ``torch.nn.Sequential`` with a module for each layer: ``"0.weight"``, ``"0.bias"``,
    ``"2.weight"`` ... The layers of a `Residual` count from 0 again: ``"1.0.weight"``. A recurrent layer has the names
    of ``torch.nn.LSTM`` with one layer, and attention those of ``torch.nn.MultiheadAttention``.

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
        found[entry.key] = torch.from_numpy(np.array(asnumpy(entry.array), order="C"))
        if isinstance(entry.layer, layers.BatchNormalization) and entry.name == "running_var":
            found[f"{entry.module}.{COUNT}"] = torch.tensor(0)
    return found


def load_state_dict(net: Network, state_dict: Mapping[str, Any], names: Mapping[str, str] | None = None) -> None:
    """Read a ``state_dict`` into a network, in place. All arrays are checked before any is changed.

    The modules of `state_dict` are taken by name if it has the names of `to_state_dict`, else in its order. Files of
    safetensors are in another order. There names that differ in numbers only are taken in the order of the numbers;
    others need `names`. Within a module arrays are taken by name. A linear, convolutional, recurrent or attention
    module without a bias has the bias 0. Tied weights may be there once, or several times with equal values.

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
    modules = _modules(state_dict)
    own = [entry for entry in entries if not entry.tied]
    if len(names if names is not None else modules) == len({entry.module for entry in own}):
        entries = own  # tied weights are there once
    mine = list(dict.fromkeys(entry.module for entry in entries))
    partner = _partners(mine, state_dict) if names is None else _named(names, mine, modules)
    values: dict[Layer, dict[str, Any]] = {}
    left = dict.fromkeys(key for key in state_dict if key.rpartition(".")[2] != COUNT)
    for entry in entries:
        key = ".".join(filter(None, (partner[entry.module], entry.name)))
        value = values.setdefault(entry.layer, {})[entry.attribute] = _value(entry, key, state_dict, net.dtype)
        if value.shape != entry.array.shape:
            raise ValueError(
                f"{entry.state} of {entry.layer.name} is {entry.key} of shape {entry.array.shape} in PyTorch, but "
                f"{key} of state_dict has shape {value.shape}"
            )
        left.pop(key, None)
    if left:
        raise ValueError(f"state_dict has {next(iter(left))}, which has no counterpart in this {type(net).__name__}")
    names_of_state = _names_of_state(net)
    found: dict[str, Any] = {}
    for layer, arrays in values.items():
        for attribute, array in _from_pytorch(layer, arrays).items():
            name = names_of_state[layer, attribute]
            if not np.array_equal(found.setdefault(name, array), array, equal_nan=True):
                raise ValueError(
                    f"{layer.name} uses {name} of another layer, but state_dict has different values for the two; "
                    "untie the layers, or leave the second array out"
                )
    net.load_state({**net.state(), **found})


def _entries(net: Network) -> list[_Entry]:
    """Return the arrays of a network in PyTorch's order."""
    if not isinstance(net, Network):
        raise TypeError(f"net must be an xpnet.nets.Network, got {type(net).__name__}")
    names_of_state, found = _names_of_state(net), []
    for path, suffix, layer in _numbered(net.layers, ""):
        names = next((NAMES[cls] for cls in type(layer).__mro__ if cls in NAMES), {})
        for attribute, array in _to_pytorch(layer).items():
            if name := names.get(attribute, attribute):
                own = attribute if attribute != HIDDEN_BIAS else "bn" if isinstance(layer, layers.GRU) else "b"
                state, tied = names_of_state[layer, own], attribute in layer.tied
                found.append(_Entry(layer, attribute, array, state, f"{path}.{name}{suffix}", tied))
    return found


def _names_of_state(net: Network) -> dict[tuple[Layer, str], str]:
    """Return the names in `Network.state` of what layers own and use, by layer and attribute."""
    buffers = {(part, key): f"{name}.{key}" for name, part in net.modules().items() for key in part.buffer_names}
    return {(slot.layer, slot.attribute): slot.name for slot in (*net.slots, *net.tied)} | buffers


def _numbered(parts: Mapping[str, Layer], path: str) -> Iterator[tuple[str, str, Layer]]:
    """Iterate over layers and their parts: the numbers that lead there, the end of the arrays' names, the layer."""
    for i, layer in enumerate(parts.values()):
        yield f"{path}{i}", "", layer
        if isinstance(layer, layers.Bidirectional) and is_one_layer(layer):
            yield f"{path}{i}", "", layer.ahead
            yield f"{path}{i}", "_reverse", layer.back
        else:
            yield from _numbered(layer.parts, f"{path}{i}.")


def _to_pytorch(layer: Layer) -> dict[str, Any]:
    """Return a layer's arrays in PyTorch's layout, by attribute."""
    attributes = (*layer.parameter_names, *layer.tied, *layer.buffer_names)
    found = {name: getattr(layer.tied.get(name, layer), name) for name in attributes}
    if isinstance(layer, TRANSPOSED):
        found = {name: array.T for name, array in found.items()}
    if isinstance(layer, Recurrent):
        found[HIDDEN_BIAS] = hidden_bias(layer)
    return found


def _from_pytorch(layer: Layer, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Return a layer's arrays by attribute, given those in PyTorch's layout."""
    found = {name: array.T if isinstance(layer, TRANSPOSED) else array for name, array in arrays.items()}
    if isinstance(layer, Recurrent):
        hidden = found.pop(HIDDEN_BIAS)
        if isinstance(layer, layers.GRU):
            start = len(hidden) - len(layer.bn)
            found["bn"], hidden = hidden[start:], np.append(hidden[:start], np.zeros_like(hidden[start:]))
        found["b"] = found["b"] + hidden
    return found


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
        if "bias" in entry.name and isinstance(entry.layer, BIASED):
            return np.zeros(entry.array.shape, dtype)
        raise ValueError(f"state_dict has no {key}, for {entry.state} of {entry.layer.name}")
    value = state_dict[key]
    if hasattr(value, "detach"):  # a tensor: of a device, with a gradient, or of a dtype that NumPy does not have
        torch = import_extra("torch", "torch")
        value = value.detach().to("cpu", getattr(torch, dtype.name)).numpy()
    return asnumpy(as_array(key, value))

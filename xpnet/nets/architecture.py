"""Files from which a network is rebuilt: its architecture as JSON, parameters and buffers as arrays."""

from __future__ import annotations

import importlib
import inspect
import json
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from xpnet import layers
from xpnet.device import Device, asnumpy
from xpnet.graph import Constant, Input, Value
from xpnet.layers import Layer
from xpnet.nets.graph_network import GraphNetwork
from xpnet.nets.network import Network
from xpnet.nets.sequential import Sequential
from xpnet.tensors import read_tensors, write_tensors

__all__ = ["load", "save"]

VERSION = 1
"""Version of the description. Files of later versions are refused."""


def save(net: Network, file: str | Path) -> None:
    """Write a network to a file; see `Network.save`."""
    writer = _Writer(net)
    description = {
        "version": VERSION,
        "network": _home(net).__name__,
        "dtype": net.dtype.name,
        "input_shape": net.input_shape,
        "weight_decay_lambda": net.weight_decay_lambda,
        "layers": {name: writer.layer(layer) for name, layer in net.layers.items()},
        "loss": writer.layer(net.last_layer),
    }
    if isinstance(net, GraphNetwork):
        description["nodes"] = [writer.node(*node) for node in net.nodes()]
    write_tensors(file, "model", json.dumps(description), writer.arrays)


def load(file: str | Path, device: Device | str = "cpu", *, trusted: Iterable[type[Layer] | str] = ()) -> Network:
    """Return the network in a file that `Network.save` wrote. Needs ``xpnet[cli]``.

    The file has the layers' classes and arguments, no code. Layers of xpnet are rebuilt from it. Other classes are
    imported only if they are trusted.

    Parameters
    ----------
    file : str or Path
        The file, ``model.safetensors`` in a run folder.
    device : Device or str, default "cpu"
        Device of the network, whatever the device was when it was saved.
    trusted : iterable of class or str
        Layers that are not of xpnet, as classes or as import paths such as ``"mypackage.layers.Scale"``.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is damaged, of a later version of xpnet, or needs a layer that is not trusted.
    """
    device = Device(device)
    if isinstance(trusted, str):
        raise TypeError(f"trusted must be a list of classes or import paths, got the text {trusted!r}")
    if zipfile.is_zipfile(file):
        raise ValueError(f"{file} holds parameters only; build the network, and call its load_params")
    text, arrays = read_tensors(file, "model")
    try:
        description = json.loads(text)
        if (version := description["version"]) != VERSION:
            raise ValueError(f"its version is {version}, this xpnet reads {VERSION}; install a newer xpnet")
        return _Reader(arrays, trusted).network(description, device)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:  # of a constructor, say
        raise ValueError(f"{file} is not a model that can be rebuilt: {error}") from error


def _home(net: Network) -> type[Network]:
    """Return the class of xpnet that a network is rebuilt as.

    Raises
    ------
    TypeError
        If the network's own class does more than its constructor.
    """
    cls = type(net)
    for base in cls.__mro__:
        if base.__module__.startswith("xpnet."):
            return base
        if own := [name for name, value in vars(base).items() if callable(value) and name != "__init__"]:
            raise TypeError(
                f"{cls.__name__} defines {own[0]}, which a file cannot hold; use save_params, or connect the layers "
                "in a Sequential or a GraphNetwork"
            )
    raise AssertionError("a network is of a class of xpnet")


def _is_ours(cls: type[Layer]) -> bool:
    return getattr(layers, cls.__name__, None) is cls


def _path(cls: type[Layer]) -> str:
    """Return the name of a class in a file: that of a layer of xpnet, or an import path."""
    return cls.__name__ if _is_ours(cls) else f"{cls.__module__}.{cls.__qualname__}"


class _Writer:
    """Describes layers as values that JSON has, and collects the arrays beside them.

    Attributes
    ----------
    arrays : dict of str to array
        Parameters and buffers of the network by name, and the layers' further arrays.
    """

    def __init__(self, net: Network) -> None:
        self.arrays = net.state()
        self._layers = {id(layer): name for name, layer in net.layers.items()}
        self._names = {(id(slot.layer), slot.attribute): slot.name for slot in net.slots}
        for name, layer in net.modules().items():
            self._names |= {(id(layer), key): f"{name}.{key}" for key in layer.buffer_names}

    def layer(self, layer: Layer) -> dict[str, Any]:
        config = {name: self._value(layer, name, value) for name, value in layer.config().items()}
        return {"class": _path(type(layer)), "config": config}

    def node(self, value: Any, sources: tuple[int, ...]) -> dict[str, Any]:
        if sources:
            return {"layer": value, "inputs": sources}
        return {} if value is None else {"constant": self._leaf(f"constant{len(self.arrays)}", value)}

    def _value(self, layer: Layer, name: str, value: Any) -> Any:
        if isinstance(value, Layer):  # another layer of the network, or a part
            return {"layer": self._layers[id(value)]} if id(value) in self._layers else self.layer(value)
        if isinstance(value, (list, tuple)):
            return [self._value(layer, name, item) for item in value]
        return self._leaf(self._names.get((id(layer), name), f"{layer.name}.{name}"), value)

    def _leaf(self, name: str, value: Any) -> Any:
        """Return a number or text as it is, and a reference to an array."""
        if getattr(value, "shape", ()) != ():
            self.arrays.setdefault(name, asnumpy(value))
            return {"array": name}
        value = value.item() if hasattr(value, "item") else value
        if not isinstance(value, (bool, int, float, str, type(None))):
            raise TypeError(
                f"{name} is {value!r}, a {type(value).__name__}; the arguments in Layer.config() must be numbers, "
                "texts, arrays, layers, or sequences of them"
            )
        return value


class _Reader:
    """Rebuilds layers and networks from their descriptions."""

    def __init__(self, arrays: Mapping[str, np.ndarray], trusted: Iterable[type[Layer] | str]) -> None:
        self._arrays = arrays
        self._row: dict[str, Any] = {}
        self._trusted = {cls if isinstance(cls, str) else _path(cls): cls for cls in trusted}

    def network(self, description: Mapping[str, Any], device: Device) -> Network:
        from xpnet import nets

        name = description["network"]
        if name not in nets.__all__:
            raise ValueError(f"there is no network {name!r} in this version of xpnet")
        cls, dtype = getattr(nets, name), description["dtype"]
        row = self._row
        for key, layer in description["layers"].items():
            row[key] = self._layer(layer)
        loss = self._layer(description["loss"])
        net: Network = cls.__new__(cls)  # its own constructor would draw weights
        if isinstance(net, GraphNetwork):
            GraphNetwork.__init__(net, self._graph(description["nodes"], row, loss), device=device, dtype=dtype)
        elif isinstance(net, Sequential):
            shape = description["input_shape"]
            Sequential.__init__(net, row, loss, input_shape=shape and tuple(shape), device=device, dtype=dtype)
        else:
            Network.__init__(net, row, loss, device=device, dtype=dtype)
        net.weight_decay_lambda = description["weight_decay_lambda"]
        own = net.state().keys()
        net.load_state({key: array for key, array in self._arrays.items() if key in own})
        return net

    def _graph(self, nodes: Iterable[Mapping[str, Any]], row: Mapping[str, Layer], loss: Layer) -> Value:
        values: list[Value] = []
        for node in nodes:
            if "layer" in node:
                values.append(row[node["layer"]](*(values[i] for i in node["inputs"])))
            else:
                values.append(Constant(self._value(node["constant"])) if "constant" in node else Input("x"))
        return Value(loss, (values[-1], Input("t")))

    def _layer(self, description: Mapping[str, Any]) -> Any:
        cls = self._class(description["class"])
        given = {name: self._value(value) for name, value in description["config"].items()}
        parameters = inspect.signature(cls).parameters if given else {}
        several = [name for name, p in parameters.items() if p.kind is p.VAR_POSITIONAL]
        positional = [part for name in several for part in given.pop(name)]
        return cls(*positional, **given)

    def _value(self, value: Any) -> Any:
        if isinstance(value, list):
            return tuple(self._value(item) for item in value)
        if isinstance(value, dict) and "layer" in value:
            return self._row[value["layer"]]
        if isinstance(value, dict):
            return self._arrays[value["array"]] if "array" in value else self._layer(value)
        return value

    def _class(self, path: str) -> type[Layer]:
        if path in layers.__all__:
            found = getattr(layers, path)
        elif path in self._trusted:
            found = self._trusted[path]
            if isinstance(found, str):
                module, _, name = path.rpartition(".")
                found = getattr(importlib.import_module(module), name)
        else:
            raise ValueError(
                f"it needs the layer {path}, which is not of xpnet; if you trust it, pass trusted=[{path!r}]"
            )
        if not (isinstance(found, type) and issubclass(found, Layer)):
            raise ValueError(f"{path} is no layer")
        return found

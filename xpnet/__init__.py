"""Neural networks on the array library you already have.

Layers are written once, in terms of an array module `xp`. They run on NumPy (CPU) or CuPy (CUDA), selected by one
argument::

    import xpnet
    from xpnet.datasets import load_mnist
    from xpnet.nets import TwoLayerNet
    from xpnet.training import Trainer

    (x_train, t_train), (x_test, t_test) = load_mnist()
    net = TwoLayerNet(784, 50, 10, device="cuda", seed=0)
    Trainer(net, x_train, t_train, x_test, t_test, epochs=16, optimizer_param={"lr": 0.1}, seed=0).train()

Each name is imported when it is first used. The names below need only NumPy. Functions that need CuPy or another
optional package import it.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xpnet import datasets, functions, gradient, initializers, layers, nets, optimizers, training
    from xpnet.device import Device, DeviceError, asnumpy, get_array_module, get_device, map_location
    from xpnet.nets import load
    from xpnet.parameters import ParameterVector

__version__ = "0.2.0"  # the one place of the version: the build reads it here

__all__ = [
    "Device",
    "DeviceError",
    "ParameterVector",
    "asnumpy",
    "datasets",
    "functions",
    "get_array_module",
    "get_device",
    "gradient",
    "initializers",
    "layers",
    "load",
    "map_location",
    "nets",
    "optimizers",
    "training",
]

_HOMES = {
    **dict.fromkeys(("Device", "DeviceError", "asnumpy", "get_array_module", "get_device", "map_location"), "device"),
    "ParameterVector": "parameters",
    "load": "nets",
}
"""Modules of the names that are no modules themselves."""


def __getattr__(name: str) -> Any:
    # Imports at first use: NumPy takes most of the time in which a command can't answer Ctrl-C yet.
    if name not in __all__:
        raise AttributeError(f"module 'xpnet' has no attribute {name!r}")
    module = importlib.import_module(f"xpnet.{_HOMES.get(name, name)}")
    value = globals()[name] = getattr(module, name) if name in _HOMES else module
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""Neural networks on the array library you already have.

Layers are written once against an `xp` array module and run on NumPy (CPU) or CuPy (CUDA) by one flag::

    import xpnet
    from xpnet.datasets import load_mnist
    from xpnet.nets import TwoLayerNet
    from xpnet.training import Trainer

    (x_train, t_train), (x_test, t_test) = load_mnist()
    net = TwoLayerNet(784, 50, 10, device="cuda", seed=0)
    Trainer(net, x_train, t_train, x_test, t_test, epochs=16, optimizer_param={"lr": 0.1}, seed=0).train()

Importing xpnet imports NumPy and nothing heavier; CuPy and everything else that is optional is imported by the
functions that need it.
"""

from xpnet import datasets, functions, gradient, initializers, layers, nets, optimizers, training
from xpnet.device import Device, DeviceError, asnumpy, get_array_module, get_device
from xpnet.parameters import ParameterVector

__version__ = "0.1.0"

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
    "nets",
    "optimizers",
    "training",
]

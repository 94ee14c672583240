"""The backends and precisions that there are, and whether one can be used here."""

import importlib.util
from typing import Literal, get_args

import numpy as np

from xpnet.device import Device
from xpnet.typing import DTypeLike

__all__ = ["Backend", "Precision", "check_precision", "choose_backend"]

Backend = Literal["numpy", "numba"]
"""What computes on the CPU."""

Precision = Literal["float32", "tf32", "float16"]
"""Of the matrix products of float32 on a CUDA device: in full, or with inputs rounded to TF32's 10 bits, on tensor
cores. Or of a training step of a float32 network, all of whose layers compute in float16 (`xpnet.steps.mixed`)."""


def choose_backend(name: Backend | None, dtype: DTypeLike, gains: bool = False) -> Backend:
    """Return the backend's name, having made sure that it is there and computes in that dtype.

    Without a name it is Numba where it can be, and `gains` says that it is much faster for what is to be computed.

    Raises
    ------
    ModuleNotFoundError
        If it is not installed.
    ValueError
        If there is none of that name, or it does not compute in that dtype.
    """
    if name is not None and name not in get_args(Backend):
        raise ValueError(f"backend must be one of {', '.join(map(repr, get_args(Backend)))}, got {name!r}")
    known, installed = np.dtype(dtype) != "float16", importlib.util.find_spec("numba") is not None
    if name is None:
        return "numba" if gains and known and installed else "numpy"
    if name == "numba" and not known:
        raise ValueError("the backend 'numba' computes in float32 and float64, got float16; use 'numpy'")
    if name == "numba" and not installed:
        raise ModuleNotFoundError("the backend 'numba' needs Numba; install it with pip install 'xpnet[numba]'")
    return name


def check_precision(name: Precision, device: Device, dtype: DTypeLike) -> Precision:
    """Return a precision, having made sure that products of that dtype have it on that device.

    Raises
    ------
    ValueError
        If they do not.
    """
    if name not in get_args(Precision):
        raise ValueError(f"precision must be one of {', '.join(map(repr, get_args(Precision)))}, got {name!r}")
    if name == "float16" and dtype != "float32":
        raise ValueError(
            f"precision 'float16' is for steps of a float32 network, got {dtype}; pass dtype='float32' to it"
        )
    if name == "tf32" and (device.name == "cpu" or dtype != "float32"):
        raise ValueError(f"precision {name!r} is for float32 on a CUDA device, got {dtype} on {device}")
    return name

"""Names of backends and precisions, and checks that they are available."""

import importlib.util
import warnings
from typing import Literal, get_args

import numpy as np

from xpnet.device import Device
from xpnet.extras import import_extra
from xpnet.settings import choice
from xpnet.typing import DTypeLike

__all__ = ["Backend", "Precision", "check_precision", "choose_backend"]

Backend = Literal["numpy", "numba"]
"""Backend for arrays on the CPU."""

Precision = Literal["float32", "tf32", "float16"]
"""Precision of computation in float32.

``"float32"`` computes matrix products in full precision. ``"tf32"``, on CUDA devices, rounds their inputs to TF32's 10
bits and uses tensor cores. ``"float16"`` runs all layers of a training step in float16 (`xpnet.steps.mixed`).
"""


def choose_backend(name: Backend | None, dtype: DTypeLike, gains: bool = False) -> Backend:
    """Check a backend's name, or choose one, and return it.

    Parameters
    ----------
    name : {"numpy", "numba"}, optional
        The backend to check. By default Numba if it is installed, supports the dtype and `gains`; else NumPy. If Numba
        is installed but does not work, a RuntimeWarning says so, and the choice is NumPy.
    dtype : dtype
        The dtype to compute in.
    gains : bool, default False
        Whether Numba is much faster for this computation.

    Raises
    ------
    ModuleNotFoundError
        If the backend is not installed.
    ImportError
        If the backend is given by name, and installed, but does not work.
    ValueError
        If no backend has this name, or the backend does not support the dtype.
    """
    if name is not None:
        choice("backend", name, get_args(Backend))
    known, installed = np.dtype(dtype) in (np.float32, np.float64), importlib.util.find_spec("numba") is not None
    if name is None and not (gains and known and installed):
        return "numpy"
    if name == "numba" and not known:
        raise ValueError(f"the backend 'numba' computes in float32 and float64, got {np.dtype(dtype)}; use 'numpy'")
    if name == "numba" and not installed:
        raise ModuleNotFoundError("the backend 'numba' needs Numba; install it with pip install 'xpnet[numba]'")
    if name != "numpy":
        try:
            _check_numba()
        except ImportError as error:
            if name is not None:
                raise ImportError(f"the backend 'numba' does not work: {error}, or use backend='numpy'") from error
            warnings.warn(
                f"computing with NumPy, which is slower than Numba here: {error}, or choose backend='numpy'",
                RuntimeWarning,
                stacklevel=4,  # the caller of net.compile
            )
            return "numpy"
    return name or "numba"


def _check_numba() -> None:
    """Import what the backend needs; an ImportError says what does not work."""
    import_extra("xpnet.kernels.numba", "numba")
    for module in ("scipy.linalg.cython_blas", "threadpoolctl"):  # for products of matrices only
        if importlib.util.find_spec(module.partition(".")[0]) is not None:
            import_extra(module, "numba")
    if import_extra("numba", "numba").config.DISABLE_JIT:
        raise ImportError("Numba's compiler is disabled; unset NUMBA_DISABLE_JIT")


def check_precision(name: Precision, device: Device, dtype: DTypeLike) -> Precision:
    """Check that a precision is available for a dtype and device, and return it.

    Raises
    ------
    ValueError
        If it is not.
    """
    choice("precision", name, get_args(Precision))
    if name == "float16" and dtype != "float32":
        raise ValueError(
            f"precision 'float16' is for steps of a float32 network, got {dtype}; pass dtype='float32' to it"
        )
    if name == "tf32" and (device.name == "cpu" or dtype != "float32"):
        raise ValueError(f"precision {name!r} is for float32 on a CUDA device, got {dtype} on {device}")
    return name

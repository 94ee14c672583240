"""Arguments from outside, read as arrays: lists, tables, and arrays of other libraries."""

from typing import Any

import numpy as np

from xpnet.device import is_on_host
from xpnet.typing import Array

__all__ = ["REAL", "as_array", "as_indices", "check_equally_many"]

REAL = "fiub"
"""Kinds of dtypes of real numbers: floats, integers, booleans."""

CUDA = 2
"""DLPack's number of device memory (``kDLCUDA``)."""


def as_array(name: str, x: Any) -> Array:
    """Return an argument as an array of real numbers in the machine's byte order.

    Networks, training steps, trainers and graphs read their data by this function. A CuPy array stays on its device.
    An array of another library on a CUDA device becomes a CuPy array without a copy, by DLPack. All else is read as by
    ``numpy.asarray``: lists, tables of pandas or polars, PyTorch's and JAX's arrays. Columns of several dtypes get
    their common dtype. No value is scaled: `xpnet.kernels.as_floats` reads pixels.

    Parameters
    ----------
    name : str
        The argument's name, for errors.
    x : array_like
        The argument.

    Raises
    ------
    TypeError
        If `x` is no array of real numbers: a sparse matrix, complex numbers, dates.
    ValueError
        If a value is no number, such as a string; if rows have different lengths; or if values are masked.
    """
    if type(x) is np.ndarray and x.dtype.kind in REAL and x.dtype.isnative:
        return x
    if hasattr(x, "toarray"):
        raise TypeError(f"{name} must be a dense array, got a sparse {type(x).__name__}; see {name}.toarray()")
    if is_on_host(x):
        x = _on_cuda(x) if _is_on_cuda(x) else _on_host(name, x)
    if x.dtype.kind not in REAL:
        raise TypeError(f"{name} must hold real numbers, got dtype {x.dtype}")
    return x if x.dtype.isnative else x.astype(x.dtype.newbyteorder("="))


def as_indices(name: str, x: Any, length: int) -> Array:
    """Return an argument as an array of int64 indices of `length` elements.

    Raises
    ------
    TypeError
        If the indices are not integers.
    IndexError
        If an index is out of range. On a CUDA device, where a check would wait for the queue, it is not checked.
    """
    x = as_array(name, x)
    if x.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers, got dtype {x.dtype}")
    if is_on_host(x) and x.size and not (x.min() >= 0 and x.max() < length):
        raise IndexError(f"{name} must lie in [0, {length}), got {x.min()} to {x.max()}")
    return x.astype("int64", copy=False)


def check_equally_many(**arrays: Array) -> None:
    """Raise a ValueError if arrays, given by name, have different lengths, or none."""
    for name, array in arrays.items():
        if array.ndim == 0:
            raise ValueError(f"{name} must hold an entry per sample, got a single number")
    if len({len(array) for array in arrays.values()}) > 1:
        lengths = " and ".join(str(len(array)) for array in arrays.values())
        raise ValueError(f"{' and '.join(arrays)} must be equally many, got {lengths}")


def _is_on_cuda(x: Any) -> bool:
    """Whether another library's array is in the memory of a CUDA device."""
    return not isinstance(x, np.ndarray) and hasattr(x, "__dlpack_device__") and x.__dlpack_device__()[0] == CUDA


def _on_cuda(x: Any) -> Array:
    import cupy

    return cupy.from_dlpack(x)


def _on_host(name: str, x: Any) -> np.ndarray:
    if isinstance(x, np.ma.MaskedArray) and np.ma.is_masked(x):
        raise ValueError(f"{name} has masked values; see {name}.filled(value)")
    try:
        array = np.asarray(x)
        if array.dtype == object:
            array = np.array(array.tolist())  # columns of several dtypes: their common dtype
        if array.dtype == object:
            array = np.array([float(value) for value in array.flat]).reshape(array.shape)
    except (TypeError, ValueError, RuntimeError) as error:
        kind = ValueError if isinstance(error, ValueError) else TypeError
        raise kind(f"{name} cannot be read as an array of numbers from {type(x).__name__}: {error}") from error
    if array.dtype.kind in "USOT":
        raise ValueError(
            f"{name} must hold numbers, got strings such as {next(array.flat, '')!r}; "
            f"as class ids they are numpy.unique({name}, return_inverse=True)[1]"
        )
    return array

"""Devices: where arrays live, which module computes on them, transfers; and arguments from outside, read as arrays.

Arrays of CUDA devices are CuPy's, which is imported at the first use of such a device (``availability.py``).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from xpnet.availability import DeviceError, import_cupy, require_cuda
from xpnet.settings import generator
from xpnet.typing import Array, DTypeLike, Seed

__all__ = [
    "REAL",
    "Device",
    "DeviceError",
    "as_array",
    "as_indices",
    "asnumpy",
    "check_equally_many",
    "get_array_module",
    "get_device",
    "is_on_host",
    "map_location",
]

ALIGNMENT = 256
"""Alignment of each parameter in bytes: cublasLt's heuristics assume 256, four cache lines of a CPU."""

REAL = "fiub"
"""Kinds of dtypes of real numbers: floats, integers, booleans."""

CUDA = 2
"""DLPack's number of device memory (``kDLCUDA``)."""

_HOST = contextlib.nullcontext()

_location: ContextVar[Device | None] = ContextVar("location", default=None)


class Device:
    """The host ("cpu") or one CUDA device ("cuda:N").

    A device is immutable. Devices of the same name compare and hash equal.

    Parameters
    ----------
    name : str or Device
        ``"cpu"``; ``"cuda"`` (the same as ``"cuda:0"``) or ``"cuda:N"``; or ``"auto"``, which is ``"cuda:0"`` if CuPy
        and a CUDA device are present, else ``"cpu"``.

    Attributes
    ----------
    name : str
        ``"cpu"`` or ``"cuda:N"``.
    note : str
        Reason for the choice of ``"auto"``; empty for a device given by name.

    Raises
    ------
    DeviceError
        If `name` is a CUDA device, and CuPy, the driver or the device is missing. The message names the remedy.
    ValueError
        If `name` is none of the above.

    Examples
    --------
    >>> device = Device("cpu")
    >>> device.asarray([1.0, 2.0])
    array([1., 2.])
    >>> device.xp.__name__
    'numpy'
    """

    __slots__ = ("_index", "name", "note")

    name: str
    note: str
    _index: int | None

    def __init__(self, name: str | Device = "auto") -> None:
        note = ""
        if isinstance(name, Device):
            note, name = name.note, name.name
        elif isinstance(name, str) and name == "auto":
            name, note = _choose()
        index = _parse(name)
        if index is not None:
            require_cuda(index)
        object.__setattr__(self, "name", "cpu" if index is None else f"cuda:{index}")
        object.__setattr__(self, "note", note)
        object.__setattr__(self, "_index", index)

    @property
    def xp(self) -> ModuleType:
        """Array module of this device: ``numpy`` or ``cupy``."""
        return np if self._index is None else import_cupy()

    def activate(self) -> contextlib.AbstractContextManager[Any]:
        """Return a context in which CuPy uses this device. On the CPU it does nothing."""
        return _HOST if self._index is None else self.xp.cuda.Device(self._index)

    def asarray(self, x: Any, dtype: DTypeLike | None = None) -> Array:
        """Return `x` (an array of any device, or anything that ``numpy.asarray`` takes) as an array on this device.

        `x` is not copied if it is on this device already, with that dtype.
        """
        if self._index is None:
            return np.asarray(asnumpy(x), dtype=dtype)
        if _kind(x) != "cuda":
            x = np.asarray(x)  # lists and scalars convert as NumPy does, not as CuPy does
        with self.activate():
            return self.xp.asarray(x, dtype=dtype)

    def holds(self, x: Any) -> bool:
        """Return whether `x` is on this device. Everything but a CuPy array is on the host."""
        if type(x) is not np.ndarray and _kind(x) == "cuda":
            return bool(x.device.id == self._index)
        return self._index is None

    def asnumpy(self, x: Any) -> np.ndarray:
        """Return `x` as a NumPy array, copied only from a CUDA device."""
        return asnumpy(x)

    def has_room_for(self, size: int) -> bool:
        """Return whether `size` bytes are at most half of a CUDA device's free memory; always True on the CPU."""
        if self._index is None:
            return True
        with self.activate():
            free, _ = self.xp.cuda.runtime.memGetInfo()
        return bool(size <= free // 2)

    def synchronize(self) -> None:
        """Wait until all work queued on this device is done. On the CPU it returns at once."""
        if self._index is not None:
            with self.activate():
                self.xp.cuda.get_current_stream().synchronize()

    def rng(self, seed: Seed = None) -> np.random.Generator:
        """Return a NumPy generator for random numbers on this device. A ``Generator`` is returned unchanged.

        The generator is on the host for every device, so a seed gives the same numbers everywhere.
        """
        return generator("seed", seed)

    def zeros(self, size: int, dtype: DTypeLike) -> Array:
        """Return a vector of `size` zeros, aligned to ``ALIGNMENT`` (256) bytes."""
        with self.activate():
            # CuPy's pool aligns to 512 bytes, malloc to 16.
            slack = 0 if self._index is not None else ALIGNMENT // np.dtype(dtype).itemsize
            block = self.xp.zeros(size + slack, dtype=dtype)
        skip = -block.__array_interface__["data"][0] % ALIGNMENT // block.itemsize if slack else 0
        return block[skip : skip + size]

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a Device cannot be changed; create another one instead of setting {name!r}")

    def __reduce__(self) -> tuple[Callable[[str], Device], tuple[str]]:
        return _unpickled, (self.name,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"Device({self.name!r})"


@contextlib.contextmanager
def map_location(device: Device | str) -> Iterator[None]:
    """Context in which pickles are loaded onto a device, whatever device they were written on.

    Examples
    --------
    >>> import pickle
    >>> with map_location("cpu"):
    ...     device = pickle.loads(pickle.dumps(Device("cpu")))
    >>> device
    Device('cpu')
    """
    token = _location.set(Device(device))
    try:
        yield
    finally:
        _location.reset(token)


def _unpickled(name: str) -> Device:
    target = _location.get()
    if target is not None:
        return target
    try:
        return Device(name)
    except DeviceError as error:
        raise DeviceError(
            f"this is a pickle of {name}: {error}; load it within `with xpnet.map_location('cpu'):`"
        ) from error


class StoredArray(NamedTuple):
    """An array of a CUDA device in a pickle: its values on the host, and the device."""

    values: np.ndarray
    device: Device

    @staticmethod
    def of(x: Any) -> Any:
        """Return what stands for `x` in a pickle: `x` itself if it is not on a CUDA device."""
        return x if _kind(x) != "cuda" else StoredArray(asnumpy(x), get_device(x))

    def restored(self) -> Array:
        """Return the array on its device, or on that of `map_location`."""
        return self.device.asarray(self.values)


def get_device(x: Array) -> Device:
    """Return the device of the array `x`."""
    return Device(f"cuda:{int(x.device.id)}") if _kind(x) == "cuda" else Device("cpu")


def get_array_module(*arrays: Any, **named_arrays: Any) -> ModuleType:
    """Return the module, ``numpy`` or ``cupy``, that computes on the given arrays.

    Python and NumPy scalars go with both. Everything else but CuPy arrays counts as an array on the host.

    Parameters
    ----------
    *arrays, **named_arrays
        Arrays. The error message uses the keywords as names.

    Raises
    ------
    DeviceError
        If some of the arrays are on the host and others on a CUDA device.
    """
    # Every layer calls this on every call: the common case, plain NumPy arrays, builds no set.
    for x in arrays:
        if type(x) is not np.ndarray:
            break
    else:
        for x in named_arrays.values():
            if type(x) is not np.ndarray:
                break
        else:
            return np
    kinds = {_kind(x) for x in (*arrays, *named_arrays.values())}
    if "cuda" not in kinds:
        return np
    if "host" in kinds:
        names = {f"argument {i}": x for i, x in enumerate(arrays)} | named_arrays
        places = ", ".join(f"{name} is {_describe(x)}" for name, x in names.items())
        raise DeviceError(
            f"arrays of different devices cannot be mixed: {places}; "
            "move them to one device with Device.asarray(x), or to the host with xpnet.asnumpy(x)"
        )
    return import_cupy()


def asnumpy(x: Any) -> np.ndarray:
    """Return `x` as a NumPy array: copied from a CUDA device, or by ``numpy.asarray``."""
    return import_cupy().asnumpy(x) if _kind(x) == "cuda" else np.asarray(x)


def is_on_host(x: Array) -> bool:
    """Return whether `x` is in the host's memory, so that reading a value does not wait for a device."""
    return type(x) is np.ndarray or _kind(x) != "cuda"


def as_array(name: str, x: Any) -> Array:
    """Return an argument as an array of real numbers in the machine's byte order.

    Networks, training steps, trainers and graphs read their data by this function. A CuPy array stays on its device.
    An array of another library on a CUDA device becomes a CuPy array without a copy, by DLPack. All else is read as by
    ``numpy.asarray``, or ``numpy.from_dlpack``: lists, tables of pandas or polars, PyTorch's and JAX's arrays. Columns
    of several dtypes get their common dtype. No value is scaled: `xpnet.kernels.as_floats` reads pixels.

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
        x = import_cupy().from_dlpack(x) if _is_on_cuda(x) else _on_host(name, x)
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


def _on_host(name: str, x: Any) -> np.ndarray:
    if isinstance(x, np.ma.MaskedArray) and np.ma.is_masked(x):
        raise ValueError(f"{name} has masked values; see {name}.filled(value)")
    try:
        array = np.asarray(x) if hasattr(x, "__array__") or not hasattr(x, "__dlpack__") else np.from_dlpack(x)
        if array.dtype == object:
            array = np.array(array.tolist())  # columns of several dtypes: their common dtype
        if array.dtype == object:
            array = np.array([float(value) for value in array.flat]).reshape(array.shape)
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        kind = ValueError if isinstance(error, ValueError) else TypeError
        raise kind(f"{name} cannot be read as an array of numbers from {type(x).__name__}: {error}") from error
    if array.dtype.kind in "USOT":
        raise ValueError(
            f"{name} must hold numbers, got strings such as {next(array.flat, '')!r}; "
            f"as class ids they are numpy.unique({name}, return_inverse=True)[1]"
        )
    return array


def _kind(x: Any) -> str:
    """Return "cuda" for a CuPy array, "scalar" for a scalar (of any device), else "host"."""
    return _kind_of_type(type(x))  # type: ignore[arg-type]


@functools.cache
def _kind_of_type(cls: type) -> str:
    if any(base.__module__.partition(".")[0] == "cupy" for base in cls.__mro__):
        return "cuda"
    return "scalar" if issubclass(cls, (int, float, complex, np.generic)) else "host"


def _describe(x: Any) -> str:
    kind = _kind(x)
    if kind == "cuda":
        return f"on cuda:{int(x.device.id)} (cupy.ndarray)"
    if kind == "scalar":
        return "a scalar"
    return f"on the host ({type(x).__module__.partition('.')[0]}.{type(x).__name__})"


def _parse(name: str) -> int | None:
    """Return the index of a CUDA device, or None for the CPU."""
    if isinstance(name, str) and name in {"cpu", "cuda"}:
        return None if name == "cpu" else 0
    kind, _, number = str(name).partition(":")
    if kind == "cuda" and number.isascii() and number.isdigit():
        return int(number)
    raise ValueError(f"device must be 'auto', 'cpu', 'cuda' or 'cuda:N', got {name!r}")


def _choose() -> tuple[str, str]:
    try:
        count = require_cuda(0)
    except DeviceError as error:
        return "cpu", f"auto: {error}"
    return "cuda:0", f"auto: {count} CUDA device{'s' if count > 1 else ''} found"

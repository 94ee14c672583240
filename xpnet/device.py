"""Devices: where arrays live, which module computes on them, and transfers between devices.

CuPy is imported here, in ``kernels/cuda.py`` and in ``kernels/cublaslt.py``; ``training/feed.py`` imports ``cupyx``.
Each import waits for the first use of a CUDA device or a CuPy array.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from types import ModuleType
from typing import Any

import numpy as np

from xpnet.settings import generator
from xpnet.typing import Array, DTypeLike, Seed

__all__ = ["Device", "DeviceError", "asnumpy", "get_array_module", "get_device"]

ALIGNMENT = 256
"""Alignment of each parameter in bytes: cublasLt's heuristics assume 256, four cache lines of a CPU."""


_HOST = contextlib.nullcontext()


class DeviceError(RuntimeError):
    """The device is not available on this machine, or arrays of different devices were mixed."""


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
            _require_cuda(index)
        object.__setattr__(self, "name", "cpu" if index is None else f"cuda:{index}")
        object.__setattr__(self, "note", note)
        object.__setattr__(self, "_index", index)

    @property
    def xp(self) -> ModuleType:
        """Array module of this device: ``numpy`` or ``cupy``."""
        return np if self._index is None else _import_cupy()

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
        if _kind(x) == "cuda":
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

    def __reduce__(self) -> tuple[type[Device], tuple[str]]:
        return Device, (self.name,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"Device({self.name!r})"


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
    return _import_cupy()


def asnumpy(x: Any) -> np.ndarray:
    """Return `x` as a NumPy array: copied from a CUDA device, or by ``numpy.asarray``."""
    return _import_cupy().asnumpy(x) if _kind(x) == "cuda" else np.asarray(x)


def is_on_host(x: Array) -> bool:
    """Return whether `x` is in the host's memory, so that reading a value does not wait for a device."""
    return type(x) is np.ndarray or _kind(x) != "cuda"


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


def _import_cupy() -> ModuleType:
    loaded = sys.modules.get("cupy")  # saves the microsecond that the import statement costs each time
    if loaded is not None:
        return loaded
    import cupy

    return cupy  # type: ignore[no-any-return]


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
        count = _require_cuda(0)
    except DeviceError as error:
        return "cpu", f"auto: {error}"
    return "cuda:0", f"auto: {count} CUDA device{'s' if count > 1 else ''} found"


def _require_cuda(index: int) -> int:
    """Check that CUDA device `index` exists, and return the number of devices."""
    try:
        cupy = _import_cupy()
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "cupy":
            raise DeviceError(
                "CuPy is not installed; install it with pip install 'cupy-cuda13x[ctk]>=14,<15' "
                "(NVIDIA driver 580 or newer) or pip install 'cupy-cuda12x[ctk]>=14,<15' (older drivers), or use 'cpu'"
            ) from None
        raise DeviceError(f"CuPy is installed but cannot be imported: {_first_line(error)}; reinstall it") from error
    runtime = cupy.cuda.runtime
    driver = runtime.driverGetVersion()
    if driver == 0:
        raise DeviceError(
            f"CuPy {cupy.__version__} is installed but there is no NVIDIA driver; install the driver for your GPU "
            "(the command nvidia-smi must list it), or use 'cpu'"
        )
    try:
        count = int(runtime.getDeviceCount())
    except runtime.CUDARuntimeError as error:
        if "NoDevice" not in str(error):
            raise DeviceError(
                f"the NVIDIA driver (CUDA {driver // 1000}.{driver % 1000 // 10}) does not work with "
                f"CuPy {cupy.__version__}: {_first_line(error)}; update the driver, or install the CuPy for it "
                "(cupy-cuda12x or cupy-cuda13x)"
            ) from error
        count = 0
    if index >= count:
        there = {0: "no CUDA device", 1: "only cuda:0"}.get(count, f"cuda:0 to cuda:{count - 1}")
        raise DeviceError(
            f"cuda:{index} does not exist: there is {there} on this machine "
            "(CUDA_VISIBLE_DEVICES hides devices that it does not list); choose another, or use 'cpu'"
        )
    return count


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]

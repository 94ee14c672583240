"""CuPy and the driver: whether CUDA devices can be used here, and if not, why.

CuPy is imported here, in ``kernels/cuda.py`` and in ``kernels/cublaslt.py``; ``training/feed.py`` and
``training/losses.py`` import ``cupyx``.
"""

import sys
from types import ModuleType

__all__ = ["DeviceError", "import_cupy", "require_cuda"]


class DeviceError(RuntimeError):
    """The device is not available on this machine, or arrays of different devices were mixed."""


def import_cupy() -> ModuleType:
    """Return CuPy."""
    loaded = sys.modules.get("cupy")  # saves the microsecond that the import statement costs each time
    if loaded is not None:
        return loaded
    import cupy

    return cupy  # type: ignore[no-any-return]


def require_cuda(index: int) -> int:
    """Check that CUDA device `index` exists, and return the number of devices.

    Raises
    ------
    DeviceError
        If CuPy, the driver or the device is missing. The message names the remedy.
    """
    try:
        cupy = import_cupy()
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

"""Environment of a result: versions, processor, BLAS, threads, GPU."""

import importlib.util
import os
import platform
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

import xpnet
from xpnet.device import Device, DeviceError
from xpnet.extras import import_extra

__all__ = ["EXTRAS", "Extra", "describe", "describe_cuda", "describe_devices"]


@dataclass(frozen=True)
class Extra:
    """Optional dependencies, ``xpnet[name]``.

    Attributes
    ----------
    name : str
        Name of the extra.
    modules : tuple of str
        Import names of its packages.
    adds : str
        Features of xpnet that need it.
    """

    name: str
    modules: tuple[str, ...]
    adds: str

    @property
    def installed(self) -> bool:
        """Whether all its modules are installed."""
        return all(importlib.util.find_spec(module) is not None for module in self.modules)


EXTRAS = (
    Extra("cli", ("typer", "rich", "threadpoolctl"), "the xpnet command"),
    Extra("plot", ("matplotlib",), "learning curves and reports of runs"),
    Extra(
        "numba",
        ("numba", "scipy", "threadpoolctl"),
        "faster training steps on the CPU, of small perceptrons twice as fast",
    ),
    Extra("images", ("PIL",), "pictures as data"),
    Extra("data", ("pooch",), "Fashion-MNIST and KMNIST by their names"),
    Extra("sklearn", ("sklearn", "scipy"), "estimators for scikit-learn; precision and recall in reports"),
    Extra("mpi", ("mpi4py",), "training by several processes"),
    Extra("tensorboard", ("tensorboardX",), "losses and metrics for TensorBoard"),
    Extra("onnx", ("onnx",), "ONNX files of networks"),
    Extra("torch", ("torch",), "weights to and from PyTorch"),
    Extra("cuda13", ("cupy",), "computing on NVIDIA GPUs, driver 580 or newer (cuda12: older drivers)"),
    Extra("test", ("pytest", "hypothesis"), "the test suite"),
    Extra("oracle", ("torch",), "tests against PyTorch"),
    Extra("browser", ("playwright",), "tests of the pages in a browser"),
    Extra("bench", ("pytest_benchmark", "matplotlib"), "the benchmarks and their report"),
)


def describe(device: Device | None = None) -> dict[str, Any]:
    """Return versions, processor, BLAS, threads and, for a CUDA device, the GPU, as plain values for JSON.

    The versions of Numba and SciPy (Numba calls its BLAS) are included if they are loaded.
    """
    facts: dict[str, Any] = {
        "xpnet": xpnet.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "blas": _blas(),
        "threads": _threads(),
    }
    facts |= {name: sys.modules[name].__version__ for name in ("numba", "scipy") if sys.modules.get(name)}
    if device is not None:
        facts["device"] = device.name
        if device.name != "cpu":
            facts["cuda"] = describe_cuda(device)
    return facts


def describe_cuda(device: Device) -> dict[str, Any]:
    """Return the name, memory and versions of a CUDA device."""
    cupy = device.xp
    index = int(device.name.partition(":")[2])
    properties = cupy.cuda.runtime.getDeviceProperties(index)
    return {
        "gpu": properties["name"].decode(),
        "memory_bytes": int(properties["totalGlobalMem"]),
        "compute_capability": f"{properties['major']}.{properties['minor']}",
        "driver_cuda": _cuda_version(cupy.cuda.runtime.driverGetVersion()),
        "driver": _driver(),
        "runtime_cuda": _cuda_version(cupy.cuda.runtime.runtimeGetVersion()),
        "cupy": cupy.__version__,
    }


def describe_devices() -> list[tuple[str, str]]:
    """Return the name and a description of each device; for CUDA, the reason if it is not available."""
    devices = [("cpu", _processor())]
    try:
        Device("cuda")
    except DeviceError as error:
        return [*devices, ("cuda", f"not available: {error}")]
    for index in range(Device("cuda").xp.cuda.runtime.getDeviceCount()):
        gpu = describe_cuda(Device(f"cuda:{index}"))
        devices.append((f"cuda:{index}", f"{gpu['gpu']}, {gpu['memory_bytes'] / 2**30:.0f} GiB, CuPy {gpu['cupy']}"))
    return devices


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _blas() -> str:
    blas = np.show_config(mode="dicts").get("Build Dependencies", {}).get("blas", {})
    return f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip()


def _threads() -> int | None:
    """Return BLAS's number of threads, or None without a working threadpoolctl."""
    try:
        threadpoolctl = import_extra("threadpoolctl", "cli")
    except ImportError:
        return None
    pools = [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
    return max((int(pool["num_threads"]) for pool in pools), default=None)


def _cuda_version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def _driver() -> str:
    try:
        with open("/proc/driver/nvidia/version", encoding="utf-8") as lines:
            return next(word for word in lines.readline().split() if word[0].isdigit())
    except (OSError, StopIteration):
        return "unknown"

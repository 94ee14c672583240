"""NVRTC's part in CuPy on the stand-in: kernels compiled for the host by g++.

The builder copies this file, with ``device.h``, into its copy of CuPy as ``cupy/_stand_in``.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import re
import subprocess
import sys
from typing import Any

__all__ = ["FLAGS", "compile_for_host", "prepare", "set_accelerators"]

HEADER = pathlib.Path(__file__).with_name("device.h")
CACHE = pathlib.Path(sys.prefix) / "kernels"

FLAGS = ("-std=c++17", "-O1", "-ffp-contract=off", "-fPIC")
"""Options of g++, for which the builder also compiles the header: that saves half the time."""

_KERNEL = re.compile(r"(?:__global__|STAND_IN_GLOBAL)\s+void\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\s*\(")
_DYNAMIC = re.compile(r"extern\s+__shared__\s+([\w:\s]+?)\s+(\w+)\s*\[\s*\]\s*;")
_MEETS = re.compile(r"__sync|__shfl")


def prepare() -> None:
    """Set CuPy's options, before it reads them: no library kernels, and caches of its own."""
    os.environ["CUPY_ACCELERATORS"] = ""
    os.environ["CUPY_CACHE_DIR"] = str(CACHE / "cupy")


def set_accelerators(accelerators: list[str]) -> None:
    """Refuse CuPy's accelerators: kernels of libraries, which leave memory as it is without a GPU."""
    if accelerators:
        raise NotImplementedError(f"the CUDA stand-in has none of CuPy's accelerators, got {accelerators}")


def compile_for_host(
    source: str,
    options: tuple[str, ...] = (),
    arch: str | None = None,
    filename: str = "kern.cu",
    name_expressions: tuple[str, ...] | None = None,
    *_unused: Any,
    **_unused_by_name: Any,
) -> tuple[bytes, dict[str, str]]:
    """Compile a kernel's source; return where the library is, in the place of a cubin, and the kernels' names."""
    flags = [option for option in options if option.startswith(("-I", "-D", "--std", "-std"))]
    names = {name: f"expression_{i}" for i, name in enumerate(name_expressions or ())}
    kernels = {symbol: name for name, symbol in names.items()} or {k: k for k in _kernels(source, flags)}
    code = _DYNAMIC.sub(r"static \1* const \2 = (\1*)stand_in::dynamic_shared;", source)
    code += "".join(_entries(symbol, kernel, bool(_MEETS.search(source))) for symbol, kernel in kernels.items())
    key = hashlib.sha256("\0".join([code, *FLAGS, *flags, HEADER.read_text()]).encode()).hexdigest()[:32]
    library = CACHE / f"{key}.so"
    if not library.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        built = CACHE / f"{key}.{os.getpid()}.so"
        _gxx(code, source, [*FLAGS, "-shared", "-nodefaultlibs", "-include", str(HEADER), *flags], built)
        built.replace(library)
    return b"STAND-IN:" + str(library).encode() + b"\0", names


def _kernels(source: str, flags: list[str]) -> list[str]:
    if "#define" not in source:
        return _KERNEL.findall(source)
    # Macros may put the names together.
    command = ["g++", "-E", "-P", "-x", "c++", "-w", *flags, "-D__global__=STAND_IN_GLOBAL", "-"]
    expanded = subprocess.run(command, input=source, capture_output=True, text=True, check=False)
    return _KERNEL.findall(expanded.stdout)


def _entries(symbol: str, kernel: str, meets: bool) -> str:
    """Return the C functions and tables by which ``cuda.c`` finds a kernel."""
    return (
        f'\nextern "C" void stand_in_launch_{symbol}(void** p, const unsigned* shape, unsigned) '
        f"{{ stand_in::launch(+[](void** q) {{ stand_in::call(&{kernel}, q); }}, p, shape, {str(meets).lower()}); }}"
        f'\nextern "C" long stand_in_sizes_{symbol}[256]; long stand_in_sizes_{symbol}[256];'
        f"\nstatic const int stand_in_filled_{symbol} = stand_in::sizes(stand_in_sizes_{symbol}, &{kernel});"
    )


def _gxx(code: str, source: str, flags: list[str], library: pathlib.Path) -> None:
    from cupy.cuda.compiler import CompileException

    command = ["g++", "-x", "c++", "-w", *flags, "-", "-o", str(library)]
    done = subprocess.run(command, input=code, capture_output=True, text=True, check=False)
    if done.returncode:
        message = f"the CUDA stand-in cannot compile this kernel for the host:\n{done.stderr}"
        raise CompileException(message, source, "kern.cu", tuple(flags), "g++")

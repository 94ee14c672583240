"""CuPy without a GPU: real CuPy on a stand-in for the CUDA runtime, for tests.

``python -m xpnet.testing.cuda_stand_in build FOLDER`` makes a virtual environment, from packages alone, in a minute or
two (Linux, gcc 12 or newer). Its Python runs tests of CuPy code as any other does::

    FOLDER/bin/python -m pip install --editable '.[test]'
    FOLDER/bin/python -m pytest

Device memory is the host's memory. Kernels are compiled by g++ and run when they are launched, one thread at a time.
So CuPy's checks, its memory pool, its dispatch, its copies and its temporaries are the real ones, and so is what a
stream refuses while it captures. Time and the order in which parallel threads add are not. Nor are the last bits:
exponentials are the host's, products are summed in order, and small (subnormal) numbers are kept.

Environment variables. CuPy asks for the number of devices when it is imported:

- ``CUDA_STAND_IN_DEVICES``: number of devices (1; 0 for none). A kernel that reads the memory of another device
  without peer access fails.
- ``CUDA_STAND_IN_MEMORY``: bytes on each device (16 GiB).

Fresh memory is full of 0xFF (NaN, or -1), so values that were never written show. Copies are checked against the size
of what they read and write, and launches against CUDA's limits.

These fail with an error and never return a value:

- ``cupy.random`` (both generators), ``cupy.sort`` and what sorts (``unique``, ``argsort``, ``median``), ``cupy.fft``,
  ``cupyx.scipy.sparse``;
- ``cupy.linalg`` beyond products: everything that needs cuSOLVER, as ``svd``, ``solve``, ``inv``, ``qr``;
- cuBLAS beyond products of matrices and vectors of real numbers: complex numbers, ``cublasStrsm`` and the like;
- cublasLt's epilogues but BIAS, BGRADA and BGRADB, all of them in float64 or for stacks of matrices, and types other
  than float16, float32 and float64;
- cooperative launches, textures, managed memory, asynchronous allocation, memory shared by processes, host callbacks,
  a graph inside a graph;
- CuPy's accelerators (``CUPY_ACCELERATORS`` is always empty);
- kernels that g++ cannot compile: inline PTX, tensor cores, cooperative groups, textures.

Only the functions of ``cupy.cuda.cub``, called directly, are not refused: they write nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections import Counter
from collections.abc import Iterator

__all__ = ["counting", "counts"]


@contextlib.contextmanager
def counting() -> Iterator[Counter[str]]:
    """Context that counts the work within it, by the names of `counts`; the numbers are there at its end.

    Raises
    ------
    RuntimeError
        If CuPy is not on the stand-in.
    """
    before, work = counts(), Counter[str]()
    yield work
    work.update({kind: number - before[kind] for kind, number in counts().items() if number != before[kind]})


def counts() -> dict[str, int]:
    """Return how often this process has done what costs time on a GPU, so far.

    Work recorded by a capture counts as ``graph_nodes`` when it is recorded, and as ``graph_launches`` when it is run.

    Returns
    -------
    dict
        ``allocations`` (of device memory, by the pool), ``kernels``, ``products`` (by cublasLt and cuBLAS), ``fills``,
        ``copies_to_device``, ``copies_to_host``, ``copies_on_device``, ``synchronizations``, ``graph_launches``,
        ``graph_nodes``.

    Raises
    ------
    RuntimeError
        If CuPy is not on the stand-in.
    """
    try:
        import cupy  # noqa: F401 - loads the stand-in

        counter = ctypes.CDLL("libcuda.so.1").stand_in_counter
    except (ImportError, OSError, AttributeError) as error:
        message = "counts() needs CuPy on the stand-in; run the Python of python -m xpnet.testing.cuda_stand_in build"
        raise RuntimeError(message) from error
    found: dict[str, int] = {}
    name, count = ctypes.c_char_p(), ctypes.c_long()
    while counter(len(found), ctypes.byref(name), ctypes.byref(count)):
        found[(name.value or b"").decode()] = count.value
    return found

"""Matrix products by cublasLt, the library behind CuPy's own products.

CuPy refuses matrix products while a CUDA graph is captured. A direct call of cublasLt is captured like any kernel.
Products outside of graphs use cublasLt too, so that both give the same bits.
"""

from __future__ import annotations

import ctypes
import functools
import threading
from ctypes import byref, c_double, c_float, c_int, c_int32, c_int64, c_size_t, c_uint32, c_uint64, c_void_p, sizeof
from typing import Any, NamedTuple

import cupy

from xpnet.kernels.choice import Precision
from xpnet.typing import Array

__all__ = ["UnsupportedError", "has_rows", "is_matrix", "multiply"]

ALIGNMENT = 16
"""Largest alignment in bytes that is reported to cublasLt: that of the widest loads.

With larger values the choice of algorithm, and so the bits of a product, would depend on the matrices' addresses.
"""

WORKSPACE = 32 * 2**20
"""Bytes of workspace for products, on each device."""

# From library_types.h, cublas_api.h and cublasLt.h.
_DTYPES = {"float16": 2, "float32": 0, "float64": 1}
_COMPUTE = {"float16": 68, "float32": 68, "tf32": 77, "float64": 70}
_DESC_TRANSA, _DESC_TRANSB, _DESC_EPILOGUE, _DESC_VECTOR = 3, 4, 7, 8
_EPILOGUES = {"none": 1, "bias": 4, "sums": 256, "row_sums": 512}  # all but "none" take a vector: BIAS, BGRADA, BGRADB
_LAYOUT_BATCH_COUNT, _LAYOUT_BATCH_STRIDE = 5, 6
_PREF_WORKSPACE, _PREF_REDUCTIONS, _PREF_ALIGNMENTS = 1, 3, (5, 6, 7, 8)
_NOT_SUPPORTED = 15
_REPRODUCIBLE = 2 | 4  # partial sums by a separate kernel; in-place sums would depend on the order of arrival


class UnsupportedError(RuntimeError):
    """cublasLt has no algorithm for a product."""


class Operand(NamedTuple):
    """A stack of matrices in cublasLt's column-major order: NumPy's (M, N) is (N, M) here.

    Attributes
    ----------
    rows, columns : int
        Size in memory. An array in C order has columns of the length of its rows.
    stride : int
        Elements from one column to the next.
    transposed : bool
        Whether the product uses the transpose.
    batch : int
        Elements from one matrix of the stack to the next. 0 for a single matrix, which is broadcast.
    """

    rows: int
    columns: int
    stride: int
    transposed: bool
    batch: int

    @classmethod
    def of(cls, x: Array) -> Operand | None:
        """Describe an array (M, N) or (G, M, N); None if neither its rows nor its columns are contiguous."""
        steps = [stride // x.itemsize for stride in x.strides]
        (m, n), (down, right) = x.shape[-2:], steps[-2:]
        batch = steps[0] if x.ndim == 3 and len(x) > 1 else 0
        if (right == 1 or n == 1) and (down >= n or m == 1):
            return cls(n, m, max(down if m > 1 else n, n), False, batch)
        if (down == 1 or m == 1) and (right >= m or n == 1):
            return cls(m, n, max(right if n > 1 else m, m), True, batch)
        return None


def is_matrix(x: Array) -> bool:
    """Tell whether `multiply` can read an array without a copy."""
    return Operand.of(x) is not None


def has_rows(x: Array) -> bool:
    """Tell whether `multiply` can write into an array: its rows are contiguous."""
    operand = Operand.of(x)
    return operand is not None and not operand.transposed


def multiply(
    a: Array,
    b: Array,
    out: Array,
    precision: Precision = "float32",
    bias: Array | None = None,
    sums: Array | None = None,
    row_sums: Array | None = None,
) -> bool:
    """Write ``a @ b`` into `out`. All arrays have one dtype and are on the current device.

    Parameters
    ----------
    a, b, out : (M, K), (K, N), (M, N); or stacks (G, M, K), (G, K, N), (G, M, N)
        See `is_matrix` and `has_rows`.
    precision : {"float32", "tf32"}
        Precision of float32 products. TF32 rounds the inputs of each multiplication to 10 bits and is faster.
    bias : (N,), optional
        Added to each row of `out`. Of this vector and the next two, at most one may be given, and only for matrices.
    sums : (N,), optional
        Set to the sums of the columns of `b`.
    row_sums : (M,), optional
        Set to the sums of the rows of `a`.

    Returns
    -------
    bool
        False if a vector was given but not applied: cublasLt has no such algorithm for some products.

    Raises
    ------
    UnsupportedError
        If cublasLt has no algorithm at all. Nothing is written.
    """
    compute = precision if a.dtype == "float32" else str(a.dtype)
    count = out.shape[0] if out.ndim == 3 else 1
    operands = tuple(Operand.of(x) for x in (a, b, out))
    vectors = {"bias": bias, "sums": sums, "row_sums": row_sums}
    epilogue, vector = next(((name, v) for name, v in vectors.items() if v is not None), ("none", None))
    if vector is not None and not vector.flags.c_contiguous:
        epilogue = "none"
    pointers = [x.data.ptr for x in (a, b, out, *([] if epilogue == "none" else [vector]))]
    alignments = tuple(min(pointer & -pointer, ALIGNMENT) for pointer in pointers)
    describe = cupy.cuda.runtime.getDevice(), str(a.dtype), compute, count, operands
    product = _product(*describe, alignments, epilogue)
    if product is None:
        epilogue, pointers = "none", pointers[:3]
        product = _product(*describe, alignments[:3], epilogue)
    if product is None:
        raise UnsupportedError(f"cublasLt has no algorithm for a product of {a.shape} and {b.shape} in {compute}")
    product(cupy.cuda.get_current_stream().ptr, *pointers)
    return vector is None or epilogue != "none"


class _HeuristicResult(ctypes.Structure):
    """Result of ``cublasLtMatmulAlgoGetHeuristic``."""

    _fields_ = (
        ("algo", c_uint64 * 8),
        ("workspace", c_size_t),
        ("status", c_int),
        ("waves", c_float),
        ("reserved", c_int * 4),
    )


class _Product:
    """A product of given layouts and alignments, with its algorithm."""

    def __init__(
        self,
        device: int,
        dtype: str,
        compute: str,
        count: int,
        operands: tuple[Operand, Operand, Operand],
        alignments: tuple[int, ...],
        epilogue: str,
    ) -> None:
        a, b, out = operands
        scale = c_double if dtype == "float64" else c_float
        scale_type = _DTYPES["float64" if dtype == "float64" else "float32"]
        self._one, self._zero = scale(1.0), scale(0.0)
        self._workspace = _workspace(device)
        self._handle = _handle(device)
        # In column-major order the product is out^T = b^T a^T.
        self._desc = _create("MatmulDesc", c_int(_COMPUTE[compute]), c_int(scale_type))
        for attribute, operand in ((_DESC_TRANSA, b), (_DESC_TRANSB, a)):
            _set("MatmulDesc", self._desc, attribute, c_int32(operand.transposed))
        _set("MatmulDesc", self._desc, _DESC_EPILOGUE, c_uint32(_EPILOGUES[epilogue]))
        for alignment in alignments[3:]:  # stands for any address with this alignment; each call sets its own
            _set("MatmulDesc", self._desc, _DESC_VECTOR, c_void_p(alignment))
        self._in_use = threading.Lock()
        self._layouts = [_layout(_DTYPES[dtype], operand, count) for operand in (b, a, out)]
        preference = _create("MatmulPreference")
        _set("MatmulPreference", preference, _PREF_WORKSPACE, c_size_t(WORKSPACE))
        _set("MatmulPreference", preference, _PREF_REDUCTIONS, c_uint32(_REPRODUCIBLE))
        of_a, of_b, of_out = alignments[:3]
        for attribute, alignment in zip(_PREF_ALIGNMENTS, (of_b, of_a, of_out, of_out), strict=True):
            _set("MatmulPreference", preference, attribute, c_uint32(alignment))
        found, best = c_int(0), _HeuristicResult()
        left, right, result = self._layouts
        _call(
            *("cublasLtMatmulAlgoGetHeuristic", self._handle, self._desc, left, right, result, result, preference),
            *(c_int(1), byref(best), byref(found)),
        )
        if not found.value:
            raise UnsupportedError("cublasLtMatmulAlgoGetHeuristic found nothing")
        self._algo = best.algo

    def __call__(self, stream: int, a: int, b: int, out: int, vector: int | None = None) -> None:
        left, right, result = self._layouts
        with self._in_use:
            if vector is not None:
                _set("MatmulDesc", self._desc, _DESC_VECTOR, c_void_p(vector))
            _call(
                *("cublasLtMatmul", self._handle, self._desc, byref(self._one), c_void_p(b), left, c_void_p(a), right),
                *(byref(self._zero), c_void_p(out), result, c_void_p(out), result, byref(self._algo)),
                *(c_void_p(self._workspace.ptr), c_size_t(WORKSPACE), c_void_p(stream)),
            )


@functools.cache
def _product(*description: Any) -> Any:
    """Return a `_Product`, or None if there is no algorithm for it."""
    try:
        return _Product(*description)
    except RuntimeError as error:
        # cublasLt calls some products with a vector invalid, rather than not supported.
        if description[-1] == "none" and not isinstance(error, UnsupportedError):
            raise
        return None


def _layout(dtype: int, operand: Operand, count: int) -> c_void_p:
    sizes = c_uint64(operand.rows), c_uint64(operand.columns), c_int64(operand.stride)
    layout = _create("MatrixLayout", c_int(dtype), *sizes)
    _set("MatrixLayout", layout, _LAYOUT_BATCH_COUNT, c_int32(count))
    _set("MatrixLayout", layout, _LAYOUT_BATCH_STRIDE, c_int64(operand.batch))
    return layout


def _create(kind: str, *args: Any) -> c_void_p:
    created = c_void_p()
    _call(f"cublasLt{kind}Create", byref(created), *args)
    return created


def _set(kind: str, what: c_void_p, attribute: int, value: Any) -> None:
    _call(f"cublasLt{kind}SetAttribute", what, c_int(attribute), byref(value), c_size_t(sizeof(value)))


@functools.cache
def _handle(device: int) -> c_void_p:
    return _create("")


@functools.cache
def _workspace(device: int) -> Any:
    """Allocate the workspace outside of the pool, which could reuse it between the launches of a graph."""
    return cupy.cuda.Memory(WORKSPACE)


@functools.cache
def _library() -> ctypes.CDLL:
    from cuda import pathfinder  # a dependency of CuPy's

    return ctypes.CDLL(pathfinder.load_nvidia_dynamic_lib("cublasLt").abs_path)


def _call(name: str, *args: Any) -> None:
    status = getattr(_library(), name)(*args)
    if status:
        error = UnsupportedError if status == _NOT_SUPPORTED else RuntimeError
        raise error(f"{name} failed with cuBLAS status {status}")

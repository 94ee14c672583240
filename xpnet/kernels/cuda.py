"""Kernels for arrays on CUDA devices: the `.cu` files, and matrix products by cublasLt.

The definitions in `xpnet.kernels` document each operation. NVRTC compiles the kernels at first use, and CuPy caches
them on disk.
"""

import functools
import math
from collections.abc import Collection
from importlib import resources
from typing import Any

import cupy
import numpy as np

from xpnet.kernels import cublaslt, operations
from xpnet.kernels.memory import share_memory_order
from xpnet.typing import Array
from xpnet.windows import Windows

BLOCK = 256
"""Threads in a block."""

MOST_BLOCKS = 4096
"""Largest number of blocks in a launch. For larger arrays each thread computes several elements."""

ROWS, CLASSES = 8192, 64
"""Largest scores for the softmax kernel, which has one block, and a warp for a row."""

WARP, MOST_THREADS = 32, 1024
"""Threads in a warp, and the largest number in a block."""

NULL = np.intp(0)
"""A null pointer, for an array that is not given."""

OPTIONS = ("--fmad=false", f"-DBLOCK={BLOCK}")

TYPES = {"float32": "float", "float64": "double"}
LABELS = ("uint8", "int32", "int64")
GATHERED = TYPES | {label: label for label in LABELS}
NAMES = GATHERED | {"float16": "float16"}
"""Names in the kernels' sources of the dtypes of arrays: of floats in most kernels, of samples and labels, of all."""

SOURCES = ("kernels.cu", "images.cu", "normalization.cu", "gates.cu")


def matmul(a: Array, b: Array, out: Array | None = None, bias: Array | None = None, sums: Array | None = None) -> Any:
    if (a.ndim, b.ndim) == (2, 1) and bias is None and sums is None:
        column = matmul(a, b[:, None], None if out is None else out[:, None])
        return column if column is NotImplemented else column[:, 0] if out is None else out
    if a.ndim != b.ndim or a.ndim not in {2, 3} or a.dtype != b.dtype or a.dtype.kind != "f":
        return NotImplemented
    count = {1} if a.ndim == 2 else {len(a), len(b)}
    fits = a.shape[-1] == b.shape[-2] and len(count - {1}) <= 1
    if not fits or any(v is not None and (v.dtype != a.dtype or v.shape != b.shape[1:]) for v in (bias, sums)):
        return NotImplemented  # the definition raises the error
    shape = (*((max(count),) if a.ndim == 3 else ()), a.shape[-2], b.shape[-1])
    result = out
    if result is None or result.dtype != a.dtype or result.shape != shape or not _can_be_written(result):
        result = cupy.empty(shape, a.dtype)
    try:
        _multiply(a, b, result, bias, sums)
    except cublaslt.UnsupportedError:
        return NotImplemented
    if out is None or result is out:
        return result
    out[...] = result
    return out


def _can_be_written(out: Array) -> bool:
    return cublaslt.has_rows(out) or (out.ndim == 2 and cublaslt.has_rows(out.T))


def _multiply(a: Array, b: Array, out: Array, bias: Array | None, sums: Array | None) -> None:
    done = False
    # out^T = b^T a^T, for a result with contiguous columns: a gradient of images with samples last
    transposed = not cublaslt.has_rows(out)
    if a.size and b.size:
        a, b = (x if cublaslt.is_matrix(x) else cupy.ascontiguousarray(x) for x in (a, b))
        if not transposed:
            done = cublaslt.multiply(a, b, out, operations.precision(), bias, sums)
        elif bias is None:
            done = cublaslt.multiply(b.T, a.T, out.T, operations.precision(), row_sums=sums)
        else:
            cublaslt.multiply(b.T, a.T, out.T, operations.precision())
    else:
        out.fill(0)
    if bias is not None and not done:
        cupy.add(out, bias, out=out)
    if sums is not None and not done:
        if transposed and b.size:  # long rows in memory, which few blocks would sum
            matmul(b.T, cupy.ones(len(b), b.dtype), out=sums)
        else:
            b.sum(axis=0, out=sums)


def gather(x: Array, index: Array, out: Array) -> Any:
    if out.dtype == "float16" and x.dtype in ("float32", "uint8"):
        rows = gather(x, index, cupy.empty(out.shape, "float32"))
        if rows is not NotImplemented:
            out[...] = rows
            return out
    name = "gather" if x.dtype == out.dtype else "gather_pixels"
    fits = _fit(x, types=GATHERED) and _fit(index, types=("int64",)) and _fit(out, types=GATHERED)
    if not fits or (name == "gather_pixels" and (x.dtype != "uint8" or out.dtype.kind != "f")):
        return NotImplemented
    _launch(name, out, out.size, x, index, out, out.size, max(math.prod(x.shape[1:]), 1), len(x))
    return out


def relu(x: Array, mask: Array | None = None, out: Array | None = None) -> Any:
    mask = cupy.empty_like(x, dtype=bool) if mask is None else mask
    out = cupy.empty_like(x) if out is None else out
    if not _elementwise(x, out, mask, types=NAMES):
        return NotImplemented
    _launch("relu", x, x.size, x, out, mask, x.size)
    return out, mask


def relu_gradient(dout: Array, mask: Array, out: Array | None = None) -> Any:
    dx = cupy.empty_like(dout) if out is None else out
    if not _elementwise(dout, dx, mask):
        # A ufunc copies its input first if `out` is another array over the same memory.
        return cupy.multiply(dx, mask, out=dx) if dx.data.ptr == dout.data.ptr and _alike(dx, dout) else NotImplemented
    _launch("relu_gradient", dout, dout.size, dout, mask, dx, dout.size)
    return dx


def random_mask(x: Array, state: Array, least: int, factor: float, out: Array | None = None, first: int = 0) -> Any:
    mask = cupy.empty(x.shape, x.dtype) if out is None else out
    if first or not _fit(mask) or mask.dtype != x.dtype or mask.shape != x.shape:
        return NotImplemented
    _launch("random_mask", mask, mask.size, mask, state, least, factor, NULL, NULL, mask.size)
    return mask


def dropout(
    x: Array,
    state: Array,
    least: int,
    factor: float,
    mask: Array | None = None,
    out: Array | None = None,
    first: int = 0,
) -> Any:
    mask = cupy.empty(x.shape, x.dtype) if mask is None else mask
    y = cupy.empty(x.shape, x.dtype) if out is None else out
    if first or not _fit(x, mask, y) or not x.shape == mask.shape == y.shape:
        return NotImplemented
    _launch("random_mask", x, x.size, mask, state, least, factor, x, y, x.size)
    return y, mask


def normalize_batch(
    x: Array,
    gamma: Array,
    beta: Array,
    running: tuple[Array, Array] | None,
    momentum: float,
    eps: float,
) -> Any:
    features = _features(x)
    vectors = (gamma, beta, *(running or ()))
    if features is None or not (_fit(*vectors) and gamma.dtype == x.dtype):
        return NotImplemented
    shape = (1, x.shape[1], *[1] * (x.ndim - 2))
    mean, inverse, scale = (cupy.empty(shape, x.dtype) for _ in range(3))
    xn, y = cupy.empty_like(x), cupy.empty_like(x)
    statistics = (mean, inverse, scale, *(running or (NULL, NULL)), float(momentum), float(eps))
    _launch("batch_statistics", x, _threads(*features), x, gamma, *statistics, *features)
    _launch("normalize", x, x.size, x, mean, inverse, gamma, beta, xn, y, *features)
    return y, xn, scale


def normalize_batch_gradient(
    dout: Array, xn: Array, scale: Array, dgamma: Array | None = None, dbeta: Array | None = None
) -> Any:
    features = _features(xn)
    if features is None or dout.dtype != xn.dtype or not share_memory_order(dout, xn) or not _fit(scale):
        return NotImplemented
    made = (cupy.empty(xn.shape[1], xn.dtype) if v is None or not _fit(v, xn[:0]) else v for v in (dgamma, dbeta))
    dgamma, dbeta = made
    dx = cupy.empty_like(xn)
    _launch("normalization_sums", xn, _threads(*features), dout, xn, dgamma, dbeta, *features)
    _launch("normalization_gradient", xn, xn.size, dout, xn, scale, dgamma, dbeta, dx, *features)
    return dx, dgamma, dbeta


def softmax_cross_entropy(x: Array, t: Array, out: Array | None = None) -> Any:
    if not _scores_with_ids(x, t) or len(x) > ROWS:
        return NotImplemented
    y, loss = _made_for(x, out), cupy.empty((), x.dtype)
    _softmax(x, t, y, NULL, 0.0, loss)
    return loss, y


def softmax_cross_entropy_with_gradient(
    x: Array, t: Array, scale: float, y: Array | None = None, dx: Array | None = None, loss: Array | None = None
) -> Any:
    if not _scores_with_ids(x, t) or len(x) > ROWS:
        return NotImplemented
    y, dx = _made_for(x, y), _made_for(x, dx)
    loss = cupy.empty((), x.dtype) if loss is None or loss.dtype != x.dtype else loss
    _softmax(x, t, y, dx, scale, loss)
    return loss, y, dx


def softmax_cross_entropy_gradient(y: Array, t: Array, scale: Array | float, out: Array | None = None) -> Any:
    if not _scores_with_ids(y, t) or not isinstance(scale, float):
        return NotImplemented
    dx = _made_for(y, out)
    _launch(f"softmax_cross_entropy_gradient.{t.dtype}", y, y.size, y, t, dx, scale, y.size, y.shape[1])
    return dx


def sgd_update(p: Array, direction: Array, lr: Array | float, scratch: Array) -> Any:
    if not _fit(p, direction):
        return NotImplemented
    return _launch("sgd_update", p, p.size, p, direction, *_number(lr), p.size)


def momentum_update(
    p: Array, g: Array, v: Array, lr: Array | float, kept: float, nesterov: bool, scratch: Array
) -> Any:
    if not _fit(p, g, v):
        return NotImplemented
    return _launch("momentum_update", p, p.size, p, g, v, *_number(lr), kept, nesterov, p.size)


def adam_update(
    p: Array,
    g: Array,
    m: Array,
    v: Array,
    lr: Array | float,
    eps: Array | float,
    betas: tuple[float, float],
    scratch: Array,
) -> Any:
    if not _fit(p, g, m, v):
        return NotImplemented
    return _launch("adam_update", p, p.size, p, g, m, v, *_number(lr), *_number(eps), *betas, p.size)


def lstm_step(a: Array, product: Array, c: Array, gates: Array, c_new: Array, h_new: Array) -> Any:
    return _step("lstm_step", c, a, product, c, gates, c_new, h_new)


def lstm_step_gradient(gates: Array, c: Array, dh: Array, dc: Array, da: Array) -> Any:
    return _step("lstm_step_gradient", c, gates, c, dh, dc, da)


def gru_step(a: Array, product: Array, bn: Array, h: Array, gates: Array, h_new: Array) -> Any:
    return _step("gru_step", h, a, product, bn, h, gates, h_new)


def gru_step_gradient(gates: Array, h: Array, dh: Array, da: Array, du: Array) -> Any:
    return _step("gru_step_gradient", h, gates, h, dh, da, du)


def _step(name: str, units: Array, *arrays: Array) -> Any:
    return _launch(name, units, units.size, *arrays, *units.shape) if _fit(*arrays) else NotImplemented


def find_overflow(x: Array, overflowed: Array) -> Any:
    if not _fit(x):
        return NotImplemented
    return _launch("find_overflow", x, x.size, x, overflowed, x.size)


def adapt_scale(scale: Array, overflowed: Array, good_steps: Array, interval: int, updates: Array | None = None) -> Any:
    counted = (NULL, 0) if updates is None else (updates, updates.size)
    return _launch("adapt_scale", scale, 1, scale, overflowed, good_steps, interval, *counted)


def add_windows(seen: Array, out: Array, windows: Windows, rows: range) -> Any:
    if not _fit(seen, out):
        return NotImplemented
    sizes = _sizes(windows, out)
    return _launch("add_windows", out, out.size, seen, out, *sizes, rows.start, rows.stop, out.size)


def filter_gradients(dout: Array, columns: Array, ones: Array, dW: Array, db: Array) -> Any:
    if len(dout) > 1 or dout.shape[2] != columns.shape[2]:
        return NotImplemented
    return operations.matmul(columns[0], dout[0].T, out=dW[0].T, sums=db)  # the public one, which a profile counts


def max_pool(x: Array, y: Array, index: Array, windows: Windows) -> Any:
    return _max_pool(x, y, index, NULL, windows)


def max_pool_relu(x: Array, y: Array, index: Array, mask: Array, windows: Windows) -> Any:
    return _max_pool(x, y, index, mask, windows)


def max_pool_gradient(dout: Array, index: Array, dx: Array, windows: Windows) -> Any:
    return _max_pool_gradient(dout, index, NULL, dx, windows)


def max_pool_relu_gradient(dout: Array, index: Array, mask: Array, dx: Array, windows: Windows) -> Any:
    return _max_pool_gradient(dout, index, mask, dx, windows)


def _max_pool(x: Array, y: Array, index: Array, mask: Any, windows: Windows) -> Any:
    if not (_fit(x, y) and _fit(index, types=("uint8",)) and (mask is NULL or _fit(mask, types=("bool",)))):
        return NotImplemented
    return _launch("max_pool", y, y.size, x, y, index, mask, *_sizes(windows, x), y.size)


def _max_pool_gradient(dout: Array, index: Array, mask: Any, dx: Array, windows: Windows) -> Any:
    if not (_fit(dout, dx) and _fit(index, types=("uint8",)) and (mask is NULL or _fit(mask, types=("bool",)))):
        return NotImplemented
    return _launch("max_pool_gradient", dx, dx.size, dout, index, mask, dx, *_sizes(windows, dx), dx.size)


def _sizes(windows: Windows, images: Array) -> tuple[int, ...]:
    """Return the kernels' arguments for windows on images (C, H, W, N)."""
    _, height, width, samples = images.shape
    places = windows.places(height, width)
    return height, width, *places, *windows.size, *windows.stride, *windows.pad, *windows.dilation, samples


def _alike(x: Array, y: Array) -> bool:
    return (x.dtype, x.shape, x.strides) == (y.dtype, y.shape, y.strides)


def _fit(*arrays: Array, types: Collection[str] = TYPES) -> bool:
    """Whether all arrays are in C order and have one dtype, which is among `types`."""
    return all(x.dtype == arrays[0].dtype and str(x.dtype) in types and x.flags.c_contiguous for x in arrays)


def _elementwise(x: Array, y: Array, mask: Array, types: Collection[str] = TYPES) -> bool:
    """Whether a kernel can run through the elements of floats x and y and of a mask in the order of memory."""
    dtypes = x.dtype.kind == "f" and str(x.dtype) in types and x.dtype == y.dtype and mask.dtype == bool
    return dtypes and x.shape == y.shape == mask.shape and share_memory_order(x, y, mask)


def _features(x: Array) -> tuple[int, int, int, int] | None:
    """Return the kernels' `Features` of values (N, D), or images (N, C, H, W) with samples last; None for others."""
    if str(x.dtype) not in TYPES or not x.size:
        return None
    D = x.shape[1]
    n = x.size // D
    if x.ndim == 2 and x.flags.c_contiguous:
        return D, n, 1, D
    return (D, n, n, 1) if x.transpose(*range(1, x.ndim), 0).flags.c_contiguous else None


def _threads(features: int, values: int, of_feature: int, of_value: int) -> int:
    """Return the number of threads in which a block sums one feature, or 32 neighbors at a time."""
    return BLOCK * (features if of_value == 1 else -(-features // WARP))


def _scores_with_ids(x: Array, t: Array) -> bool:
    fits = (x.ndim, t.ndim) == (2, 1) and len(x) == len(t) > 0 and 0 < x.shape[1] <= CLASSES
    return fits and _fit(x) and _fit(t, types=LABELS)


def _softmax(x: Array, t: Array, y: Array, dx: Any, scale: float, loss: Array) -> None:
    threads = min(WARP * len(x), MOST_THREADS)
    _launch(f"softmax_cross_entropy.{t.dtype}", x, threads, x, t, y, dx, scale, loss, *x.shape, block=threads)


def _made_for(x: Array, out: Array | None) -> Array:
    """Return `out` if it is fit for a result like x, in C order; else a new array."""
    fits = out is not None and out.shape == x.shape and _fit(out, types=(str(x.dtype),))
    return out if fits else cupy.empty(x.shape, x.dtype)


def _number(value: Array | float) -> tuple[Any, float]:
    """Return the kernels' two arguments for a number: (array on the device, 0), or (null pointer, number)."""
    return (NULL, value) if isinstance(value, float) else (value, 0.0)


def _launch(name: str, x: Array, size: int, *args: Any, block: int = BLOCK) -> None:
    """Run a kernel of x's dtype, with one thread for each of `size` elements up to `MOST_BLOCKS` blocks."""
    if size:
        base, *label = name.split(".")
        function = _kernel("_".join([base, NAMES[str(x.dtype)], *label]))
        function((min(-(-size // block), MOST_BLOCKS),), (block,), tuple(map(_argument, args)))


def _argument(value: Any) -> Any:
    """Convert a Python number to the width in the kernels' signatures: 8 bytes, or 1 for a bool."""
    return {bool: np.bool_, int: np.int64, float: np.float64}.get(type(value), lambda x: x)(value)


@functools.cache
def _kernel(name: str) -> Any:
    return _module().get_function(name)


@functools.cache
def _module() -> Any:
    folder = resources.files("xpnet.kernels")
    return cupy.RawModule(code="".join(folder.joinpath(name).read_text() for name in SOURCES), options=OPTIONS)

"""Operations of layers for images: windows, and products of stacks of matrices."""

import functools
import math

from xpnet.device import get_array_module, is_on_host
from xpnet.kernels.memory import may_hold, slabs
from xpnet.kernels.operations import kernel, matmul, relu, relu_gradient
from xpnet.typing import Array
from xpnet.windows import Windows

__all__ = [
    "add_windows",
    "batched_matmul",
    "batched_matmul_transposed",
    "filter_gradients",
    "max_pool",
    "max_pool_gradient",
    "max_pool_relu",
    "max_pool_relu_gradient",
]

UNPACKED = 10**6
"""Largest number of multiplications for which OpenBLAS with AVX-512 packs no operand (it then uses one thread).

For larger products it first packs both operands. With long, thin matrices packing takes longer than the product.
"""

TRANSPOSED = 1200
"""Largest result for which OpenBLAS packs no operand of a product ``a @ b^T``."""

THIN = 1024
"""Largest matrix whose product with a long one is faster in parts. A result may be four times as large."""

LEAST = 64
"""Smallest part of a product: its columns, or the terms of its sum."""


@kernel
def add_windows(seen: Array, out: Array, windows: Windows, rows: range) -> None:
    """Add the windows in `rows`, (C, h, w, rows, columns, N), to the images `out` (`Windows.add`).

    The first rows, which start at 0, replace what was in `out`.
    """
    if rows.start == 0:
        out[...] = 0.0
    windows.add(seen, out, rows)


@kernel
def max_pool(x: Array, y: Array, index: Array, windows: Windows) -> None:
    """Write the maximum of each window of images x (C, H, W, N) into y, and its pixel number into `index`.

    Among equal maxima the first one counts. NaN is larger than any number; among several NaNs the last one counts.
    """
    xp = get_array_module(x)
    pixels = [(places, image) for _, places, image in windows.pixels(*x.shape[1:3])]
    index[...] = 0
    y[...] = x[:, *pixels[0][1]] if windows.pad == (0, 0) else -math.inf
    for number, (places, image) in enumerate(pixels):
        candidates, largest, chosen = x[:, *image], y[:, *places], index[:, *places]
        if number or windows.pad != (0, 0):
            larger = xp.greater(candidates, largest)
            xp.maximum(chosen, larger.astype(index.dtype) * number, out=chosen)  # the latest is the largest
            xp.maximum(largest, candidates, out=largest)
    if may_hold(xp.isnan(y)):  # comparisons above are False for NaN
        for number, (places, image) in enumerate(pixels):
            index[:, *places] = xp.where(xp.isnan(x[:, *image]), number, index[:, *places])


@kernel
def max_pool_gradient(dout: Array, index: Array, dx: Array, windows: Windows) -> None:
    """Write the gradient of max pooling into dx (C, H, W, N): dout at each window's pixel `index`, else 0."""
    tiled = windows.tile(*dx.shape[1:3])
    if not tiled:
        dx[...] = 0.0
    for number, (_, places, pixels) in enumerate(windows.pixels(*dx.shape[1:3])):
        image, part, chosen = dx[:, *pixels], dout[:, *places], index[:, *places] == number
        if tiled:
            get_array_module(dx).multiply(part, chosen, out=image)
        else:
            image += part * chosen


@kernel
def max_pool_relu(x: Array, y: Array, index: Array, mask: Array, windows: Windows) -> None:
    """Write max(maximum of each window, 0) into y: `max_pool`, and then `relu` with its mask."""
    for slab in slabs(x):
        max_pool(x[slab], y[slab], index[slab], windows)
    relu(y, mask, y)


@kernel
def max_pool_relu_gradient(dout: Array, index: Array, mask: Array, dx: Array, windows: Windows) -> None:
    """Write the gradient of `max_pool_relu` into dx: `relu_gradient`, and then `max_pool_gradient`."""
    dout = relu_gradient(dout, mask)
    for slab in slabs(dx):
        max_pool_gradient(dout[slab], index[slab], dx[slab], windows)


@kernel
def filter_gradients(dout: Array, columns: Array, ones: Array, dW: Array, db: Array) -> None:
    """Write ``dout @ columns^T`` into dW, for the positions that have columns, and the sums of dout's rows into db.

    Parameters
    ----------
    dout : (G, M, P)
        A matrix per group of filters, with a row per filter.
    columns : (G, K, P')
        Columns of the first P' positions.
    ones : (P,)
        Ones. A product with them is faster than ``sum``.
    dW, db : (G, M, K), (G * M,)
        Output.
    """
    matmul(dout.reshape(len(db), -1), ones, out=db)
    batched_matmul_transposed(dout[:, :, : columns.shape[2]], columns, out=dW)


def batched_matmul(a: Array, b: Array, out: Array) -> Array:
    """Return ``a @ b`` for stacks of matrices a (G, M, K) and b (G, K, P). P is usually much larger than M and K.

    On the host, a product with a small `a` is computed in parts of at most `UNPACKED` multiplications. For
    M, K, P = 6, 25, 78,400 it takes 0.4 ms rather than 0.7 on two AVX-512 cores.
    """
    (G, M, K), P = a.shape, b.shape[2]
    p = _largest_divisor(P, UNPACKED // (M * K)) if is_on_host(a) and M * K <= THIN else P
    if LEAST <= p < P:
        parts, b = out.reshape(G, M, P // p, p), b.reshape(G, K, P // p, p)
        matmul(a, b.transpose(2, 0, 1, 3), out=parts.transpose(2, 0, 1, 3))
        return out
    return matmul(a, b, out=out)


def batched_matmul_transposed(a: Array, b: Array, out: Array | None = None) -> Array:
    """Return ``a @ b^T`` for stacks of matrices a (G, M, P) and b (G, K, P). P is usually much larger than M and K.

    On the host, a small result is computed as a sum of products of at most `UNPACKED` multiplications each. For
    M, K, P = 30, 25, 57,600 it takes 1.1 ms rather than 2.3 on two AVX-512 cores.
    """
    (G, M, P), K = a.shape, b.shape[1]
    if is_on_host(a) and M * K <= 4 * THIN:
        k = _largest_divisor(K, max(TRANSPOSED // M, 1))
        p = _largest_divisor(P, UNPACKED // (M * k))
        if LEAST <= p < P:
            a = a.reshape(G, 1, M, P // p, p).transpose(3, 0, 1, 2, 4)
            b = b.reshape(G, K // k, k, P // p, p).transpose(3, 0, 1, 4, 2)
            product = matmul(a, b).sum(axis=0).transpose(0, 2, 1, 3).reshape(G, M, K)
            if out is None:
                return product
            out[...] = product
            return out
    return matmul(a, b.transpose(0, 2, 1), out=out)


@functools.cache
def _largest_divisor(n: int, most: int) -> int:
    return next((d for d in range(min(n, most), 0, -1) if n % d == 0), 0)

"""The few operations that differ between devices, under one name for all."""

from __future__ import annotations

from xpnet.device import get_array_module, is_on_host
from xpnet.typing import Array, DTypeLike

__all__ = ["as_floats", "gather", "matmul"]


def as_floats(x: Array, dtype: DTypeLike, out: Array | None = None) -> Array:
    """Return real numbers in a floating dtype; ``uint8`` is taken for pixels and divided by 255, into [0, 1]."""
    xp = get_array_module(x)
    if x.dtype == "uint8":
        return xp.divide(x, 255.0, out=out, dtype=dtype)
    if out is None:
        return x.astype(dtype)
    out[...] = x
    return out


def gather(x: Array, index: Array, out: Array) -> Array:
    """Return ``out[n] = x[index[n]]``, converted as by `as_floats` where the dtypes differ; any index is in range."""
    same = x.dtype == out.dtype
    if is_on_host(x):
        # Any other mode goes through a temporary of the size of out.
        rows = x.take(index, axis=0, out=out if same else None, mode="clip")
    else:
        rows = x.take(index, axis=0, out=out if same else None)
    return rows if same else as_floats(rows, out.dtype, out)


def matmul(a: Array, b: Array, out: Array | None = None) -> Array:
    """Return the matrix product a b; all layers' products go through here, where a profile counts them."""
    return get_array_module(a).matmul(a, b, out=out)

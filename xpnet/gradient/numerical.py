"""Central differences of any function."""

from collections.abc import Callable, Iterable

import numpy as np

from xpnet.device import get_array_module, is_on_host
from xpnet.settings import positive
from xpnet.typing import Array

__all__ = ["MEMORY", "STEP", "central_differences", "numerical_gradient"]

STEP = 1e-4
"""The book's h.

The best step for central differences in float64 is near eps**(1/3) = 6e-6, times the size of x. This step has a
truncation error of h**2 f'''/6 and a rounding error of about eps f / h = 2e-12 f.
"""

MEMORY = 256 * 2**20
"""Default limit, in bytes, of perturbed copies and their temporaries."""

TEMPORARIES = 8
"""Expected memory of `f` for a stack of copies, as a multiple of the stack's size."""


def numerical_gradient(
    f: Callable[[Array], Array | float], x: Array, h: float = STEP, *, vectorized: bool = False
) -> Array:
    """Return the gradient of `f` at `x` by central differences, (f(x + h e_i) - f(x - h e_i)) / 2h.

    Parameters
    ----------
    f : callable
        Takes `x` and returns a scalar. It may ignore its argument and read the same array elsewhere, as
        ``lambda _: net.loss(x, t)`` reads a network's parameters. With `vectorized`, it takes a stack of perturbed
        copies of `x`, of shape ``(K, *x.shape)``, and returns their K values.
    x : array of floats, any shape, on any device
        The point. It is perturbed in place, one coordinate at a time, and restored to the last bit, even if `f`
        raises. With `vectorized` it is not changed.
    h : float, default 1e-4
        Half the step. Differences are divided by the step after rounding to the dtype of `x`.
    vectorized : bool, default False
        Whether `f` takes many points at a time: fewer calls with more work each, the only practical way on a GPU.
        Stacks and temporaries of `f` take about 256 MB.

    Returns
    -------
    array of the shape, dtype and device of `x`

    Raises
    ------
    TypeError
        If `x` is not an array of floats: adding `h` to an integer would be rounded away.
    ValueError
        If `f` does not return a scalar (or K values), `x` is read-only (without `vectorized`), or `h` is lost in the
        rounding of a coordinate of `x`.

    Examples
    --------
    >>> import numpy as np
    >>> numerical_gradient(lambda x: (x**2).sum(), np.array([3.0, 4.0])).round(9)
    array([6., 8.])
    >>> numerical_gradient(lambda stack: (stack**2).sum(axis=1), np.array([3.0, 4.0]), vectorized=True).round(9)
    array([6., 8.])
    """
    if not callable(f):
        raise TypeError(f"f must be a function of x, got {type(f).__name__}")
    if vectorized:
        return _stacked_differences(f, x, h)
    return central_differences(f, x, h)[0]


def central_differences(
    f: Callable[[Array], Array | float],
    x: Array,
    h: float,
    pattern: Callable[[], list[Array]] = list,
    indices: Iterable[tuple[int, ...]] | None = None,
) -> tuple[Array, Array]:
    """Return the central differences of `f` at `x`, and a mask of those across a kink.

    Parameters
    ----------
    f, x, h
        As in `numerical_gradient`.
    pattern : callable
        Returns the activation patterns of the last call of `f` (`Layer.activation_pattern`). A difference is across a
        kink if the patterns of its two sides differ.
    indices : iterable of tuple of int, optional
        Coordinates to differentiate, by default all. The results are 0 elsewhere.
    """
    _check_differentiable(x, h)
    if is_on_host(x) and not x.flags.writeable:
        raise ValueError("numerical_gradient perturbs x in place, but x is read-only; pass x.copy()")
    xp = get_array_module(x)
    differences = xp.zeros(x.shape, x.dtype)
    straddles = xp.zeros(x.shape, dtype=bool)
    for i in np.ndindex(x.shape) if indices is None else indices:
        original = x[i].copy()  # on a CUDA device x[i] is a view
        upper, lower = original + h, original - h
        try:
            x[i] = upper
            f_upper, pattern_upper = _scalar(f(x)), pattern()
            x[i] = lower
            f_lower, pattern_lower = _scalar(f(x)), pattern()
        finally:
            x[i] = original
        differences[i] = (f_upper - f_lower) / (upper - lower)
        for above, below in zip(pattern_upper, pattern_lower, strict=True):
            straddles[i] |= xp.any(above != below)
    return differences, straddles


def _stacked_differences(f: Callable[[Array], Array], x: Array, h: float) -> Array:
    _check_differentiable(x, h)
    xp = get_array_module(x)
    flat = x.reshape(-1)
    upper, lower = flat + h, flat - h
    differences = xp.empty(flat.shape, x.dtype)
    at_a_time = max(MEMORY // TEMPORARIES // max(2 * x.nbytes, 1), 1)
    for start in range(0, x.size, at_a_time):
        chosen = slice(start, min(start + at_a_time, x.size))
        copies, moved = xp.arange(chosen.stop - start), xp.arange(start, chosen.stop)
        stack = xp.empty((2, len(copies), x.size), x.dtype)
        stack[...] = flat
        stack[0, copies, moved] = upper[chosen]
        stack[1, copies, moved] = lower[chosen]
        values = f(stack.reshape(-1, *x.shape))
        if getattr(values, "shape", None) != (2 * len(copies),):
            raise ValueError(
                f"numerical_gradient(vectorized=True) expected f to return {2 * len(copies)} values, one for each "
                f"copy in a stack of shape {(2 * len(copies), *x.shape)}, got {_describe(values)}"
            )
        differences[chosen] = (values[: len(copies)] - values[len(copies) :]) / (upper - lower)[chosen]
    return differences.reshape(x.shape)


def _check_differentiable(x: Array, h: float) -> None:
    dtype = getattr(x, "dtype", None)
    if dtype is None:
        raise TypeError(f"numerical_gradient expected x to be an array of floats, got {type(x).__name__}")
    if dtype.kind != "f":
        raise TypeError(
            f"numerical_gradient expected x to hold floats, got dtype {dtype}: adding h = {h} to it would be rounded "
            "away; pass x.astype('float64')"
        )
    positive("h", h)
    if x.size and not bool((x + h != x - h).all()):
        raise ValueError(f"h = {h} is lost in the rounding of x in {dtype}; use a larger h, or float64")


def _scalar(value: Array | float) -> Array | float:
    shape = getattr(value, "shape", ())
    if shape != ():
        raise ValueError(f"numerical_gradient expected f to return a scalar, got an array of shape {shape}")
    return value


def _describe(value: object) -> str:
    shape = getattr(value, "shape", None)
    return type(value).__name__ if shape is None else f"an array of shape {shape}"

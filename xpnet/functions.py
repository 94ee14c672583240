"""Stateless math on NumPy and CuPy arrays: activations, softmax, losses, labels, im2col.

Every function computes on the device of its arguments, and leaves them unchanged. Functions from the book (chapters 3,
4 and 7) have the book's names, and take anything that ``numpy.asarray`` takes.
"""

import functools
import math
from typing import Any, Literal

import numpy as np

from xpnet.device import as_array, get_array_module, is_on_host
from xpnet.error_function import erf
from xpnet.settings import as_dtype, count
from xpnet.typing import Array, DTypeLike
from xpnet.windows import col2im, im2col

__all__ = [
    "as_floating",
    "check_ids",
    "check_labels",
    "check_targets",
    "class_ids",
    "class_ids_for_shape",
    "col2im",
    "cross_entropy_error",
    "erf",
    "floating",
    "identity_function",
    "im2col",
    "indicate_classes",
    "indicated_classes",
    "inverse_count",
    "mean_squared_error",
    "one_hot",
    "relu",
    "sigmoid",
    "softmax",
    "softmax_cross_entropy",
    "softplus",
    "step_function",
    "sum_to_shape",
    "valid_ids",
    "valid_targets",
]


def as_floating(x: Array, name: str = "x") -> Array:
    """Return `x` as an array of floats: integers and booleans in float64, floats in their own dtype.

    Errors call it `name`.
    """
    if type(x) is np.ndarray and x.dtype.kind == "f":  # all layers call this: the usual case makes no call
        return x
    x = as_array(name, x)
    return x if x.dtype.kind == "f" else x.astype("float64")


def identity_function(x: Array) -> Array:
    """Return `x` unchanged, the output activation of a regression network."""
    return x


def step_function(x: Array) -> Array:
    """Heaviside step, 1 for x > 0 and 0 for all else (0 and NaN too), as ``int64`` of the shape of `x`."""
    return (as_array("x", x) > 0).astype("int64")


def sigmoid(x: Array, out: Array | None = None) -> Array:
    """Logistic function, y = 1 / (1 + exp(-x)), of the shape of `x`.

    Computed from e = ``exp(-|x|)`` <= 1, as 1 / (1 + e) for x >= 0 and e / (1 + e) for x < 0. So no x overflows, and
    small results keep their relative precision. For integers the result is float64.
    """
    xp, x = get_array_module(x), as_floating(x)
    e = xp.exp(-abs(x))
    return xp.divide(xp.where(x >= 0, 1.0, e), 1.0 + e, out=out)


def softplus(x: Array, out: Array | None = None) -> Array:
    """Smooth max(x, 0), y = log(1 + exp(x)), of the shape of `x`.

    Computed as ``max(x, 0) + log(1 + exp(-|x|))``. So no x overflows, and small results keep their relative precision.
    """
    xp, x = get_array_module(x), as_floating(x)
    return xp.add(xp.maximum(x, 0), xp.log1p(xp.exp(-abs(x))), out=out)


def relu(x: Array) -> Array:
    """Rectified linear unit, max(x, 0), of the shape and dtype of `x`; NaN stays NaN."""
    x = as_array("x", x)
    return get_array_module(x).maximum(x, 0)


def softmax(x: Array, axis: int = -1, out: Array | None = None) -> Array:
    """Softmax along `axis`, y_k = exp(x_k - m) / sum_i exp(x_i - m) with m = max_i x_i, of the shape of `x`.

    Subtracting the maximum does not change the result; it keeps the exponentials from overflow (section 3.5.2).
    """
    xp, x = get_array_module(x), as_floating(x)
    if not (isinstance(axis, (int, np.integer)) and -x.ndim <= axis < x.ndim):
        raise ValueError(
            f"softmax expected axis to be an integer in [{-x.ndim}, {x.ndim}), got {axis!r}; x is {x.shape}"
        )
    if not x.shape[axis]:
        raise ValueError(f"softmax expected x to hold scores along axis {axis}, got shape {x.shape}")
    e = xp.exp(x - x.max(axis=axis, keepdims=True))
    return xp.divide(e, e.sum(axis=axis, keepdims=True), out=out)


def softmax_cross_entropy(x: Array, t: Array, reduction: Literal["mean", "none"] = "mean") -> tuple[Array, Array]:
    """Softmax and its cross entropy with the labels, computed from the scores.

    L_n = log sum_k exp(x_nk) * sum_k t_nk - sum_k t_nk x_nk, exact for probabilities of any size.

    Parameters
    ----------
    x : (..., C)
        Scores.
    t : (..., C), or (...) integers
        Labels per class or class ids, see `class_ids`. On the host an id outside [0, C) is an error. On a CUDA
        device it makes the loss NaN, because a check would wait for the device.
    reduction : {"mean", "none"}, default "mean"
        ``"mean"`` returns the mean over the samples (NaN for an empty batch), ``"none"`` a loss per sample.

    Returns
    -------
    loss : scalar or (...)
    y : (..., C)
        Probabilities.
    """
    x, t = as_array("x", x), as_array("t", t)
    xp, ids = get_array_module(x=x, t=t), class_ids(x, t)
    columns = x.reshape(-1, x.shape[-1]).T.astype(floating(x.dtype), order="C")  # a copy, changed in place
    columns -= columns.max(axis=0)
    if ids is not None:
        picked = _pick(columns, ids)
    else:
        shares = _class_first(t.astype(columns.dtype, copy=False))
        picked, weight = (shares * columns).sum(axis=0), shares.sum(axis=0)
    xp.exp(columns, out=columns)
    total = columns.sum(axis=0)
    columns /= total
    losses = xp.log(total)
    if ids is None:
        losses *= weight
    losses -= picked
    loss = losses.sum() * inverse_count(losses.size) if reduction == "mean" else losses.reshape(x.shape[:-1])
    return loss, columns.T.reshape(x.shape)


def cross_entropy_error(y: Array, t: Array) -> Array:
    """Mean cross entropy of probabilities, E = -1/N sum_n sum_k t_nk log(y_nk + 1e-7), a scalar (section 4.2.4).

    The book adds 1e-7 to keep log(0) finite. `SoftmaxWithLoss` has the scores, and adds nothing.

    Parameters
    ----------
    y : (N, C) or (C,)
        Probabilities.
    t : (N, C) or (C,) one-hot, or (N,) or scalar integers
        Labels.
    """
    xp = get_array_module(y=y, t=t)
    y, t = as_floating(y, "y"), as_array("t", t)
    ids = class_ids(y, t)
    logs = (t * xp.log(y + 1e-7)).sum(axis=-1) if ids is None else xp.log(_pick(_class_first(y), ids) + 1e-7)
    return logs.sum() * -inverse_count(logs.size)


def mean_squared_error(y: Array, t: Array) -> Array:
    """Half the squared error, mean over the batch, E = 1/(2N) sum_n sum_k (y_nk - t_nk)^2, a scalar (section 4.2.1).

    The book defines it for a single sample. PyTorch's ``MSELoss`` is this times 2 / K.

    Parameters
    ----------
    y, t : (N, K) or (K,)
        Outputs and targets.

    Raises
    ------
    ValueError
        If the shapes differ. Broadcasting would hide a mistake.
    """
    get_array_module(y=y, t=t)
    y, t = as_floating(y, "y"), as_floating(t, "t")
    if y.shape != t.shape:
        raise ValueError(f"mean_squared_error expected t of y's shape {y.shape}, got {t.shape}")
    batch = len(y) if y.ndim > 1 else 1
    return ((y - t) ** 2).sum() * (0.5 * inverse_count(batch))


def one_hot(t: Array, num_classes: int | None = None, dtype: DTypeLike = "float32") -> Array:
    """Encode class ids as one-hot, of shape ``t.shape + (num_classes,)``: 1 at [..., t[...]] and 0 elsewhere.

    Parameters
    ----------
    t : integers
        Class ids in [0, num_classes).
    num_classes : int, optional
        Length of the new last axis; by default the largest id plus one.
    dtype : dtype, default "float32"
        dtype of the result.

    Raises
    ------
    TypeError
        If `t` does not hold integers.
    ValueError
        If an id lies outside [0, num_classes), or if `t` is empty and `num_classes` is not given.
    """
    xp = get_array_module(t)
    t = as_array("t", t)
    if t.dtype.kind not in "iu":
        raise TypeError(f"one_hot expected integer class ids, got dtype {t.dtype}")
    if num_classes is None:
        if t.size == 0:
            raise ValueError("one_hot cannot count the classes of an empty t; pass num_classes")
        num_classes = int(t.max()) + 1
    dtype = as_dtype("dtype", dtype)
    check_ids(t, count("num_classes", num_classes))
    return (t[..., None] == xp.arange(num_classes)).astype(dtype)


def class_ids(x: Array, t: Array) -> Array | None:
    """Return the labels as class ids, (...); None if they are labels per class. Shape and dtype decide.

    Parameters
    ----------
    x : (..., C)
        Scores or probabilities.
    t : (..., C) of any dtype, or (...) or (..., 1) of integers
        Labels per class (one-hot or probabilities), or class ids.

    Raises
    ------
    ValueError
        If `t` is neither.
    """
    return class_ids_for_shape(t, x.shape)


def check_labels(t: Array, shape: tuple[int, ...]) -> None:
    """Check shape, dtype and ids of labels for scores of the given shape. Reads every id.

    Raises
    ------
    ValueError
        If `t` is neither one-hot nor class ids for scores of this shape, or an id lies outside [0, C).
    """
    ids = class_ids_for_shape(t, shape)
    if ids is not None:
        check_ids(ids, shape[-1])


def indicate_classes(t: Array, num_classes: int, dtype: DTypeLike) -> Array:
    """Encode class ids as one-hot labels. On a CUDA device an id out of range makes its row NaN."""
    xp = get_array_module(t)
    ids, valid = valid_ids(t, num_classes)
    hits = (ids[..., None] == xp.arange(num_classes)).astype(dtype)
    return hits if valid is None else xp.where(valid[..., None], hits, math.nan)


def indicated_classes(t: Array) -> Array | None:
    """Return the class ids of one-hot labels (..., C) on the host; None if a row is not one-hot."""
    ids = t.argmax(axis=-1)
    # The maximum of each row is 1, and all other values are 0.
    is_one_hot = bool((t.max(axis=-1) == 1).all()) and int((t != 0).sum()) == ids.size
    return ids if is_one_hot else None


def check_ids(t: Array, number: int, name: str = "class ids") -> None:
    """Raise a ValueError if an id lies outside [0, number). Reads every id."""
    # As an unsigned integer a negative id is large: one maximum finds both kinds of error.
    if t.size and t.view(_unsigned(t.dtype)).max() >= number:
        smallest, largest = int(t.min()), int(t.max())
        raise ValueError(f"{name} must lie in [0, {number}), got ids from {smallest} to {largest}")


def valid_ids(ids: Array, number: int, name: str = "class ids") -> tuple[Array, Array | None]:
    """Return ids in [0, number), and a mask of the valid ids; on the host an invalid id is an error, the mask None.

    A check would wait for a CUDA device. There invalid ids become 0, and the caller sets their results to NaN.

    Raises
    ------
    ValueError
        If an id on the host lies outside [0, number).
    """
    if is_on_host(ids):
        check_ids(ids, number, name)
        return ids, None
    valid = (ids >= 0) & (ids < number)
    return get_array_module(ids).where(valid, ids, 0), valid


def check_targets(t: Array, most: float) -> None:
    """Raise a ValueError if a target lies outside [0, most]. Reads every target."""
    if t.size and not (t.min() >= 0 and t.max() <= most):
        raise ValueError(f"targets t must lie in [0, {most:g}], got values from {float(t.min())} to {float(t.max())}")


def valid_targets(t: Array, most: float) -> Array:
    """Return `t`, with values in [0, most]. Others are an error on the host, and become NaN on a CUDA device."""
    if is_on_host(t):
        check_targets(t, most)
        return t
    return get_array_module(t).where((t >= 0) & (t <= most), t, math.nan)


def floating(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return `dtype` itself if it is floating, else float64."""
    return dtype if dtype.kind == "f" else np.dtype("float64")


def inverse_count(n: int) -> float:
    """Return 1/n, the factor from a sum of n values to their mean; NaN for n = 0, without NumPy's warning."""
    return 1.0 / n if n else math.nan


def sum_to_shape(x: Array, shape: tuple[int, ...]) -> Array:
    """Sum `x` over the axes that broadcasting from `shape` to ``x.shape`` added or stretched.

    This is the adjoint of broadcasting, for backward of ``+`` and ``*`` on arguments of different shapes.
    """
    if np.shape(x) == shape:
        return x
    lead = x.ndim - len(shape)
    stretched = tuple(lead + i for i, n in enumerate(shape) if n == 1 and x.shape[lead + i] != 1)
    return x.sum(axis=(*range(lead), *stretched), keepdims=True).reshape(shape)


def _class_first(x: Array) -> Array:
    """Return x (..., C) as a contiguous (C, n). NumPy reduces over few classes several times faster along axis 0."""
    return get_array_module(x).ascontiguousarray(x.reshape(-1, x.shape[-1]).T)


@functools.cache
def _unsigned(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the unsigned integers of this size, in the same byte order."""
    return np.dtype(dtype.str.replace("i", "u"))


def _pick(columns: Array, t: Array) -> Array:
    """Return columns[t[n], n] for each sample n, for columns (C, N)."""
    xp = get_array_module(columns)
    ids, valid = valid_ids(t.reshape(-1), len(columns))
    picked = columns[ids, xp.arange(len(ids))]
    return picked if valid is None else xp.where(valid, picked, math.nan)


def class_ids_for_shape(t: Array, scores: tuple[int, ...]) -> Array | None:
    """Return `class_ids` for scores of the given shape."""
    if t.shape == scores:
        return None
    samples = scores[:-1]
    has_ids = t.shape in (samples, (*samples, 1))
    if has_ids and t.dtype.kind in "iu":
        return t if t.shape == samples else t.reshape(samples)
    hint = "; class ids must be integers, see t.astype('int64')" if has_ids else ""
    raise ValueError(
        f"labels t must be one-hot of shape {scores} or integer class ids of shape {scores[:-1]}, "
        f"got shape {t.shape} of {t.dtype}{hint}"
    )

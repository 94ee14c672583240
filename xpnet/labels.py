"""Labels and targets: which kind they are, and whether they are in range."""

from __future__ import annotations

import math

from xpnet.device import get_array_module, is_on_host
from xpnet.typing import Array, DTypeLike

__all__ = [
    "check_ids",
    "check_labels",
    "check_probabilities",
    "has_class_ids",
    "indicate_classes",
    "indicated_classes",
    "valid_ids",
    "valid_probabilities",
]


def has_class_ids(x: Array, t: Array) -> bool:
    """Tell labels given as integer class ids from labels given per class, by shape and dtype alone.

    Parameters
    ----------
    x : (..., C)
        Scores or probabilities.
    t : (..., C) of any dtype, or (...) of integers
        Labels per class (one-hot or probabilities), or class ids.

    Raises
    ------
    ValueError
        If `t` is neither.
    """
    return _is_class_ids(t, x.shape)


def check_labels(t: Array, shape: tuple[int, ...]) -> None:
    """Check labels for scores of the given shape, their values included: a look at every id.

    Raises
    ------
    ValueError
        If `t` is neither one-hot nor class ids for such scores, or an id lies outside [0, C).
    """
    if _is_class_ids(t, shape):
        check_ids(t, shape[-1])


def indicate_classes(t: Array, num_classes: int, dtype: DTypeLike) -> Array:
    """Return class ids as one-hot labels; on a CUDA device an id out of range makes its row NaN."""
    xp = get_array_module(t)
    ids, valid = valid_ids(t, num_classes)
    hits = (ids[..., None] == xp.arange(num_classes)).astype(dtype)
    return hits if valid is None else xp.where(valid[..., None], hits, math.nan)


def indicated_classes(t: Array) -> Array | None:
    """Return the class ids of one-hot labels (..., C) on the host; None if a row is no such label."""
    ids = t.argmax(axis=-1)
    # One is the largest of each row, and there is nothing else.
    is_one_hot = bool((t.max(axis=-1) == 1).all()) and int((t != 0).sum()) == ids.size
    return ids if is_one_hot else None


def check_ids(t: Array, number: int, name: str = "class ids") -> None:
    """Raise a ValueError if an id lies outside [0, number): a look at every one."""
    # Read without its sign, a negative id is a large one: one pass finds both kinds of wrong.
    unsigned = t if t.dtype.kind == "u" else t.view(f"u{t.dtype.itemsize}")
    if t.size and unsigned.max() >= number:
        smallest, largest = int(t.min()), int(t.max())
        raise ValueError(f"{name} must lie in [0, {number}), got ids from {smallest} to {largest}")


def valid_ids(ids: Array, number: int, name: str = "class ids") -> tuple[Array, Array | None]:
    """Return ids in [0, number), and a mask of those that were there; on the host they must be, and the mask is None.

    On a CUDA device, where looking stalls the queue, 0 takes the place of the others; what it leads to shall be NaN.

    Raises
    ------
    ValueError
        If an id on the host lies elsewhere.
    """
    if is_on_host(ids):
        check_ids(ids, number, name)
        return ids, None
    valid = (ids >= 0) & (ids < number)
    return get_array_module(ids).where(valid, ids, 0), valid


def check_probabilities(t: Array) -> None:
    """Raise a ValueError if a target lies outside [0, 1]: a look at every one."""
    if t.size and not (t.min() >= 0 and t.max() <= 1):
        raise ValueError(f"targets t must lie in [0, 1], got values from {float(t.min())} to {float(t.max())}")


def valid_probabilities(t: Array) -> Array:
    """Return `t`, whose values must lie in [0, 1]; on a CUDA device, where looking stalls the queue, others are NaN."""
    if is_on_host(t):
        check_probabilities(t)
        return t
    return get_array_module(t).where((t >= 0) & (t <= 1), t, math.nan)


def _is_class_ids(t: Array, scores: tuple[int, ...]) -> bool:
    if t.shape == scores:
        return False
    if t.shape == scores[:-1] and t.dtype.kind in "iu":
        return True
    hint = ""
    if t.shape == scores[:-1]:
        hint = "; class ids must be integers, see t.astype('int64')"
    elif t.shape == (*scores[:-1], 1):
        hint = "; drop its last axis with t[..., 0]"
    raise ValueError(
        f"labels t must be one-hot of shape {scores} or integer class ids of shape {scores[:-1]}, "
        f"got shape {t.shape} of {t.dtype}{hint}"
    )

"""Weights of samples in the mean that a loss is, sum_n w_n l_n / sum_n w_n."""

import math

from xpnet.device import as_array, get_array_module, is_on_host
from xpnet.typing import Array, DTypeLike

__all__ = ["check_weights", "normalize", "sample_weights", "weighted_sums"]


def check_weights(w: Array) -> None:
    """Raise a ValueError if a weight on the host is negative or not finite. Reads every weight.

    On a CUDA device, where a check would wait for the queue, weights are not checked.
    """
    if is_on_host(w) and w.size and not (w.min() >= 0 and w.max() < math.inf):
        raise ValueError(
            f"sample_weight must be finite and not negative, got weights from {float(w.min())} to {float(w.max())}"
        )


def sample_weights(sample_weight: Array, x: Array, shape: tuple[int, ...]) -> Array:
    """Return the weights of the samples in scores x, as float64 of the given shape: a weight for each row of scores.

    Parameters
    ----------
    sample_weight : (N,), or of the given shape
        A weight in (N,) is that of all rows of the sample. A negative weight, or one that is not finite, is an error
        on the host. On a CUDA device, where a check would wait for the queue, it becomes NaN.

    Raises
    ------
    ValueError
        If weights have another shape, or a weight on the host is negative or not finite.
    """
    w = as_array("sample_weight", sample_weight)
    xp = get_array_module(x=x, sample_weight=w)
    if w.shape not in (shape, shape[:1]):
        expected = " or ".join(str(s) for s in dict.fromkeys((shape[:1], shape)))
        raise ValueError(f"sample_weight must have the shape {expected}, a weight per sample, got {w.shape}")
    check_weights(w)
    w = w.astype("float64", copy=False)
    if not is_on_host(w):
        w = xp.where((w >= 0) & (w < math.inf), w, math.nan)
    return xp.broadcast_to(w.reshape(*w.shape, *[1] * (len(shape) - w.ndim)), shape)


def normalize(w: Array, dtype: DTypeLike, counts: Array | None = None, axis: int | None = None) -> Array:
    """Return weights divided by the sum of `counts` (by default of the weights), or 0 where that sum is 0."""
    xp = get_array_module(w)
    total = (w if counts is None else counts).sum(axis=axis, keepdims=True)
    return xp.where(total == 0, 0.0, w / xp.where(total == 0, 1.0, total)).astype(dtype)


def weighted_sums(losses: Array, w: Array, batches: int) -> Array:
    """Return the sums (batches,) of losses times normalized weights; NaN if all weights are 0.

    Parameters
    ----------
    losses : (batches, ...) or (...)
        The losses of each batch, or of the only one.
    w : array
        Normalized weights, which broadcast to the losses of one batch.
    """
    xp = get_array_module(losses=losses, w=w)
    sums = (losses * w).reshape(batches, -1).sum(axis=1)
    return sums * xp.where((w != 0).any(), 1.0, math.nan).astype(losses.dtype)

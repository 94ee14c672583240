"""Scaled dot-product attention: the definition, and the same in blocks of keys, with memory linear in their number."""

import math
from collections.abc import Iterator
from typing import NamedTuple

from xpnet import kernels
from xpnet.device import get_array_module
from xpnet.typing import Array

__all__ = ["Hidden", "Remembered", "attend", "attend_gradient", "attend_in_blocks", "attend_in_blocks_gradient"]


class Hidden(NamedTuple):
    """Which keys a query does not see.

    Attributes
    ----------
    padding : (N, S) of bool, or None
        True for keys that no query sees.
    causal : bool
        Whether a query does not see keys behind its own position.
    first : int
        Position of the first query; the first key is at 0.
    """

    padding: Array | None = None
    causal: bool = False
    first: int = 0

    def hide(self, scores: Array, query: int, key: int) -> Array:
        """Return scores (B, T, S) with -inf for hidden keys; they begin at this query and this key.

        B is N times the number of heads.
        """
        xp = get_array_module(scores)
        B, T, S = scores.shape
        if self.causal:
            rows, columns = xp.arange(T) + (self.first + query), xp.arange(S) + key
            scores = xp.where(columns > rows[:, None], -math.inf, scores)
        if self.padding is not None:
            N = len(self.padding)
            padding = self.padding[:, None, None, key : key + S]
            scores = xp.where(padding, -math.inf, scores.reshape(N, B // max(N, 1), T, S)).reshape(B, T, S)
        return scores

    def first_query(self, key: int) -> int:
        """Return the first query that sees a key, padding aside."""
        return max(key - self.first, 0) if self.causal else 0


class Remembered(NamedTuple):
    """Keys and values of the positions so far, in arrays with room for more.

    Attributes
    ----------
    k, v : (B, L, d)
        The arrays, with room for L positions. Behind the last of them may be those of a longer continuation.
    length : int
        Number of positions so far.
    filled : list of one int
        Number of positions in use, in all states with these arrays.
    """

    k: Array
    v: Array
    length: int
    filled: list[int]

    @classmethod
    def extended(cls, before: "Remembered | None", k: Array, v: Array) -> "Remembered":
        """Return the state `before`, or none, and further keys and values (B, T, d)."""
        xp, first = get_array_module(k=k, v=v), 0 if before is None else before.length
        length = first + k.shape[1]
        if before is not None and before.filled == [first] and length <= before.k.shape[1]:
            after = before._replace(length=length)
        else:  # no room, or another continuation of these positions is there
            shape = (k.shape[0], 2 * length, k.shape[2])
            after = cls(xp.empty(shape, k.dtype), xp.empty(shape, v.dtype), length, [0])
            if before is not None:
                after.k[:, :first], after.v[:, :first] = before.k[:, :first], before.v[:, :first]
        after.k[:, first:length], after.v[:, first:length] = k, v
        after.filled[0] = length
        return after


def attend(q: Array, k: Array, v: Array, hidden: Hidden) -> tuple[Array, Array]:
    """Return attention's output o = P v and the weights P = softmax(q k^T / sqrt(d)) (Vaswani et al., 2017).

    A query that sees no key gets zeros.

    Parameters
    ----------
    q : (B, T, d)
        Queries.
    k, v : (B, S, d)
        Keys and values.
    hidden : Hidden
        Keys that get no weight.
    """
    xp = get_array_module(q=q, k=k)
    scores = hidden.hide(kernels.matmul(q * _scale(q), _transposed(k)), 0, 0)
    scores -= _finite(scores.max(axis=-1, keepdims=True))
    P = xp.exp(scores, out=scores)
    P /= _not_zero(P.sum(axis=-1, keepdims=True))
    return kernels.matmul(P, v), P


def attend_gradient(do: Array, q: Array, k: Array, v: Array, P: Array) -> tuple[Array, Array, Array]:
    """Return dq, dk and dv of `attend`, given do = dL/do.

    dv = P^T do, dP = do v^T, and through the softmax dS = P dP - P sum_s P dP; dq = dS k / sqrt(d), dk = dS^T q /
    sqrt(d).
    """
    dS = kernels.matmul(do, _transposed(v))
    dS *= P
    dS -= P * dS.sum(axis=-1, keepdims=True)
    scale = _scale(q)
    return kernels.matmul(dS, k * scale), kernels.matmul(_transposed(dS), q * scale), kernels.matmul(_transposed(P), do)


def attend_in_blocks(q: Array, k: Array, v: Array, hidden: Hidden, size: int) -> tuple[Array, Array]:
    """Return the output of `attend`, and log sum exp of each query's scores, (B, T, 1), from blocks of `size` keys.

    A running maximum m and sum l of exponentials stand for the scores so far; a larger maximum rescales them (Dao et
    al., "FlashAttention", 2022). So the scores are never in memory all at once. Blocks that no query sees are skipped.
    """
    xp = get_array_module(q=q, k=k)
    B, T, d = q.shape
    o, m, l = (xp.zeros((B, T, width), q.dtype) for width in (d, 1, 1))  # noqa: E741 - the paper's names
    m -= math.inf
    for key, block, query in _blocks(k, hidden, size, T):
        seen = slice(query, None)
        scores = hidden.hide(kernels.matmul(q[:, seen], _transposed(k[:, block])) * _scale(q), query, key)
        largest = xp.maximum(m[:, seen], scores.max(axis=-1, keepdims=True))
        base = _finite(largest)
        e, rescaled = xp.exp(scores - base), xp.exp(m[:, seen] - base)
        l[:, seen] = l[:, seen] * rescaled + e.sum(axis=-1, keepdims=True)
        o[:, seen] = o[:, seen] * rescaled + kernels.matmul(e, v[:, block])
        m[:, seen] = largest
    l = _not_zero(l)  # noqa: E741
    return o / l, _finite(m) + xp.log(l)


def attend_in_blocks_gradient(
    do: Array, q: Array, k: Array, v: Array, o: Array, logsumexp: Array, hidden: Hidden, size: int
) -> tuple[Array, Array, Array]:
    """Return dq, dk and dv of `attend_in_blocks`, given do = dL/do.

    The weights of a block are computed again, P = exp(S - log sum exp). sum_s P dP is sum do o, for all blocks at once.
    """
    xp = get_array_module(do=do, q=q)
    dq, dk, dv = xp.zeros(q.shape, q.dtype), xp.empty(k.shape, k.dtype), xp.empty(v.shape, v.dtype)
    mean = (do * o).sum(axis=-1, keepdims=True)
    for key, block, query in _blocks(k, hidden, size, q.shape[1]):
        seen = slice(query, None)
        scores = hidden.hide(kernels.matmul(q[:, seen], _transposed(k[:, block])) * _scale(q), query, key)
        P = xp.exp(scores - logsumexp[:, seen])
        dS = P * (kernels.matmul(do[:, seen], _transposed(v[:, block])) - mean[:, seen]) * _scale(q)
        dv[:, block] = kernels.matmul(_transposed(P), do[:, seen])
        dk[:, block] = kernels.matmul(_transposed(dS), q[:, seen])
        dq[:, seen] += kernels.matmul(dS, k[:, block])
    return dq, dk, dv


def _blocks(k: Array, hidden: Hidden, size: int, queries: int) -> Iterator[tuple[int, slice, int]]:
    """Yield each block of keys: its first key, its slice, and the first query that sees it."""
    for key in range(0, k.shape[1], size):
        yield key, slice(key, key + size), min(hidden.first_query(key), queries)


def _scale(q: Array) -> float:
    return 1.0 / math.sqrt(q.shape[-1])


def _transposed(x: Array) -> Array:
    return x.transpose(0, 2, 1)


def _finite(m: Array) -> Array:
    """Return maxima with 0 in place of -inf, that of a query that sees no key."""
    return get_array_module(m).where(m == -math.inf, 0.0, m)


def _not_zero(total: Array) -> Array:
    return get_array_module(total).where(total == 0.0, 1.0, total)

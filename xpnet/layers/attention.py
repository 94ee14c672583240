"""Attention with several heads, of a sequence to itself and to another one."""

from typing import Self

import numpy as np

from xpnet import functions, initializers, kernels
from xpnet.device import as_array, get_array_module
from xpnet.layers import dot_product
from xpnet.layers.base import Layer
from xpnet.layers.dot_product import Hidden, Remembered
from xpnet.layers.positions import rotate
from xpnet.settings import count, generator
from xpnet.typing import Array, DTypeLike, Seed

__all__ = ["CrossAttention", "MultiHeadAttention"]


class MultiHeadAttention(Layer):
    """Attention of a sequence to itself, with several heads (Vaswani et al., 2017).

    x W + b is the queries, keys and values side by side, each in equal parts for the heads. A head's output is
    softmax(q k^T / sqrt(d)) v. Side by side, the heads' outputs o give y = o Wo + bo.

    dWo = sum o^T dout, dbo = sum dout, do = dout Wo^T. Each head gives dq, dk, dv from its part of do
    (`xpnet.layers.dot_product`). For a = x W + b, da = (dq, dk, dv): dW = sum x^T da, db = sum da, dx = da W^T.

    Parameters
    ----------
    W : (D, 3 D)
        Weights of queries, keys and values, in this order: the transpose of PyTorch's ``in_proj_weight``.
    b : (3 D,)
        Their biases.
    Wo : (D, D)
        Weights of the output.
    bo : (D,)
        Its biases.
    num_heads : int
        Number of heads, a divisor of D.
    causal : bool, default False
        Whether a position sees only itself and the positions before it.
    rotary : bool, default False
        Whether positions rotate queries and keys (`xpnet.layers.positions.rotate`).
    block_size : int or None, default 256
        Number of keys at a time. Memory is then linear in the length of the sequence. With None all scores are in
        memory at once, as in the definition.

    Notes
    -----
    ``forward(x, padding=p)`` takes x (N, T, D) and p (N, T), True where a position is padding, which no position sees.
    ``advance(x, state)`` predicts sequences piece by piece; a state has the keys and values so far.
    """

    parameter_names = ("W", "b", "Wo", "bo")
    saved = ("x", "memory", "q", "k", "v", "o", "weights", "padding")
    samplewise = True
    takes_padding = True
    reach = {"Wo": {1: -1}, "bo": {0: -1}}  # noqa: RUF012

    def __init__(
        self,
        W: Array,
        b: Array,
        Wo: Array,
        bo: Array,
        num_heads: int,
        causal: bool = False,
        rotary: bool = False,
        block_size: int | None = 256,
    ) -> None:
        name = type(self).__name__
        get_array_module(W=W, b=b, Wo=Wo, bo=bo)
        D = len(Wo) if getattr(Wo, "ndim", 0) == 2 else 0
        for argument, array, shape in (("Wo", Wo, (D, D)), ("bo", bo, (D,)), ("W", W, (D, 3 * D)), ("b", b, (3 * D,))):
            got = getattr(array, "shape", type(array).__name__)
            if not D or got != shape:
                wanted = {"Wo": "(D, D)", "bo": f"({D},)", "W": f"({D}, {3 * D})", "b": f"({3 * D},)"}[argument]
                raise ValueError(f"{name} expected {argument} of shape {wanted}, got {got}")
        self.num_heads = count("num_heads", num_heads)
        if D % self.num_heads:
            raise ValueError(f"num_heads must divide the number of features, {D}, got {num_heads}")
        self.rotary = bool(rotary)
        if self.rotary and D // self.num_heads % 2:
            raise ValueError(f"rotary needs an even number of features per head, got {D} / {num_heads}")
        self.W = W
        self.b = b
        self.Wo = Wo
        self.bo = bo
        self.causal = bool(causal)
        self.block_size = None if block_size is None else count("block_size", block_size)

    @classmethod
    def from_sizes(
        cls,
        size: int,
        num_heads: int,
        *,
        causal: bool = False,
        rotary: bool = False,
        block_size: int | None = 256,
        std: float | str = "glorot",
        rng: Seed = None,
        dtype: DTypeLike = "float32",
    ) -> Self:
        """Create a layer with random weights and zero biases, on the host.

        Parameters
        ----------
        size : int
            D.
        num_heads, causal, rotary, block_size
            As in the class.
        std : float or str, default "glorot"
            Standard deviation of the weights, or a rule's name, see `xpnet.initializers.initial_weights`.
        rng : numpy.random.Generator or int, optional
            Random generator or seed of the weights. Pass one generator to all layers of a network.
        dtype : dtype, default "float32"
            dtype of the parameters.
        """
        D, rng = count("size", size), generator("rng", rng)
        W, Wo = (initializers.initial_weights((D, width), std, rng, dtype) for width in (3 * D, D))
        return cls(W, np.zeros(3 * D, dtype), Wo, np.zeros(D, dtype), num_heads, causal, rotary, block_size)

    def forward(self, x: Array, train: bool = True, padding: Array | None = None) -> Array:
        x = functions.as_floating(x)
        return self._attend(x, x, padding)

    def backward(self, dout: Array) -> Array:
        dx, dmemory = self._gradients(dout)
        return dx + dmemory

    def advance(self, x: Array, state: Remembered | None = None) -> tuple[Array, Remembered]:
        """Return the output for a piece of sequences, and all keys and values so far; saves nothing for backward.

        Parameters
        ----------
        x : (N, T, D)
            The piece.
        state : Remembered, optional
            The state behind the piece before; by default, `x` is the beginning.

        Raises
        ------
        TypeError
            If the layer is not causal: the outputs so far would change with each piece.
        """
        if not self.causal:
            raise TypeError(f"{self.name} is not causal: earlier outputs would depend on later pieces")
        get_array_module(x=x, W=self.W)
        x = functions.as_floating(x)
        self.output_shape(x.shape[1:])
        first = 0 if state is None else state.length
        q, k, v = self._heads(x, x, first)
        state = Remembered.extended(state, k, v)
        k, v = (array[:, : state.length] for array in (state.k, state.v))
        o, _ = self._products(q, k, v, Hidden(None, True, first))
        return self._output(self._merged(o, x.shape[1])), state

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(shape) != 2 or shape[1] != len(self.W):
            got = ", ".join(["N", *map(str, shape)])
            raise ValueError(f"{self.name} expected x of shape (N, T, {len(self.W)}), got ({got})")
        return shape

    def _attend(self, x: Array, memory: Array, padding: Array | None) -> Array:
        """Return the output for queries of x (N, T, D), and keys and values of memory (N, S, D)."""
        padding = None if padding is None else as_array("padding", padding)
        get_array_module(x=x, memory=memory, W=self.W, padding=x if padding is None else padding)
        self.output_shape(x.shape[1:])
        self.output_shape(memory.shape[1:])
        if len(x) != len(memory):
            raise ValueError(f"{self.name} expected as many sequences of both kinds, got {len(x)} and {len(memory)}")
        if padding is not None and (padding.shape, padding.dtype) != (memory.shape[:2], bool):
            raise ValueError(
                f"{self.name} expected padding of shape {memory.shape[:2]} and dtype bool, got {padding.shape}, "
                f"{padding.dtype}"
            )
        q, k, v = self._heads(x, memory, 0)
        o, weights = self._products(q, k, v, Hidden(padding, self.causal))
        merged = self._merged(o, x.shape[1])
        self.x, self.memory, self.q, self.k, self.v = x, memory, q, k, v
        self.o, self.weights, self.padding = merged, weights, padding
        return self._output(merged)

    def _heads(self, x: Array, memory: Array, first: int) -> tuple[Array, Array, Array]:
        """Return queries (N h, T, d) of x, and keys and values (N h, S, d) of memory, rotated from position `first`."""
        D = len(self.W)
        q = self._split(kernels.matmul(_rows(x), self.W[:, :D], bias=self.b[:D]), x.shape[1])
        pairs = kernels.matmul(_rows(memory), self.W[:, D:], bias=self.b[D:])
        k, v = (self._split(part, memory.shape[1]) for part in (pairs[:, :D], pairs[:, D:]))
        return (rotate(q, first), rotate(k, first), v) if self.rotary else (q, k, v)

    def _products(self, q: Array, k: Array, v: Array, hidden: Hidden) -> tuple[Array, Array]:
        if self._fits(k.shape[1]):
            return dot_product.attend(q, k, v, hidden)
        return dot_product.attend_in_blocks(q, k, v, hidden, self.block_size or 1)

    def _fits(self, keys: int) -> bool:
        """Whether all scores are in memory at once: those of one block are, and need not be computed again."""
        return keys > 0 and (self.block_size is None or keys <= self.block_size)

    def _output(self, o: Array) -> Array:
        return kernels.matmul(_rows(o), self.Wo, bias=self.bo).reshape(o.shape)

    def _gradients(self, dout: Array) -> tuple[Array, Array]:
        """Return the gradients of x and memory, and set those of the parameters."""
        xp = get_array_module(dout=dout, x=self.x)
        self._expect_dout(dout, self.x.shape)
        D, (T, S) = len(self.W), (self.x.shape[1], self.memory.shape[1])
        rows, q, k, v = _rows(dout), self.q, self.k, self.v
        self.dbo = rows.sum(axis=0)
        self.dWo = kernels.matmul(_rows(self.o).T, rows, self.out.get("dWo"))
        do = self._split(kernels.matmul(rows, self.Wo.T), T)
        if self._fits(S):
            dq, dk, dv = dot_product.attend_gradient(do, q, k, v, self.weights)
        else:
            o, hidden = self._split(_rows(self.o), T), Hidden(self.padding, self.causal)
            dq, dk, dv = dot_product.attend_in_blocks_gradient(
                do, q, k, v, o, self.weights, hidden, self.block_size or 1
            )
        if self.rotary:
            dq, dk = rotate(dq, back=True), rotate(dk, back=True)
        dq = _rows(self._merged(dq, T))
        dpairs = xp.concatenate([_rows(self._merged(part, S)) for part in (dk, dv)], axis=1)
        dW = self.out.get("dW")
        self.dW = xp.empty(self.W.shape, dout.dtype) if dW is None else dW
        self.dW[:, :D] = kernels.matmul(_rows(self.x).T, dq)
        self.dW[:, D:] = kernels.matmul(_rows(self.memory).T, dpairs)
        self.db = xp.concatenate([dq.sum(axis=0), dpairs.sum(axis=0)])
        dx = kernels.matmul(dq, self.W[:, :D].T).reshape(self.x.shape)
        return dx, kernels.matmul(dpairs, self.W[:, D:].T).reshape(self.memory.shape)

    def _split(self, rows: Array, T: int) -> Array:
        """Return rows (N T, D) as stacks (N h, T, d)."""
        h, d = self.num_heads, len(self.W) // self.num_heads
        N = len(rows) // max(T, 1)
        return get_array_module(rows).ascontiguousarray(
            rows.reshape(N, T, h, d).transpose(0, 2, 1, 3).reshape(N * h, T, d)
        )

    def _merged(self, stacks: Array, T: int) -> Array:
        """Return stacks (N h, T, d) as sequences (N, T, D)."""
        h = self.num_heads
        N, d = len(stacks) // h, stacks.shape[2]
        return stacks.reshape(N, h, T, d).transpose(0, 2, 1, 3).reshape(N, T, h * d)


class CrossAttention(MultiHeadAttention):
    """Attention of a sequence x to another, `memory`, with several heads (Vaswani et al., 2017).

    As `MultiHeadAttention`, but with keys and values of `memory` (N, S, D). ``forward(x, memory, padding=p)`` takes
    p (N, S), True where a position of `memory` is padding. ``backward`` returns the gradients of both sequences.
    """

    inputs = 2
    saved = MultiHeadAttention.saved
    samplewise = True

    def __init__(self, W: Array, b: Array, Wo: Array, bo: Array, num_heads: int, block_size: int | None = 256) -> None:
        super().__init__(W, b, Wo, bo, num_heads, block_size=block_size)

    @classmethod
    def from_sizes(  # type: ignore[override]
        cls,
        size: int,
        num_heads: int,
        *,
        block_size: int | None = 256,
        std: float | str = "glorot",
        rng: Seed = None,
        dtype: DTypeLike = "float32",
    ) -> Self:
        """Create a layer with random weights and zero biases; see `MultiHeadAttention.from_sizes`."""
        its = MultiHeadAttention.from_sizes(size, num_heads, std=std, rng=rng, dtype=dtype)
        return cls(its.W, its.b, its.Wo, its.bo, num_heads, block_size)

    def forward(self, x: Array, memory: Array, padding: Array | None = None) -> Array:  # type: ignore[override]
        return self._attend(functions.as_floating(x), functions.as_floating(memory, "memory"), padding)

    def backward(self, dout: Array) -> tuple[Array, Array]:
        return self._gradients(dout)


def _rows(x: Array) -> Array:
    """Return all positions of sequences (N, T, D) as rows (N T, D)."""
    N, T, D = x.shape
    return x.reshape(N * T, D)

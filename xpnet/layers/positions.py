"""Positions in sequences: added to vectors, or as rotations of queries and keys."""

from typing import Any, Self

from xpnet import functions, initializers
from xpnet.device import get_array_module
from xpnet.layers.base import Layer
from xpnet.settings import count
from xpnet.typing import Array, DTypeLike, Seed

__all__ = ["LearnedPositionalEncoding", "PositionalEncoding", "rotate"]

BASE = 10_000.0
"""Wavelengths of sines and rotations lie between 2 pi and 2 pi times this."""


class PositionalEncoding(Layer):
    """Sines and cosines of the position, added to x: y_t = x_t + p_t (Vaswani et al., 2017).

    p_t,2i = sin(t / 10000^(2i/D)) and p_t,2i+1 = cos(t / 10000^(2i/D)). dx = dout. Sequences (N, T, D) may have any
    length.
    """

    saved = ("x_shape",)
    samplewise = True

    def forward(self, x: Array, train: bool = True) -> Array:
        x = functions.as_floating(x)
        y, _ = self.advance(x)
        self.x_shape = x.shape
        return y

    def advance(self, x: Array, state: int | None = None) -> tuple[Array, int]:
        """Return the output for a piece of sequences that begins at position `state`, and the position behind it."""
        x, first = functions.as_floating(x), state or 0
        self.output_shape(x.shape[1:])
        return x + self._encoding(x, first), first + x.shape[1]

    def backward(self, dout: Array) -> Array:
        self._expect_dout(dout, self.x_shape)
        return dout * 1.0  # an array of its own

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(shape) != 2:
            raise ValueError(f"{self.name} expected x of shape (N, T, D), got ({', '.join(['N', *map(str, shape)])})")
        return shape

    def _encoding(self, x: Array, first: int) -> Array:
        """Return the encoding (T, D) of positions from `first` on."""
        xp = get_array_module(x)
        _, T, D = x.shape
        angles = _angles(xp, first, T, (D + 1) // 2)
        return xp.stack([xp.sin(angles), xp.cos(angles)], axis=-1).reshape(T, -1)[:, :D].astype(x.dtype)


class LearnedPositionalEncoding(PositionalEncoding):
    """A learned vector for each position, added to x: y_t = x_t + W_t (Gehring et al., 2017).

    dx = dout, dW_t = sum_n dout_n,t.

    Parameters
    ----------
    W : (L, D)
        Vectors of positions 0 ... L - 1. Sequences (N, T, D) may have up to L positions.
    """

    parameter_names = ("W",)
    saved = ("x_shape",)
    samplewise = True
    reach = {"W": {1: -1}}  # noqa: RUF012

    def __init__(self, W: Array) -> None:
        if getattr(W, "ndim", None) != 2:
            got = getattr(W, "shape", type(W).__name__)
            raise ValueError(f"LearnedPositionalEncoding expected W to be an array of shape (L, D), got {got}")
        self.W = W

    @classmethod
    def from_sizes(
        cls, length: int, size: int, *, std: float = 0.02, rng: Seed = None, dtype: DTypeLike = "float32"
    ) -> Self:
        """Create a layer with normally distributed vectors, on the host.

        Parameters
        ----------
        length, size : int
            L and D.
        std : float, default 0.02
            Standard deviation of the vectors' elements, as in GPT-2.
        rng : numpy.random.Generator or int, optional
            Random generator or seed of the vectors. Pass one generator to all layers of a network.
        dtype : dtype, default "float32"
            dtype of W.
        """
        return cls(initializers.initial_weights((count("length", length), count("size", size)), std, rng, dtype))

    def backward(self, dout: Array) -> Array:
        xp = get_array_module(dout=dout, W=self.W)
        dx = super().backward(dout)
        dW = self.out.get("dW")
        self.dW = xp.empty(self.W.shape, self.W.dtype) if dW is None else dW
        T = dout.shape[1]
        self.dW[T:] = 0.0
        dout.sum(axis=0, out=self.dW[:T])
        return dx

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        L, D = self.W.shape
        if len(shape) != 2 or shape[0] > L or shape[1] != D:
            got = ", ".join(["N", *map(str, shape)])
            raise ValueError(f"{self.name} expected x of shape (N, T, {D}) with T up to {L}, got ({got})")
        return shape

    def _encoding(self, x: Array, first: int) -> Array:
        get_array_module(x=x, W=self.W)
        stop = first + x.shape[1]
        if stop > len(self.W):
            raise ValueError(f"{self.name} has vectors for {len(self.W)} positions, got a sequence of {stop}")
        return self.W[first:stop]


def rotate(x: Array, first: int = 0, back: bool = False) -> Array:
    """Rotate pairs of features by angles proportional to the position (Su et al., 2021).

    Features 2i and 2i + 1 of x (B, T, d) turn by t / 10000^(2i/d). So a product of a query and a key depends on the
    distance of their positions. The gradient turns back.
    """
    xp = get_array_module(x)
    B, T, d = x.shape
    angles = _angles(xp, first, T, d // 2)
    cos, sin = xp.cos(angles).astype(x.dtype), xp.sin(angles).astype(x.dtype)
    sin = -sin if back else sin
    even, odd = x[..., 0::2], x[..., 1::2]
    return xp.stack([even * cos - odd * sin, even * sin + odd * cos], axis=-1).reshape(B, T, d)


def _angles(xp: Any, first: int, T: int, pairs: int) -> Array:
    """Return the angles (T, pairs) of positions from `first` on, in float64."""
    frequencies = BASE ** (xp.arange(pairs, dtype="float64") * (-1.0 / max(pairs, 1)))
    return (xp.arange(T, dtype="float64") + first)[:, None] * frequencies

"""Embedding: learned vectors for ids, such as those of words."""

import math
from typing import Self

from xpnet import functions, initializers, kernels
from xpnet.device import Device, as_array, get_array_module
from xpnet.layers.base import Layer
from xpnet.settings import count
from xpnet.typing import Array, DTypeLike, Seed

__all__ = ["Embedding", "Unembedding"]


class Embedding(Layer):
    """A learned vector for each id, y[..., :] = W[x[...], :] (Bengio et al., 2003).

    dW[i] = sum of dout over the positions where x is i. Ids have no derivative: ``backward`` returns None.

    Parameters
    ----------
    W : (V, D)
        Vectors, a row for each id 0 ... V - 1. The layer keeps this array, without a copy.

    Notes
    -----
    ``forward`` takes integers x of shape (N, ...) and returns (N, ..., D). A network does not convert the ids of its
    first layer; without an embedding, ``uint8`` means pixels. An id outside [0, V) is an error on the host. On a CUDA
    device its vector is NaN, because a check would wait for the device. The terms of dW are added there in no fixed
    order: two runs agree up to rounding.
    """

    parameter_names = ("W",)
    saved = ("ids",)
    samplewise = True
    takes_ids = True
    reach = {"W": {1: -1}}  # noqa: RUF012

    def __init__(self, W: Array) -> None:
        shape = getattr(W, "shape", None)
        if shape is None or len(shape) != 2:
            got = type(W).__name__ if shape is None else f"shape {shape}"
            raise ValueError(f"Embedding expected W to be an array of shape (V, D), got {got}")
        self.W = W

    @classmethod
    def from_sizes(
        cls, ids: int, output_size: int, *, std: float = 1.0, rng: Seed = None, dtype: DTypeLike = "float32"
    ) -> Self:
        """Create a layer with normally distributed vectors, on the host.

        Parameters
        ----------
        ids, output_size : int
            V and D.
        std : float, default 1.0
            Standard deviation of the vectors' elements.
        rng : numpy.random.Generator or int, optional
            Random generator or seed of the vectors. Pass one generator to all layers of a network.
        dtype : dtype, default "float32"
            dtype of W.
        """
        return cls(
            initializers.initial_weights((count("ids", ids), count("output_size", output_size)), std, rng, dtype)
        )

    def forward(self, x: Array, train: bool = True) -> Array:
        xp = get_array_module(x=x, W=self.W)
        x = as_array("x", x)
        if x.dtype.kind not in "iu":
            raise TypeError(f"{self.name} expected integer ids, got dtype {x.dtype}; see x.astype('int64')")
        ids, valid = functions.valid_ids(x, len(self.W), f"ids for {self.name}")
        self.ids = ids = ids.astype("int64", copy=False)
        y = self.out.get("y")
        y = kernels.gather(self.W, ids, xp.empty(self.output_shape(x.shape), self.W.dtype) if y is None else y)
        return y if valid is None else xp.where(valid[..., None], y, math.nan)

    def backward(self, dout: Array) -> None:
        xp = get_array_module(dout=dout, ids=self.ids)
        self._expect_dout(dout, self.output_shape(self.ids.shape))
        dW = self.out.get("dW")
        self.dW = xp.empty(self.W.shape, self.W.dtype) if dW is None else dW
        self.dW[...] = 0.0
        kernels.add_at(self.dW, self.ids, dout)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*shape, self.W.shape[1])


class Unembedding(Layer):
    """Score of each id, y = x W^T, with the vectors W of an embedding (Press and Wolf, 2017).

    dx = dout W, dW = sum dout^T x.

    Parameters
    ----------
    embedding : Embedding
        Owner of W (V, D), in the same network. W is tied: it is a parameter of the embedding alone, and the network
        adds the gradient that ``backward`` leaves in ``dW`` here to that of the embedding.

    Notes
    -----
    ``forward`` takes x (N, ..., D) and returns (N, ..., V).
    """

    saved = ("x",)
    samplewise = True

    def __init__(self, embedding: Embedding) -> None:
        if not isinstance(embedding, Embedding):
            raise TypeError(f"Unembedding expected an Embedding, got {type(embedding).__name__}")
        self.embedding = embedding

    @property
    def tied(self) -> dict[str, Layer]:  # type: ignore[override]
        """The embedding, as the owner of W."""
        return {"W": self.embedding}

    def forward(self, x: Array, train: bool = True) -> Array:
        W = self.embedding.W
        get_array_module(x=x, W=W)
        x = functions.as_floating(x)
        y_shape = (*x.shape[:1], *self.output_shape(x.shape[1:]))
        self.x = x
        return kernels.matmul(x.reshape(math.prod(x.shape[:-1]), len(W.T)), W.T).reshape(y_shape)

    def backward(self, dout: Array) -> Array:
        W, x = self.embedding.W, self.x
        get_array_module(dout=dout, x=x)
        self._expect_dout(dout, (*x.shape[:-1], len(W)))
        rows, dout = x.reshape(math.prod(x.shape[:-1]), len(W.T)), dout.reshape(math.prod(x.shape[:-1]), len(W))
        self.dW = kernels.matmul(dout.T, rows)
        return kernels.matmul(dout, W).reshape(x.shape)

    def to(self, device: Device | str, dtype: DTypeLike | None = None) -> None:
        super().to(device, dtype)
        if self.embedding.place is None:  # it works alone, too
            self.embedding.to(device, dtype)

    def forget(self) -> None:
        super().forget()
        vars(self).pop("dW", None)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        V, D = self.embedding.W.shape
        if shape[-1:] != (D,):
            got = ", ".join(["N", *map(str, shape)])
            raise ValueError(f"{self.name} expected x of shape (N, ..., {D}), got ({got})")
        return (*shape[:-1], V)

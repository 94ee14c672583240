"""Blocks of a transformer."""

from typing import Self

import numpy as np

from xpnet.layers.activation import Gelu
from xpnet.layers.affine import Affine
from xpnet.layers.attention import MultiHeadAttention
from xpnet.layers.base import Layer
from xpnet.layers.normalization import LayerNorm
from xpnet.layers.regularization import Dropout
from xpnet.layers.residual import Residual
from xpnet.layers.row import Row
from xpnet.settings import count, fraction, generator
from xpnet.typing import DTypeLike, Seed

__all__ = ["TransformerBlock"]


class TransformerBlock(Row):
    """Block of a transformer, normalized first: h = x + attention(norm(x)), y = h + f(norm(h)) (Xiong et al., 2020).

    f treats each position by itself: an affine layer to more features, Gelu, and one back. Both sums are a `Residual`.

    Parameters
    ----------
    *layers : Layer
        Usually two, as `from_sizes` makes them. They belong to the block from then on.

    Examples
    --------
    >>> block = TransformerBlock.from_sizes(8, 2, causal=True, rng=0)
    >>> [*block.parts], [*block.parts["Residual2"].parts]
    (['Residual1', 'Residual2'], ['LayerNorm1', 'Affine1', 'Gelu1', 'Affine2'])
    """

    saved = ("y_shape",)
    samplewise = True

    @classmethod
    def from_sizes(
        cls,
        size: int,
        num_heads: int,
        *,
        hidden_size: int | None = None,
        causal: bool = False,
        rotary: bool = False,
        block_size: int | None = 256,
        dropout: float = 0.0,
        std: float | str = "glorot",
        rng: Seed = None,
        dtype: DTypeLike = "float32",
    ) -> Self:
        """Create a block with random weights and zero biases, on the host.

        Parameters
        ----------
        size : int
            Number of features, D.
        num_heads, causal, rotary, block_size
            As in `MultiHeadAttention`.
        hidden_size : int, optional
            Number of features between the two affine layers; by default 4 D.
        dropout : float in [0, 1), default 0.0
            Probability of `Dropout` behind the attention and behind f.
        std : float or str, default "glorot"
            Standard deviation of the weights, or a rule's name, see `xpnet.initializers.initial_weights`.
        rng : numpy.random.Generator or int, optional
            Random generator or seed. Pass one generator to all layers of a network.
        dtype : dtype, default "float32"
            dtype of the parameters.
        """
        D, rng = count("size", size), generator("rng", rng)
        H = 4 * D if hidden_size is None else count("hidden_size", hidden_size)
        dropout = fraction("dropout", dropout)

        def norm() -> Layer:
            return LayerNorm(np.ones(D, dtype), np.zeros(D, dtype))

        def dropped() -> list[Layer]:
            return [Dropout(dropout, seed=rng)] if dropout else []

        attention = MultiHeadAttention.from_sizes(
            D, num_heads, causal=causal, rotary=rotary, block_size=block_size, std=std, rng=rng, dtype=dtype
        )
        first, second = (
            Affine.from_sizes(*sizes, std=std, rng=rng, dtype=dtype, axis=-1) for sizes in ((D, H), (H, D))
        )
        return cls(Residual(norm(), attention, *dropped()), Residual(norm(), first, Gelu(), second, *dropped()))

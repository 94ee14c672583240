"""Recurrent layers as other libraries have them: with two biases, and both directions as one layer."""

from xpnet.device import get_array_module
from xpnet.layers import GRU, Bidirectional
from xpnet.layers.recurrent import Recurrent
from xpnet.typing import Array

__all__ = ["hidden_bias", "is_one_layer"]


def hidden_bias(layer: Recurrent) -> Array:
    """Return the bias of the product with the step before, (G H,); `b` is then the other bias.

    xpnet adds the two, so it is 0. But a GRU multiplies the product of n by r, and so has a bias of its own there.
    """
    bias = get_array_module(layer.b).zeros_like(layer.b)
    if isinstance(layer, GRU):
        bias[-len(layer.bn) :] = layer.bn
    return bias


def is_one_layer(layer: Bidirectional) -> bool:
    """Whether both directions have a recurrent layer of the same kind and size. ONNX and PyTorch have no others."""
    ahead, back = layer.ahead, layer.back
    return (
        isinstance(ahead, Recurrent)
        and isinstance(back, Recurrent)
        and type(ahead) is type(back)
        and ahead.Wh.shape == back.Wh.shape
    )

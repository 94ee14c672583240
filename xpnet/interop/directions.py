"""Recurrent layers in both directions, as other libraries have them: as one layer."""

from xpnet.layers import Bidirectional
from xpnet.layers.recurrent import Recurrent

__all__ = ["is_one_layer"]


def is_one_layer(layer: Bidirectional) -> bool:
    """Whether both directions have a recurrent layer of the same kind and size. ONNX and PyTorch have no others."""
    ahead, back = layer.ahead, layer.back
    return (
        isinstance(ahead, Recurrent)
        and isinstance(back, Recurrent)
        and type(ahead) is type(back)
        and ahead.Wh.shape == back.Wh.shape
    )

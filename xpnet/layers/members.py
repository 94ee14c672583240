"""Layers of a network or of another layer: their names, and a check that each belongs to none yet."""

from collections import Counter
from collections.abc import Iterable

from xpnet.layers.base import Layer

__all__ = ["check_free", "name_by_class"]


def name_by_class(layers: Iterable[Layer]) -> dict[str, Layer]:
    """Name layers by class and running number: ``Affine1``, ``Relu1``, ``Affine2`` ..."""
    named: dict[str, Layer] = {}
    counts: Counter[str] = Counter()
    for layer in layers:
        kind = type(layer).__name__
        counts[kind] += 1
        named[f"{kind}{counts[kind]}"] = layer
    return named


def check_free(layers: Iterable[tuple[str, Layer]]) -> None:
    """Check that no layer belongs to a network, or to another layer, already.

    Raises
    ------
    TypeError
        If one of `layers` is not a layer.
    ValueError
        If a layer has a place already, or is given twice.
    """
    seen: set[int] = set()
    for name, layer in layers:
        if not isinstance(layer, Layer):
            raise TypeError(f"layer {name!r} must be an xpnet.layers.Layer, got {type(layer).__name__}")
        if layer.place is not None or id(layer) in seen:
            raise ValueError(
                f"layer {name!r} belongs to a network already, or is given twice, and holds state for one place only; "
                "create a new layer for each place, or a copy (copy.deepcopy)"
            )
        seen.add(id(layer))

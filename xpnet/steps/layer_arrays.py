"""Arrays of the layers, allocated in the first step and reused in the next ones."""

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any

from xpnet.kernels import Call, observing
from xpnet.layers import Layer
from xpnet.nets import Network
from xpnet.typing import Array

__all__ = ["LayerArrays", "largest_of_sample", "recorded_arrays"]

LayerArrays = dict[Layer, dict[str, Array]]
"""`Layer.out` for each layer of a network."""

RESULTS = {"forward": "y", "backward": "dx"}
"""Names in `Layer.out` of the results, by method."""


def largest_of_sample(net: Network) -> int | None:
    """Return the largest number of values that any layer holds for one sample; None if its shape is not known."""
    row = net.row or []
    sample = net.input_shape or (row[0].input_shape() if row else None)
    return None if sample is None else net.largest(sample)


@contextlib.contextmanager
def recorded_arrays(net: Network) -> Iterator[LayerArrays]:
    """Context of one step. At its end the yielded mapping holds the arrays of the layers.

    These are the results of forward and backward, and the saved arrays. A layer with `Layer.in_place` shares the array
    of a neighbor with `Layer.hands_over`, and overwrites it.
    """
    layers = (*net.modules().values(), *(net.row or []), net.last_layer)
    made: LayerArrays = {layer: {} for layer in layers}

    def record(call: Call) -> Any:
        result = call.run()
        if call.owner in made and call.name in RESULTS:
            made[call.owner][RESULTS[call.name]] = result
        return result

    with observing(record):
        yield made
    for layer, arrays in made.items():
        # A layer has saved nothing if another one has run in its place (`xpnet.nets.assembly.Order.fused`).
        arrays.update({name: vars(layer)[name] for name in layer.saved if name in vars(layer)})
    shared: dict[int, Array] = {}
    for front, behind in itertools.pairwise(net.row or []):
        for giver, taker, name in ((front, behind, "y"), (behind, front, "dx")):
            given, own = made[giver].get(name), made[taker].get(name)
            if _holds(giver, "hands_over") and _holds(taker, "in_place") and given is not None and own is not None:
                shared[id(own)] = given
    for arrays in made.values():  # the next layer may have saved its input
        arrays.update({name: shared.get(id(array), array) for name, array in arrays.items()})


def _holds(layer: Layer, name: str) -> bool:
    """Whether a declared property holds for a layer. It does not for a subclass that overrides a pass."""
    cls, passes = type(layer), {"forward", "backward", "backward_parameters"}
    owner = next(base for base in cls.__mro__ if name in vars(base))
    is_own = not vars(layer).keys() & passes and all(getattr(cls, p) is getattr(owner, p) for p in passes)
    return bool(getattr(layer, name)) and is_own

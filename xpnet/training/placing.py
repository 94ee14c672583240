"""Data of a trainer: checked once for all steps, and on the network's device if they fit there."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from xpnet.device import Device, as_array, check_equally_many
from xpnet.nets import Network
from xpnet.training.sources import BatchSource
from xpnet.typing import Array

__all__ = ["batches_of", "placed"]


def placed(network: Network, part: str, x: Array, t: Array, weight: Array | None = None) -> list[Array]:
    """Check samples, labels and weights, and move them to the network's device if they fit.

    Parameters
    ----------
    network : Network
        The network that takes them.
    part : str
        ``"train"``, ``"test"`` or ``"validation"``, for errors.
    x, t, weight : arrays
        Samples, labels, and weights if any.

    Raises
    ------
    ValueError
        If they do not fit together, or the network or its loss does not take them.
    """
    mapped = isinstance(x, np.memmap)
    named = {f"x_{part}": x, f"t_{part}": t} | ({} if weight is None else {"sample_weight": weight})
    x, t, *weights = arrays = [as_array(name, array) for name, array in named.items()]
    check_equally_many(**dict(zip(named, arrays, strict=True)))
    if len(x) == 0:
        raise ValueError(f"x_{part} is empty")
    device = network.device
    dtype = network.dtype if x.dtype.kind == "f" and not mapped else None
    fits = device.holds(x) or device.has_room_for(x.nbytes)
    place = device if fits else Device("cpu")
    x, t, *weights = place.asarray(x, dtype), *(place.asarray(array) for array in (t, *weights))
    _check_fit(network, x, t)
    return [x, t, *weights]


def batches_of(network: Network, x_train: Any, sample_weight: Any) -> BatchSource:
    """Return the source of minibatches of an iterable, checked by its first one.

    Raises
    ------
    ValueError
        If it is no iterable of minibatches, or the network does not take them.
    """
    if hasattr(x_train, "shape") or not isinstance(x_train, Iterable):
        raise ValueError(f"t_train is missing: x_train is {type(x_train).__name__}, no iterable of minibatches (x, t)")
    if sample_weight is not None:
        raise ValueError("the weights of an iterable's samples are in its minibatches, (x, t, sample_weight)")
    source = BatchSource(network.device, x_train)
    _check_fit(network, *source.first[:2])
    return source


def _check_fit(network: Network, x: Array, t: Array) -> None:
    """Check that the network takes these samples, and its loss these labels."""
    device = network.device
    with device.activate(), np.errstate(over="ignore", invalid="ignore"):  # training reports an infinite loss
        scores = network.predict(device.asarray(x[:1]))
        network.last_layer.check_labels(t, (len(x), *scores.shape[1:]))

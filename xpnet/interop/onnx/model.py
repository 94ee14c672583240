"""An ONNX model of a network, in a file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import xpnet
from xpnet import settings
from xpnet.extras import import_extra
from xpnet.files import written_atomically
from xpnet.interop.onnx.builder import GraphBuilder
from xpnet.nets import GraphNetwork, Network

__all__ = ["IR_VERSION", "OPSET", "export"]

OPSET = 18
"""Version of the operators: the first in which all reductions take their axes alike. Of December 2022."""

IR_VERSION = 8
"""Version of the file format that belongs to this opset."""

OUTPUTS = ("scores", "probabilities")
"""Names of the outputs."""

LARGEST = 2**31 - 2**20
"""Bytes of parameters that a file may hold, with room for its nodes: protobuf's limit is 2 GiB."""


def export(
    net: Network,
    file: str | Path,
    *,
    input_shape: tuple[int | str, ...] | None = None,
    class_names: Sequence[str] | None = None,
) -> None:
    """Write a network to an ONNX file, in prediction mode. Needs ``xpnet[onnx]``.

    The model has the input ``x``, in the network's dtype; pixels are floats in [0, 1]. Ids of an embedding are int64.
    It has the outputs ``scores``, as `Network.predict` returns them, and ``probabilities`` if the loss is
    `SoftmaxWithLoss` or `SigmoidWithLoss`. The batch axis is dynamic, and called N.

    The file is of opset 18 and IR version 8. ONNX's own checker accepts it before it is written, atomically.

    Parameters
    ----------
    net : Network
        A network of any device.
    file : str or Path
        The file, usually ``.onnx``.
    input_shape : tuple of int or str, optional
        Shape of one sample. Needed only if neither the network nor its first layer's parameters determine it. A text is
        the name of an axis of any length: ``("T",)`` for sequences of ids, ``("T", 8)`` for sequences of vectors.
    class_names : sequence of str, optional
        Names of the classes, for the entry ``class_names`` of the metadata, as JSON.

    Raises
    ------
    TypeError
        If the network's class overrides `predict`, or a layer has no converter (`converter`).
    ValueError
        If the shape of a sample is not known, a layer does not take each length of a dynamic axis, or ONNX cannot hold
        the network.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> from xpnet.nets import TwoLayerNet
    >>> net = TwoLayerNet(784, 50, 10, seed=0)
    >>> export(net, "digits.onnx", class_names=[*"0123456789"])  # doctest: +SKIP
    """
    _check(net)
    shape = _input_shape(net, input_shape)
    model = _model(net.copy().to("cpu"), shape, class_names)  # a copy: its forward pass saves arrays in the layers
    onnx = import_extra("onnx", "onnx")
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ValueError(f"ONNX cannot hold this {type(net).__name__}: {error}") from error
    with written_atomically(file) as stream:
        stream.write(model.SerializeToString())


def _model(net: Network, shape: tuple[int | str, ...], class_names: Sequence[str] | None) -> Any:
    """Return the model of a network on the host, for samples of a shape."""
    helper = import_extra("onnx.helper", "onnx")
    graph = GraphBuilder(net.dtype)
    for name in OUTPUTS:
        graph.unique(name)  # from now on no layer's
    x = graph.input("x", shape, net.input_dtype(np.dtype("int64")))
    scores = _convert(net, graph, x)
    values = {"scores": scores}
    if probabilities := graph.probabilities(net.last_layer, scores):
        values["probabilities"] = probabilities
    for name, value in values.items():
        graph.output(name, value)
    metadata = {"xpnet": xpnet.__version__}
    if class_names is not None:
        _check_names(class_names, np.shape(graph.sample(scores)))
        metadata["class_names"] = json.dumps([*class_names])

    def declared(name: str, value: str) -> Any:
        batch = graph.sample(value)
        kind = helper.np_dtype_to_tensor_dtype(batch.dtype)
        return helper.make_tensor_value_info(name, kind, ["N", *graph.shape(value)] if batch.shape else [])

    outputs = [declared(name, scores) for name in values]  # probabilities are like scores
    model = helper.make_model(
        helper.make_graph(graph.nodes, type(net).__name__, [declared("x", x)], outputs, graph.initializers),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="xpnet",
        producer_version=xpnet.__version__,
    )
    helper.set_model_props(model, metadata)
    return model


def _check(net: Network) -> None:
    if not isinstance(net, Network):
        raise TypeError(f"net must be an xpnet.nets.Network, got {type(net).__name__}")
    if type(net).predict not in (Network.predict, GraphNetwork.predict):
        raise TypeError(
            f"{type(net).__name__} defines predict, which has no layers for ONNX; connect the layers in a Sequential "
            "or a GraphNetwork"
        )
    if net.dtype not in ("float16", "float32", "float64"):
        raise ValueError(f"ONNX has no type {net.dtype}; convert a copy of the network: net.copy().to(dtype='float64')")
    if net.params.flat.nbytes > LARGEST:
        raise ValueError(f"ONNX files hold up to 2 GiB, the parameters take {net.params.flat.nbytes / 2**30:.1f} GiB")


def _check_names(names: Sequence[str], shape: tuple[int, ...]) -> None:
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"class_names must be a sequence of texts, got {names!r}")
    classes = shape[-1] if len(shape) > 1 else 1
    if len(names) not in ({1, 2} if classes == 1 else {classes}):
        raise ValueError(f"class_names has {len(names)} names, but there are scores for {classes} classes")


def _input_shape(net: Network, given: tuple[int | str, ...] | None) -> tuple[int | str, ...]:
    """Return the shape of one sample: as given, the network's, or that of the layers that take the samples."""
    if given is not None:
        return _given_shape(given)
    nodes = _nodes(net)
    x = next(i for i, (what, _) in enumerate(nodes) if what is None)
    first = [layer.input_shape() for layer, sources in nodes if x in sources]
    shapes: list[tuple[int, ...] | None] = [net.input_shape, *first]
    found = next((shape for shape in shapes if shape is not None), None)
    if found is None:
        raise ValueError(
            f"the layers of this {type(net).__name__} fit samples of several shapes; pass input_shape=, the shape of "
            "one sample without the batch axis, with a name for an axis of any length: ('T',) for sequences of ids"
        )
    return found


def _given_shape(given: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Check a shape whose dynamic axes are texts."""
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise ValueError(f"input_shape must be a tuple of sizes, and names of axes of any length, got {given!r}")
    given = tuple(given)
    for axis in given:
        if isinstance(axis, str) and not (axis.isidentifier() and axis != "N"):
            raise ValueError(
                f"input_shape has the axis {axis!r}; the name of an axis of any length must be an identifier, and not "
                "N, the batch axis"
            )
    sizes = iter(settings.sizes("input_shape", tuple(axis for axis in given if not isinstance(axis, str))))
    return tuple(axis if isinstance(axis, str) else next(sizes) for axis in given)


def _nodes(net: Network) -> list[tuple[Any, tuple[int, ...]]]:
    """Return the nodes in order: a layer and the numbers of its inputs, or a constant, or None for x."""
    if isinstance(net, GraphNetwork):
        return [(net.layers[what] if sources else what, sources) for what, sources in net.nodes()]
    return [(None, ()), *((layer, (i,)) for i, layer in enumerate(net.layers.values()))]


def _convert(net: Network, graph: GraphBuilder, x: str) -> str:
    """Add the nodes of a network, and return the name of the scores."""
    values: list[Any] = []
    for what, sources in _nodes(net):
        if sources:
            values.append(graph.apply(what, *(values[i] for i in sources)))
        else:
            values.append(x if what is None else what)
    scores: str = values[-1]
    return scores

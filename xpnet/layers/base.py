"""What all layers share: how their parameters, gradients and saved state are named and found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

from xpnet import functions
from xpnet.device import Device, get_array_module
from xpnet.typing import Array, DTypeLike

__all__ = ["Formula", "Layer", "Loss", "check_free", "name_by_class"]


class Formula(NamedTuple):
    """A layer of one input as graph pages print it, with x and y for its input and output.

    Attributes
    ----------
    forward : str
        The output: ``"max(x, 0)"``.
    backward : str
        The derivative with respect to x, from ``dout``.
    is_scalar : bool
        Whether a page can compute both for numbers.
    """

    forward: str
    backward: str
    is_scalar: bool = False


class Layer:
    """A function with a hand-written derivative.

    ``forward(x, train=True)`` returns the output and saves what backward needs; ``backward(dout)`` takes the
    derivative of the loss with respect to that output and returns the one with respect to `x`, of the shape of `x`.
    Neither changes its arguments. A layer of several inputs takes them in ``forward`` and returns as many gradients.

    To write one, subclass, write the two methods, and declare the names below. A parameter ``W`` is the attribute
    ``self.W``, set in ``__init__``; ``backward`` leaves its gradient in ``self.dW``. That is all a network needs.

    Attributes
    ----------
    parameter_names : tuple of str
        Names of the attributes that are learnt, in order.
    inputs : int
        How many values forward takes, the labels of a loss among them.
    saved : tuple of str
        Names of the attributes that forward sets for backward. Reading one before forward has run is an error.
    buffer_names : tuple of str
        Names of attributes, arrays, that forward changes in training and a later call reads: running averages, say.
        They move and are saved along with the parameters, and are not learnt.
    fixed_buffers : bool
        Whether forward leaves its buffers as they are, so that it computes the same function at each call, with the
        same random numbers. Gradient checks fix the buffers of the copy that they work on.
    samplewise : bool
        Whether a sample's output depends on that sample alone, not on the others of the batch, and on nothing random.
    takes_ids : bool
        Whether its input are integers with a meaning of their own, not numbers: a network that begins with this layer
        leaves integers as they are.
    in_place : bool
        Whether the arrays for results, ``y`` and ``dx`` of `out`, may be the very ones that forward and backward are
        given.
    hands_over : bool
        Whether the layer, once it has returned an array, neither reads it again nor relies on it: the layer that is
        given it may write over it (``in_place``) in a compiled step.
    reach : mapping of str to mapping of int to int
        For a parameter, which of its axes number the same thing as which axis of the output: ``{"W": {1: -1}}`` says
        that ``W[i, j]`` reaches ``y[..., j]`` and nothing else. With it numerical gradients perturb many coordinates
        at a time (`xpnet.gradient`), and check the claim; a parameter that is left out is perturbed one by one.
    formula : Formula or None
        What graph pages print of the layer; without it, its docstring.
    parts : mapping of str to Layer
        The layers that this one is made of, by name; none, for most. They have parameters, buffers and an ``out`` of
        their own.
    place : str or None
        The layer's name in the network or layer that it belongs to; None for a layer that works alone.
    name : str
        What errors call the layer: its place, or else its class.
    has_node : bool
        Whether a graph has a node of this layer; the next node gets a copy that shares its parameters.
    out : dict of str to array
        Where to write results, by name; empty for a layer that works alone. During a network's backward pass it has
        the parameters' gradients, so that ``xp.matmul(x.T, dout, out=self.out.get("dW"))`` writes into the network's
        gradient vector there and allocates elsewhere. In a compiled step (`Network.compile`) it also has what the
        layer made in the step before: ``y``, returned by forward, ``dx``, returned by backward, and what it saved.
        A layer that ignores it works too, with a copy or an allocation.
    """

    parameter_names: ClassVar[tuple[str, ...]] = ()
    inputs: ClassVar[int] = 1
    saved: ClassVar[tuple[str, ...]] = ()
    buffer_names: ClassVar[tuple[str, ...]] = ()
    fixed_buffers: bool = False
    samplewise: bool = False
    takes_ids: ClassVar[bool] = False
    in_place: ClassVar[bool] = False
    hands_over: ClassVar[bool] = False
    reach: ClassVar[Mapping[str, Mapping[int, int]]] = {}
    formula: ClassVar[Formula | None] = None
    parts: Mapping[str, Layer] = MappingProxyType({})
    out: Mapping[str, Array] = MappingProxyType({})

    place: str | None = None
    has_node: bool = False

    @property
    def name(self) -> str:
        """The layer's name in the network or layer that it belongs to, or its class's name."""
        return self.place or type(self).__name__

    def __call__(self, *inputs: Any) -> Any:
        """Apply the layer: to arrays by `forward`, to a graph's values as a node of the graph (`xpnet.graph`).

        The first input whose type has a method ``apply_layer(layer, inputs)`` computes the result, as NumPy leaves a
        ufunc to an argument with ``__array_ufunc__``.
        """
        for x in inputs:
            if hasattr(type(x), "apply_layer"):
                return x.apply_layer(self, inputs)
        return self.forward(*inputs)

    def forward(self, x: Array, train: bool = True) -> Array:
        """Return the layer's output for `x`; `train` tells a training step from a prediction."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(x, train=True)")

    def backward(self, dout: Array) -> Array:
        """Return dL/dx given `dout` = dL/dy, and leave the gradients of the parameters in ``d<name>``."""
        raise NotImplementedError(f"{type(self).__name__} must define backward(dout)")

    def backward_parameters(self, dout: Array) -> None:
        """Compute the parameters' gradients only: all that is asked of a network's first layer with parameters.

        A layer whose input gradient costs extra work splits its ``backward`` here.
        """
        self.backward(dout)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of one output sample for an input sample of `shape` (no batch axis); by default the same.

        Raises
        ------
        ValueError
            If the layer cannot take such a sample.
        """
        return shape

    def input_shape(self) -> tuple[int, ...] | None:
        """Return the shape of one input sample where the parameters determine it, else None."""
        return None

    def parameters(self) -> dict[str, Array]:
        """Return the parameters by name; those of parts under names such as ``"Affine1.W"``."""
        return {name: getattr(layer, key) for name, layer, key in self._named("parameter_names")}

    def buffers(self) -> dict[str, Array]:
        """Return the buffers by name, those of parts likewise."""
        return {name: getattr(layer, key) for name, layer, key in self._named("buffer_names")}

    def to(self, device: Device | str, dtype: DTypeLike | None = None) -> None:
        """Move parameters and buffers to `device`, and to `dtype` if given; what forward had saved is dropped."""
        device = Device(device)
        for layer in self.modules().values():
            for name in (*layer.parameter_names, *layer.buffer_names):
                value = getattr(layer, name)
                setattr(layer, name, device.asarray(value, dtype if value.dtype.kind == "f" else None))
        self.forget()

    def forget(self) -> None:
        """Drop what forward saved, and the parameters' gradients."""
        for layer in self.modules().values():
            for name in (*layer.saved, *(f"d{name}" for name in layer.parameter_names)):
                layer.__dict__.pop(name, None)

    def share_parameters(self, owner: Layer) -> None:
        """Take the parameters of another layer, of which this is a copy, for one's own: the very arrays."""
        for mine, its in zip(self.modules().values(), owner.modules().values(), strict=True):
            vars(mine).update({name: getattr(its, name) for name in its.parameter_names})

    def modules(self, name: str = "") -> dict[str, Layer]:
        """Return this layer, under the given name, and all parts, in order, under names such as ``name.Affine1``."""
        found: dict[str, Layer] = {name: self}
        for key, part in self.parts.items():
            found |= part.modules(f"{name}.{key}" if name else key)
        return found

    def activation_pattern(self) -> Array | None:
        """Return which side of its kinks each unit was on in the last forward pass, None for a smooth layer.

        A central difference is no derivative where the pattern changes between x - h and x + h; the gradient check
        sets such coordinates apart.
        """
        return None

    def _named(self, attribute: str) -> list[tuple[str, Layer, str]]:
        """Return the names that layers have in a tuple of theirs, in full, and whose and what they are."""
        layers = self.modules().items()
        return [
            (f"{name}.{key}" if name else key, layer, key)
            for name, layer in layers
            for key in getattr(layer, attribute)
        ]

    def _expect_dout(self, dout: Array, shape: tuple[int, ...]) -> None:
        got = getattr(dout, "shape", ())
        if got != shape:
            raise ValueError(f"{self.name}.backward expected dout of its output's shape {shape}, got {got}")

    def __getattr__(self, name: str) -> Any:
        # Called only for attributes that do not exist: saved state before forward has set it, among others.
        if name in type(self).saved:
            raise RuntimeError(
                f"{self.name}.backward needs {name!r}, which forward saves; call {self.name}.forward first"
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


class Loss(Layer):
    """A layer that ends a network: it compares scores with labels.

    ``forward(x, t)`` returns a scalar, the mean over the batch, which stays on the device; ``backward(dout=1.0)``
    returns dout * dL/dx, of the shape of `x`.

    Attributes
    ----------
    classifies : bool
        Whether scores are right or wrong, so that there is an accuracy (`correct`); not in a regression.
    """

    inputs = 2
    classifies: ClassVar[bool] = True

    def forward(self, x: Array, t: Array) -> Array:  # type: ignore[override]
        """Return the loss of scores `x` for labels `t`, a scalar on their device."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(x, t)")

    def forward_each(self, x: Array, t: Array) -> Array:
        """Return the losses (K,) of K batches of scores, `x` (K, N, ...), all with the labels `t`.

        What numerical gradients ask for. By default one batch after the other; a loss that can, takes all at once.
        """
        return get_array_module(x=x, t=t).stack([self.forward(scores, t) for scores in x])

    def correct(self, x: Array, t: Array) -> Array:
        """Return whether scores `x` (N, C) are right for labels `t`: by default, whether the highest is the label's.

        Raises
        ------
        TypeError
            If the loss is one of regression, where nothing is simply right.
        """
        if not self.classifies:
            raise TypeError(f"{type(self).__name__} ends a regression, which has a loss but no accuracy")
        xp = get_array_module(x=x, t=t)
        ids = t if functions.has_class_ids(x, t) else xp.argmax(t, axis=-1)
        return xp.argmax(x, axis=-1) == ids

    def check_labels(self, t: Array, shape: tuple[int, ...]) -> None:
        """Check labels for scores of the given shape once and for all; by default, class ids or one for each class.

        Raises
        ------
        ValueError
            If they do not fit.
        """
        functions.check_labels(t, shape)

    def backward(self, dout: Array | float = 1.0) -> Array:
        """Return dout * dL/dx."""
        raise NotImplementedError(f"{type(self).__name__} must define backward(dout=1.0)")


def name_by_class(layers: Iterable[Layer]) -> dict[str, Layer]:
    """Name layers by class and running number: ``Affine1``, ``Relu1``, ``Affine2`` ..."""
    named: dict[str, Layer] = {}
    counts: Counter[str] = Counter()
    for layer in layers:
        kind = type(layer).__name__
        counts[kind] += 1
        named[f"{kind}{counts[kind]}"] = layer
    return named


def check_free(layers: Mapping[str, Layer]) -> None:
    """Make sure that layers can be given places in a network, or in another layer.

    Raises
    ------
    TypeError
        If one of them is no layer.
    ValueError
        If one has a place already.
    """
    seen: set[int] = set()
    for name, layer in layers.items():
        if not isinstance(layer, Layer):
            raise TypeError(f"layer {name!r} must be an xpnet.layers.Layer, got {type(layer).__name__}")
        if layer.place is not None or id(layer) in seen:
            raise ValueError(
                f"the layer given as {name!r} has a place in a network already; it holds the state of that place: "
                "give each place a layer of its own"
            )
        seen.add(id(layer))

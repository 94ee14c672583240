"""Base classes of layers and losses."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Self

from xpnet import functions
from xpnet.device import REAL, Device, StoredArray, get_array_module
from xpnet.layers.parameter import Parameter
from xpnet.typing import Array, DTypeLike

__all__ = ["Formula", "Layer", "Loss", "weight_arguments"]


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

    ``forward(x, train=True)`` returns the output and saves arrays for backward. ``backward(dout)`` takes the
    derivative of the loss with respect to the output, and returns the derivative with respect to `x`, of the shape of
    `x`. Neither changes its arguments. A layer of several inputs takes them all in ``forward``; ``backward`` returns
    one gradient per input.

    To write a layer, subclass, write the two methods, and declare the names below. A parameter ``W`` is the attribute
    ``self.W``, set in ``__init__``; ``backward`` leaves its gradient in ``self.dW``. A network needs no more.
    In a network ``layer.W`` is the network's own parameter: ``layer.W = array`` copies the values into it.
    The attributes of the last three groups are optional: they save time or memory.

    Attributes
    ----------
    Every layer

    parameter_names : tuple of str
        Names of the learned attributes, in order.
    inputs : int
        Number of arguments of forward. The labels of a loss count.
    saved : tuple of str
        Names of the attributes that forward sets for backward. Reading one before forward has run is an error.
    buffer_names : tuple of str
        Names of the buffers: arrays that forward updates in training, such as running averages. They are moved and
        saved with the parameters, but not learned.
    takes_ids : bool
        Whether the input are ids (integers), as for an embedding. A network does not convert them to its dtype.
    takes_padding : bool
        Whether ``forward(x, train, padding)`` takes an array (N, T), True where a position of x (N, T, D) is padding.
    formula : Formula or None
        Formulas of both passes for graph pages; without it, they print the docstring.
    parts : mapping of str to Layer
        Sublayers by name; empty for most layers. Each has its own parameters, buffers and ``out``.
    tied : mapping of str to Layer
        Parameters of other layers that this layer uses, by name: ``{"W": embedding}``; empty for most layers. Backward
        leaves its part of the gradient in ``self.dW``, and the network adds it to the owner's.
    place : str or None
        Name in the network or layer that contains this layer; None for a layer that works alone.
    name : str
        Name in error messages: `place`, or else the class's name.
    has_node : bool
        Whether a graph has a node of this layer. The next node gets a copy that shares its parameters.

    Arrays in compiled steps (optional)

    out : dict of str to array
        Preallocated arrays for results, by name; empty for a layer that works alone. During a network's backward pass
        it has views of the gradient vector: ``xp.matmul(x.T, dout, out=self.out.get("dW"))`` writes there. (In a layer
        that works alone it allocates.) In a compiled step (`Network.compile`) it also has the arrays of the step
        before: ``y``, returned by forward, ``dx``, returned by backward, and the saved arrays. A layer may ignore
        it, at the cost of a copy or an allocation.
    in_place : bool
        Whether ``out["y"]`` may be the input of forward, and ``out["dx"]`` the input of backward.
    hands_over : bool
        Whether the next layer may overwrite this layer's output, and the layer before its ``dx``. The next layer does
        so if it is ``in_place``.

    Shares of a minibatch (optional)

    first_sample : int or None
        Index in the minibatch of the first sample of x, if forward gets a share of a minibatch. A layer whose random
        numbers depend on this index draws those of the whole minibatch. Set it to 0 in such a layer's class. None for
        other layers.

    Numerical gradients (optional)

    fixed_buffers : bool
        Whether forward must leave the buffers unchanged. It then computes the same function at each call, with the
        same random numbers. Gradient checks set it on their copy of the layer. A layer with buffers must obey it.
    samplewise : bool
        Whether a sample's output depends on that sample alone: not on the rest of the batch, nor on random numbers.
    reach : mapping of str to mapping of int to int
        For each parameter, its axes that index an axis of the output: ``{"W": {1: -1}}`` says that ``W[i, j]``
        affects ``y[..., j]`` only. Numerical gradients (`xpnet.gradient`) then perturb many coordinates at a time, and
        check the claim. A parameter without an entry is perturbed one coordinate at a time.
    """

    parameter_names: ClassVar[tuple[str, ...]] = ()
    inputs: ClassVar[int] = 1
    saved: ClassVar[tuple[str, ...]] = ()
    buffer_names: ClassVar[tuple[str, ...]] = ()
    takes_ids: ClassVar[bool] = False
    takes_padding: ClassVar[bool] = False
    formula: ClassVar[Formula | None] = None
    parts: Mapping[str, Layer] = MappingProxyType({})
    tied: Mapping[str, Layer] = MappingProxyType({})
    place: str | None = None
    has_node: bool = False

    # Compiled steps.
    out: Mapping[str, Array] = MappingProxyType({})
    in_place: ClassVar[bool] = False
    hands_over: ClassVar[bool] = False

    # Shares of a minibatch.
    first_sample: int | None = None

    # Numerical gradients.
    fixed_buffers: bool = False
    samplewise: bool = False
    reach: ClassVar[Mapping[str, Mapping[int, int]]] = {}

    def __init_subclass__(cls) -> None:
        for name in cls.parameter_names:
            if not hasattr(cls, name):
                setattr(cls, name, Parameter(name))

    @property
    def name(self) -> str:
        """Name in the network or layer that contains this layer, or else the class's name."""
        return self.place or type(self).__name__

    def __call__(self, *inputs: Any) -> Any:
        """Apply the layer: to arrays by `forward`, to a graph's values as a node of the graph (`xpnet.graph`).

        The first input whose type has a method ``apply_layer(layer, inputs)`` computes the result, as
        ``__array_ufunc__`` does for a NumPy ufunc.
        """
        for x in inputs:
            if hasattr(type(x), "apply_layer"):
                return x.apply_layer(self, inputs)
        return self.forward(*inputs)

    def forward(self, x: Array, train: bool = True) -> Array:
        """Return the output for `x`; `train` is True in a training step, False in a prediction."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(x, train=True)")

    def backward(self, dout: Array) -> Array:
        """Return dL/dx given `dout` = dL/dy, and leave the gradients of the parameters in ``d<name>``."""
        raise NotImplementedError(f"{type(self).__name__} must define backward(dout)")

    def backward_parameters(self, dout: Array) -> None:
        """Compute the parameters' gradients only.

        A network calls it on its first layer with parameters. Override it if dx costs extra work.
        """
        self.backward(dout)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of one output sample for an input sample of `shape` (no batch axis); by default the same.

        Raises
        ------
        ValueError
            If the layer cannot take a sample of this shape.
        """
        return shape

    def input_shape(self) -> tuple[int, ...] | None:
        """Return the shape of one input sample if the parameters determine it, else None."""
        return None

    def parameters(self) -> dict[str, Array]:
        """Return the parameters by name. Sublayers' parameters have names such as ``"Affine1.W"``."""
        return {name: getattr(layer, key) for name, layer, key in self._named("parameter_names")}

    def buffers(self) -> dict[str, Array]:
        """Return the buffers by name, with sublayers' buffers."""
        return {name: getattr(layer, key) for name, layer, key in self._named("buffer_names")}

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments by name: arrays, sublayers, or values that JSON has (`xpnet.load`).

        By default they are the attributes of these names. A layer that keeps an argument in another way overrides it.

        Raises
        ------
        TypeError
            If there is no such attribute.
        """
        has_own = type(self).__init__ is not object.__init__
        names = list(inspect.signature(type(self)).parameters) if has_own else []
        if missing := [name for name in names if not hasattr(self, name)]:
            raise TypeError(
                f"{self.name} has no attribute {missing[0]!r}, as its constructor's argument is called; "
                f"set it, or define {type(self).__name__}.config() to return all arguments by name"
            )
        return {name: getattr(self, name) for name in names}

    def to(self, device: Device | str, dtype: DTypeLike | None = None) -> None:
        """Move parameters and buffers to `device`, convert them to `dtype` if given, and drop saved arrays."""
        device = Device(device)
        for layer in self.modules().values():
            for name in (*layer.parameter_names, *layer.buffer_names):
                value = getattr(layer, name)
                vars(layer)[name] = device.asarray(value, dtype if value.dtype.kind == "f" else None)
        self.forget()

    def forget(self) -> None:
        """Drop the arrays that forward saved, and the parameters' gradients."""
        for layer in self.modules().values():
            for name in (*layer.saved, *(f"d{name}" for name in layer.parameter_names)):
                layer.__dict__.pop(name, None)

    def share_parameters(self, owner: Layer) -> None:
        """Use the parameters and buffers of `owner`, without a copy. This layer must be a copy of `owner`."""
        for mine, its in zip(self.modules().values(), owner.modules().values(), strict=True):
            vars(mine).update({name: getattr(its, name) for name in (*its.parameter_names, *its.buffer_names)})

    def modules(self, name: str = "") -> dict[str, Layer]:
        """Return this layer as `name`, and all sublayers under names such as ``name.Affine1``, in order."""
        found: dict[str, Layer] = {name: self}
        for key, part in self.parts.items():
            found |= part.modules(f"{name}.{key}" if name else key)
        return found

    def activation_pattern(self) -> Array | None:
        """Return on which side of its kinks each unit was in the last forward pass; None for a smooth layer.

        If the pattern changes between x - h and x + h, a central difference is no derivative. The gradient check
        reports such coordinates separately.
        """
        return None

    def _named(self, attribute: str) -> list[tuple[str, Layer, str]]:
        """List (full name, layer, attribute) for every name in this tuple of each module."""
        layers = self.modules().items()
        return [
            (f"{name}.{key}" if name else key, layer, key)
            for name, layer in layers
            for key in getattr(layer, attribute)
        ]

    def _expect_dout(self, dout: Array, shape: tuple[int, ...]) -> None:
        got, dtype = getattr(dout, "shape", ()), getattr(dout, "dtype", None)
        if got != shape:
            raise ValueError(f"{self.name}.backward expected dout of its output's shape {shape}, got {got}")
        if not (isinstance(dout, (int, float)) if dtype is None else dtype.kind in REAL):
            found = dtype or type(dout).__name__
            raise TypeError(f"{self.name}.backward expected dout to hold real numbers, got {found}")

    def __copy__(self) -> Self:
        """Return a copy that shares all arrays, made of copies of its parts. It belongs to no network."""
        made = object.__new__(type(self))
        vars(made).update({name: value for name, value in vars(self).items() if name not in {"place", "out"}})
        if self.parts:
            made.__setstate__({"parts": {name: copy.copy(part) for name, part in self.parts.items()}})
        return made

    def __getstate__(self) -> dict[str, Any]:
        # A copy belongs to no network. A network's own copy gives its layers their places again.
        return {name: StoredArray.of(value) for name, value in vars(self).items() if name not in {"place", "out"}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            vars(self)[name] = value.restored() if isinstance(value, StoredArray) else value
        for name, part in self.parts.items():
            part.place = name

    def __getattr__(self, name: str) -> Any:
        # Called only for missing attributes, such as a saved array before forward has set it.
        if name in type(self).saved:
            raise RuntimeError(
                f"{self.name}.backward needs {name!r}, which forward saves; call {self.name}.forward first"
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


class Loss(Layer):
    """Last layer of a network: compares scores with labels.

    ``forward(x, t)`` returns the mean loss of the batch, a scalar on the device. ``backward(dout=1.0)`` returns
    dout * dL/dx, of the shape of `x`.

    With ``forward(x, t, sample_weight=w)`` it is the weighted mean, sum_n w_n l_n / sum_n w_n: a sample of weight 2
    counts as two, and one of weight 0 as none. If all weights are 0, the loss is NaN, and its gradient 0. The weights
    are (N,), or for scores (N, ..., C) also (N, ...). A negative weight, or one that is not finite, is an error on the
    host. On a CUDA device, where a check would wait for the queue, it makes the loss NaN. A custom loss may leave out
    the parameter; then it takes no weights.

    Attributes
    ----------
    classifies : bool
        Whether the loss is for classification, which has an accuracy (`correct`), not regression.
    """

    inputs = 2
    classifies: ClassVar[bool] = True

    def forward(  # type: ignore[override]
        self, x: Array, t: Array, sample_weight: Array | None = None
    ) -> Array:
        """Return the loss of scores `x` for labels `t`, a scalar on their device."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(x, t, sample_weight=None)")

    def forward_each(self, x: Array, t: Array, sample_weight: Array | None = None) -> Array:
        """Return the losses (K,) of K batches of scores, `x` (K, N, ...), all with the same labels and weights.

        For numerical gradients. The default takes one batch at a time; a faster loss overrides it.
        """
        weight = () if sample_weight is None else (sample_weight,)
        return get_array_module(x=x, t=t).stack([self.forward(scores, t, *weight) for scores in x])

    def probabilities(self, x: Array) -> Array:
        """Return the probabilities that scores stand for, of the shape of `x`.

        Raises
        ------
        TypeError
            If the loss has none, as one for regression.
        """
        raise TypeError(f"{type(self).__name__} has no probabilities, only scores")

    def correct(self, x: Array, t: Array) -> Array:
        """Return whether each row of scores `x` (N, C) is right for labels `t`: by default, argmax(x) == label.

        Raises
        ------
        TypeError
            If the loss is for regression.
        """
        if not self.classifies:
            raise TypeError(f"{type(self).__name__} ends a regression, which has a loss but no accuracy")
        xp = get_array_module(x=x, t=t)
        ids = functions.class_ids(x, t)
        return xp.argmax(x, axis=-1) == (xp.argmax(t, axis=-1) if ids is None else ids)

    def counted(self, t: Array, shape: tuple[int, ...]) -> Array | None:
        """Return which samples count, for scores of the given shape; None if all do. `correct` is False elsewhere."""
        return None

    def check_labels(self, t: Array, shape: tuple[int, ...]) -> None:
        """Check labels for scores of the given shape; by default, class ids or a label per class.

        Raises
        ------
        ValueError
            If the labels do not fit the scores.
        """
        functions.check_labels(t, shape)

    def _share(self, dout: Array | float, number: int) -> Array | float:
        """Return the part of `dout` per value of a mean over `number` values."""
        if type(dout) is not float:
            self._expect_dout(dout, ())
        return dout / max(number, 1)

    def backward(self, dout: Array | float = 1.0) -> Array:
        """Return dout * dL/dx."""
        raise NotImplementedError(f"{type(self).__name__} must define backward(dout=1.0)")


def weight_arguments(loss: Loss, sample_weight: Array) -> tuple[Array]:
    """Return the argument of ``loss.forward`` behind scores and labels.

    Raises
    ------
    TypeError
        If it has no such parameter.
    """
    cls = type(loss)
    if "sample_weight" not in inspect.signature(cls.forward).parameters:
        raise TypeError(
            f"{cls.__name__}.forward takes no sample_weight; define forward(x, t, sample_weight=None), see "
            "xpnet.layers.Loss"
        )
    return (sample_weight,)

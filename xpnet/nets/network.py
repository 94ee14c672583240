"""Networks: layers with their parameters in one vector, ended by a loss."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from xpnet import kernels
from xpnet.device import Device, as_array, check_equally_many
from xpnet.kernels import call
from xpnet.layers import Layer, Loss
from xpnet.layers.base import weight_arguments
from xpnet.nets import assembly, evaluation
from xpnet.nets.container import Container
from xpnet.optimizers import Optimizer
from xpnet.parameters import ParameterVector
from xpnet.typing import Array, DTypeLike

if TYPE_CHECKING:
    from xpnet.steps import TrainingStep

__all__ = ["Network"]


class Network(Container):
    """Layers with their parameters in one vector, ended by a loss: passes, gradients, evaluation.

    Each layer's output is the next layer's input. A subclass that connects layers in another way overrides `predict`
    and `backward`.

    Parameters
    ----------
    layers : mapping of str to Layer
        The layers by name, in order. They belong to this network from now on: it moves their parameters into its
        vector, and their attributes (``W`` ...) become views of the vector.
    loss : Loss
        The layer that compares scores with labels.
    device : Device or str, optional
        Where to compute; by default the parameters' device.
    dtype : dtype, optional
        Dtype of parameters and computation; by default the parameters' own.

    Attributes
    ----------
    layers : dict of str to Layer
        As given.
    last_layer : Loss
        The loss; also under the book's spelling, ``lastLayer``.
    params : ParameterVector
        Parameters by name: the layer's attribute and the layer's number (``W1``, ``b1``, ``W2`` ...), see
        `xpnet.nets.assembly.number_parameters`.
    slots : list of Slot
        The parameters in order, with layer and name.
    tied : list of Slot
        Further uses of parameters, by layers that do not own them (`xpnet.layers.Layer.tied`).
    input_shape : tuple of int or None
        Required shape of one sample; None if any shape may fit.
    """

    _given: assembly.Order
    _order: assembly.Order
    _fastest: assembly.Order

    input_shape: tuple[int, ...] | None = None
    weight_decay_lambda: float = 0.0
    """Strength of the L2 penalty, L + lambda / 2 * sum of W^2, over all parameters ``W...`` (section 6.4.2)."""
    is_language_model: ClassVar[bool] = False
    """Whether the scores are of the next id of a sequence."""

    def __init__(
        self,
        layers: Mapping[str, Layer],
        loss: Loss,
        *,
        device: Device | str | None = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        super().__init__(layers, loss, device, dtype)

    @property
    def device(self) -> Device:
        """Device of parameters and computation."""
        return self.params.device

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of parameters and computation."""
        return self.params.dtype

    @property
    def lastLayer(self) -> Loss:  # noqa: N802
        """The book's spelling of ``last_layer``."""
        return self.last_layer

    def predict(self, x: Array, train: bool = False) -> Array:
        """Return the scores of `x`, (N, C): the inputs of the loss, not probabilities.

        Parameters
        ----------
        x : (N, ...)
            A batch on the network's device. Floats are converted to the network's dtype. ``uint8`` pixels are divided
            by 255, into [0, 1]. Integers for an `Embedding` are not converted.
        train : bool, default False
            Whether to compute as in training (dropout, batch normalization).
        """
        with self.device.activate():
            x = self.as_input(x)
            for layer in self._order.forward:
                x = call(layer, "forward", x, train)
            return x

    def backward(self, dout: Array) -> None:
        """Run the layers' backward passes, from `dout`, the gradient with respect to the scores."""
        order = self._order
        for layer in order.backward:
            dout = call(layer, "backward", dout)
        for layer in order.first:
            call(layer, "backward_parameters", dout)

    def loss(self, x: Array, t: Array, train: bool = False, sample_weight: Array | None = None) -> Array:
        """Return the mean loss of a batch, a scalar on the device (``float()`` copies it to the host).

        Parameters
        ----------
        x : (N, ...)
            A batch.
        t : (N, C) or (N,) integers
            Its labels.
        train : bool, default False
            As in `predict`.
        sample_weight : (N,), optional
            Weights of the samples in the mean (`xpnet.layers.Loss`).
        """
        with self.device.activate():
            return self.loss_of(self.predict(x, train), self.as_array("t", t), **self._weights(sample_weight))

    def accuracy(self, x: Array, t: Array) -> float:
        """Return the share of correctly classified samples (`Loss.correct`); NaN for no samples.

        Samples that the loss leaves out (`Loss.counted`) are left out here as well.

        Parameters
        ----------
        x : (N, ...)
            Any number of samples. They are predicted in batches.
        t : (N, C) or (N,) integers
            Labels.

        Raises
        ------
        TypeError
            If the loss is one for regression.
        """
        x, t = self.as_pairs(x, t)
        with evaluation.team_for(self, x) as team:
            return evaluation.accuracy(self, x, t, team)

    def evaluate(self, x: Array, t: Array) -> dict[str, float]:
        """Return the mean loss of samples, and metrics: ``accuracy``, or ``rmse`` and ``r2`` for a regression.

        A language model also has ``perplexity``, exp of the loss.
        RMSE is the square root of the mean squared error. R^2 = 1 - sum (y - t)^2 / sum (t - mean t)^2, averaged over
        the outputs. The loss is that of the data, without weight decay.

        Parameters
        ----------
        x, t
            As in `accuracy`.
        """
        x, t = self.as_pairs(x, t)
        with evaluation.team_for(self, x) as team:
            return evaluation.evaluate(self, x, t, team)

    def gradient(
        self, x: Array, t: Array, out: ParameterVector | None = None, sample_weight: Array | None = None
    ) -> ParameterVector:
        """Return the gradient of the loss by backpropagation.

        Parameters
        ----------
        x, t, sample_weight
            As in `loss`.
        out : ParameterVector, optional
            Output vector with the layout of ``params``; by default a new one.
        """
        return self.loss_and_gradient(x, t, out, sample_weight)[1]

    def loss_and_gradient(
        self, x: Array, t: Array, out: ParameterVector | None = None, sample_weight: Array | None = None
    ) -> tuple[Array, ParameterVector]:
        """Return the loss of a batch and its gradient, from one forward and one backward pass (`gradient`)."""
        if out is None:
            out = self.params.zeros_like()
        elif self.params.layout != getattr(out, "layout", None):
            raise ValueError(f"out must have the layout of params, {self.params}, got {out}")
        with self.device.activate(), self.writing_to(self.gradient_arrays(out)):
            return self.backpropagate(x, self.as_array("t", t), out, **self._weights(sample_weight)), out

    def backpropagate(self, x: Array, t: Array, grads: ParameterVector, sample_weight: Array | None = None) -> Array:
        """Run both passes for a batch on the device, write the gradient into `grads`, and return the loss.

        Training steps call this. It does not check its arguments. Within `writing_to`, layers may write their gradients
        directly into `gradient_arrays`; other gradients are copied.
        """
        scores = self.predict(x, True)
        loss = self.loss_of(scores, t, **self._weights(sample_weight))
        self.backward(call(self.last_layer, "backward"))
        self.collect_gradients(grads)
        self.add_weight_decay(grads, len(scores))
        return loss

    def numerical_gradient(
        self,
        x: Array,
        t: Array,
        method: Literal["batched", "loop"] = "batched",
        memory: int = 2**28,
        sample_weight: Array | None = None,
    ) -> ParameterVector:
        """Return the gradient of the loss by central differences, at every coordinate of every parameter.

        The loss is computed in float64 by a copy of the network; in float32 its rounding would cause an error of 1e-3
        at every coordinate. The result has the network's dtype.

        Parameters
        ----------
        x, t, sample_weight
            As in `loss`.
        method : {"batched", "loop"}, default "batched"
            ``"batched"`` takes many coordinates at a time where the layers allow it (`Layer.reach`). ``"loop"`` takes
            one after the other, as in the book. The values are the same up to rounding.
        memory : int, default 256 MB
            Largest size of the copies of batched differences, in bytes.
        """
        from xpnet.gradient.differences import network_differences

        grads = self.params.zeros_like()
        found = network_differences(self, x, t, method=method, memory=memory, sample_weight=sample_weight)
        for name, differences in found.items():
            grads[name] = differences.values
        return grads

    def save(self, file: str | Path) -> None:
        """Write the network to a file, from which `xpnet.load` rebuilds it. Needs ``xpnet[cli]``.

        The file has the safetensors format: parameters and buffers by name, and the architecture (classes of the layers
        and their arguments, `Layer.config`) as JSON in the metadata. It has no code. It is written atomically.

        Raises
        ------
        TypeError
            If the network's class has methods of its own, or a layer an argument that is no number, text or array.
        """
        from xpnet.nets.architecture import save

        save(self, file)

    def compile(
        self,
        optimizer: Optimizer,
        batch_size: int,
        backend: kernels.Backend | None = None,
        precision: kernels.Precision = "float32",
        threads: int | None = None,
        shares: int | None = None,
        microbatch: int | None = None,
    ) -> TrainingStep:
        """Return a training step that reuses its arrays (`xpnet.steps.compile_step`). `Trainer` runs it."""
        from xpnet.steps import compile_step

        return compile_step(self, optimizer, batch_size, backend, precision, threads, shares, microbatch)

    @property
    def row(self) -> list[Layer] | None:
        """The layers in the order of execution; None if a subclass overrides `predict` or `backward`."""
        is_row = type(self).predict is Network.predict and type(self).backward is Network.backward
        return self._order.forward if is_row else None

    def activation_patterns(self) -> list[Array]:
        """Return the activation patterns of layers and loss in the last forward pass (`Layer.activation_pattern`)."""
        patterns = (layer.activation_pattern() for layer in (*self.layers.values(), self.last_layer))
        return [pattern for pattern in patterns if pattern is not None]

    def as_array(self, name: str, x: Any) -> Array:
        """Return an argument as an array (`xpnet.device.as_array`), and check that it is on the network's device.

        Raises
        ------
        DeviceError
            If it is on another device.
        """
        x = as_array(name, x)
        if not self.device.holds(x):
            raise assembly.unexpected_device(type(self).__name__, self.device, name, x)
        return x

    def as_input(self, x: Any) -> Array:
        """Check samples, and convert them to the network's dtype."""
        x = self.as_array("x", x)
        dtype = self.input_dtype(x.dtype)
        if x.dtype != dtype:
            x = kernels.as_floats(x, dtype)
        if self.input_shape is not None and x.shape[1:] != self.input_shape:
            raise assembly.unexpected_shape(type(self).__name__, x.shape, self.input_shape)
        return x

    def input_dtype(self, dtype: np.dtype[Any]) -> np.dtype[Any]:
        """Return the dtype that samples are converted to: the network's, or their own for ids of an embedding."""
        if dtype == self.dtype or (dtype.kind in "iu" and any(layer.takes_ids for layer in self._first_layers())):
            return dtype
        return self.dtype

    def gradient_arrays(self, grads: ParameterVector) -> dict[Layer, dict[str, Array]]:
        """Return the views of `grads` for the layers' gradients, by layer and name: ``"dW"`` ..."""
        arrays: dict[Layer, dict[str, Array]] = {layer: {} for layer in (*self.modules().values(), self.last_layer)}
        for slot in self.slots:
            arrays[slot.layer][slot.gradient] = grads[slot.name]
        return arrays

    @contextlib.contextmanager
    def writing_to(self, arrays: Mapping[Layer, Mapping[str, Array]]) -> Iterator[None]:
        """Context in which layers write results into the given arrays (`Layer.out`)."""
        try:
            for layer, out in arrays.items():
                layer.out = out
            yield
        finally:
            for layer in arrays:
                layer.out = {}

    @contextlib.contextmanager
    def reordered(self) -> Iterator[None]:
        """Context in which the layers run in the fastest order (`assembly.Order.fastest`). Values are the same.

        On a CUDA device some layers are then one (`assembly.Order.fused`). Training steps use this order. Outside, each
        layer's `backward` takes the gradient of its own output.
        """
        self._order = self._fastest
        try:
            yield
        finally:
            self._order = self._given

    def _bind(self) -> None:
        super()._bind()
        self._given = self._order = assembly.Order(self.layers.values())
        fastest = self._given.fastest()
        self._fastest = fastest if self.device.name == "cpu" else fastest.fused()

    def loss_of(self, scores: Array, t: Array, sample_weight: Array | None = None) -> Array:
        """Return the loss of scores, with the penalty of weight decay."""
        weight = () if sample_weight is None else weight_arguments(self.last_layer, sample_weight)
        loss = call(self.last_layer, "forward", scores, t, *weight)
        strength = self.weight_decay_of(len(scores))
        return loss + assembly.penalty(self.params, strength) if strength else loss

    def collect_gradients(self, grads: ParameterVector) -> None:
        """Copy the gradients that layers did not write into `grads`."""
        for layer, _, gradient, name in self.slots:
            computed = getattr(layer, gradient)
            if computed is not layer.out.get(gradient):
                grads[name] = computed
        for layer, _, gradient, name in self.tied:
            grads[name] += getattr(layer, gradient)

    def weight_decay_of(self, samples: int) -> float:
        """Return the strength of the penalty for a batch of this size: ``weight_decay_lambda``, whatever the size."""
        return self.weight_decay_lambda

    def add_weight_decay(self, grads: ParameterVector, samples: int) -> None:
        """Add the gradient of the weight decay, lambda W, in place, for a batch of this size."""
        if strength := self.weight_decay_of(samples):
            assembly.add_penalty_gradient(grads, self.params, strength)

    def as_pairs(self, x: Array, t: Array) -> tuple[Array, Array]:
        """Return samples and their labels as arrays (`as_array`), and check that they are equally many."""
        x, t = self.as_array("x", x), self.as_array("t", t)
        check_equally_many(x=x, t=t)
        return x, t

    def _weights(self, sample_weight: Array | None) -> dict[str, Array]:
        """Return weights as a keyword argument; none for None, so that an overridden method need not take it."""
        return {} if sample_weight is None else {"sample_weight": self.as_array("sample_weight", sample_weight)}

    def largest(self, sample: tuple[int, ...]) -> int:
        """Return the largest number of values that any layer holds for one sample of this shape, if known."""
        return math.prod(sample)

    def _first_layers(self) -> list[Layer]:
        """Return the layers that take the samples."""
        return self._order.forward[:1]

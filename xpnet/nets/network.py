"""What every network can do, whatever the shape of its graph."""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Self

import numpy as np

from xpnet import kernels
from xpnet.device import Device, DeviceError, asnumpy, get_device, is_on_host
from xpnet.files import written_atomically
from xpnet.gradient.differences import network_differences
from xpnet.gradient.numerical import MEMORY
from xpnet.layers import Layer, Loss
from xpnet.layers.base import check_free
from xpnet.nets.compiled import CompiledStep
from xpnet.nets.mixed import MixedStep
from xpnet.optimizers import Optimizer
from xpnet.parameters import ParameterVector
from xpnet.typing import Array, DTypeLike

__all__ = ["Network"]

EVALUATION_BATCH = 1000
"""Samples that `accuracy` predicts at a time at most; of a convolutional network only so many as stay in the cache."""


class _Slot(NamedTuple):
    """The one record of whose parameter is called what: of a layer, by its attribute, and in the network's vector."""

    layer: Layer
    attribute: str
    gradient: str
    name: str


class Network:
    """Layers with their parameters in one vector, ended by a loss.

    A subclass says how the layers are connected, in `predict` and `backward`.

    Parameters
    ----------
    layers : mapping of str to Layer
        The layers by name, in order. From now on they belong to this network: their parameters are moved into its
        vector, and their attributes (``W`` ...) become views of it.
    loss : Loss
        The layer that compares scores with labels.
    device : Device or str, optional
        Where to compute; by default where the parameters are.
    dtype : dtype, optional
        Of the parameters and of the computation; by default the parameters' own.

    Attributes
    ----------
    layers : dict of str to Layer
        As given.
    last_layer : Loss
        The loss; also under the book's spelling, ``lastLayer``.
    params : ParameterVector
        Parameters by name: the layer's own name for it, and a running number (``W1``, ``b1``, ``W2`` ...).
    """

    params: ParameterVector
    weight_decay_lambda: float = 0.0
    """Strength of the penalty on weights, L <- L + lambda / 2 * sum of W^2 over all parameters ``W...`` (section
    6.4.2)."""

    def __init__(
        self,
        layers: Mapping[str, Layer],
        loss: Loss,
        *,
        device: Device | str | None = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        self.layers = dict(layers)
        self.last_layer = loss
        check_free(self.layers)
        if not isinstance(loss, Loss):
            raise TypeError(f"loss must be an xpnet.layers.Loss, got {type(loss).__name__}")
        self._check_connections()
        self._slots = _number_parameters(self._all_layers().values())
        arrays = {slot.name: getattr(slot.layer, slot.attribute) for slot in self._slots}
        if device is None:
            device = get_device(next(iter(arrays.values()))) if arrays else Device("cpu")
        if dtype is None:
            dtype = _common_dtype(arrays)
        self.params = ParameterVector({name: array.shape for name, array in arrays.items()}, dtype, Device(device))
        self.params.update(arrays)
        for layer in (*self.layers.values(), loss):
            layer.to(self.device, self.dtype)
        self._bind()

    @property
    def device(self) -> Device:
        """Where the network computes."""
        return self.params.device

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype that it computes in."""
        return self.params.dtype

    @property
    def lastLayer(self) -> Loss:  # noqa: N802
        """The book's spelling of ``last_layer``."""
        return self.last_layer

    def predict(self, x: Array, train: bool = False) -> Array:
        """Return the scores of `x`, (N, C): what goes into the loss, not probabilities.

        Parameters
        ----------
        x : (N, ...)
            A batch on the network's device. Floats are computed in the network's dtype; ``uint8`` is taken for pixels
            and divided by 255, into [0, 1]. Integers for an `Embedding` stay what they are.
        train : bool, default False
            Whether layers behave as in a training step.
        """
        raise NotImplementedError(f"{type(self).__name__} must define predict(x, train=False)")

    def backward(self, dout: Array) -> None:
        """Run the layers' backward passes for `dout`, the gradient of the scores, down to the parameters."""
        raise NotImplementedError(f"{type(self).__name__} must define backward(dout)")

    def loss(self, x: Array, t: Array, train: bool = False) -> Array:
        """Return the mean loss over a batch, a scalar that stays on the device (``float()`` fetches it).

        Parameters
        ----------
        x : (N, ...)
            A batch.
        t : (N, C) or (N,) integers
            Its labels.
        train : bool, default False
            As in `predict`.
        """
        with self.device.activate():
            return self._loss_of(self.predict(x, train), self._asarray("t", t))

    def accuracy(self, x: Array, t: Array) -> float:
        """Return the share of samples that are classified right (`Loss.correct`); NaN for no samples.

        Parameters
        ----------
        x : (N, ...)
            Samples, as many as you like: they are predicted in batches.
        t : (N, C) or (N,) integers
            Labels.

        Raises
        ------
        TypeError
            If the network's loss is one of regression.
        """
        x, t = self._asarray("x", x), self._asarray("t", t)
        if len(x) != len(t):
            raise ValueError(f"accuracy expected as many labels as samples, got {len(t)} for {len(x)}")
        if len(x) == 0:
            return float("nan")
        xp = self.device.xp
        with self.device.activate():
            correct, number = xp.zeros((), dtype="int64"), 0
            sample = self._widest(x.shape[1:]) * self.dtype.itemsize
            at_a_time = max(min(EVALUATION_BATCH, kernels.scratch_size(x) // max(sample, 1)), 1)
            for start in range(0, len(x), at_a_time):
                y = self.predict(x[start : start + at_a_time])
                hits = self.last_layer.correct(y, t[start : start + at_a_time])
                correct += xp.sum(hits)
                number += hits.size
            return int(correct) / number

    def gradient(self, x: Array, t: Array, out: ParameterVector | None = None) -> ParameterVector:
        """Return the gradient of the loss by backpropagation.

        Parameters
        ----------
        x : (N, ...)
            A batch.
        t : (N, C) or (N,) integers
            Its labels.
        out : ParameterVector, optional
            Where to write the gradient, of the layout of ``params``; by default a new vector.
        """
        return self.loss_and_gradient(x, t, out)[1]

    def loss_and_gradient(
        self, x: Array, t: Array, out: ParameterVector | None = None
    ) -> tuple[Array, ParameterVector]:
        """Return the loss of a batch and its gradient, from one forward and one backward pass; see `gradient`."""
        if out is None:
            out = self.params.zeros_like()
        elif not self.params.has_layout_of(out):
            raise ValueError(f"out must have the layout of params, {self.params}, got {out}")
        with self.device.activate():
            loss = self.loss(x, t, train=True)
            self._direct_results(out)
            try:
                self.backward(self.last_layer.backward())
                self._collect_gradients(out)
            finally:
                self._direct_results(None)
        return loss, out

    def numerical_gradient(
        self, x: Array, t: Array, method: Literal["batched", "loop"] = "batched", memory: int = MEMORY
    ) -> ParameterVector:
        """Return the gradient of the loss by central differences, at every coordinate of every parameter.

        Evaluated in float64 on a copy of the network, whatever its dtype (in float32 the rounding of the loss alone
        puts an error of 1e-3 on every coordinate), and returned in the network's dtype.

        Parameters
        ----------
        x : (N, ...)
            A batch.
        t : (N, C) or (N,) integers
            Its labels.
        method : {"batched", "loop"}, default "batched"
            Many coordinates at a time, where the layers allow it (`Layer.reach`), else one after the other; or all
            one after the other, as in the book. The values are the same up to rounding.
        memory : int, default 256 MB
            Bytes that batched differences may take at a time.
        """
        grads = self.params.zeros_like()
        for name, differences in network_differences(self, x, t, method=method, memory=memory).items():
            grads[name] = differences.values
        return grads

    def compile(
        self,
        optimizer: Optimizer,
        batch_size: int,
        backend: kernels.Backend | None = None,
        precision: kernels.Precision = "float32",
    ) -> CompiledStep:
        """Return a training step that allocates its arrays once, see `CompiledStep`; what `Trainer` runs.

        Parameters
        ----------
        optimizer : Optimizer
            The update rule.
        batch_size : int
            Samples per step.
        backend : {"numpy", "numba"}, optional
            What computes on the CPU; by default Numba, where it is installed, for perceptrons (`HalvedSteps`), of which
            small ones take half the time with it, and for networks with convolution or pooling, which save about a
            fifth. It takes half a second and 70 MB to load, and the first time some seconds to compile.
        precision : {"float32", "tf32", "float16"}, default "float32"
            Of the matrix products on a CUDA device: with ``"tf32"`` their float32 inputs may be rounded to 10 bits,
            which is faster. With ``"float16"`` all layers of a float32 network compute in float16, see `MixedStep`.

        Examples
        --------
        >>> from xpnet.nets import TwoLayerNet
        >>> from xpnet.optimizers import SGD
        >>> rng = np.random.default_rng(0)
        >>> x = rng.standard_normal((1000, 20))
        >>> t = (x[:, 0] > 0).astype(int)
        >>> step = TwoLayerNet(20, 10, 2, "he", seed=0).compile(SGD(lr=0.5), batch_size=50)
        >>> losses = step.run(x, t, rng.integers(0, 1000, (200, 50)))
        >>> bool(losses[-1] < 0.2 * losses[0])
        True
        """
        if precision == "float16":
            return MixedStep(self, optimizer, batch_size, backend)
        return CompiledStep(self, optimizer, batch_size, backend, precision)

    def to(self, device: Device | str | None = None, dtype: DTypeLike | None = None) -> Self:
        """Move the network to another device or dtype, in place, and return it."""
        target = self.device if device is None else Device(device)
        self.params = self.params.to(target, dtype)
        for layer in (*self.layers.values(), self.last_layer):
            layer.to(target, dtype)
        self._bind()
        return self

    def copy(self) -> Self:
        """Return a network of its own with the same layers and parameters."""
        return copy.deepcopy(self)

    def frozen_copy(self, dtype: DTypeLike) -> Self:
        """Return a copy that computes the same function each time, also in training (`Layer.frozen`)."""
        net = self.copy().to(dtype=dtype)
        for layer in net._all_layers().values():
            layer.frozen = True
        return net

    def buffers(self) -> dict[str, Array]:
        """Return the layers' buffers (`Layer.buffer_names`), such as ``"BatchNormalization1.running_mean"``."""
        return {f"{name}.{key}": b for name, layer in self.layers.items() for key, b in layer.buffers().items()}

    def save_params(self, file: str | Path) -> None:
        """Write parameters and buffers to `file` in NumPy's ``.npz`` format, whole or not at all."""
        buffers = {name: asnumpy(buffer) for name, buffer in self.buffers().items()}
        with written_atomically(file) as stream:
            np.savez(stream, **self.params.asnumpy(), **buffers)  # type: ignore[arg-type]

    def load_params(self, file: str | Path) -> None:
        """Read parameters written by `save_params`; all are checked before any is changed.

        Raises
        ------
        ValueError
            If `file` is no such file, or its names or shapes are not this network's.
        """
        try:
            with open(file, "rb") as stream, np.load(stream, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
        except OSError:
            raise
        except Exception as error:  # np.load meets damage with whatever zip, zlib or its own parser raises
            raise ValueError(f"{file} is not a complete .npz file of parameters: {error}") from error
        buffers = self.buffers()
        shapes = {name: array.shape for name, array in arrays.items()}
        wanted = {**self.params.shapes, **{name: buffer.shape for name, buffer in buffers.items()}}
        if shapes != wanted:
            raise ValueError(f"{file} holds parameters {shapes}, this network has {wanted}")
        for name, buffer in buffers.items():
            buffer[...] = self.device.asarray(arrays.pop(name), buffer.dtype)
        self.params.update(arrays)

    def _all_layers(self) -> dict[str, Layer]:
        """Return the layers by name, each with its parts behind it: ``"Residual1"``, ``"Residual1.Affine1"`` ..."""
        return {key: part for name, layer in self.layers.items() for key, part in layer.within(name).items()}

    def _check_connections(self) -> None:
        """Raise a ValueError if the layers do not fit together, before any of them is touched."""

    def _widest(self, sample: tuple[int, ...]) -> int:
        """Return how many numbers a sample of this shape takes where it takes most of them, as far as is known."""
        return math.prod(sample)

    def _row(self) -> list[Layer] | None:
        """Return the layers, if `predict` and `backward` run them one after the other, else None."""
        return None

    def _activation_patterns(self) -> list[Array]:
        """Return which side of their kinks the units were on in the last forward pass, layer by layer, and the loss."""
        patterns = (layer.activation_pattern() for layer in (*self.layers.values(), self.last_layer))
        return [pattern for pattern in patterns if pattern is not None]

    def _asarray(self, name: str, x: Any) -> Array:
        """Check that an argument is on the network's device; on the CPU, make an array of what is not one."""
        if not self.device.holds(x):
            where = "on the host" if is_on_host(x) else f"on {get_device(x)}"
            raise DeviceError(
                f"{type(self).__name__} is on {self.device}, but {name} is {where}; "
                f"move it with net.device.asarray({name})"
            )
        return np.asarray(x) if is_on_host(x) else x

    def _as_input(self, x: Any) -> Array:
        """Check x and bring it to the network's dtype, so that what comes out has it on every path."""
        x = self._asarray("x", x)
        dtype = self._input_dtype(x.dtype)
        return x if x.dtype == dtype else kernels.as_floats(x, dtype)

    def _input_dtype(self, dtype: np.dtype[Any]) -> np.dtype[Any]:
        """Return what samples of a dtype are brought to: the network's dtype, but for ids, which stay as they are."""
        if dtype == self.dtype or (dtype.kind in "iu" and any(layer.takes_ids for layer in self._first_layers())):
            return dtype
        if dtype.kind not in "fiub":
            raise TypeError(f"x must hold real numbers, got dtype {dtype}")
        return self.dtype

    def _first_layers(self) -> list[Layer]:
        """Return the layers that are given the samples, as far as is known."""
        return []

    def _bind(self) -> None:
        """Make the layers' parameters views of the vector, and the layers this network's own."""
        for name, layer in self._all_layers().items():
            layer.place = name
        for slot in self._slots:
            setattr(slot.layer, slot.attribute, self.params[slot.name])

    def _direct_results(
        self, grads: ParameterVector | None, arrays: Mapping[Layer, Mapping[str, Array]] = MappingProxyType({})
    ) -> None:
        """Let the layers write their gradients into `grads`, and other results into `arrays`; None: nowhere."""
        out = {layer: dict(arrays.get(layer, {})) for layer in (*self._all_layers().values(), self.last_layer)}
        if grads is not None:
            for slot in self._slots:
                out[slot.layer][slot.gradient] = grads[slot.name]
        for layer, results in out.items():
            layer.out = results

    def _loss_of(self, scores: Array, t: Array) -> Array:
        """Return the loss of scores, and of the weights where they decay."""
        loss = self.last_layer.forward(scores, t)
        if not self.weight_decay_lambda:
            return loss
        squares = sum(kernels.squared_norm(W) for W in self._decaying(self.params))
        return loss + squares * (0.5 * self.weight_decay_lambda)

    def _collect_gradients(self, grads: ParameterVector) -> None:
        """Copy the gradients of those layers that did not write them into place, and add those of the weight decay."""
        for slot in self._slots:
            computed = getattr(slot.layer, slot.gradient)
            if computed is not grads[slot.name]:
                grads[slot.name] = computed
        self._add_decay(grads)

    def _add_decay(self, grads: ParameterVector) -> None:
        if self.weight_decay_lambda:
            for W, dW in zip(self._decaying(self.params), self._decaying(grads), strict=True):
                dW += W * self.weight_decay_lambda

    def _decaying(self, vector: ParameterVector) -> list[Array]:
        return [values for name, values in vector.items() if name.startswith("W")]

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Copying and unpickling make arrays of the layers' views; tie them to the new vector again.
        self.__dict__.update(state)
        self._bind()


def _number_parameters(layers: Iterable[Layer]) -> list[_Slot]:
    counts: Counter[str] = Counter()
    slots = []
    for layer in layers:
        for attribute in layer.parameter_names:
            counts[attribute] += 1
            slots.append(_Slot(layer, attribute, f"d{attribute}", f"{attribute}{counts[attribute]}"))
    return slots


def _common_dtype(arrays: Mapping[str, Array]) -> DTypeLike:
    dtypes = {str(array.dtype) for array in arrays.values()}
    if len(dtypes) > 1:
        found = ", ".join(f"{name} {array.dtype}" for name, array in arrays.items())
        raise ValueError(f"the layers' parameters have different dtypes ({found}); pass dtype=")
    return dtypes.pop() if dtypes else "float32"

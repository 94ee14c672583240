"""A layer under test, with the arguments of its forward: fresh copies for each check."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from xpnet.device import Device, asnumpy
from xpnet.layers import Layer
from xpnet.testing.report import Fault
from xpnet.typing import Array, DTypeLike

__all__ = ["Subject", "Trial"]


@dataclass
class Trial:
    """A copy of the layer that computes the same function at each call, and arguments for it."""

    layer: Layer
    device: Device
    inputs: list[Array]
    arguments: dict[str, Any]

    def forward(self) -> Array:
        """Return the output."""
        return self.layer.forward(*self.inputs, **self.arguments)

    def dout(self, y: Array, seed: int = 0) -> Any:
        """Return a random gradient of the output; a float if the output is a scalar."""
        if not y.shape:
            return 0.7
        return self.device.asarray(np.random.default_rng(seed).standard_normal(y.shape), y.dtype)

    def backward(self, dout: Any) -> dict[str, Array]:
        """Return the gradients of the inputs by name: dx, or dx0, dx1 ...; none for ids."""
        found = self.layer.backward(dout)
        gradients = found if isinstance(found, tuple) else () if found is None else (found,)
        if found is not None and len(gradients) != len(self.inputs):
            raise Fault(
                f"backward returned {len(gradients)} gradients; return one for each of {len(self.inputs)} inputs."
            )
        return dict(zip(self.input_gradients(), gradients, strict=False))

    def input_gradients(self) -> list[str]:
        """Return the names of the inputs' gradients."""
        if self.layer.takes_ids:
            return []
        return ["dx"] if len(self.inputs) == 1 else [f"dx{i}" for i in range(len(self.inputs))]

    def gradients(self) -> dict[str, Array]:
        """Return the gradients that backward left for the parameters, tied ones included: ``"dW"``."""
        found = {}
        for place, part in self.layer.modules().items():
            for name in (*part.parameter_names, *part.tied):
                key = f"{place}.d{name}" if place else f"d{name}"
                if not hasattr(part, f"d{name}"):
                    raise Fault(f"backward left no {key}; set self.d{name} for each name in parameter_names.")
                found[key] = getattr(part, f"d{name}")
        return found

    def points(self) -> dict[str, Array]:
        """Return what is differentiated, by the names of the gradients: inputs and parameters."""
        found = dict(zip(self.input_gradients(), self.inputs, strict=False))
        for place, part in self.layer.modules().items():
            owners = dict.fromkeys(part.parameter_names, part) | dict(part.tied)
            found |= {
                f"{place}.d{name}" if place else f"d{name}": getattr(owner, name) for name, owner in owners.items()
            }
        return found

    def results(self, seed: int = 0) -> dict[str, Array]:
        """Return the results of forward and backward by name."""
        y = self.forward()
        return {"y": y} | self.backward(self.dout(y, seed)) | self.gradients()

    def patterns(self) -> list[Array]:
        """Return on which side of its kinks each unit is (`Layer.activation_pattern`)."""
        found = [layer.activation_pattern() for layer in self.layer.modules().values()]
        return [pattern for pattern in found if pattern is not None]


class Subject:
    """What is checked: a layer, inputs and further arguments, on the host, and tolerances."""

    def __init__(
        self,
        layer: Layer,
        inputs: tuple[Any, ...],
        arguments: Mapping[str, Any],
        device: Device | str,
        rtol: float,
        atol: float,
    ) -> None:
        if not isinstance(layer, Layer):
            raise TypeError(f"layer must be an xpnet.layers.Layer, got {type(layer).__name__}")
        if not inputs:
            raise ValueError("expected the inputs of forward, such as check_layer(layer, x), got none")
        self.original = layer
        self.inputs = [asnumpy(x) if hasattr(x, "dtype") else np.asarray(x) for x in inputs]
        self.arguments = {name: asnumpy(x) for name, x in arguments.items()}
        self.device = Device(device)
        self.rtol, self.atol = rtol, atol
        if self.inputs[0].ndim == 0:
            raise ValueError("the first input needs a batch axis: pass x[None]")
        self.samples = len(self.inputs[0])

    @property
    def name(self) -> str:
        """Name of the class."""
        return type(self.original).__name__

    def trial(self, dtype: DTypeLike = "float64", samples: int | None = None) -> Trial:
        """Return copies of layer and arguments on the device, with the first `samples` only if given."""
        layer = copy.deepcopy(self.original)
        layer.to(self.device, dtype)
        for part in layer.modules().values():
            part.fixed_buffers = True

        def placed(x: Any) -> Any:
            if not isinstance(x, np.ndarray):
                return x
            x = self._first(x, samples)
            keeps = x.dtype.kind != "f"
            return self.device.asarray(x.copy(), None if keeps else dtype)

        inputs = [x if layer.takes_ids or x.dtype.kind == "f" else x.astype("float64") for x in self.inputs]
        return Trial(
            layer, self.device, [placed(x) for x in inputs], {name: placed(x) for name, x in self.arguments.items()}
        )

    def _first(self, x: np.ndarray, samples: int | None) -> np.ndarray:
        axis = next((axis for axis, length in enumerate(x.shape) if length == self.samples), None)
        if samples is None or axis is None:
            return x
        return x[(slice(None),) * axis + (slice(samples),)]

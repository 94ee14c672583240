"""Training in mixed precision: layers compute in float16, parameters stay in float32 (Micikevicius et al., 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from xpnet import kernels
from xpnet.nets.compiled import CompiledStep
from xpnet.optimizers import Optimizer
from xpnet.typing import Array

if TYPE_CHECKING:
    from xpnet.nets.network import Network

__all__ = ["MixedStep"]

FIRST_SCALE = 2.0**16
GROWTH_INTERVAL = 2000
"""Of the scale, as in PyTorch's ``GradScaler``: what it is at first, and after how many good steps it is doubled."""


class MixedStep(CompiledStep):
    """Training steps whose passes through the layers are computed in float16, of a network that stays in float32.

    Each step rounds the parameters, runs a twin of the network forward and backward, and updates the parameters
    themselves, to which small updates are not lost. The loss is computed in float32, and its gradient multiplied by a
    scale before it goes back, so that it does not vanish below float16's smallest numbers. Where it then exceeds the
    largest, the step is skipped and the scale halved; after 2,000 good steps in a row it is doubled.

    Made by ``net.compile(..., precision="float16")``; used as a `CompiledStep`.

    Attributes
    ----------
    scale : array of shape (), on the device
        The scale of the next step.
    """

    def __init__(
        self, net: Network, optimizer: Optimizer, batch_size: int, backend: kernels.Backend | None = None
    ) -> None:
        super().__init__(net, optimizer, batch_size, backend, "float16")
        if type(optimizer).update is not Optimizer.update:
            raise TypeError(
                f"precision 'float16' must be able to take an update back, which {type(optimizer).__name__}, with an "
                "update of its own, does not allow; define its rule instead"
            )
        self._worker = twin = net.copy().to(dtype="float16")
        twin.last_layer = net.last_layer
        twin.weight_decay_lambda = 0.0  # it is added to the gradient in float32
        for layer, owner in zip(twin._all_layers().values(), net._all_layers().values(), strict=True):
            vars(layer).update({name: getattr(owner, name) for name in owner.buffer_names})
        self._worker_grads = twin.params.zeros_like()
        self.scale = net.device.asarray(FIRST_SCALE, net.dtype)
        self._good_steps = net.device.asarray(0)

    def _step(self, x: Array, t: Array, numbers: Sequence[Array] | None) -> Array:
        net, twin, grads = self.net, self._worker, self._grads
        with np.errstate(over="ignore", invalid="ignore"):  # looked for below
            twin.params.update(net.params)
            loss = net._loss_of(twin.predict(x, True).astype(net.dtype), t)
            twin.backward((net.last_layer.backward() * self.scale).astype(twin.dtype))
            twin._collect_gradients(self._worker_grads)
            grads.update(self._worker_grads)
            grads.flat /= self.scale
            net._add_decay(grads)
            self._update_if(net.device.xp.isfinite(grads.flat).all(), numbers)
        return loss

    def _update_if(self, finite: Array, numbers: Sequence[Array] | None) -> None:
        """Update where the gradient is finite, without asking the device whether it is, and adapt the scale."""
        xp, optimizer = self.net.device.xp, self.optimizer
        optimizer._blocks_of(self.net.params)  # makes the rule's state, if there is none yet
        vectors = [self.net.params.flat, *(kept.flat for kept in optimizer.state.values())]  # type: ignore[attr-defined]
        before = [vector.copy() for vector in vectors]
        self._update(numbers)
        for vector, old in zip(vectors, before, strict=True):
            vector[...] = xp.where(finite, vector, old)
        good = xp.where(finite, self._good_steps + 1, 0)
        grows = good >= GROWTH_INTERVAL
        self.scale *= xp.where(finite, xp.where(grows, 2.0, 1.0), 0.5)
        self._good_steps[...] = xp.where(grows, 0, good)

"""Mixed precision: layers compute in float16, parameters stay in float32 (Micikevicius et al., 2018)."""

from collections.abc import Mapping

import numpy as np

from xpnet.kernels import call
from xpnet.nets import Network
from xpnet.optimizers import Optimizer
from xpnet.steps.step import Coefficients, update
from xpnet.typing import Array

__all__ = ["MixedPrecision"]

FIRST_SCALE = 2.0**16
GROWTH_INTERVAL = 2000
"""First loss scale, and the number of good steps after which it is doubled, as in PyTorch's ``GradScaler``."""


class MixedPrecision:
    """The gradient of a minibatch computed in float16, for a network that stays in float32; see `Gradient`.

    A twin of the network, with rounded parameters, runs forward and backward. The update changes the float32
    parameters, so small updates are not lost. The loss is computed in float32. A loss scale multiplies its gradient,
    which would otherwise underflow in float16. If a gradient overflows, the step is skipped and the scale halved. After
    2,000 good steps in a row the scale is doubled.

    Parameters
    ----------
    net : Network
        The network to train, in float32.
    optimizer : Optimizer
        The update rule.

    Attributes
    ----------
    scale : array of shape (), on the device
        The loss scale of the next step.

    Raises
    ------
    TypeError
        If the optimizer overrides ``update``: such an update cannot be undone.
    """

    def __init__(self, net: Network, optimizer: Optimizer) -> None:
        if type(optimizer).update is not Optimizer.update:
            raise TypeError(
                f"precision 'float16' must be able to take an update back, which {type(optimizer).__name__}, with an "
                "update of its own, does not allow; define its rule instead"
            )
        self.trained, self.optimizer = net, optimizer
        self.net = twin = net.copy().to(dtype="float16")
        twin.last_layer = net.last_layer
        twin.weight_decay_lambda = 0.0  # weight decay is added in float32
        for layer, owner in zip(twin.modules().values(), net.modules().values(), strict=True):
            vars(layer).update({name: getattr(owner, name) for name in owner.buffer_names})
        self.layer_grads = twin.params.zeros_like()
        self.grads = net.params.zeros_like()
        self.scale = net.device.asarray(FIRST_SCALE, net.dtype)
        self._good_steps = net.device.asarray(0)

    def compute(self, x: Array, t: Array) -> Array:
        trained, twin, grads = self.trained, self.net, self.grads
        with np.errstate(over="ignore", invalid="ignore"):  # `update` checks for overflow
            twin.params.update(trained.params)
            loss = trained.loss_of(twin.predict(x, True).astype(trained.dtype), t)
            twin.backward((call(trained.last_layer, "backward") * self.scale).astype(twin.dtype))
            twin.collect_gradients(self.layer_grads)
            grads.update(self.layer_grads)
            grads.flat /= self.scale
            trained.add_weight_decay(grads)
        return loss

    def update(self, coefficients: Coefficients | None) -> None:
        """Update if the gradient is finite, and adapt the scale. The device decides; the host does not wait."""
        xp, params, optimizer = self.trained.device.xp, self.trained.params, self.optimizer
        finite = xp.isfinite(self.grads.flat).all()
        kept = [optimizer.remembered(quantity, params) for quantity in optimizer.state_names]
        vectors = [params.flat, *(vector.flat for vector in kept)]  # type: ignore[attr-defined]
        before = [vector.copy() for vector in vectors]
        with np.errstate(over="ignore", invalid="ignore"):
            update(optimizer, params, self.grads, coefficients)
        for vector, old in zip(vectors, before, strict=True):
            vector[...] = xp.where(finite, vector, old)
        good = xp.where(finite, self._good_steps + 1, 0)
        grows = good >= GROWTH_INTERVAL
        self.scale *= xp.where(finite, xp.where(grows, 2.0, 1.0), 0.5)
        self._good_steps[...] = xp.where(grows, 0, good)

    def state(self) -> dict[str, float]:
        return {"loss_scale": float(self.scale), "good_steps": int(self._good_steps)}

    def load_state(self, state: Mapping[str, float]) -> None:
        self.scale[...] = state["loss_scale"]
        self._good_steps[...] = state["good_steps"]

"""Mixed precision: layers compute in float16, parameters stay in float32 (Micikevicius et al., 2018)."""

from collections.abc import Mapping

import numpy as np

from xpnet.kernels import adapt_scale, call, find_overflow
from xpnet.nets import Network
from xpnet.optimizers import Optimizer
from xpnet.typing import Array

__all__ = ["MixedPrecision"]

FIRST_SCALE = 2.0**16
GROWTH_INTERVAL = 2000
"""First loss scale, and the number of good steps after which it is doubled, as in PyTorch's ``GradScaler``."""


class MixedPrecision:
    """The gradient of a minibatch computed in float16, for a network that stays in float32; see `Gradient`.

    A twin of the network, with rounded parameters, runs forward and backward. The update changes the float32
    parameters, so small updates are not lost. The loss is computed in float32. A loss scale multiplies its gradient,
    which would otherwise underflow in float16. If a gradient overflows, the update is skipped and the scale halved.
    After 2,000 updates in a row the scale is doubled. `Optimizer.steps` counts the updates that were made: the
    learning rate of a schedule, and Adam's bias correction, do not advance with a skipped one.

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
        twin.share_buffers(net)
        self.layer_grads = twin.params.zeros_like()
        self.grads = net.params.zeros_like()
        self.scale = net.device.asarray(FIRST_SCALE, net.dtype)
        self._overflowed = net.device.asarray(False)
        self._good_steps = net.device.asarray(0)
        # Updates that were made in this run, and of its coefficients at hand; only the device knows.
        self._updates = net.device.asarray(np.zeros(2, "int64"))

    def compute(self, x: Array, t: Array, sample_weight: Array | None = None) -> Array:
        trained, twin, grads, xp = self.trained, self.net, self.grads, self.trained.device.xp
        weight = {} if sample_weight is None else {"sample_weight": sample_weight}
        with np.errstate(over="ignore", invalid="ignore"):  # `update` checks for overflow
            twin.params.flat[...] = trained.params.flat  # rounded, all in one
            scores = twin.predict(x, True).astype(trained.dtype)
            loss = trained.loss_of(scores, t, **weight)
            error = call(trained.last_layer, "backward")
            twin.backward(xp.multiply(error, self.scale, out=xp.empty(error.shape, twin.dtype)))
            twin.collect_gradients(self.layer_grads)
            xp.divide(self.layer_grads.flat, self.scale, out=grads.flat)
            trained.add_weight_decay(grads, len(scores))  # in float32
        return loss

    def update(self, coefficients: Array | None, step: int) -> None:
        """Update if the gradient is finite, and adapt the scale."""
        find_overflow(self.grads.flat, self._overflowed)
        if coefficients is not None:
            self._update_unless_overflowed(coefficients)
        elif not self._overflowed:
            call(self.optimizer, "update", self.trained.params, self.grads)
        counted = None if coefficients is None else self._updates
        adapt_scale(self.scale, self._overflowed, self._good_steps, GROWTH_INTERVAL, counted)

    def upcoming(self, coefficients: Array, start: int, steps: int) -> Array:
        self._updates[1] = 0
        return coefficients.take(self._updates[0] + self.trained.device.xp.arange(steps), axis=0)

    def count(self, steps: int) -> None:
        """Count the updates of a run. The host waits for the device, once in a run."""
        self.optimizer.steps += int(self._updates[0])
        self._updates[:] = 0

    def _update_unless_overflowed(self, coefficients: Array) -> None:
        """Update if the gradient is finite. The device decides, and the host does not wait."""
        xp, params, optimizer = self.trained.device.xp, self.trained.params, self.optimizer
        kept = [optimizer.remembered(quantity, params) for quantity in optimizer.state_names]
        vectors = [params.flat, *(vector.flat for vector in kept)]  # type: ignore[attr-defined]
        before = [vector.copy() for vector in vectors]
        with np.errstate(over="ignore", invalid="ignore"):
            optimizer.apply(params, self.grads, coefficients.take(self._updates[1], axis=0))
        for vector, old in zip(vectors, before, strict=True):
            xp.copyto(vector, old, where=self._overflowed)

    def state(self) -> dict[str, float]:
        return {"loss_scale": float(self.scale), "good_steps": int(self._good_steps)}

    def load_state(self, state: Mapping[str, float]) -> None:
        self.scale[...] = state["loss_scale"]
        self._good_steps[...] = state["good_steps"]

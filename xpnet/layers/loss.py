"""Losses: the layers that end a network (section 5.6.3)."""

from __future__ import annotations

from xpnet import functions, kernels
from xpnet.device import get_array_module
from xpnet.layers.base import Loss
from xpnet.typing import Array

__all__ = ["SoftmaxWithLoss"]


class SoftmaxWithLoss(Loss):
    """Softmax and cross entropy in one, L = -1/N sum_n sum_k t_nk log y_nk with y = softmax(x) (section 5.6.3).

    dx = dout * (y - t) / N: the pair has the simplest derivative there is, the error itself. (For labels whose row
    does not sum to 1, y is multiplied by that sum.)

    Notes
    -----
    ``forward(x, t)`` takes scores x of shape (N, C), or (C,) for a single sample, and labels t: one-hot or
    probabilities of the shape of x, or integer class ids of shape (N,). The loss is computed from the scores, not
    from y, so it is exact for scores of any size.
    """

    saved = ("y", "t")

    def forward(self, x: Array, t: Array) -> Array:  # type: ignore[override]
        xp = get_array_module(x=x, t=t)
        self.t = xp.asarray(t)
        loss, self.y = kernels.softmax_cross_entropy(x, self.t, self.out.get("y"))
        return loss

    def forward_each(self, x: Array, t: Array) -> Array:
        xp = get_array_module(x=x, t=t)
        losses, _ = functions.softmax_cross_entropy(x, xp.broadcast_to(t, (len(x), *t.shape)), reduction="none")
        return losses.mean(axis=-1)

    def backward(self, dout: Array | float = 1.0) -> Array:
        batch = len(self.y) if self.y.ndim > 1 else 1
        return kernels.softmax_cross_entropy_gradient(self.y, self.t, dout / max(batch, 1), self.out.get("dx"))

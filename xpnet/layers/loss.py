"""Losses, the last layers of networks (section 5.6.3)."""

import math
import operator
from typing import Any

from xpnet import functions, kernels
from xpnet.device import Device, as_array, get_array_module
from xpnet.layers.base import Loss
from xpnet.settings import number, positive
from xpnet.typing import Array, DTypeLike
from xpnet.weights import normalize, sample_weights, weighted_sums

__all__ = [
    "HingeWithLoss",
    "HuberWithLoss",
    "IdentityWithLoss",
    "PoissonWithLoss",
    "SigmoidWithLoss",
    "SoftmaxWithLoss",
]


class SoftmaxWithLoss(Loss):
    """Softmax and cross entropy in one, L = -1/N sum_n sum_k t_nk log y_nk with y = softmax(x) (section 5.6.3).

    dx = dout * (y - t) / N, the error itself. (If a row of labels does not sum to 1, y is multiplied by the sum.)

    Parameters
    ----------
    label_smoothing : float in [0, 1], default 0
        Share s of each label, divided evenly among all classes: t <- (1 - s) t + s / C (Szegedy et al., 2016).
    class_weight : (C,), optional
        Weights w of the classes, t_nk <- w_k t_nk. For class ids L is then divided by the sum of the samples' weights
        instead of N, as in PyTorch's ``cross_entropy``. A weight of a sample multiplies that of its class.
    ignore_index : int, optional
        Class id of samples that do not count: not in the loss, not in N, not in the accuracy. With ``-1``, for
        instance, padded places of sequences. If no sample counts, L is NaN and dx is 0, as in PyTorch.

    Notes
    -----
    ``forward(x, t)`` takes scores x of shape (N, C), or (C,) for a single sample, and labels t: one-hot or
    probabilities of the shape of x, or integer class ids of shape (N,) or (N, 1). In scores of shape (N, ..., C), each
    row of C is a sample. The loss is computed from the scores, not from y: it is exact for scores of any size.
    """

    saved = ("y", "t", "weight", "gradient")

    def __init__(
        self, label_smoothing: float = 0.0, class_weight: Array | None = None, ignore_index: int | None = None
    ) -> None:
        self.label_smoothing = number("label_smoothing", label_smoothing, lambda s: 0 <= s <= 1, "lie in [0, 1]")
        self.class_weight = None if class_weight is None else get_array_module(class_weight).asarray(class_weight)
        if self.class_weight is not None and self.class_weight.ndim != 1:
            raise ValueError(f"class_weight must have the shape (C,), got {self.class_weight.shape}")
        self.ignore_index = None if ignore_index is None else operator.index(ignore_index)

    def forward(self, x: Array, t: Array, sample_weight: Array | None = None) -> Array:  # type: ignore[override]
        get_array_module(x=x, t=t)
        x = functions.as_floating(x)
        t, weight = self._targets(x, as_array("t", t), sample_weight)
        gradient, dx = None, self.out.get("dx")
        if weight is None and dx is not None:  # in a training step: backward follows
            share, arrays = self._share(1.0, math.prod(x.shape[:-1])), (self.out.get("y"), dx, self.out.get("loss"))
            loss, self.y, gradient = kernels.softmax_cross_entropy_with_gradient(x, t, share, *arrays)
        elif weight is None:
            loss, self.y = kernels.softmax_cross_entropy(x, t, self.out.get("y"))
        else:
            losses, self.y = functions.softmax_cross_entropy(x, t, reduction="none")
            loss = weighted_sums(losses, weight, 1)[0]
        self.t, self.weight, self.gradient = t, weight, gradient
        return loss

    def probabilities(self, x: Array) -> Array:
        return functions.softmax(x)

    def forward_each(self, x: Array, t: Array, sample_weight: Array | None = None) -> Array:
        xp = get_array_module(x=x, t=t)
        t, weight = self._targets(x[0], t, sample_weight)
        losses, _ = functions.softmax_cross_entropy(x, xp.broadcast_to(t, (len(x), *t.shape)), reduction="none")
        return losses.reshape(len(x), -1).mean(axis=-1) if weight is None else weighted_sums(losses, weight, len(x))

    def backward(self, dout: Array | float = 1.0) -> Array:
        if self.gradient is not None and isinstance(dout, float) and dout == 1.0:
            return self.gradient
        scale = self._share(dout, math.prod(self.y.shape[:-1])) if self.weight is None else dout
        dx = kernels.softmax_cross_entropy_gradient(self.y, self.t, scale, self.out.get("dx"))
        if self.weight is not None:
            dx *= self.weight[..., None]
        return dx

    def to(self, device: Device | str, dtype: DTypeLike | None = None) -> None:
        super().to(device, dtype)
        if self.class_weight is not None:
            self.class_weight = Device(device).asarray(self.class_weight, dtype)

    def correct(self, x: Array, t: Array) -> Array:
        counted = self.counted(t, x.shape)
        return super().correct(x, t) if counted is None else super().correct(x, t) & counted

    def counted(self, t: Array, shape: tuple[int, ...]) -> Array | None:
        ids = None if self.ignore_index is None else functions.class_ids_for_shape(t, shape)
        return None if ids is None else ids.astype("int64", copy=False) != self.ignore_index

    def _targets(self, x: Array, t: Array, sample_weight: Array | None) -> tuple[Array, Array | None]:
        """Return smoothed labels with the classes' weights, and normalized weights of the samples.

        For the plain mean the weights are None.
        """
        self._expect_classes(x.shape)
        w, is_plain = self.class_weight, not self.label_smoothing and self.class_weight is None
        if is_plain and sample_weight is None and self.ignore_index is None:
            return t, None
        if w is not None and len(w) != x.shape[-1]:
            raise ValueError(f"class_weight has {len(w)} weights, but x has scores for {x.shape[-1]} classes")
        xp = get_array_module(x=x, t=t, class_weight=x if w is None else w)
        dtype = functions.floating(x.dtype)
        weight = None if sample_weight is None else sample_weights(sample_weight, x, x.shape[:-1])
        counted = self.counted(t, x.shape)
        if counted is not None:
            t = xp.where(counted, t.reshape(counted.shape), 0)
            weight = counted.astype("float64") if weight is None else xp.where(counted, weight, 0.0)
        if is_plain:
            return t, None if weight is None else normalize(weight, dtype)
        ids = functions.class_ids(x, t)
        shares = t.astype(dtype) if ids is None else functions.indicate_classes(ids, x.shape[-1], dtype)
        weights = 1.0 if w is None else w.astype(dtype, copy=False)
        samples = math.prod(x.shape[:-1])
        is_weighted = ids is not None and w is not None and samples
        total = samples / (shares * weights).sum() if is_weighted and weight is None else 1.0
        smoothed = shares * (1.0 - self.label_smoothing) + self.label_smoothing / x.shape[-1]
        if weight is not None:
            counts = weight * (shares * weights).sum(axis=-1) if is_weighted else weight
            weight = normalize(weight, dtype, counts)
        return xp.multiply(smoothed * weights, total), weight

    def check_labels(self, t: Array, shape: tuple[int, ...]) -> None:
        self._expect_classes(shape)
        counted = self.counted(t, shape)
        if counted is not None:
            t = get_array_module(t).where(counted, t.reshape(counted.shape), 0)
        super().check_labels(t, shape)

    def _expect_classes(self, shape: tuple[int, ...]) -> None:
        if shape[-1:] == (1,):
            raise ValueError(
                f"{self.name} expected scores of two or more classes, got shape {shape}: the softmax of one score is "
                "always 1; for one output use SigmoidWithLoss"
            )


class _Elementwise(Loss):
    """Mean of a loss per output. A subclass defines `_each`, and `_slope`, its derivative with respect to x.

    Targets have the shape of x, or (N,) for x of shape (N, 1).
    """

    saved = ("x", "t", "weight")

    def forward(self, x: Array, t: Array, sample_weight: Array | None = None) -> Array:  # type: ignore[override]
        get_array_module(x=x, t=t)
        x = functions.as_floating(x)
        t = self._targets(as_array("t", t), x.shape).astype(x.dtype, copy=False)
        losses, weight = self._each(x, t), self._weight(x, sample_weight)
        if weight is None:
            loss = losses.sum() * functions.inverse_count(self._number(x.shape))
        else:
            loss = weighted_sums(losses, weight, 1)[0]
        self.x, self.t, self.weight = x, t, weight
        return loss

    def forward_each(self, x: Array, t: Array, sample_weight: Array | None = None) -> Array:
        get_array_module(x=x, t=t)
        t = self._targets(t, x.shape[1:]).astype(functions.floating(x.dtype), copy=False)
        losses, weight = self._each(x, t), self._weight(x[0], sample_weight)
        if weight is not None:
            return weighted_sums(losses, weight, len(x))
        return losses.reshape(len(x), -1).sum(axis=1) * functions.inverse_count(self._number(x.shape[1:]))

    def backward(self, dout: Array | float = 1.0) -> Array:
        xp = get_array_module(self.x)
        scale = self._share(dout, self._number(self.x.shape)) if self.weight is None else self.weight * dout
        return xp.multiply(self._slope(self.x, self.t), scale, out=self.out.get("dx"))

    def check_labels(self, t: Array, shape: tuple[int, ...]) -> None:
        self._targets(t, shape)

    def _targets(self, t: Array, shape: tuple[int, ...]) -> Array:
        if shape not in (t.shape, (*t.shape, 1)):
            raise ValueError(f"{self.name} expected targets t of the scores' shape {shape}, got {t.shape}")
        return t.reshape(shape)

    def _weight(self, x: Array, sample_weight: Array | None) -> Array | None:
        """Return the weight of each value, 1/number in the plain mean; None for that mean."""
        if sample_weight is None:
            return None
        shape = x.shape[:-1] or x.shape
        weight = normalize(sample_weights(sample_weight, x, shape), functions.floating(x.dtype))
        weight = weight * (weight.size / max(self._number(x.shape), 1))
        return weight.reshape(*shape, *[1] * (x.ndim - len(shape)))

    def _number(self, shape: tuple[int, ...]) -> int:
        """Number of values in the mean."""
        return math.prod(shape)

    def _each(self, x: Array, t: Array) -> Array:
        raise NotImplementedError

    def _slope(self, x: Array, t: Array) -> Array:
        raise NotImplementedError


class SigmoidWithLoss(_Elementwise):
    """Sigmoid and binary cross entropy in one, L = -mean(t log y + (1 - t) log(1 - y)) with y = sigmoid(x).

    dx = dout * (y - t) / size of x: the error itself, as with `SoftmaxWithLoss`. Each output is a binary
    classification of its own. It is right if x > 0 and t > 1/2 are both true or both false.

    Notes
    -----
    ``forward(x, t)`` takes scores x of shape (N, ...) and targets t in [0, 1] of the same shape, or (N,) for (N, 1).
    A target outside [0, 1] is an error on the host. On a CUDA device it makes the loss NaN, because a check would wait
    for the device. The loss is computed from the scores: it is exact for scores of any size.
    """

    def probabilities(self, x: Array) -> Array:
        return functions.sigmoid(x)

    def correct(self, x: Array, t: Array) -> Array:
        return (x > 0) == (self._targets(t, x.shape) > 0.5)

    def check_labels(self, t: Array, shape: tuple[int, ...]) -> None:
        functions.check_targets(super()._targets(t, shape), 1.0)

    def _targets(self, t: Array, shape: tuple[int, ...]) -> Array:
        return functions.valid_targets(super()._targets(t, shape), 1.0)

    def _each(self, x: Array, t: Array) -> Array:
        return functions.softplus(x) - t * x

    def _slope(self, x: Array, t: Array) -> Array:
        return functions.sigmoid(x) - t


class IdentityWithLoss(_Elementwise):
    """Identity and half the squared error in one, L = 1/(2N) sum_n sum_k (x_nk - t_nk)^2 (sections 3.5 and 4.2.1).

    dx = dout * (x - t) / N: thanks to the half, the error itself. For regression. PyTorch's ``mse_loss``, a mean over
    the outputs too, is this times 2 / K.

    Notes
    -----
    ``forward(x, t)`` takes outputs x of shape (N, ...) and targets t of the same shape, or (N,) for (N, 1).
    """

    classifies = False

    def _number(self, shape: tuple[int, ...]) -> int:
        return shape[0] if len(shape) > 1 else 1

    def _each(self, x: Array, t: Array) -> Array:
        return 0.5 * (x - t) ** 2

    def _slope(self, x: Array, t: Array) -> Array:
        return x - t


class HuberWithLoss(_Elementwise):
    """Huber loss (1964), the mean over e = x - t of e^2 / 2 for ``|e| <= delta``, ``delta (|e| - delta / 2)`` beyond.

    dx = dout * e / size of x, with e clipped to [-delta, delta]: outliers have a bounded gradient. For regression.

    Parameters
    ----------
    delta : float, default 1.0
        Error beyond which the loss is linear.

    Notes
    -----
    ``forward(x, t)`` takes outputs x of shape (N, ...) and targets t of the same shape, or (N,) for (N, 1).
    """

    classifies = False

    def __init__(self, delta: float = 1.0) -> None:
        self.delta = positive("delta", delta)

    def _each(self, x: Array, t: Array) -> Array:
        error = self._slope(x, t)
        return error * (x - t - 0.5 * error)

    def _slope(self, x: Array, t: Array) -> Array:
        return get_array_module(x).clip(x - t, -self.delta, self.delta)


class PoissonWithLoss(_Elementwise):
    """Exponential and the likelihood of counts in one, L = mean(y - t log y) with the rate y = exp(x).

    dx = dout * (y - t) / size of x: the error itself, as with `SigmoidWithLoss`. L is minus the logarithm of Poisson's
    probability of t, without log t!, which no x changes. For regression of counts. PyTorch's ``poisson_nll_loss``.

    Notes
    -----
    ``forward(x, t)`` takes logarithms x of rates, of shape (N, ...), and targets t of the same shape, or (N,) for
    (N, 1). Targets need not be whole. A negative target is an error on the host. On a CUDA device it makes the loss
    NaN, because a check would wait for the device.
    """

    classifies = False

    def check_labels(self, t: Array, shape: tuple[int, ...]) -> None:
        functions.check_targets(super()._targets(t, shape), math.inf)

    def _targets(self, t: Array, shape: tuple[int, ...]) -> Array:
        return functions.valid_targets(super()._targets(t, shape), math.inf)

    def _each(self, x: Array, t: Array) -> Array:
        return get_array_module(x).exp(x) - t * x

    def _slope(self, x: Array, t: Array) -> Array:
        return get_array_module(x).exp(x) - t


class HingeWithLoss(Loss):
    """Hinge loss of several classes, L = 1/N sum_n 1/C sum_k max(0, margin - x_nt + x_nk), k other than the label t.

    dx is dout / (N C) for each class inside the margin, and minus the number of these classes times that for the label.
    PyTorch's ``multi_margin_loss``.

    Parameters
    ----------
    margin : float, default 1.0
        Minimal distance of the label's score above each other score.

    Notes
    -----
    ``forward(x, t)`` takes scores x of shape (N, C) and labels t: class ids (N,) or (N, 1), or one-hot of the shape of
    x (the argmax counts). A class exactly at the margin, the kink, counts as outside.
    """

    saved = ("share", "near", "weight")

    def __init__(self, margin: float = 1.0) -> None:
        self.margin = positive("margin", margin)

    def forward(self, x: Array, t: Array, sample_weight: Array | None = None) -> Array:  # type: ignore[override]
        get_array_module(x=x, t=t)
        x = functions.as_floating(x)
        share, excess = self._compare(x, as_array("t", t), x)
        near, weight = excess > 0, self._weight(x, sample_weight)
        losses = excess * near
        loss = losses.sum() * functions.inverse_count(x.size) if weight is None else weighted_sums(losses, weight, 1)[0]
        self.share, self.near, self.weight = share, near, weight
        return loss

    def forward_each(self, x: Array, t: Array, sample_weight: Array | None = None) -> Array:
        xp = get_array_module(x=x, t=t)
        _, excess = self._compare(x, t, x[0])
        losses, weight = xp.maximum(excess, 0), self._weight(x[0], sample_weight)
        if weight is not None:
            return weighted_sums(losses, weight, len(x))
        return losses.reshape(len(x), -1).sum(axis=1) * functions.inverse_count(x[0].size)

    def backward(self, dout: Array | float = 1.0) -> Array:
        xp = get_array_module(self.near)
        near = self.near.astype(self.share.dtype)
        dx = near - self.share * near.sum(axis=-1, keepdims=True)
        scale = self._share(dout, dx.size) if self.weight is None else self.weight * dout
        return xp.multiply(dx, scale, out=self.out.get("dx"))

    def _weight(self, x: Array, sample_weight: Array | None) -> Array | None:
        """Return the weight of each class of a sample, 1/NC in the plain mean; None for that mean."""
        if sample_weight is None:
            return None
        weight = normalize(sample_weights(sample_weight, x, x.shape[:-1]), functions.floating(x.dtype))
        return weight[..., None] * (1.0 / x.shape[-1])

    def activation_pattern(self) -> Array:
        return self.near

    def _compare(self, x: Array, t: Array, batch: Array) -> tuple[Any, Any]:
        """Return one-hot labels, and the distance of each class inside the margin (negative: outside)."""
        ids = functions.class_ids(batch, t)
        ids = get_array_module(t).argmax(t, axis=-1) if ids is None else ids
        share = functions.indicate_classes(ids, x.shape[-1], functions.floating(x.dtype))
        right = (x * share).sum(axis=-1, keepdims=True)
        return share, (x - right + self.margin) * (1.0 - share)

"""What the update rules share: their passes over the parameters, what they remember, and clipped gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, TypedDict

import numpy as np

from xpnet import kernels
from xpnet.device import Device, get_array_module, get_device, is_on_host
from xpnet.optimizers.schedules import LearningRate, rate_at
from xpnet.optimizers.settings import not_negative, positive
from xpnet.parameters import ParameterVector
from xpnet.typing import Array

__all__ = ["Clipping", "Optimizer"]

BLOCK = 2**19
"""Bytes of parameters that a rule goes over at a time on the CPU, so that its second pass finds them in the cache.

Adam's update of 1.9 million parameters takes a tenth less time for it, of 8 million a third."""


class Clipping(TypedDict, total=False):
    """The settings of `Optimizer` that every rule takes by keyword."""

    clip_norm: float | None
    clip_value: float | None


class Optimizer:
    """A rule that changes parameters, in place, by their gradients.

    A subclass says what it remembers, in ``state_names``, and defines `rule`, which is written as if there were one
    vector of parameters: a network's is one.

    Parameters
    ----------
    lr : float or callable, default 0.01
        Learning rate; or what returns it for each step, counted from 0 (`xpnet.optimizers.schedules`).
    weight_decay : float, default 0
        Pull all parameters towards 0: ``weight_decay * p`` is added to the gradient, which is that of the loss plus
        ``weight_decay / 2 * sum(p ** 2)``. In rules that are ``decoupled``, ``p -= lr * weight_decay * p`` instead.
    clip_norm : float, optional
        Scale gradients, all parameters' together, so that their Euclidean norm is no larger: as
        ``torch.nn.utils.clip_grad_norm_`` does, by ``min(1, clip_norm / (norm + 1e-6))``.
    clip_value : float, optional
        Cut every element of the gradients to [-clip_value, clip_value]. Either this or `clip_norm`. Both come before
        `weight_decay`, and leave the array of gradients itself unchanged.

    Attributes
    ----------
    steps : int
        Updates so far.
    state : dict of str to mapping of str to array
        What the rule remembers between updates (a momentum, say): by the name of the quantity, and then by the name
        of the parameter. Empty before the first update, and for a rule that remembers nothing. It follows the
        parameters to another device or dtype. With `steps` it is all there is to save: set on a new optimiser of the
        same settings, as arrays of any device, these two make it go on from there.
    state_names : tuple of str
        The names of these quantities.

    Raises
    ------
    ValueError
        If a setting is out of its range.
    """

    decoupled: ClassVar[bool] = False
    """Whether weight decay goes past the rule, straight to the parameters."""

    state: dict[str, Mapping[str, Array]]

    def __init__(
        self,
        lr: LearningRate = 0.01,
        weight_decay: float = 0.0,
        *,
        clip_norm: float | None = None,
        clip_value: float | None = None,
    ) -> None:
        if clip_norm is not None and clip_value is not None:
            raise ValueError(f"clip by norm or by value: got clip_norm={clip_norm} and clip_value={clip_value}")
        self.lr = lr
        self.weight_decay = not_negative("weight_decay", weight_decay)
        self.clip_norm = None if clip_norm is None else positive("clip_norm", clip_norm)
        self.clip_value = None if clip_value is None else positive("clip_value", clip_value)
        self.steps = 0
        self.state = {}
        self._blocks: list[_Block] = []
        self._seen: list[Any] = []

    @property
    def lr(self) -> LearningRate:
        """The learning rate, or what returns it for each step."""
        return self._lr

    @lr.setter
    def lr(self, lr: LearningRate) -> None:
        self._lr = lr if callable(lr) else rate_at(lr, 0)

    @property
    def current_lr(self) -> float:
        """The learning rate of the next update."""
        return self._lr_at(self.steps)

    @property
    def state_names(self) -> tuple[str, ...]:
        """The names of the quantities that the rule remembers."""
        return ()

    def coefficients(self, lr: float, t: int) -> tuple[float, ...]:
        """Return the numbers in `rule` that change from update to update; by default the learning rate.

        Parameters
        ----------
        lr : float
            The learning rate of this update.
        t : int
            Its number, the first being 1.
        """
        return (lr,)

    def rule(self, p: Array, g: Array, state: Sequence[Array], coefficients: Sequence[Array | float], a: Array) -> None:
        """Change `p` and `state` in place.

        Parameters
        ----------
        p, g : arrays of one shape
            Parameters and their gradient, which is not to be changed: a part of a network's vector, (n,), or an array.
        state : sequence of arrays of that shape
            What is remembered of them, in the order of ``state_names``; zeros at first.
        coefficients : sequence of float
            What `coefficients` returned for this update; in a step that runs as a CUDA graph, arrays without axes.
            Only they may change from update to update: all else is the same whenever the graph is launched.
        a : array of that shape
            Room for intermediate results.
        """
        raise NotImplementedError(f"{type(self).__name__} must define rule(p, g, state, coefficients, a)")

    def update(self, params: Mapping[str, Array], grads: Mapping[str, Array]) -> None:
        """Change `params` in place, and nothing else but the optimiser itself.

        Parameters
        ----------
        params, grads : mapping of str to array
            A network's ``params`` and its gradient, which are updated as one vector; or dicts of arrays.

        Raises
        ------
        KeyError
            If a parameter has no gradient.
        ValueError
            If the shapes differ, or the parameters are not those of the updates before.
        TypeError
            If something in `params` is no array of floats.
        DeviceError
            If parameters and gradients are on different devices.
        """
        self.apply(params, grads, self.numbers(0))
        self.steps += 1

    def _lr_at(self, t: int) -> float:
        return rate_at(self._lr, t) if callable(self._lr) else self._lr

    def numbers(self, ahead: int) -> tuple[float, ...]:
        """Return all numbers that change from update to update: the rule's coefficients, then a factor.

        The factor, 1 - lr * weight_decay, is that of decoupled weight decay.

        Parameters
        ----------
        ahead : int
            Updates from now; 0 is the next one.
        """
        t = self.steps + ahead
        lr = self._lr_at(t)
        return (*self.coefficients(lr, t + 1), 1.0 - lr * self.weight_decay)

    def apply(self, params: Mapping[str, Array], grads: Mapping[str, Array], numbers: Sequence[Array | float]) -> None:
        """Change `params` as an update with the given `numbers` does; `steps` stays as it is.

        Parameters
        ----------
        params, grads
            As in `update`.
        numbers : sequence of float, or of arrays without axes on the device
            Such as `numbers` returned.
        """
        *coefficients, decay = numbers
        with _device(params).activate():
            work = self._work(params, grads)
            scale = None if self.clip_norm is None else _norm_scale([g for g, _ in work], self.clip_norm)
            for g, blocks in work:
                for part, p, state, a, b in blocks:
                    direction = self._direction(p, g[part], scale, a, b)
                    if self.decoupled and self.weight_decay:
                        p *= decay
                    self.rule(p, direction, state, coefficients, a)

    def fixed_settings(self) -> dict[str, Any]:
        """Return the settings, by name, that are the same in each update; the learning rate is not."""
        settings = {name: value for name, value in vars(self).items() if isinstance(value, (int, float, type(None)))}
        return {name: value for name, value in settings.items() if name not in {"steps", "_lr"}}

    def _work(self, params: Mapping[str, Array], grads: Mapping[str, Array]) -> list[tuple[Array, list[_Block]]]:
        """Return what to go over: the two flat vectors where there are such, else array by array."""
        if isinstance(params, ParameterVector) and params.layout == getattr(grads, "layout", None):
            return [(grads.flat, self._blocks_of(params))]  # type: ignore[attr-defined]
        missing = params.keys() - grads.keys()
        if missing:
            raise KeyError(f"no gradient for {', '.join(sorted(missing))}; grads has {', '.join(grads)}")
        for name, p in params.items():
            if p.shape != grads[name].shape:
                raise ValueError(f"{name!r} has shape {p.shape}, its gradient {grads[name].shape}")
            get_array_module(**{f"params[{name!r}]": p, f"grads[{name!r}]": grads[name]})
        kept = [self.remembered(quantity, params) for quantity in self.state_names]
        return [
            (grads[name], [_Block(..., p, [vector[name] for vector in kept], _empty_like(p), _empty_like(p))])
            for name, p in params.items()
        ]

    def _blocks_of(self, params: ParameterVector) -> list[_Block]:
        """Return the blocks of a flat vector: those of the update before, where nothing has changed."""
        seen = [params, *(self.state.get(quantity) for quantity in self.state_names)]
        if self._seen != seen:  # compared by identity, as ParameterVectors are
            kept: list[Any] = [self.remembered(quantity, params) for quantity in self.state_names]
            flat = params.flat
            size = min(BLOCK // flat.itemsize, flat.size) if is_on_host(flat) else flat.size
            a, b = _empty_like(flat[:size]), _empty_like(flat[:size])
            self._blocks, self._seen = [], [params, *kept]
            for start in range(0, flat.size, max(size, 1)):
                part = slice(start, min(start + size, flat.size))
                n = part.stop - start
                self._blocks.append(_Block(part, flat[part], [vector.flat[part] for vector in kept], a[:n], b[:n]))
        return self._blocks

    def remembered(self, quantity: str, params: Mapping[str, Array]) -> Mapping[str, Array]:
        """Return a quantity of `state_names`, laid out as the parameters: made, or moved, where it is not yet.

        Raises
        ------
        ValueError
            If it is there for parameters of other names or shapes.
        """
        kept = self.state.get(quantity)
        if kept is not None and _is_laid_out_as(kept, params):
            return kept
        fitted: Mapping[str, Array]
        if isinstance(params, ParameterVector):
            fitted = params.zeros_like()
        else:
            fitted = {name: get_array_module(p).zeros_like(p) for name, p in params.items()}
        if kept is not None:
            shapes = {name: np.shape(array) for name, array in kept.items()}
            wanted = {name: p.shape for name, p in params.items()}
            if shapes != wanted:
                raise ValueError(
                    f"the optimizer's state {quantity!r} is of parameters {shapes}, got {wanted}; "
                    "each network needs an optimizer of its own"
                )
            device = _device(params)
            for name, array in fitted.items():
                array[...] = device.asarray(kept[name], array.dtype)
        self.state[quantity] = fitted
        return fitted

    def _direction(self, p: Array, g: Array, scale: Array | None, a: Array, b: Array) -> Array:
        """Return the gradient that the rule shall see, clipped and with the decay's share: `g` itself, or in `b`."""
        xp = get_array_module(p)
        if scale is not None:
            g = xp.multiply(g, scale, out=b)
        elif self.clip_value is not None:
            g = xp.clip(g, -self.clip_value, self.clip_value, out=b)
        if self.weight_decay and not self.decoupled:
            g = xp.add(g, xp.multiply(p, self.weight_decay, out=a), out=b)
        return g

    def __getstate__(self) -> dict[str, Any]:
        # Copies of the blocks would be arrays of their own, not views of the copied vectors.
        return {**self.__dict__, "_blocks": [], "_seen": []}


class _Block(NamedTuple):
    """Where some elements are in the gradient; they themselves, what is remembered of them, and room for results."""

    part: Any
    p: Array
    state: list[Array]
    a: Array
    b: Array


def _device(params: Mapping[str, Array]) -> Device:
    """Return where the parameters are, having made sure that they can be changed in place."""
    if isinstance(params, ParameterVector):
        return params.device
    for name, p in params.items():
        dtype = getattr(p, "dtype", None)
        if isinstance(p, np.generic) or dtype is None or dtype.kind != "f":
            found = type(p).__name__ if dtype is None else f"{type(p).__name__} of {dtype}"
            raise TypeError(f"params[{name!r}] is changed in place, so it must be an array of floats, got {found}")
    return get_device(next(iter(params.values()), None))


def _is_laid_out_as(kept: Mapping[str, Array], params: Mapping[str, Array]) -> bool:
    if isinstance(params, ParameterVector):
        return params.layout == getattr(kept, "layout", None)
    device = _device(params)
    return kept.keys() == params.keys() and all(
        device.holds(kept[name]) and (kept[name].shape, kept[name].dtype) == (p.shape, p.dtype)
        for name, p in params.items()
    )


def _empty_like(x: Array) -> Array:
    return get_array_module(x).empty_like(x)


def _norm_scale(grads: Sequence[Array], clip_norm: float) -> Array:
    """Return what to multiply gradients with, on their device: nothing waits for it."""
    xp = get_array_module(*grads)
    squares: Any = 0.0
    for g in grads:
        wide = g.astype("float32") if g.itemsize < 4 else g  # in half precision the sum would overflow
        squares = squares + kernels.squared_norm(wide)
    return xp.minimum(clip_norm / (xp.sqrt(squares) + 1e-6), 1.0)

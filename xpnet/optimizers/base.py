"""Base class of update rules: passes over the parameters, state, gradient clipping and weight decay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, TypedDict

import numpy as np

from xpnet import kernels
from xpnet.device import Device, get_array_module, get_device, is_on_host
from xpnet.optimizers.schedules import LearningRate, rate_at
from xpnet.parameters import ParameterVector
from xpnet.settings import not_negative, positive
from xpnet.typing import Array

__all__ = ["Clipping", "Optimizer"]

BLOCK = 2**19
"""Size in bytes of the block that a rule updates at a time on the CPU, so that its second pass hits the cache.

Adam's update of 1.9 million parameters takes a tenth less time, of 8 million a third."""


class Clipping(TypedDict, total=False):
    """Keyword arguments of `Optimizer` that every rule takes."""

    clip_norm: float | None
    clip_value: float | None


class Optimizer:
    """Update rule: changes parameters in place, given their gradients.

    A subclass names its state in ``state_names``, and defines `rule` for a single vector of parameters. A network's
    parameters are one vector.

    Parameters
    ----------
    lr : float or callable, default 0.01
        Learning rate, or a function of the step, counted from 0 (`xpnet.optimizers.schedules`).
    weight_decay : float, default 0
        L2 penalty. ``weight_decay * p`` is added to the gradient, as for a loss with the term
        ``weight_decay / 2 * sum(p ** 2)``. ``decoupled`` rules apply ``p -= lr * weight_decay * p`` instead.
    clip_norm : float, optional
        Maximal Euclidean norm of all gradients together. They are multiplied by ``min(1, clip_norm / (norm + 1e-6))``,
        as in ``torch.nn.utils.clip_grad_norm_``.
    clip_value : float, optional
        Clip every element of the gradients to [-clip_value, clip_value]. It excludes `clip_norm`. Both come before
        `weight_decay`, and leave the gradient array itself unchanged.

    Attributes
    ----------
    steps : int
        Number of updates so far.
    state : dict of str to mapping of str to array
        State between updates, such as a momentum: arrays by quantity, then by parameter. It is empty before the first
        update, and for a rule without state. It follows the parameters to another device or dtype. To resume training,
        save `steps` and `state`, and set them on a new optimizer with the same settings; arrays of any device will do.
    state_names : tuple of str
        Names of the quantities in `state`.

    Raises
    ------
    ValueError
        If a setting is out of its range.
    """

    decoupled: ClassVar[bool] = False
    """Whether weight decay is applied to the parameters directly, not added to the gradient."""

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
        self._lineage: object = None  # of the parameters that it updates

    @property
    def lr(self) -> LearningRate:
        """Learning rate, or the function that returns it for each step."""
        return self._lr

    @lr.setter
    def lr(self, lr: LearningRate) -> None:
        self._lr = lr if callable(lr) else rate_at(lr, 0)

    @property
    def current_lr(self) -> float:
        """Learning rate of the next update."""
        return self._lr_at(self.steps)

    @property
    def state_names(self) -> tuple[str, ...]:
        """Names of the quantities in `state`."""
        return ()

    def coefficients(self, lr: float, t: int) -> tuple[float, ...]:
        """Return the numbers in `rule` that change from update to update; by default the learning rate.

        Parameters
        ----------
        lr : float
            Learning rate of this update.
        t : int
            Number of this update, counted from 1.
        """
        return (lr,)

    def rule(
        self, p: Array, g: Array, state: Sequence[Array], coefficients: Sequence[Array | float], scratch: Array
    ) -> None:
        """Change `p` and `state` in place.

        Parameters
        ----------
        p, g : arrays of one shape
            Parameters and their gradient: a part of a network's vector, (n,), or an array. `g` must stay unchanged.
        state : sequence of arrays of the same shape
            State of these parameters, in the order of ``state_names``. Zeros at first.
        coefficients : sequence of float
            Result of `coefficients` for this update; in a CUDA graph, 0-d arrays. Only they change from update to
            update. A launched graph repeats everything else.
        scratch : array of the same shape
            Buffer for intermediate results.
        """
        raise NotImplementedError(f"{type(self).__name__} must define rule(p, g, state, coefficients, scratch)")

    def update(self, params: Mapping[str, Array], grads: Mapping[str, Array]) -> None:
        """Update `params` in place, and leave `grads` unchanged.

        Parameters
        ----------
        params, grads : mapping of str to array
            A network's ``params`` and its gradient, updated as one vector; or dicts of arrays.

        Raises
        ------
        KeyError
            If a parameter has no gradient.
        ValueError
            If the shapes differ, or the parameters are not those of earlier updates.
        TypeError
            If a value of `params` is not an array of floats.
        DeviceError
            If parameters and gradients are on different devices.
        """
        self.apply(params, grads, self.numbers(0))
        self.steps += 1

    def _lr_at(self, t: int) -> float:
        return rate_at(self._lr, t) if callable(self._lr) else self._lr

    def numbers(self, ahead: int) -> tuple[float, ...]:
        """Return all numbers that change from update to update: the rule's coefficients, then the decay.

        The decay is 1 - lr * weight_decay, the factor of decoupled weight decay.

        Parameters
        ----------
        ahead : int
            Index of the update, counted from the next one, 0.
        """
        t = self.steps + ahead
        lr = self._lr_at(t)
        return (*self.coefficients(lr, t + 1), 1.0 - lr * self.weight_decay)

    def apply(self, params: Mapping[str, Array], grads: Mapping[str, Array], numbers: Sequence[Array | float]) -> None:
        """Update `params` with the given `numbers`, and leave `steps` unchanged.

        Parameters
        ----------
        params, grads
            As in `update`.
        numbers : sequence of float, or of 0-d arrays on the device
            Result of `numbers`.
        """
        *coefficients, decay = numbers
        with _device(params).activate():
            work = self._work(params, grads)
            scale = None if self.clip_norm is None else _norm_scale([g for g, _ in work], self.clip_norm)
            for g, blocks in work:
                for part, p, state, scratch, out in blocks:
                    direction = self._direction(p, g[part], scale, scratch, out)
                    if self.decoupled and self.weight_decay:
                        p *= decay
                    self.rule(p, direction, state, coefficients, scratch)

    def fixed_settings(self) -> dict[str, Any]:
        """Return the settings by name, without the learning rate, which may change between updates."""
        settings = {name: value for name, value in vars(self).items() if isinstance(value, (int, float, type(None)))}
        return {name: value for name, value in settings.items() if name not in {"steps", "_lr", "_lineage"}}

    def claim(self, params: ParameterVector) -> None:
        """Take the parameters of a network as those that this optimizer updates, then and later.

        Raises
        ------
        ValueError
            If it has updated those of another network. Their momenta and numbers of updates would be mixed.
        """
        if self._lineage not in (None, params.lineage):
            raise ValueError(
                f"this {type(self).__name__} updates another network already; each network needs an optimizer of its "
                "own: create one, or copy.deepcopy(optimizer)"
            )
        self._lineage = params.lineage

    def _work(self, params: Mapping[str, Array], grads: Mapping[str, Array]) -> list[tuple[Array, list[_Block]]]:
        """Pair each gradient with its blocks of parameters: the flat vectors if there are any, else each array."""
        if isinstance(params, ParameterVector) and params.layout == getattr(grads, "layout", None):
            return [(grads.flat, self._blocks_of(params))]  # type: ignore[attr-defined]
        _expect_mapping("grads", grads)
        missing = params.keys() - grads.keys()
        if missing:
            raise KeyError(f"no gradient for {', '.join(sorted(missing))}; grads has {', '.join(grads)}")
        for name, p in params.items():
            shape = getattr(grads[name], "shape", type(grads[name]).__name__)
            if p.shape != shape:
                raise ValueError(f"{name!r} has shape {p.shape}, its gradient {shape}")
            get_array_module(**{f"params[{name!r}]": p, f"grads[{name!r}]": grads[name]})
        kept = [self.remembered(quantity, params) for quantity in self.state_names]
        return [
            (grads[name], [_Block(..., p, [vector[name] for vector in kept], _empty_like(p), _empty_like(p))])
            for name, p in params.items()
        ]

    def _blocks_of(self, params: ParameterVector) -> list[_Block]:
        """Return the blocks of a flat vector, reused from the update before if parameters and state are the same."""
        seen = [params, *(self.state.get(quantity) for quantity in self.state_names)]
        if self._seen != seen:  # compared by identity, as ParameterVectors are
            self.claim(params)
            kept: list[Any] = [self.remembered(quantity, params) for quantity in self.state_names]
            flat = params.flat
            size = min(BLOCK // flat.itemsize, flat.size) if is_on_host(flat) else flat.size
            scratch, out = _empty_like(flat[:size]), _empty_like(flat[:size])
            self._blocks, self._seen = [], [params, *kept]
            for start in range(0, flat.size, max(size, 1)):
                part = slice(start, min(start + size, flat.size))
                n = part.stop - start
                state = [vector.flat[part] for vector in kept]
                self._blocks.append(_Block(part, flat[part], state, scratch[:n], out[:n]))
        return self._blocks

    def remembered(self, quantity: str, params: Mapping[str, Array]) -> Mapping[str, Array]:
        """Return a quantity of `state_names` with the layout of `params`, created or moved if necessary.

        Raises
        ------
        ValueError
            If the state is of parameters with other names or shapes.
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

    def _direction(self, p: Array, g: Array, scale: Array | None, scratch: Array, out: Array) -> Array:
        """Return the gradient with clipping and weight decay, written to `out`; `g` itself if there is neither."""
        xp = get_array_module(p)
        if scale is not None:
            g = xp.multiply(g, scale, out=out)
        elif self.clip_value is not None:
            g = xp.clip(g, -self.clip_value, self.clip_value, out=out)
        if self.weight_decay and not self.decoupled:
            g = xp.add(g, xp.multiply(p, self.weight_decay, out=scratch), out=out)
        return g

    def __getstate__(self) -> dict[str, Any]:
        # Copied blocks would not be views of the copied vectors. A copy may update another network.
        return {**self.__dict__, "_blocks": [], "_seen": [], "_lineage": None}


class _Block(NamedTuple):
    """Block of parameters: index in the gradient, parameters, state, and two buffers for results."""

    part: Any
    p: Array
    state: list[Array]
    scratch: Array
    out: Array


def _device(params: Mapping[str, Array]) -> Device:
    """Check that the parameters can be changed in place, and return their device."""
    if isinstance(params, ParameterVector):
        return params.device
    _expect_mapping("params", params)
    for name, p in params.items():
        dtype = getattr(p, "dtype", None)
        if isinstance(p, np.generic) or dtype is None or dtype.kind != "f":
            found = type(p).__name__ if dtype is None else f"{type(p).__name__} of {dtype}"
            raise TypeError(f"params[{name!r}] is changed in place, so it must be an array of floats, got {found}")
    return get_device(next(iter(params.values()), None))


def _expect_mapping(name: str, arrays: object) -> None:
    if not isinstance(arrays, Mapping):
        raise TypeError(f"{name} must be a mapping of names to arrays, got {type(arrays).__name__}")


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
    """Return the factor min(1, clip_norm / (norm + 1e-6)), a scalar on the device, without waiting for it."""
    xp = get_array_module(*grads)
    squares: Any = 0.0
    for g in grads:
        wide = g.astype("float32") if g.itemsize < 4 else g  # the sum would overflow in float16
        squares = squares + kernels.squared_norm(wide)
    return xp.minimum(clip_norm / (xp.sqrt(squares) + 1e-6), 1.0)

"""Numerical gradients, and the check of backpropagation against them (sections 4.4 and 5.7.3)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from xpnet.device import asnumpy, get_array_module, is_on_host
from xpnet.tables import format_table
from xpnet.typing import Array

if TYPE_CHECKING:
    from xpnet.nets import Network

__all__ = ["GradientCheck", "ParameterCheck", "gradient_check", "numerical_gradient"]

STEP = 1e-4
"""The book's h. For central differences in float64 the best step is near eps**(1/3), 6e-6, times the size of x; this
one leaves a truncation error of h**2 f'''/6 and a rounding error of about eps f / h = 2e-12 f."""

BACKPROP_RUNS = 25
"""Runs of which the median is reported: one takes a fraction of a millisecond, too short to be timed once."""


def numerical_gradient(f: Callable[[Array], Array | float], x: Array, h: float = STEP) -> Array:
    """Return the gradient of `f` at `x` by central differences, (f(x + h e_i) - f(x - h e_i)) / 2h.

    Parameters
    ----------
    f : callable
        Takes `x` and returns a scalar. It may ignore its argument and read the same array elsewhere, as
        ``lambda _: net.loss(x, t)`` reads a network's parameters.
    x : array of floats, any shape, on any device
        Where to differentiate. Perturbed in place, one coordinate at a time, and restored to the last bit, also if
        `f` raises.
    h : float, default 1e-4
        Half the step. The quotient is by the step that was really taken, in the dtype of `x`.

    Returns
    -------
    array of the shape, dtype and device of `x`

    Raises
    ------
    TypeError
        If `x` is no array of floats: an integer cannot be moved by `h`.
    ValueError
        If `f` returns no scalar, `x` cannot be written to, or `h` is lost in the rounding of a coordinate of `x`.

    Examples
    --------
    >>> import numpy as np
    >>> numerical_gradient(lambda x: (x**2).sum(), np.array([3.0, 4.0])).round(9)
    array([6., 8.])
    """
    return _central_differences(f, x, h)[0]


def network_differences(net: Network, x: Array, t: Array, h: float = STEP) -> dict[str, tuple[Array, Array]]:
    """Return the numerical gradient of each parameter and where it means nothing.

    Evaluated in float64, on a copy of the network, with ``train=True``.

    Returns
    -------
    dict of str to (array, array of bool)
        The central differences, and the coordinates whose perturbation moves a unit across a kink, see
        `Layer.activation_pattern`.
    """
    net = net.copy().to(dtype="float64")
    x = net._as_input(x)  # once, not in each of the many forward passes
    layers = list(net.layers.values())

    def loss(_: Array) -> Array:
        return net.loss(x, t, train=True)

    def pattern() -> list[Array]:
        return [mask for layer in layers if (mask := layer.activation_pattern()) is not None]

    with net.device.activate():
        return {name: _central_differences(loss, parameter, h, pattern) for name, parameter in net.params.items()}


def _central_differences(
    f: Callable[[Array], Array | float],
    x: Array,
    h: float,
    pattern: Callable[[], list[Array]] = list,
) -> tuple[Array, Array]:
    """Return the differences, and where the `pattern` that f leaves behind is not the same on both sides."""
    _check_differentiable(x, h)
    xp = get_array_module(x)
    differences = xp.empty(x.shape, x.dtype)
    straddles = xp.zeros(x.shape, dtype=bool)
    for i in np.ndindex(x.shape):
        original = x[i].copy()  # on a CUDA device x[i] is a view
        upper, lower = original + h, original - h
        try:
            x[i] = upper
            f_upper, pattern_upper = _scalar(f(x)), pattern()
            x[i] = lower
            f_lower, pattern_lower = _scalar(f(x)), pattern()
        finally:
            x[i] = original
        differences[i] = (f_upper - f_lower) / (upper - lower)
        for above, below in zip(pattern_upper, pattern_lower, strict=True):
            straddles[i] |= xp.any(above != below)
    return differences, straddles


def _check_differentiable(x: Array, h: float) -> None:
    dtype = getattr(x, "dtype", None)
    if dtype is None:
        raise TypeError(f"numerical_gradient expected x to be an array of floats, got {type(x).__name__}")
    if dtype.kind != "f":
        raise TypeError(
            f"numerical_gradient expected x to hold floats, got dtype {dtype}: adding h = {h} to it would be rounded "
            "away; pass x.astype('float64')"
        )
    if is_on_host(x) and not x.flags.writeable:
        raise ValueError("numerical_gradient perturbs x in place, but x is read-only; pass x.copy()")
    if not h > 0:
        raise ValueError(f"h must be positive, got {h}")
    if x.size and not bool((x + h != x - h).all()):
        raise ValueError(f"h = {h} is lost in the rounding of x in {dtype}; use a larger h, or float64")


def _scalar(value: Array | float) -> Array | float:
    shape = getattr(value, "shape", ())
    if shape != ():
        raise ValueError(f"numerical_gradient expected f to return a scalar, got an array of shape {shape}")
    return value


@dataclass(frozen=True)
class ParameterCheck:
    """How far backpropagation and the numerical gradient of one parameter are apart.

    Attributes
    ----------
    name : str
        The parameter's name.
    size : int
        Number of coordinates.
    mean_difference, max_difference : float
        Mean and largest absolute difference, |backprop - numerical|, over the coordinates that straddle no kink.
    max_relative_difference : float
        The largest difference, relative to the largest component of either gradient.
    rounding : float
        What the rounding of the loss can add to a central difference. A parameter whose gradient is smaller
        everywhere cannot be checked by differences of this step.
    kinks : int
        Coordinates set apart, because the perturbation moves a unit across a kink, such as ReLU's at 0: there the
        central difference is the mean of two slopes, and no derivative.
    ok : bool
        Whether the difference is within the tolerance, times the largest component, plus the rounding.
    verdict : str
        ``"ok"``, ``"WRONG"``, or ``"too small"`` where nothing wrong was found but nothing could have been.
    """

    name: str
    size: int
    mean_difference: float
    max_difference: float
    max_relative_difference: float
    rounding: float
    kinks: int
    ok: bool
    verdict: str


@dataclass(frozen=True)
class GradientCheck:
    """The report of `gradient_check`; ``print`` shows it as a table.

    Attributes
    ----------
    parameters : dict of str to ParameterCheck
        The comparison, parameter by parameter.
    numerical_seconds, backprop_seconds : float
        What each method took for the whole gradient (backpropagation: the median of several runs).
    tolerance : float
        Largest relative difference that passes.
    device : str
        Where both were computed, in float64.
    """

    parameters: Mapping[str, ParameterCheck]
    numerical_seconds: float
    backprop_seconds: float
    tolerance: float
    device: str

    @property
    def ok(self) -> bool:
        """Whether every parameter passed."""
        return all(p.ok for p in self.parameters.values())

    @property
    def speedup(self) -> float:
        """How many times faster backpropagation was."""
        return self.numerical_seconds / self.backprop_seconds

    def __str__(self) -> str:
        header = ("parameter", "size", "mean |diff|", "max |diff|", "max relative", "kinks", "verdict")
        rows = [
            (
                p.name,
                f"{p.size:,}",
                f"{p.mean_difference:.1e}",
                f"{p.max_difference:.1e}",
                f"{p.max_relative_difference:.1e}",
                f"{p.kinks:,}",
                p.verdict,
            )
            for p in self.parameters.values()
        ]
        return "\n".join(
            [
                format_table(header, rows, align="<>>>>><"),
                "",
                f"numerical gradient  {self.numerical_seconds:10.4f} s   (float64 on {self.device})",
                f"backpropagation     {self.backprop_seconds:10.6f} s   {self.speedup:,.0f} times faster",
            ]
        )


def gradient_check(net: Network, x: Array, t: Array, *, h: float = STEP, tolerance: float = 1e-4) -> GradientCheck:
    """Compare the network's backpropagation with central differences, at every coordinate of every parameter.

    Both are computed in float64 on a copy of the network, whatever its dtype, so that what differs is the formulas
    and not the rounding. The network itself is left as it is.

    Parameters
    ----------
    net : Network
        The network to check.
    x : (N, ...)
        A batch; two or three samples are enough, and the time grows with them.
    t : (N, C) or (N,) integers
        Its labels.
    h : float, default 1e-4
        Half the step of the central differences.
    tolerance : float, default 1e-4
        Largest difference that passes, relative to the parameter's largest gradient component. Differences from the
        step itself grow with the curvature of the loss, and are about 1e-8 in a shallow network.

    Returns
    -------
    GradientCheck
    """
    exact = net.copy().to(dtype="float64")
    device = net.device

    start = time.perf_counter()
    numerical = network_differences(net, x, t, h)
    device.synchronize()
    numerical_seconds = time.perf_counter() - start

    loss, backprop = exact.loss_and_gradient(x, t)
    durations = []
    for _ in range(BACKPROP_RUNS):
        start = time.perf_counter()
        exact.gradient(x, t)
        device.synchronize()
        durations.append(time.perf_counter() - start)

    # Two losses, each good to a few units in its last place, divided by 2h.
    rounding = 10 * float(np.finfo(np.float64).eps) * abs(float(loss)) / h
    checks = [
        _compare(name, asnumpy(backprop[name]), asnumpy(differences), asnumpy(straddles), tolerance, rounding)
        for name, (differences, straddles) in numerical.items()
    ]
    return GradientCheck(
        parameters={check.name: check for check in checks},
        numerical_seconds=numerical_seconds,
        backprop_seconds=float(np.median(durations)),
        tolerance=tolerance,
        device=str(device),
    )


def _compare(
    name: str,
    backprop: np.ndarray,
    numerical: np.ndarray,
    straddles: np.ndarray,
    tolerance: float,
    rounding: float,
) -> ParameterCheck:
    smooth = ~straddles
    difference = np.abs(backprop - numerical)[smooth]
    largest = float(max(np.abs(backprop[smooth]).max(initial=0.0), np.abs(numerical[smooth]).max(initial=0.0)))
    worst = float(difference.max(initial=0.0))
    ok = worst <= tolerance * largest + rounding  # False for NaN
    return ParameterCheck(
        name=name,
        size=backprop.size,
        mean_difference=float(difference.mean()) if difference.size else 0.0,
        max_difference=worst,
        max_relative_difference=worst / largest if worst else 0.0,
        rounding=rounding,
        kinks=int(straddles.sum()),
        ok=ok,
        verdict="WRONG" if not ok else "ok" if largest > rounding else "too small",
    )

"""Gradient check: backpropagation against central differences (section 5.7.3)."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from xpnet.device import asnumpy
from xpnet.gradient.differences import METHODS, Differences, network_differences, rounding_of_differences
from xpnet.gradient.differentiable import Differentiable, deterministic_copy
from xpnet.gradient.directional import DirectionalDerivatives, directional_derivatives
from xpnet.gradient.numerical import MEMORY, STEP
from xpnet.parameters import ParameterVector
from xpnet.settings import choice, count, not_negative, positive
from xpnet.tables import format_table
from xpnet.timing import median_seconds
from xpnet.typing import Array, Seed

__all__ = ["GradientCheck", "ParameterCheck", "gradient_check"]

BACKPROP_RUNS = 25
"""Timed runs of backpropagation, for their median: one run is too short (a fraction of a millisecond) to time."""

DIRECTIONS = 8
"""Random directions of each parameter, by default."""


@dataclass(frozen=True)
class ParameterCheck:
    """Comparison of backpropagation with central differences for one parameter.

    Attributes
    ----------
    name : str
        The parameter's name.
    size : int
        Number of coordinates.
    compared : int
        Number of compared derivatives: coordinates, or random directions.
    mean_difference, max_difference : float
        Mean and maximum of ``|backprop - numerical|``.
    max_relative_difference : float
        The maximum, divided by a scale. For coordinates the scale is the largest component of either gradient. For
        directions it is the root mean square of a derivative along one, ||gradient|| / sqrt(size).
    rounding : float
        Largest rounding error of a central difference. A parameter with a smaller gradient cannot be checked with
        this step.
    kinks : int
        Number of excluded coordinates or directions. Their perturbation moves a unit across a kink, such as ReLU's at
        0, where the central difference is the mean of two slopes and no derivative.
    ok : bool
        Whether each difference is at most the tolerance times the scale, plus the rounding.
    verdict : str
        ``"ok"``, ``"WRONG"``, ``"too small"`` (no error was found, but the gradient is below the rounding) or
        ``"unchecked"`` (nothing was compared).
    note : str
        Further information, such as the reason for differences one by one.
    """

    name: str
    size: int
    compared: int
    mean_difference: float
    max_difference: float
    max_relative_difference: float
    rounding: float
    kinks: int
    ok: bool
    verdict: str
    note: str = ""


@dataclass(frozen=True)
class GradientCheck:
    """The report of `gradient_check`; ``print`` shows it as a table.

    Attributes
    ----------
    parameters : dict of str to ParameterCheck
        The comparison, parameter by parameter.
    method : {"batched", "loop", "directional"}
        How the numerical derivatives were computed.
    numerical_seconds, backprop_seconds : float
        Time for the whole gradient. For backpropagation it is the median of several runs.
    tolerance : float
        Largest relative difference that passes.
    device : str
        Device of both computations, which are in float64.
    """

    parameters: Mapping[str, ParameterCheck]
    method: str
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
        header = ("parameter", "size", "compared", "mean |diff|", "max |diff|", "max relative", "kinks", "verdict")
        rows = [
            (
                p.name,
                f"{p.size:,}",
                f"{p.compared:,}",
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
                format_table(header, rows, align="<>>>>>><"),
                *(f"{p.name}: {p.note}" for p in self.parameters.values() if p.note),
                "",
                f"numerical, {self.method:<15} {self.numerical_seconds:10.6f} s   (float64 on {self.device})",
                f"backpropagation            {self.backprop_seconds:10.6f} s   {self.speedup:,.0f} times faster",
            ]
        )


def gradient_check(
    net: Differentiable,
    x: Array,
    t: Array,
    *,
    method: Literal["batched", "loop", "directional"] = "batched",
    h: float = STEP,
    tolerance: float = 1e-4,
    samples: int = DIRECTIONS,
    seed: Seed = 0,
    memory: int = MEMORY,
    sample_weight: Array | None = None,
) -> GradientCheck:
    """Compare the network's backpropagation with central differences of its loss.

    Both are computed in float64 on a copy of the network. So differences come from the formulas, not from rounding.
    The network itself is unchanged.

    Parameters
    ----------
    net : Differentiable
        The network to check.
    x : (N, ...)
        A batch. Two or three samples are enough; the time grows with their number.
    t : (N, C) or (N,) integers
        Its labels.
    method : {"batched", "loop", "directional"}, default "batched"
        ``"batched"`` takes every coordinate of every parameter, many at a time where the layers allow it
        (`Layer.reach`). ``"loop"`` takes them one by one. ``"directional"`` takes a few random directions of each
        parameter, for large networks.
    h : float, default 1e-4
        Half the step of the central differences.
    tolerance : float, default 1e-4
        Largest relative difference that passes (`ParameterCheck.max_relative_difference`). The truncation error of
        the step grows with the curvature of the loss, and is about 1e-8 in a shallow network.
    samples : int, default 8
        Number of random directions of each parameter, at most the number of all parameters (or 8). One direction misses
        an error of a hundredth of the gradient's norm with a probability below 0.01; eight directions miss it with a
        probability below 1e-16.
    seed : int or numpy.random.Generator, default 0
        Source of the directions.
    memory : int, default 256 MB
        Largest size of the copies of batched differences, in bytes.
    sample_weight : (N,), optional
        Weights of the samples in the loss.

    Returns
    -------
    GradientCheck
    """
    choice("method", method, (*METHODS, "directional"))
    h, tolerance = positive("h", h), not_negative("tolerance", tolerance)
    samples, memory = count("samples", samples), count("memory", memory)
    if not hasattr(net, "activation_patterns"):
        raise TypeError(f"net must be a network, got {type(net).__name__}")
    most = max(net.params.size, DIRECTIONS)
    if method == "directional" and samples > most:
        raise ValueError(
            f"samples, the number of directions, must be at most {most:,}, got {samples:,}; lower it, or pass "
            "method='batched', which takes every coordinate"
        )
    exact = deterministic_copy(net, "float64", sample_weight)
    device = net.device
    x, t = exact.as_input(x), exact.as_array("t", t)
    if x.size == 0:
        raise ValueError("x must hold samples, got none: their loss has no gradient")
    backprop = exact.gradient(x, t)
    rounding = rounding_of_differences(exact, x, t, h)

    start = time.perf_counter()
    if method == "directional":
        directions = directional_derivatives(exact, backprop, x, t, h, samples, seed)
    else:
        coordinates = network_differences(net, x, t, h, method=method, memory=memory, sample_weight=sample_weight)
    device.synchronize()
    numerical_seconds = time.perf_counter() - start

    if method == "directional":
        checks = [_check_directions(backprop, name, d, tolerance, rounding * h) for name, d in directions.items()]
    else:
        checks = [_check_coordinates(backprop, name, d, tolerance, rounding) for name, d in coordinates.items()]
    return GradientCheck(
        parameters={check.name: check for check in checks},
        method=method,
        numerical_seconds=numerical_seconds,
        backprop_seconds=median_seconds(lambda: exact.gradient(x, t), device, BACKPROP_RUNS),
        tolerance=tolerance,
        device=str(device),
    )


def _check_coordinates(
    grads: ParameterVector, name: str, found: Differences, tolerance: float, rounding: float
) -> ParameterCheck:
    smooth = ~asnumpy(found.straddles)
    backprop, numerical = asnumpy(grads[name])[smooth], asnumpy(found.values)[smooth]
    largest = max(np.abs(backprop).max(initial=0.0), np.abs(numerical).max(initial=0.0))
    note = f"one coordinate after the other, since {found.reason}" if found.reason else ""
    return _judge(
        name, smooth.size, backprop, numerical, float(largest), tolerance, rounding, int((~smooth).sum()), note
    )


def _check_directions(
    grads: ParameterVector, name: str, found: DirectionalDerivatives, tolerance: float, rounding_at_unit_step: float
) -> ParameterCheck:
    smooth = ~found.straddles
    backprop, numerical = found.backprop[smooth], found.numerical[smooth]
    grad = grads[name]
    expected = float(np.linalg.norm(asnumpy(grad))) / math.sqrt(max(grad.size, 1))
    seen = float(np.sqrt(np.mean(numerical**2))) if numerical.size else 0.0
    rounding = rounding_at_unit_step / found.steps[smooth].min(initial=STEP)
    kinks = int((~smooth).sum())
    return _judge(name, grad.size, backprop, numerical, max(expected, seen), tolerance, rounding, kinks)


def _judge(
    name: str,
    size: int,
    backprop: np.ndarray,
    numerical: np.ndarray,
    scale: float,
    tolerance: float,
    rounding: float,
    kinks: int,
    note: str = "",
) -> ParameterCheck:
    """Compare derivatives. Differences up to tolerance * scale + rounding pass."""
    difference = np.abs(backprop - numerical)
    worst = float(difference.max(initial=0.0))
    ok = bool(worst <= tolerance * scale + rounding)  # False for NaN
    verdict = "ok" if scale > rounding else "too small"
    return ParameterCheck(
        name=name,
        size=size,
        compared=difference.size,
        mean_difference=float(difference.mean()) if difference.size else 0.0,
        max_difference=worst,
        max_relative_difference=worst / float(scale) if worst else 0.0,
        rounding=rounding,
        kinks=kinks,
        ok=ok,
        verdict="WRONG" if not ok else verdict if difference.size else "unchecked",
        note=note,
    )

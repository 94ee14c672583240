"""The check of backpropagation against numerical differences (section 5.7.3)."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from xpnet.device import asnumpy
from xpnet.gradient.differences import METHODS, Differences, network_differences, rounding_of_differences
from xpnet.gradient.differentiable import Differentiable
from xpnet.gradient.directional import DirectionalDerivatives, directional_derivatives
from xpnet.gradient.numerical import MEMORY, STEP
from xpnet.parameters import ParameterVector
from xpnet.tables import format_table
from xpnet.timing import median_seconds
from xpnet.typing import Array, Seed

__all__ = ["GradientCheck", "ParameterCheck", "gradient_check"]

BACKPROP_RUNS = 25
"""Runs of which the median is reported: one takes a fraction of a millisecond, too short to be timed once."""


@dataclass(frozen=True)
class ParameterCheck:
    """How far backpropagation and numerical differences of one parameter are apart.

    Attributes
    ----------
    name : str
        The parameter's name.
    size : int
        Number of its coordinates.
    compared : int
        Number of derivatives that were compared: coordinates, or random directions.
    mean_difference, max_difference : float
        Mean and largest absolute difference, |backprop - numerical|, of those.
    max_relative_difference : float
        The largest difference, relative to the largest component of either gradient, or, of directions, to the size
        that the derivative along one has in the root mean square, ||gradient|| / sqrt(size).
    rounding : float
        What the rounding of the loss can add to a central difference. A parameter whose gradient is smaller
        everywhere cannot be checked by differences of this step.
    kinks : int
        Coordinates or directions set apart, because the perturbation moves a unit across a kink, such as ReLU's at
        0: there the central difference is the mean of two slopes, and no derivative.
    ok : bool
        Whether each difference is within the tolerance, times that size, plus the rounding.
    verdict : str
        ``"ok"``, ``"WRONG"``, ``"too small"`` where nothing wrong was found but nothing could have been, or
        ``"unchecked"`` where nothing was compared.
    note : str
        What else there is to know, such as why its coordinates were perturbed one by one.
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
        What each method took for the whole (backpropagation: the median of several runs).
    tolerance : float
        Largest relative difference that passes.
    device : str
        Where both were computed, in float64.
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
    samples: int = 8,
    seed: Seed = 0,
    memory: int = MEMORY,
) -> GradientCheck:
    """Compare the network's backpropagation with central differences of its loss.

    Both are computed in float64 on a copy of the network, whatever its dtype, so that what differs is the formulas
    and not the rounding. The network itself is left as it is.

    Parameters
    ----------
    net : Differentiable
        The network to check.
    x : (N, ...)
        A batch; two or three samples are enough, and the time grows with them.
    t : (N, C) or (N,) integers
        Its labels.
    method : {"batched", "loop", "directional"}, default "batched"
        At every coordinate of every parameter, many at a time where the layers allow it (`Layer.reach`) or one by one;
        or along a few random directions of each parameter, for networks too large for that.
    h : float, default 1e-4
        Half the step of the central differences.
    tolerance : float, default 1e-4
        Largest difference that passes, relative to the parameter's largest gradient component, or to the typical size
        of the derivative along a direction. Differences from the step itself grow with the curvature of the loss, and
        are about 1e-8 in a shallow network.
    samples : int, default 8
        Number of random directions of each parameter. An error of a hundredth of a gradient's norm in any direction
        escapes one of them with a probability below 0.01, and eight with one below 1e-16.
    seed : int or numpy.random.Generator, default 0
        Where the directions are drawn from.
    memory : int, default 256 MB
        Bytes that batched differences may take at a time.

    Returns
    -------
    GradientCheck
    """
    if method not in (*METHODS, "directional"):
        raise ValueError(f"method must be 'batched', 'loop' or 'directional', got {method!r}")
    if samples < 1:
        raise ValueError(f"samples must be at least 1, got {samples}")
    exact = net.deterministic_copy("float64")
    device = net.device
    x, t = exact.as_input(x), exact.as_array("t", t)
    backprop = exact.gradient(x, t)
    rounding = rounding_of_differences(exact, x, t, h)

    start = time.perf_counter()
    if method == "directional":
        directions = directional_derivatives(exact, backprop, x, t, h, samples, seed)
    else:
        coordinates = network_differences(net, x, t, h, method=method, memory=memory)
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
    """Compare derivatives; `scale` is what a difference is relative to, `rounding` what it may be by itself."""
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

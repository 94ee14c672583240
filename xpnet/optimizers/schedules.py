"""Learning-rate schedules: functions of the step that return its learning rate.

Every optimizer takes a schedule as ``lr=``, or any other function, such as ``lambda step: 0.1 * 0.999**step``. The
first update is step 0. The rates are those of ``torch.optim.lr_scheduler``, stepped once per update. Names are
PyTorch's, but for "LR" and "Annealing".
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from xpnet.settings import choice, count, fraction, not_negative, positive

__all__ = ["CosineAnnealing", "LearningRate", "OneCycle", "StepLR", "Warmup", "get_schedule", "rate_at"]

LearningRate: TypeAlias = float | Callable[[int], float]
"""A number, or a function that returns one for each step."""


def rate_at(lr: LearningRate, step: int) -> float:
    """Return the learning rate of a step.

    Raises
    ------
    ValueError
        If the rate is not finite, or negative.
    """
    if callable(lr):
        return not_negative(f"lr at step {step}", lr(step))
    return not_negative("lr", lr)


@dataclass(frozen=True)
class StepLR:
    """Multiply the rate by `gamma` every `step_size` steps: ``lr * gamma ** (step // step_size)``.

    Parameters
    ----------
    lr : float
        First rate.
    step_size : int
        Number of steps at the same rate.
    gamma : float, default 0.1
        Factor from one rate to the next.

    Examples
    --------
    >>> lr = StepLR(0.5, step_size=10)
    >>> lr(0), lr(9), lr(10)
    (0.5, 0.5, 0.05)
    """

    lr: float
    step_size: int
    gamma: float = 0.1

    def __post_init__(self) -> None:
        not_negative("lr", self.lr)
        count("step_size", self.step_size)
        positive("gamma", self.gamma)

    def __call__(self, step: int) -> float:
        """Return the rate of this step."""
        return self.lr * self.gamma ** (step // self.step_size)


@dataclass(frozen=True)
class CosineAnnealing:
    """Lower the rate along half a cosine, from `lr` at step 0 to `eta_min` at step `T_max`, and keep it there.

    PyTorch's rate rises again after `T_max`. (Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm
    Restarts", 2017, without restarts.)

    Parameters
    ----------
    lr : float
        First rate.
    T_max : int
        Step of the last rate.
    eta_min : float, default 0
        Last rate.
    """

    lr: float
    T_max: int
    eta_min: float = 0.0

    def __post_init__(self) -> None:
        not_negative("lr", self.lr)
        count("T_max", self.T_max)
        not_negative("eta_min", self.eta_min)

    def __call__(self, step: int) -> float:
        """Return the rate of this step."""
        return _along_cosine(self.lr, self.eta_min, min(step / self.T_max, 1.0))


@dataclass(frozen=True)
class OneCycle:
    """Raise the rate to `max_lr`, then lower it to almost 0, along half a cosine each.

    The rate is ``max_lr / div_factor`` at step 0, `max_lr` at step ``pct_start * total_steps - 1``, and ``max_lr /
    div_factor / final_div_factor`` at the last of `total_steps`, and from then on. Momenta stay constant. (Smith and
    Topin, "Super-Convergence: Very Fast Training of Neural Networks Using Large Learning Rates", 2018.)

    Parameters
    ----------
    max_lr : float
        Highest rate.
    total_steps : int
        Number of steps.
    pct_start : float, default 0.3
        Fraction of the steps in which the rate rises.
    div_factor, final_div_factor : float, default 25 and 10,000
        Highest rate divided by first rate, and first rate divided by last rate.
    """

    max_lr: float
    total_steps: int
    pct_start: float = 0.3
    div_factor: float = 25.0
    final_div_factor: float = 1e4

    def __post_init__(self) -> None:
        not_negative("max_lr", self.max_lr)
        count("total_steps", self.total_steps)
        fraction("pct_start", self.pct_start)
        positive("div_factor", self.div_factor)
        positive("final_div_factor", self.final_div_factor)

    def __call__(self, step: int) -> float:
        """Return the rate of this step."""
        first = self.max_lr / self.div_factor
        peak, last = self.pct_start * self.total_steps - 1, self.total_steps - 1
        if step < peak:
            return _along_cosine(first, self.max_lr, step / peak)
        return _along_cosine(self.max_lr, first / self.final_div_factor, (min(step, last) - peak) / (last - peak))


@dataclass(frozen=True)
class Warmup:
    """Raise the rate linearly to the first rate of another schedule, then follow that schedule.

    At step t < `total_iters` the rate is ``lr * (start_factor + (1 - start_factor) * t / total_iters)``, with the
    schedule's rate at its step 0 as ``lr``. (PyTorch: ``SequentialLR`` of ``LinearLR`` and the other.)

    Parameters
    ----------
    lr : float or schedule
        Rate or schedule after the warmup.
    total_iters : int
        Number of steps of the warmup.
    start_factor : float, default 1/3
        Fraction of the rate at step 0.

    Examples
    --------
    >>> lr = Warmup(CosineAnnealing(0.2, T_max=900), total_iters=100, start_factor=0.1)
    >>> [round(lr(step), 4) for step in (0, 50, 100, 550, 1000)]
    [0.02, 0.11, 0.2, 0.1, 0.0]
    """

    lr: LearningRate
    total_iters: int
    start_factor: float = 1 / 3

    def __post_init__(self) -> None:
        rate_at(self.lr, 0)
        count("total_iters", self.total_iters)
        fraction("start_factor", self.start_factor)

    def __call__(self, step: int) -> float:
        """Return the rate of this step."""
        if step >= self.total_iters:
            return rate_at(self.lr, step - self.total_iters)
        return rate_at(self.lr, 0) * (self.start_factor + (1.0 - self.start_factor) * step / self.total_iters)


def get_schedule(name: str, lr: float, steps: int) -> LearningRate:
    """Return the schedule called `name` for a run.

    Parameters
    ----------
    name : {"constant", "step", "cosine", "one-cycle"}
        ``"step"`` divides the rate by ten after each third of the run.
    lr : float
        First rate; for ``"one-cycle"`` the highest rate.
    steps : int
        Number of steps of the run.

    Raises
    ------
    ValueError
        If the name is unknown, or a setting is out of its range.
    """
    schedules: dict[str, Callable[[], LearningRate]] = {
        "constant": lambda: lr,
        "step": lambda: StepLR(lr, math.ceil(steps / 3)),
        "cosine": lambda: CosineAnnealing(lr, steps),
        "one-cycle": lambda: OneCycle(lr, steps),
    }
    steps, lr = count("steps", steps), not_negative("lr", lr)
    return schedules[choice("schedule", name, schedules)]()


def _along_cosine(start: float, end: float, part: float) -> float:
    near = (1.0 + math.cos(math.pi * part)) / 2.0
    return start * near + end * (1.0 - near)  # exactly `start` and `end` at the ends

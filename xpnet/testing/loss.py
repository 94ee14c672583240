"""Checks of a loss: those of a layer, and what training asks of a loss."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from xpnet.device import Device
from xpnet.layers import Loss
from xpnet.testing.comparison import expect_equal, expect_shape
from xpnet.testing.layer import LAYER_CHECKS, ROUNDING
from xpnet.testing.report import NotApplicableError, Report, run_checks
from xpnet.testing.trial import Subject

__all__ = ["LOSS_CHECKS", "check_loss"]


def check_loss(
    loss: Loss,
    x: Any,
    t: Any,
    *,
    device: Device | str = "cpu",
    rtol: float = 1e-6,
    atol: float = 1e-8,
    checks: Iterable[str] | None = None,
    raises: bool = True,
) -> Report:
    """Check a loss: as `check_layer` does, and its labels, weights of samples and batches of scores.

    Parameters
    ----------
    loss : Loss
        The loss. The checks work on copies.
    x : (N, ..., C)
        Scores. Choose N unlike the other lengths.
    t : array
        Labels for them.
    device, rtol, atol, checks, raises
        As in `check_layer`; the names of the checks are those of ``LOSS_CHECKS``.

    Returns
    -------
    Report
        The outcome of each check.

    Raises
    ------
    AssertionError
        If a check failed.

    Examples
    --------
    >>> from xpnet.layers import IdentityWithLoss
    >>> check_loss(IdentityWithLoss(), [[0.5], [2.0], [1.0]], [[0.0], [2.5], [1.5]]).ok
    True
    """
    if not isinstance(loss, Loss):
        raise TypeError(f"loss must be an xpnet.layers.Loss, got {type(loss).__name__}")
    subject = Subject(loss, (x,), {"t": np.asarray(t) if isinstance(t, (list, tuple)) else t}, device, rtol, atol)
    return run_checks(subject, subject.name, LOSS_CHECKS, checks, raises)


def _scalar(subject: Subject) -> None:
    """The loss of a batch is a scalar on the device, and dout multiplies its gradient."""
    trial = subject.trial()
    expect_shape("the loss", trial.forward(), (), "return the mean over the batch.")
    one = trial.backward(1.0)["dx"]
    expect_equal(
        {"dx": trial.backward(3.0)["dx"]}, {"dx": one * 3.0}, "multiply the gradient by dout.", ROUNDING, ROUNDING
    )


def _labels(subject: Subject) -> None:
    """check_labels accepts the labels that forward takes."""
    trial = subject.trial()
    trial.layer.check_labels(trial.arguments["t"], trial.inputs[0].shape)


def _weights(subject: Subject) -> None:
    """A sample of weight 2 counts as two, one of weight 0 as none, and gradients follow."""
    if "sample_weight" not in inspect.signature(type(subject.original).forward).parameters:
        raise NotApplicableError("forward has no parameter sample_weight.")
    if subject.samples < 2:
        raise NotApplicableError("It needs two samples.")
    trial, repeated = subject.trial(), subject.trial()
    counts = np.arange(subject.samples) % 3
    rows = subject.device.asarray(np.repeat(np.arange(subject.samples), counts))
    repeated.inputs = [repeated.inputs[0][rows]]
    repeated.arguments = {"t": repeated.arguments["t"][rows]}
    trial.arguments["sample_weight"] = subject.device.asarray(counts, "float64")
    advice = "return sum_n w_n l_n / sum_n w_n."
    expect_equal({"loss": trial.forward()}, {"loss": repeated.forward()}, advice, 1e-10, ROUNDING)
    dx, of_copies = trial.backward(1.0)["dx"], repeated.backward(1.0)["dx"]
    summed = subject.device.xp.zeros_like(dx)
    for row, sample in enumerate(np.repeat(np.arange(subject.samples), counts)):
        summed[sample] += of_copies[row]
    expect_equal({"dx": dx}, {"dx": summed}, "weigh the gradient of each sample as its loss.", 1e-10, ROUNDING)


def _many(subject: Subject) -> None:
    """forward_each returns the loss of each batch in a stack of scores."""
    trial = subject.trial()
    t, x = trial.arguments["t"], trial.inputs[0]
    stack = subject.device.xp.stack([x, x * 0.5])
    found = trial.layer.forward_each(stack, t)
    expected = [trial.layer.forward(scores, t) for scores in stack]
    expect_shape("the result", found, (2,), "return one loss for each batch.")
    names = ("first", "second")
    expect_equal(
        dict(zip(names, found, strict=True)),
        dict(zip(names, expected, strict=True)),
        "compute each as forward does.",
        1e-10,
        ROUNDING,
    )


LOSS_CHECKS: Mapping[str, Callable[[Subject], None]] = {
    **LAYER_CHECKS,
    "scalar": _scalar,
    "labels": _labels,
    "weights": _weights,
    "forward_each": _many,
}
"""Checks of `check_loss` by name."""

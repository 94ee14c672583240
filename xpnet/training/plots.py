"""Plots of a training run."""

from pathlib import Path
from typing import Any

import numpy as np

from xpnet.extras import import_extra
from xpnet.files import written_atomically
from xpnet.training.history import History

__all__ = ["draw_losses", "draw_metric", "plot_learning_curves"]

SMOOTHING = 100
"""Number of steps in the moving average of the loss (the thick line)."""

FALLING = ("rmse", "perplexity")
"""Metrics that are drawn in place of the accuracy. They fall."""

STYLES = {
    "train": {"color": "#2b7bba", "marker": "o"},
    "test": {"color": "#e6550d", "marker": "s"},
    "validation": {"color": "#31a354", "marker": "^"},
}
"""Style of each set's line. The colors can be seen on white and on black."""


def plot_learning_curves(history: History, file: str | Path) -> None:
    """Plot the loss of each step, and accuracy or RMSE of each epoch, into a PNG file. Needs ``xpnet[plot]``."""
    # Of the object interface: no global state, no window.
    figure = import_extra("matplotlib.figure", "plot").Figure(figsize=(10, 3.8))
    figure.subplots_adjust(left=0.07, right=0.99, bottom=0.13, top=0.97, wspace=0.18)
    loss_axes, metric_axes = figure.subplots(1, 2)
    draw_losses(loss_axes, history)
    draw_metric(metric_axes, history)
    with written_atomically(file) as stream:
        figure.savefig(stream, format="png", dpi=120)


def draw_losses(axes: Any, history: History) -> None:
    """Draw the loss of each step, and its moving average, into Matplotlib's `axes`."""
    losses = np.asarray(history.losses)
    is_long = len(losses) >= 2 * SMOOTHING
    width, opacity = (0.5, 0.45) if is_long else (1.2, 1.0)  # behind the mean, or alone
    steps = np.arange(1, len(losses) + 1)
    axes.plot(steps, losses, color="#2b7bba", alpha=opacity, linewidth=width, label="each step")
    if is_long:
        mean = np.convolve(losses, np.ones(SMOOTHING) / SMOOTHING, mode="valid")
        axes.plot(steps[SMOOTHING - 1 :], mean, color="#2b7bba", label=f"mean of {SMOOTHING} steps")
    axes.set(xlabel="step", ylabel="training loss", yscale="log")
    axes.legend(frameon=False)
    _finish(axes)


def draw_metric(axes: Any, history: History) -> None:
    """Draw a metric of each set at each evaluation into Matplotlib's `axes`.

    It is the accuracy; for a regression the RMSE, for a language model the perplexity.
    """
    evaluations = history.evaluations
    names = list(evaluations[-1].metrics) if evaluations else []
    metric = next((falling for falling in FALLING if any(name.endswith(f"_{falling}") for name in names)), "accuracy")
    for name in (name for name in names if name.endswith(f"_{metric}")):
        values, part = [e.metrics.get(name, np.nan) for e in evaluations], name.removesuffix(f"_{metric}")
        label = f"{'training' if part == 'train' else part} set ({values[-1]:.4f})"
        axes.plot([e.epoch for e in evaluations], values, markersize=4, label=label, **STYLES[part])
    axes.set(xlabel="epoch", ylabel={"rmse": "RMSE"}.get(metric, metric))
    if axes.lines:
        axes.legend(frameon=False, loc="best" if metric in FALLING else "lower right")
    _finish(axes)


def _finish(axes: Any) -> None:
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)

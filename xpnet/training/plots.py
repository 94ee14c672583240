"""Plots of a training run."""

from pathlib import Path

import numpy as np

from xpnet.extras import import_extra
from xpnet.files import written_atomically
from xpnet.training.history import History

__all__ = ["plot_learning_curves"]

SMOOTHING = 100
"""Number of steps in the moving average of the loss (the thick line)."""


def plot_learning_curves(history: History, file: str | Path) -> None:
    """Plot the loss of each step and the accuracies of each epoch into a PNG file. Needs ``xpnet[plot]``."""
    # Of the object interface: no global state, no window.
    figure = import_extra("matplotlib.figure", "plot").Figure(figsize=(10, 3.8))
    figure.subplots_adjust(left=0.07, right=0.99, bottom=0.13, top=0.97, wspace=0.18)
    loss_axes, accuracy_axes = figure.subplots(1, 2)

    losses = np.asarray(history.losses)
    loss_axes.plot(np.arange(1, len(losses) + 1), losses, color="#9ecae1", linewidth=0.5, label="each step")
    if len(losses) >= 2 * SMOOTHING:
        mean = np.convolve(losses, np.ones(SMOOTHING) / SMOOTHING, mode="valid")
        steps = np.arange(SMOOTHING, len(losses) + 1)
        loss_axes.plot(steps, mean, color="#08519c", label=f"mean of {SMOOTHING} steps")
    loss_axes.set(xlabel="step", ylabel="training loss", yscale="log")
    loss_axes.legend(frameon=False)

    epochs = [evaluation.epoch for evaluation in history.evaluations]
    for label, accuracies, style in [
        ("training set", [e.train_accuracy for e in history.evaluations], {"color": "#08519c", "marker": "o"}),
        ("test set", [e.test_accuracy for e in history.evaluations], {"color": "#d94801", "marker": "s"}),
    ]:
        last = f" ({accuracies[-1]:.4f})" if accuracies else ""
        accuracy_axes.plot(epochs, accuracies, markersize=4, label=f"{label}{last}", **style)
    accuracy_axes.set(xlabel="epoch", ylabel="accuracy")
    accuracy_axes.legend(frameon=False, loc="lower right")

    for axes in (loss_axes, accuracy_axes):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    with written_atomically(file) as stream:
        figure.savefig(stream, format="png", dpi=120)

"""The progress of a training run on a terminal."""

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from xpnet.training import Callback, Evaluation, Trainer

__all__ = ["ShowProgress", "progress_bar"]


class ShowProgress(Callback):
    """A progress bar with loss and steps per second, where there is a terminal, and a line per evaluation.

    Parameters
    ----------
    progress : rich.progress.Progress
        See `progress_bar`.
    steps : int
        Steps of the whole run.
    """

    def __init__(self, progress: Progress, steps: int) -> None:
        self.progress = progress
        self.task = progress.add_task("", total=steps, loss=float("nan"), rate=0.0)

    def on_steps(self, trainer: Trainer) -> None:
        loss = float(np.mean(trainer.history.losses[-trainer.REPORT_INTERVAL :]))
        rate = self.progress.tasks[self.task].speed or 0.0
        self.progress.update(self.task, completed=trainer.current_iter, loss=loss, rate=rate)

    def on_evaluation(self, trainer: Trainer) -> None:
        evaluations = trainer.history.evaluations
        if len(evaluations) == 1:
            self.progress.console.print(Evaluation.header(), soft_wrap=True)
        self.progress.console.print(evaluations[-1].row(), soft_wrap=True)


def progress_bar(console: Console) -> Progress:
    """Return a bar with the number of steps, loss, steps per second and the time left; disabled without a terminal."""
    return Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.4f}"),
        TextColumn("{task.fields[rate]:,.0f} steps/s"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )

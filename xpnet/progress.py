"""The progress of a training run on a terminal."""

import time
from typing import ClassVar

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from xpnet.datasets.text import from_text, to_text
from xpnet.device import asnumpy
from xpnet.nets import LanguageNetwork
from xpnet.training import Callback, Trainer

__all__ = ["ShowProgress", "ShowSample", "progress_bar", "summary"]

REFRESH_SECONDS = 0.1
"""Time between two drawings of the bar."""


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
        self._drawn = 0.0

    def on_steps(self, trainer: Trainer) -> None:
        loss = float(np.mean(trainer.history.losses[-trainer.REPORT_INTERVAL :]))
        rate = self.progress.tasks[self.task].speed or 0.0
        due = time.monotonic() - self._drawn >= REFRESH_SECONDS
        self.progress.update(self.task, completed=trainer.current_iter, loss=loss, rate=rate, refresh=due)
        if due:
            self._drawn = time.monotonic()

    def on_evaluation(self, trainer: Trainer) -> None:
        evaluations = trainer.history.evaluations
        if len(evaluations) == 1:
            self.progress.console.print(evaluations[-1].header())
        self.progress.console.print(evaluations[-1].row())


class ShowSample(Callback):
    """A text that the network generates at each evaluation, behind a mark.

    Parameters
    ----------
    console : rich.console.Console
        Where to print.
    """

    LENGTH: ClassVar[int] = 100
    """Number of bytes."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def on_evaluation(self, trainer: Trainer) -> None:
        assert isinstance(trainer.network, LanguageNetwork)
        # The same seed each time: the samples differ by what was learned, and the run's own generator is left alone.
        ids = trainer.network.generate(from_text("\n")[None], self.LENGTH, rng=0)
        self.console.print(f"  > {' '.join(to_text(asnumpy(ids[0, 1:])).split())}")


def progress_bar(console: Console) -> Progress:
    """Return a bar with the number of steps, loss, steps per second and the time left; disabled without a terminal.

    It is drawn by `ShowProgress`. A thread that draws could not tell the run that the terminal is gone.
    """
    return Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.4f}"),
        TextColumn("{task.fields[rate]:,.0f} steps/s"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        auto_refresh=False,
        disable=not console.is_terminal,
    )


def summary(trainer: Trainer) -> str:
    """Describe the result of a run in one line."""
    steps = f"after {trainer.current_iter:,} steps"
    if not trainer.history.evaluations:
        return f"no accuracy was measured yet {steps}"
    last = trainer.history.evaluations[-1]
    measured = "" if last.step == trainer.current_iter else f", measured at step {last.step:,}"
    shown = [f"{name.replace('_', ' ')} {value:.4f}" for name, value in last.metrics.items() if "loss" not in name]
    return f"{', '.join(reversed(shown))} {steps} in {last.seconds:.1f} s{measured}"

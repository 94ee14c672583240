"""Callbacks of the training loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xpnet.training.history import Evaluation

if TYPE_CHECKING:
    from xpnet.training.trainer import Trainer

__all__ = ["Callback", "PrintProgress"]


class Callback:
    """Base class of callbacks, which `Trainer.train` calls between steps. Override the methods that you need."""

    def on_steps(self, trainer: Trainer) -> None:
        """Called after at most `trainer.REPORT_INTERVAL` steps, when their losses are in the history."""

    def on_evaluation(self, trainer: Trainer) -> None:
        """Called after an evaluation, when it is the last entry of ``trainer.history.evaluations``."""


class PrintProgress(Callback):
    """Prints a line per evaluation, under a header."""

    def on_evaluation(self, trainer: Trainer) -> None:
        evaluations = trainer.history.evaluations
        if len(evaluations) == 1:
            print(Evaluation.header())
        print(evaluations[-1].row(), flush=True)

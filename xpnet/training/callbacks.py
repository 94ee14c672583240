"""What watches a training run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xpnet.training.history import Evaluation

if TYPE_CHECKING:
    from xpnet.training.trainer import Trainer

__all__ = ["Callback", "PrintProgress"]


class Callback:
    """Called by `Trainer.train` between steps. Override what you need; nothing is called during a step."""

    def on_steps(self, trainer: Trainer) -> None:
        """Some steps, at most `trainer.REPORT_INTERVAL`, are done and their losses are in the history."""

    def on_evaluation(self, trainer: Trainer) -> None:
        """The last entry of ``trainer.history.evaluations`` is new."""


class PrintProgress(Callback):
    """Print a line per evaluation, under a header."""

    def on_evaluation(self, trainer: Trainer) -> None:
        evaluations = trainer.history.evaluations
        if len(evaluations) == 1:
            print(Evaluation.header())
        print(evaluations[-1].row(), flush=True)

"""Losses and evaluations of a training run."""

import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

__all__ = ["Evaluation", "History"]


@dataclass(frozen=True)
class Evaluation:
    """Evaluation of a run at the end of an epoch, or at its last step.

    Attributes
    ----------
    step : int
        Number of training steps.
    epoch : float
        Number of passes over the training set.
    loss : float
        Mean training loss of the steps since the last evaluation.
    train_accuracy, test_accuracy : float
        Share of correctly classified samples, in [0, 1].
    seconds : float
        Wall time since the start of training, including this evaluation.
    """

    step: int
    epoch: float
    loss: float
    train_accuracy: float
    test_accuracy: float
    seconds: float

    @staticmethod
    def header() -> str:
        """Column titles for `row`."""
        return f"{'epoch':>7}  {'step':>7}  {'loss':>8}  {'train acc':>9}  {'test acc':>9}  {'seconds':>8}"

    def row(self) -> str:
        """Return the evaluation as one line of a table."""
        return (
            f"{self.epoch:7.2f}  {self.step:7d}  {self.loss:8.4f}  {self.train_accuracy:9.4f}  "
            f"{self.test_accuracy:9.4f}  {self.seconds:8.2f}"
        )


@dataclass
class History:
    """Losses of all steps and the evaluations between them.

    Attributes
    ----------
    losses : list of float
        The minibatch loss of each step, before its update.
    evaluations : list of Evaluation
        One per epoch, and one for the last step.
    """

    losses: list[float] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)

    def mean_loss_since_evaluation(self) -> float:
        """Return the mean loss of the steps after the last evaluation; NaN without such steps."""
        start = self.evaluations[-1].step if self.evaluations else 0
        recent = self.losses[start:]
        return float(np.mean(recent)) if recent else float("nan")

    def to_dict(self) -> dict[str, Any]:
        """Return the history as lists by column for JSON, with None for NaN and infinity."""
        rows = [asdict(evaluation) for evaluation in self.evaluations]
        columns = {f.name: [_finite(row[f.name]) for row in rows] for f in fields(Evaluation)}
        return {"evaluations": columns, "losses": [_finite(loss) for loss in self.losses]}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None

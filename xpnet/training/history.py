"""Losses and evaluations of a training run."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["Evaluation", "History"]

SHORT = {"accuracy": "acc", "perplexity": "ppl", "validation": "valid"}
"""Words of metrics as the titles of columns abbreviate them."""

OWN = ("step", "epoch", "loss", "seconds")
"""Numbers of an evaluation besides the metrics."""


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
    seconds : float
        Wall time since the start of training, including this evaluation.
    metrics : mapping of str to float
        Metrics of each set (`Network.evaluate`): ``"train_loss"``, ``"test_accuracy"``, ``"validation_rmse"`` ...
    """

    step: int
    epoch: float
    loss: float
    seconds: float
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def train_accuracy(self) -> float:
        """Accuracy on the training set; NaN if there is none."""
        return self.metrics.get("train_accuracy", math.nan)

    @property
    def test_accuracy(self) -> float:
        """Accuracy on the test set; NaN if there is none."""
        return self.metrics.get("test_accuracy", math.nan)

    def columns(self) -> dict[str, float]:
        """Return all numbers by name."""
        return {**{name: getattr(self, name) for name in OWN}, **self.metrics}

    def to_dict(self) -> dict[str, float | None]:
        """Return all numbers by name for JSON, with None for NaN and infinity."""
        return {name: _finite(value) for name, value in self.columns().items()}

    @staticmethod
    def of_columns(numbers: Mapping[str, float]) -> "Evaluation":
        """Return the evaluation with these `columns`."""
        metrics = {name: value for name, value in numbers.items() if name not in OWN}
        return Evaluation(int(numbers["step"]), numbers["epoch"], numbers["loss"], numbers["seconds"], metrics)

    def header(self) -> str:
        """Column titles for `row`."""
        titles = [" ".join(SHORT.get(word, word) for word in name.split("_")) for name in self._shown()]
        shown = "  ".join(f"{title:>9}" for title in titles)
        return f"{'epoch':>7}  {'step':>7}  {'loss':>8}  {shown}  {'seconds':>8}"

    def row(self) -> str:
        """Return the evaluation as one line of a table."""
        shown = "  ".join(f"{self.metrics[name]:9.4f}" for name in self._shown())
        return f"{self.epoch:7.2f}  {self.step:7d}  {self.loss:8.4f}  {shown}  {self.seconds:8.2f}"

    def _shown(self) -> list[str]:
        """Names of the metrics in a line: all but the losses, of which there is a column."""
        return [name for name in self.metrics if not name.endswith("_loss")]


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
        rows = [evaluation.to_dict() for evaluation in self.evaluations]
        names = dict.fromkeys(name for row in rows for name in row)
        columns = {name: [row.get(name) for row in rows] for name in names}
        return {"evaluations": columns, "losses": [_finite(loss) for loss in self.losses]}

    @staticmethod
    def of_dict(content: Mapping[str, Any]) -> "History":
        """Return the history of which `to_dict` made this, with NaN for None."""
        columns = {name: [_number(value) for value in values] for name, values in content["evaluations"].items()}
        rows = (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
        return History([_number(loss) for loss in content["losses"]], [Evaluation.of_columns(row) for row in rows])


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)

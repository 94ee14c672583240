"""Callbacks of the training loop."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xpnet.extras import import_extra
from xpnet.files import written_atomically
from xpnet.training.history import Evaluation

if TYPE_CHECKING:
    from xpnet.training.trainer import Trainer

__all__ = [
    "CSVLogger",
    "Callback",
    "EarlyStopping",
    "JSONLLogger",
    "OnEvaluation",
    "PrintProgress",
    "ReduceLROnPlateau",
    "TensorBoard",
    "as_callback",
]


class Callback:
    """Base class of callbacks, which `Trainer.train` calls between steps. Override the methods that you need."""

    def on_start(self, trainer: Trainer) -> None:
        """Called when training starts or goes on, before the first step."""

    def on_steps(self, trainer: Trainer) -> None:
        """Called after at most `trainer.REPORT_INTERVAL` steps, when their losses are in the history.

        On a CUDA device `trainer` may already have taken the next steps, whose losses are not there yet.
        """

    def on_evaluation(self, trainer: Trainer) -> None:
        """Called after an evaluation, when it is the last entry of ``trainer.history.evaluations``."""

    def on_end(self, trainer: Trainer) -> None:
        """Called when training ends, for whatever reason; ``trainer.finished`` tells whether it is complete."""

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must keep: numbers and texts, and NumPy arrays."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore the result of `state`."""


class OnEvaluation(Callback):
    """A plain function as a callback, called after each evaluation.

    Parameters
    ----------
    function : callable
        Takes the trainer.
    """

    def __init__(self, function: Callable[[Trainer], object]) -> None:
        self.function = function

    def on_evaluation(self, trainer: Trainer) -> None:
        self.function(trainer)


class PrintProgress(Callback):
    """Prints a line per evaluation, under a header."""

    def on_evaluation(self, trainer: Trainer) -> None:
        evaluations = trainer.history.evaluations
        if len(evaluations) == 1:
            print(evaluations[-1].header())
        print(evaluations[-1].row(), flush=True)


class _Watching(Callback):
    """Base of callbacks that watch a metric for improvements; `EarlyStopping` documents the parameters."""

    def __init__(self, monitor: str | None, patience: int, min_delta: float) -> None:
        if not isinstance(patience, (int, np.integer)) or patience < 0:
            raise ValueError(f"patience must be a whole number of evaluations, got {patience!r}")
        if not 0 <= min_delta < math.inf:
            raise ValueError(f"min_delta must be finite and not negative, got {min_delta}")
        self.monitor, self.patience, self.min_delta = monitor, int(patience), float(min_delta)
        self.best = math.nan
        self.waited = 0

    def _improved(self, evaluation: Evaluation) -> bool:
        """Compare with the best evaluation so far, and count those without improvement."""
        numbers = evaluation.columns()
        name = self.monitor or next(m for m in ("validation_loss", "test_loss", "loss") if m in numbers)
        if name not in numbers:
            raise ValueError(f"monitor must be one of {', '.join(numbers)}, got {name!r}")
        value = numbers[name]
        gain = self.best - value if name.endswith(("loss", "rmse", "perplexity")) else value - self.best
        if math.isnan(self.best) or gain > self.min_delta:
            self.best, self.waited = value, 0
            return True
        self.waited += 1
        return False

    def state(self) -> dict[str, Any]:
        return {"best": self.best, "waited": self.waited}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.best, self.waited = state["best"], state["waited"]


class EarlyStopping(_Watching):
    """Stops training if a metric no longer improves, and restores the best parameters.

    Parameters
    ----------
    monitor : str, optional
        The metric (`Evaluation.metrics`, or ``"loss"``). Losses, RMSE and perplexity should fall, all others
        rise. By default
        ``"validation_loss"`` if there are validation data, else ``"test_loss"`` if there is a test set, else
        ``"loss"``.
    patience : int, default 5
        Evaluations without improvement before the stop.
    min_delta : float, default 0
        Smallest change that counts as an improvement.
    restore_best : bool, default True
        Whether the network gets the parameters and buffers of the best evaluation at the end of training.
    """

    def __init__(
        self, monitor: str | None = None, patience: int = 5, min_delta: float = 0.0, restore_best: bool = True
    ) -> None:
        super().__init__(monitor, patience, min_delta)
        self.restore_best = bool(restore_best)
        self._kept: dict[str, np.ndarray] = {}

    def on_evaluation(self, trainer: Trainer) -> None:
        if self._improved(trainer.history.evaluations[-1]):
            if self.restore_best:
                self._kept = trainer.network.state()
        elif self.waited >= self.patience:
            trainer.stop_training = True

    def on_end(self, trainer: Trainer) -> None:
        if self._kept and trainer.finished:
            trainer.network.load_state(self._kept)

    def state(self) -> dict[str, Any]:
        return {**super().state(), **{f"kept/{name}": array for name, array in self._kept.items()}}

    def load_state(self, state: Mapping[str, Any]) -> None:
        super().load_state(state)
        self._kept = {name.removeprefix("kept/"): a for name, a in state.items() if name.startswith("kept/")}


class ReduceLROnPlateau(_Watching):
    """Multiplies the learning rate by a factor if a metric no longer improves.

    Parameters
    ----------
    monitor, patience, min_delta
        As in `EarlyStopping`; `patience` is 10 by default.
    factor : float in (0, 1), default 0.1
        The factor.
    min_lr : float, default 0
        Smallest learning rate.
    """

    def __init__(
        self,
        monitor: str | None = None,
        factor: float = 0.1,
        patience: int = 10,
        min_delta: float = 0.0,
        min_lr: float = 0.0,
    ) -> None:
        super().__init__(monitor, patience, min_delta)
        if not 0 < factor < 1:
            raise ValueError(f"factor must lie in (0, 1), got {factor}")
        self.factor, self.min_lr = float(factor), float(min_lr)
        self._lr: float | None = None

    def on_start(self, trainer: Trainer) -> None:
        if callable(trainer.optimizer.lr):
            raise ValueError("ReduceLROnPlateau needs a constant learning rate, but the optimizer has a schedule")
        if self._lr is not None:  # of a run that goes on
            trainer.optimizer.lr = self._lr

    def on_evaluation(self, trainer: Trainer) -> None:
        if not self._improved(trainer.history.evaluations[-1]) and self.waited >= self.patience:
            trainer.optimizer.lr, self.waited = max(trainer.optimizer.current_lr * self.factor, self.min_lr), 0
        self._lr = trainer.optimizer.current_lr

    def state(self) -> dict[str, Any]:
        return {**super().state(), "lr": self._lr}

    def load_state(self, state: Mapping[str, Any]) -> None:
        super().load_state(state)
        self._lr = state["lr"]


class CSVLogger(Callback):
    """Writes the evaluations to a CSV file, a row each.

    Parameters
    ----------
    file : str or Path
        The file. Each evaluation rewrites it from the history, so that a run that goes on has no rows twice.
    """

    def __init__(self, file: str | Path) -> None:
        self.file = Path(file)

    def on_evaluation(self, trainer: Trainer) -> None:
        rows = [evaluation.columns() for evaluation in trainer.history.evaluations]
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)
        with written_atomically(self.file) as stream:
            stream.write(text.getvalue().encode())


class JSONLLogger(Callback):
    """Appends each evaluation to a file as a line of JSON, with null for NaN and infinity.

    Parameters
    ----------
    file : str or Path
        The file. The start of training rewrites it from the history. So a run that goes on from a checkpoint has no
        lines twice, and none of steps after the checkpoint. If it cannot be written, a warning tells why, and training
        goes on.
    """

    def __init__(self, file: str | Path) -> None:
        self.file = Path(file)

    def on_start(self, trainer: Trainer) -> None:
        with _a_warning_if_not_written(), written_atomically(self.file) as stream:
            stream.write("".join(map(_json_line, trainer.history.evaluations)).encode())

    def on_evaluation(self, trainer: Trainer) -> None:
        with _a_warning_if_not_written(), open(self.file, "ab") as stream:  # closed, so flushed, after each line
            stream.write(_json_line(trainer.history.evaluations[-1]).encode())


@contextlib.contextmanager
def _a_warning_if_not_written() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        warnings.warn(f"no line of the history is written: {error}", RuntimeWarning, stacklevel=3)


def _json_line(evaluation: Evaluation) -> str:
    return json.dumps(evaluation.to_dict(), allow_nan=False) + "\n"


class TensorBoard(Callback):
    """Writes losses and metrics for TensorBoard. Needs tensorboardX.

    Parameters
    ----------
    folder : str or Path
        Folder of the event files.
    """

    def __init__(self, folder: str | Path) -> None:
        self._writer = import_extra("tensorboardX", "tensorboard").SummaryWriter(str(folder))

    def on_evaluation(self, trainer: Trainer) -> None:
        evaluation = trainer.history.evaluations[-1]
        for name, value in evaluation.columns().items():
            if name != "step":
                self._writer.add_scalar(name, value, evaluation.step)
        self._writer.flush()


def as_callback(callback: Callback | Callable[[Trainer], object]) -> Callback:
    """Return a callback; a function becomes one of evaluations."""
    if isinstance(callback, Callback):
        return callback
    if isinstance(callback, type) or not callable(callback):
        raise TypeError(
            f"callbacks must be instances of xpnet.training.Callback, or functions that take the trainer, got "
            f"{callback!r}"
        )
    return OnEvaluation(callback)

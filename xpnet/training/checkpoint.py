"""Checkpoints: files from which a run goes on."""

from __future__ import annotations

import json
import math
import os
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xpnet.tensors import read_tensors, write_tensors
from xpnet.training.callbacks import Callback

if TYPE_CHECKING:
    from xpnet.training.trainer import Trainer

__all__ = ["Checkpoint", "has_checkpoint", "load_checkpoint", "save_checkpoint"]

ARRAY = "__array__"
"""Key of the JSON object that stands for an array."""

SHARE = 0.01
"""Largest share of a run's time for checkpoints, by default."""

FIRST_SECONDS = 1.0
"""Time to the first checkpoint, by default."""


class Checkpoint(Callback):
    """Writes the state of a run to a file, now and then and at the end (`Trainer.state`).

    The checkpoint before is kept beside it (`before`). If a checkpoint cannot be written, a warning tells why, and
    training goes on.

    Parameters
    ----------
    file : str or Path
        The file, in the safetensors format (`save_checkpoint`).
    seconds : float, optional
        Time between two checkpoints.
    steps : int, optional
        Steps between two checkpoints, rounded up to the trainer's reports (`Trainer.REPORT_INTERVAL`). Without
        `seconds` and `steps`, checkpoints take less than 1% of the time.
    """

    def __init__(self, file: str | Path, seconds: float | None = None, steps: int | None = None) -> None:
        for name, value in {"seconds": seconds, "steps": steps}.items():
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be positive, got {value}")
        self.file, self.seconds, self.steps = Path(file), seconds, steps
        self._step, self._time, self._cost = 0, time.monotonic(), FIRST_SECONDS * SHARE

    def on_start(self, trainer: Trainer) -> None:
        self._step, self._time = trainer.current_iter, time.monotonic()

    def on_steps(self, trainer: Trainer) -> None:
        passed = time.monotonic() - self._time
        by_steps = self.steps is not None and trainer.current_iter - self._step >= self.steps
        by_seconds = self.seconds is not None and passed >= self.seconds
        by_share = self.steps is None and self.seconds is None and passed * SHARE >= self._cost
        if by_steps or by_seconds or by_share:
            self._save(trainer)

    def on_end(self, trainer: Trainer) -> None:
        if all(map(math.isfinite, trainer.history.losses[-trainer.REPORT_INTERVAL :])):  # no run goes on from NaN
            self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        started = time.monotonic()
        try:
            save_checkpoint(self.file, trainer.state())
        except OSError as error:
            warnings.warn(f"no checkpoint is written: {error}", RuntimeWarning, stacklevel=2)
        self._step, self._time = trainer.current_iter, time.monotonic()
        self._cost = self._time - started


def before(file: str | Path) -> Path:
    """Return the name under which the checkpoint before is kept: ``checkpoint-before.safetensors``."""
    file = Path(file)
    return file.with_stem(f"{file.stem}-before")


def save_checkpoint(file: str | Path, state: Mapping[str, Any]) -> None:
    """Write a state to a file in the safetensors format, atomically. A file that is there is renamed (`before`).

    Parameters
    ----------
    file : str or Path
        The file.
    state : mapping of str
        Numbers, texts and NumPy arrays, in mappings and lists. The arrays are the file's tensors; all else is JSON in
        its metadata, with a checksum (SHA-256) of both.
    """
    arrays: dict[str, np.ndarray] = {}
    text = json.dumps(_without_arrays(state, "", arrays))
    if os.path.exists(file):
        os.replace(file, before(file))
    write_tensors(file, "checkpoint", text, arrays)


def has_checkpoint(file: str | Path) -> bool:
    """Return whether there is a checkpoint, or the one before it."""
    return os.path.exists(file) or os.path.exists(before(file))


def load_checkpoint(file: str | Path) -> dict[str, Any]:
    """Return the state in a file that `save_checkpoint` wrote; without it, in the one before.

    Raises
    ------
    FileNotFoundError
        If there is neither.
    ValueError
        If the file is damaged. The message names the one before, if that is whole.
    """
    if not os.path.exists(file) and os.path.exists(before(file)):
        file = before(file)
    try:
        return _read(file)
    except ValueError as error:
        other, hint = before(file), ""
        if other.exists():
            try:
                _read(other)
                hint = f"; the checkpoint before it is whole: remove {file} to go on from {other}"
            except ValueError:
                hint = f"; so is the checkpoint before it, {other}"
        raise ValueError(f"{error}{hint}") from None


def _read(file: str | Path) -> dict[str, Any]:
    text, arrays = read_tensors(file, "checkpoint")
    state: dict[str, Any] = _with_arrays(json.loads(text), arrays)
    return state


def _without_arrays(value: Any, name: str, arrays: dict[str, np.ndarray]) -> Any:
    """Return the value for JSON, and collect its arrays by their path."""
    if isinstance(value, np.ndarray):
        arrays[name] = value
        return {ARRAY: name}
    if isinstance(value, Mapping):
        return {key: _without_arrays(item, f"{name}/{key}".lstrip("/"), arrays) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_arrays(item, f"{name}/{i}", arrays) for i, item in enumerate(value)]
    return value.item() if isinstance(value, np.generic) else value


def _with_arrays(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    if isinstance(value, dict):
        return (
            arrays[value[ARRAY]] if value.keys() == {ARRAY} else {k: _with_arrays(v, arrays) for k, v in value.items()}
        )
    return [_with_arrays(item, arrays) for item in value] if isinstance(value, list) else value

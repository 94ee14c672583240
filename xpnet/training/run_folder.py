"""Folder with the results of a training run."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from xpnet import environment
from xpnet.extras import import_extra
from xpnet.files import written_atomically
from xpnet.training.checkpoint import Checkpoint, has_checkpoint, load_checkpoint
from xpnet.training.plots import plot_learning_curves
from xpnet.training.run_settings import RunSettings
from xpnet.training.trainer import Trainer

__all__ = ["CHECKPOINT", "create_run_folder", "only_process", "save_run", "start_run"]

CHECKPOINT = "checkpoint.safetensors"
"""Name of the checkpoint in a run folder."""


def create_run_folder(root: str | Path, name: str) -> Path:
    """Create a new folder ``root/<date>-<time>-<name>``, with a number appended if it exists, and return it."""
    stem = f"{datetime.now():%Y%m%d-%H%M%S}-{name}"
    number = 1
    while True:
        folder = Path(root) / (stem if number == 1 else f"{stem}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            if not Path(root).is_dir():
                raise
            number += 1
        else:
            return folder


@contextmanager
def only_process(folder: Path) -> Iterator[None]:
    """Context of the only process that trains in a folder. Its end, however it comes, frees the folder.

    Raises
    ------
    ValueError
        If another process trains there.
    """
    filelock = import_extra("filelock", "cli")
    lock = filelock.FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise ValueError(f"another process trains in {folder}") from None
    with lock:
        yield


def start_run(folder: Path, trainer: Trainer, settings: RunSettings, checkpoint: Checkpoint) -> bool:
    """Write the settings into a new folder, or load the checkpoint in that of a run that goes on.

    The trainer gets `checkpoint` as a callback.

    Returns
    -------
    bool
        Whether the run goes on. One that was killed before its first checkpoint starts again.
    """
    going_on = has_checkpoint(checkpoint.file)
    if going_on:
        trainer.load_state(load_checkpoint(checkpoint.file))
    else:
        settings.save(folder)
    trainer.callbacks.append(checkpoint)
    return going_on


def save_run(folder: Path, trainer: Trainer, settings: Mapping[str, Any], *, plot: bool = False) -> list[str]:
    """Write the results of a run into `folder`, each file atomically.

    ``params.npz`` has the parameters by name. ``history.json`` has losses and evaluations. With `plot`,
    ``learning_curves.png`` is a plot of them (needs ``xpnet[plot]``). The last file, ``run.json``, has settings,
    result, device and versions.

    Returns
    -------
    list of str
        Names of the files.
    """
    written = ["params.npz", "history.json"]
    trainer.network.save_params(folder / "params.npz")
    history = trainer.history.to_dict()
    _write_json(folder / "history.json", history)
    if plot:
        plot_learning_curves(trainer.history, folder / "learning_curves.png")
        written.append("learning_curves.png")
    last = {name: values[-1] if values else None for name, values in history["evaluations"].items()}
    _write_json(
        folder / "run.json",
        {
            "settings": dict(settings),
            "steps": trainer.current_iter,
            "backend": trainer.backend if trainer.network.device.name == "cpu" else "cupy",
            "complete": trainer.finished,
            **dict.fromkeys(("train_accuracy", "test_accuracy", "seconds")),
            **{name: value for name, value in last.items() if name not in {"step", "epoch", "loss"}},
            "environment": environment.describe(trainer.network.device),
        },
    )
    return [*written, "run.json"]


def _write_json(file: Path, content: Mapping[str, Any]) -> None:
    with written_atomically(file) as stream:
        stream.write(json.dumps(content, indent=1, allow_nan=False).encode())

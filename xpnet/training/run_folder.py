"""Folder with the results of a training run."""

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from xpnet import environment
from xpnet.files import written_atomically
from xpnet.training.plots import plot_learning_curves
from xpnet.training.trainer import Trainer

__all__ = ["create_run_folder", "save_run"]


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

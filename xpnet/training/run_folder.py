"""Folder with the results of a training run."""

import errno
import itertools
import json
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from xpnet import environment
from xpnet.datasets import Dataset
from xpnet.datasets.images import has_light_border
from xpnet.extras import import_extra
from xpnet.files import TEMPORARY, written_atomically
from xpnet.training.callbacks import JSONLLogger
from xpnet.training.checkpoint import Checkpoint, has_checkpoint, load_checkpoint
from xpnet.training.plots import plot_learning_curves
from xpnet.training.run_settings import RunSettings
from xpnet.training.trainer import Trainer

__all__ = ["CHECKPOINT", "HISTORY", "MODEL", "RESULT", "create_run_folder", "only_process", "save_run", "start_run"]

CHECKPOINT = "checkpoint.safetensors"
"""Name of the checkpoint in a run folder."""

MODEL = "model.safetensors"
"""Name of the network's file in a run folder."""

HISTORY = "history.json"
"""Name of the file with losses and evaluations."""

RESULT = "run.json"
"""Name of the file with the result."""

TAKEN = {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}
"""Errors of a new name that a folder or file has already."""


def create_run_folder(root: str | Path, settings: RunSettings) -> Path:
    """Create a new folder ``root/<date>-<time>-<network>`` with the settings, and return it.

    If the folder exists, a number is appended. It gets its name when the settings are in it: a run that is killed at
    any moment leaves no folder without them.
    """
    stem = f"{datetime.now():%Y%m%d-%H%M%S}-{settings.net}"
    Path(root).mkdir(parents=True, exist_ok=True)
    made = Path(root, TEMPORARY + uuid.uuid4().hex)
    try:
        made.mkdir()
        settings.save(made)
        for number in itertools.count(1):
            try:
                return made.rename(Path(root, stem if number == 1 else f"{stem}-{number}"))
            except OSError as error:
                if error.errno not in TAKEN:
                    raise
        raise AssertionError("there is always a next number")
    except OSError as error:
        error.filename = str(root)
        raise
    finally:
        shutil.rmtree(made, ignore_errors=True)  # not there any more if all went well


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
        held = lock.acquire(timeout=0)
    except filelock.Timeout:
        raise ValueError(f"another process trains in {folder}") from None
    with held:
        yield


def start_run(trainer: Trainer, checkpoint: Checkpoint) -> bool:
    """Load the checkpoint in the folder of a run that goes on, and give the trainer `checkpoint` as a callback.

    Returns
    -------
    bool
        Whether the run goes on. One that was killed before its first checkpoint starts again.
    """
    going_on = has_checkpoint(checkpoint.file)
    if going_on:
        trainer.load_state(load_checkpoint(checkpoint.file))
    trainer.callbacks += [checkpoint, JSONLLogger(checkpoint.file.parent / "history.jsonl")]
    return going_on


def save_run(
    folder: Path, trainer: Trainer, settings: Mapping[str, Any], data: Dataset | None = None, *, plot: bool = False
) -> list[str]:
    """Write the results of a run into `folder`, each file atomically.

    ``model.safetensors`` has the network (`xpnet.load`). ``history.json`` has losses and evaluations. With `plot`,
    ``learning_curves.png`` is a plot of them (needs ``xpnet[plot]``). The last file, ``run.json``, has settings,
    result, device and versions, and of `data` the shape of a sample and the names of the classes.

    Returns
    -------
    list of str
        Names of the files.
    """
    written = [MODEL, HISTORY]
    trainer.network.save(folder / MODEL)
    history = trainer.history.to_dict()
    _write_json(folder / HISTORY, history)
    if plot:
        plot_learning_curves(trainer.history, folder / "learning_curves.png")
        written.append("learning_curves.png")
    last = {name: values[-1] if values else None for name, values in history["evaluations"].items()}
    _write_json(
        folder / RESULT,
        {
            "settings": dict(settings),
            "steps": trainer.current_iter,
            "backend": trainer.backend if trainer.network.device.name == "cpu" else "cupy",
            "complete": trainer.finished,
            **_facts_of(data),
            **dict.fromkeys(("train_accuracy", "test_accuracy", "seconds")),
            **{name: value for name, value in last.items() if name not in {"step", "epoch", "loss"}},
            "environment": environment.describe(trainer.network.device),
        },
    )
    return [*written, RESULT]


def _facts_of(data: Dataset | None) -> dict[str, Any]:
    """Return what predictions need to know of the data: shape of a sample, classes, whether images are light."""
    if data is None:
        return {}
    x = data.x_train[:1000]
    is_light = has_light_border(x) if x.ndim == 4 and x.dtype == "uint8" else None
    return {"sample_shape": x.shape[1:], "classes": data.classes, "light_border": is_light}


def _write_json(file: Path, content: Mapping[str, Any]) -> None:
    with written_atomically(file) as stream:
        stream.write(json.dumps(content, indent=1, allow_nan=False).encode())

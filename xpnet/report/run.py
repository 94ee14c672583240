"""What the files in a run folder say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from xpnet.nets import Network, load
from xpnet.training.history import History
from xpnet.training.recipes import RECIPES
from xpnet.training.run_folder import MODEL
from xpnet.training.run_settings import RunSettings

__all__ = ["Run", "read_run"]

DAMAGE = (ValueError, TypeError, LookupError, AttributeError, RecursionError)
"""Errors of reading what is not the expected JSON."""


@dataclass(frozen=True, eq=False)
class Run:
    """A run that has written its results.

    Attributes
    ----------
    name : str
        Name of the folder.
    settings : RunSettings
        Settings from which the data can be loaded.
    described : mapping
        All settings by name, the network's own too.
    steps : int
        Number of steps taken.
    complete : bool
        Whether all steps were taken, or a callback ended the training.
    backend : str
        Backend of the steps.
    environment : mapping
        Versions and hardware (`xpnet.environment.describe`).
    ended : datetime
        When the results were written.
    history : History
        Losses and evaluations.
    network : Network
        The trained network, on the CPU.
    """

    name: str
    settings: RunSettings
    described: Mapping[str, Any]
    steps: int
    complete: bool
    backend: str
    environment: Mapping[str, Any]
    ended: datetime
    history: History
    network: Network


def read_run(folder: Path) -> Run:
    """Read a run folder.

    Raises
    ------
    ValueError
        If it is no run folder, the run has not written its results, or a file is damaged.
    """
    try:
        settings = RunSettings.load(folder)
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"folder must be that of a run (xpnet train), got {folder}, which has no settings") from None
    if settings.net not in [*RECIPES]:
        raise ValueError(f"settings.json in {folder} is damaged: there is no network {settings.net!r}")
    missing = [name for name in (MODEL, "history.json", "run.json") if not (folder / name).is_file()]
    if missing:
        raise ValueError(
            f"{folder} has no {missing[0]}: the run was killed or is not at its end; go on with xpnet train --resume "
            f"{folder}"
        )
    network, result = load(folder / MODEL), _read_json(folder / "run.json")
    try:
        history = History.of_dict(_read_json(folder / "history.json"))
    except DAMAGE as error:
        raise ValueError(f"{folder / 'history.json'} is damaged: {error}") from None
    try:
        return Run(
            name=folder.resolve().name,
            settings=settings,
            described=dict(result["settings"]),
            steps=int(result["steps"]),
            complete=bool(result["complete"]),
            backend=str(result["backend"]),
            environment=dict(result["environment"]),
            ended=datetime.fromtimestamp((folder / "run.json").stat().st_mtime, UTC),
            history=history,
            network=network,
        )
    except DAMAGE as error:
        raise ValueError(f"{folder / 'run.json'} is damaged: {error}") from None


def _read_json(file: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is damaged: {error}") from None
    if not isinstance(content, Mapping):
        raise ValueError(f"{file} is damaged: expected an object, got {type(content).__name__}")
    return content

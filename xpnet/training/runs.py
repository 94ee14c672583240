"""Runs in their folders: found, compared, and used for predictions."""

from __future__ import annotations

import contextlib
import json
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from xpnet import nets
from xpnet.datasets import Dataset, load_dataset, load_text
from xpnet.device import Device
from xpnet.nets import evaluation
from xpnet.tables import format_table
from xpnet.training.history import History
from xpnet.training.run_folder import HISTORY, MODEL, RESULT
from xpnet.training.run_settings import RunSettings

__all__ = ["Run", "compare_runs", "find_run_folders", "find_runs", "last_run", "list_runs"]

DAMAGE = (ValueError, TypeError, LookupError, AttributeError, RecursionError)
"""Errors of reading what is not the expected JSON."""

LISTED = {"test accuracy": "test_accuracy", "train accuracy": "train_accuracy", "seconds": "seconds"}
"""Columns of a list of runs, and the results that they show."""


@dataclass(frozen=True, eq=False)
class Run:
    """A training run in its folder.

    Attributes
    ----------
    folder : Path
        The folder.
    settings : RunSettings
        Settings from which the data are loaded, and the training starts.
    result : mapping of str
        Content of ``run.json`` (`save_run`). Empty for a run that is going on, or was killed.
    """

    folder: Path
    settings: RunSettings
    result: Mapping[str, Any]

    @staticmethod
    def read(folder: str | Path) -> Run:
        """Read a run from its folder.

        Raises
        ------
        ValueError
            If it is no folder of a run, or its files are damaged.
        """
        folder = Path(folder)
        settings, file = RunSettings.load(folder), folder / RESULT
        return Run(folder, settings, _read_result(file) if file.exists() else {})

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.folder.resolve().name

    @property
    def ended(self) -> datetime:
        """Time at which the results were written."""
        return datetime.fromtimestamp(self.file(RESULT).stat().st_mtime, UTC)

    @cached_property
    def history(self) -> History:
        """Losses and evaluations.

        Raises
        ------
        ValueError
            If the run has not written them yet, or the file is damaged.
        """
        file = self.file(HISTORY)
        try:
            return History.of_dict(json.loads(file.read_bytes()))
        except DAMAGE as error:
            raise ValueError(f"{file} is damaged: {error}") from None

    @cached_property
    def network(self) -> nets.Network:
        """The trained network, on the CPU. See `network_on`."""
        return self.network_on("cpu")

    def network_on(self, device: Device | str) -> nets.Network:
        """Return the trained network on a device.

        Raises
        ------
        ValueError
            If the run has not written it yet, or the file is damaged.
        """
        return nets.load(self.file(MODEL), device)

    def language_model_on(self, device: Device | str) -> nets.LanguageNetwork:
        """Return the trained network on a device, if it generates texts.

        Raises
        ------
        ValueError
            If it does not, or as for `network_on`.
        """
        network = self.network_on(device)
        if not isinstance(network, nets.LanguageNetwork):
            raise ValueError(
                f"{self.folder} is a run of {self.settings.net}, which generates no text; train with --net char-lstm "
                "or gpt"
            )
        return network

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names of the classes by id; None for a regression."""
        names = self.result.get("classes")
        return None if names is None else tuple(names)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of a sample of the run's data set: (C, H, W) for images."""
        return tuple(self.result.get("sample_shape") or ())

    @property
    def has_light_images(self) -> bool:
        """Whether the training images have a light border."""
        return bool(self.result.get("light_border"))

    @property
    def status(self) -> str:
        """How far the run has come, in a few words."""
        if not self.result:
            return "not ended, or killed"
        return "complete" if self.result["complete"] else f"ended at step {self.result['steps']:,}"

    def probabilities(self, net: nets.Network, x: np.ndarray) -> np.ndarray:
        """Return the probabilities of the classes, (N, C), for samples on the host, by the run's network `net`."""
        scores = evaluation.predict(net, x)
        return np.asarray(net.last_layer.probabilities(scores))

    def dataset(self, source: str | Path | None = None) -> Dataset:
        """Return the run's data set, or another one with its classes, as the network takes it."""
        if self.settings.recipe.length is not None:
            return load_text(self.settings.source if source is None else source, self.settings.recipe.length)
        sample = self.sample_shape
        given: dict[str, Any] = {"classes": self.classes, "label": self.settings.label_column}
        if len(sample) == 3:
            given |= {"size": sample[1:], "channels": sample[0]}
        return load_dataset(self.settings.source if source is None else source, **given)

    def shaped(self, x: np.ndarray, name: str) -> np.ndarray:
        """Return samples in the shape that the network takes.

        Raises
        ------
        ValueError
            If they have another number of values, or a value is not finite. `name` is their name in the message.
        """
        sample = self.sample_shape
        if math.prod(x.shape[1:]) != math.prod(sample):
            raise ValueError(
                f"{name} has samples of the shape {x.shape[1:]}, the network of {self.folder} takes {sample}"
            )
        most = np.finfo(self.settings.dtype).max
        if x.dtype.kind == "f" and not (abs(x) <= most).all():
            raise ValueError(
                f"{name} has values that are not finite in {self.settings.dtype}, such as NaN; leave them out"
            )
        return self.settings.shaped(x.reshape(len(x), *sample))

    def file(self, name: str) -> Path:
        """Return the path of a file that the run has written at its end.

        Raises
        ------
        ValueError
            If it is not there.
        """
        file = self.folder / name
        if not file.is_file():
            raise ValueError(
                f"{self.folder} has no {name}: the run has not ended; go on with xpnet train --resume {self.folder}"
            )
        return file


def find_run_folders(root: str | Path) -> list[Path]:
    """Return the folders of all runs in a folder, the oldest first."""
    return sorted(path.parent for path in Path(root).glob("*/settings.json"))


def find_runs(root: str | Path) -> list[Run]:
    """Return all runs in a folder, the oldest first. A warning names each one that is damaged, and is left out."""
    found = []
    for folder in find_run_folders(root):
        try:
            found.append(Run.read(folder))
        except (ValueError, OSError) as error:
            warnings.warn(f"left out: {error}", stacklevel=2)
    return found


def last_run(root: str | Path) -> Run | None:
    """Return the newest run in a folder that has a network and can be read, if any."""
    for folder in reversed(find_run_folders(root)):
        with contextlib.suppress(ValueError, OSError):
            run = Run.read(folder)
            run.file(MODEL)
            return run
    return None


def list_runs(runs: Iterable[Run]) -> str:
    """Return a table of runs: network, update rule, results."""
    rows = []
    for run in runs:
        settings = run.settings
        rule = f"{settings.optimizer} {settings.lr:g}"
        shown = [_text(run.result.get(name)) for name in LISTED.values()]
        rows.append((run.folder.name, settings.net, rule, f"{settings.steps:,}", *shown, run.status))
    return format_table(("run", "network", "rule", "steps", *LISTED, "status"), rows, align="<<<>>>><")


def compare_runs(runs: Sequence[Run]) -> str:
    """Return a table of what differs between runs, a column each: settings, then results."""
    found = [{**asdict(run.settings), **{n: run.result.get(n) for n in LISTED.values()}} for run in runs]
    differing = [name for name in found[0] if any(facts[name] != found[0][name] for facts in found)]
    rows = [(name.replace("_", " "), *(_text(facts[name]) for facts in found)) for name in differing]
    return format_table(("", *(run.folder.name for run in runs)), rows, align="<" + ">" * len(runs))


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _read_result(file: Path) -> dict[str, Any]:
    try:
        result = json.loads(file.read_bytes())
        if not isinstance(result, dict):
            raise TypeError(f"expected an object, got {type(result).__name__}")
        return result | {
            "settings": dict(result["settings"]),
            "environment": dict(result["environment"]),
            "backend": str(result["backend"]),
            "steps": int(result["steps"]),
            "complete": bool(result["complete"]),
        }
    except DAMAGE as error:
        raise ValueError(f"{file} is damaged: {error}") from None

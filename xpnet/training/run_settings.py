"""A training run by names and numbers, as the command line has it, and a run folder keeps it."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from xpnet.datasets import Dataset, DatasetError, TextDataset, load_dataset, load_text
from xpnet.datasets.text import BYTES
from xpnet.device import Device
from xpnet.files import written_atomically
from xpnet.kernels import Backend, Precision
from xpnet.layers import Normalize
from xpnet.nets import Sequential
from xpnet.optimizers import Optimizer, get_optimizer, get_schedule
from xpnet.parallel import Communicator
from xpnet.training.callbacks import Callback
from xpnet.training.recipes import RECIPES, Recipe
from xpnet.training.trainer import Trainer
from xpnet.typing import NetName, Sampling

__all__ = ["RunSettings"]

FILE = "settings.json"

EVALUATED_WINDOWS = 256
"""Windows of each part of a text that are evaluated during training. A whole text would take longer than its epoch."""


@dataclass(frozen=True)
class RunSettings:
    """Settings of a training run, the options of ``xpnet train``. `of` fills in the defaults."""

    net: NetName
    steps: int
    optimizer: str
    lr: float
    schedule: str
    device: str = "cpu"
    batch_size: int = 100
    sampling: Sampling = "random"
    momentum: float | None = None
    weight_decay: float | None = None
    hidden_size: int | None = None
    activation: str | None = None
    weight_init_std: str | float | None = None
    dtype: str = "float32"
    backend: Backend | None = None
    precision: Precision = "float32"
    threads: int | None = None
    microbatch: int | None = None
    seed: int = 0
    data: str | None = None
    label: str | None = None

    @staticmethod
    def of(net: NetName, **options: Any) -> RunSettings:
        """Return the settings with these options. None stands for the default of the network or the rule.

        Raises
        ------
        ValueError
            If an option does not suit the network or the rule.
        """
        recipe, given = RECIPES[net], {name: value for name, value in options.items() if value is not None}
        rule = given.get("optimizer", recipe.optimizer)
        defaults: dict[str, Any] = {name: getattr(recipe, name) for name in ("steps", "schedule", "batch_size")}
        defaults["optimizer"] = rule
        defaults["lr"] = 0.1 if rule == "sgd" or "lr" in given else get_optimizer(rule).current_lr
        if recipe.lr is not None and rule == recipe.optimizer:
            defaults["lr"] = recipe.lr
        known = {field.name for field in fields(RunSettings)}
        own = {name: value for name, value in recipe.settings.items() if name in known - defaults.keys()}
        settings = RunSettings(net, **{**defaults, **own, **given})
        built = settings.build_optimizer()
        return replace(
            settings,
            momentum=getattr(built, "momentum", None),
            weight_decay=getattr(built, "weight_decay", None),
        )

    @property
    def recipe(self) -> Recipe:
        """The network and its default training."""
        return RECIPES[self.net]

    def build_optimizer(self) -> Optimizer:
        """Return the update rule."""
        rate = get_schedule(self.schedule, self.lr, self.steps)
        given = {"momentum": self.momentum, "weight_decay": self.weight_decay}
        return get_optimizer(self.optimizer, lr=rate, **{k: value for k, value in given.items() if value is not None})

    @property
    def label_column(self) -> str | int | None:
        """Name or number of the column with the labels, for a table."""
        try:
            return None if self.label is None else int(self.label)
        except ValueError:
            return self.label

    @property
    def source(self) -> str:
        """Name or path of the data set."""
        if self.data is not None:
            return self.data
        return "mnist" if self.recipe.length is None else "alice"

    def load_data(self) -> Dataset:
        """Load the data set, by default MNIST, or for a network for texts the text ``"alice"``.

        Raises
        ------
        DatasetError
            If there is none, or it has no classes.
        """
        source = self.source
        if self.recipe.length is not None:
            return load_text(source, self.recipe.length)
        data = load_dataset(source, label=self.label_column)
        if data.classes is None:
            raise DatasetError(f"{source}: its labels are no classes, but targets of a regression")
        return data

    def shaped(self, x: np.ndarray) -> np.ndarray:
        """Return samples in the shape that the network takes: images, or one row each."""
        return x.reshape(len(x), math.prod(x.shape[1:])) if self.recipe.flat else x

    def build_network(self, data: Dataset, device: Device, rng: np.random.Generator) -> Sequential:
        """Return the network for a data set. For floats, it begins with a layer that normalizes them."""
        std = self.weight_init_std
        given: dict[str, Any] = {"hidden_size": self.hidden_size, "activation": self.activation}
        given |= {"weight_init_std": _number(std) if isinstance(std, str) else std}
        built = {name: value for name, value in given.items() if value is not None}
        x = self.shaped(data.x_train)
        classes = len(data.classes or ()) if self.recipe.length is None else BYTES
        if self.sampling == "in-order" and "batch_size" in self.recipe.settings:
            built["batch_size"] = self.batch_size  # the layers carry their states
        net = self.recipe.build(x.shape[1:], classes, built, device=device, dtype=self.dtype, seed=rng)
        if x.dtype.kind != "f":  # uint8 pixels, of which every network makes [0, 1]
            return net
        row = {"Normalize": Normalize.from_data(x), **copy.deepcopy(net.layers)}
        return Sequential(row, input_shape=net.input_shape, device=device, dtype=self.dtype)

    def build_trainer(
        self, data: Dataset, device: Device, callbacks: Iterable[Callback], communicator: Communicator | None = None
    ) -> Trainer:
        """Return the trainer for a data set, on a device, connected to those of other processes."""
        rng, windows = device.rng(self.seed), data.windows if isinstance(data, TextDataset) else None
        return Trainer(
            self.build_network(data, device, rng),
            self.shaped(data.x_train) if windows is None else windows,
            data.t_train if windows is None else None,
            None if data.x_test is None else self.shaped(data.x_test),
            data.t_test,
            mini_batch_size=self.batch_size,
            evaluate_sample_num_per_epoch=None if windows is None else EVALUATED_WINDOWS,
            optimizer=self.build_optimizer(),
            verbose=False,
            steps=self.steps,
            sampling=self.sampling,
            seed=rng,
            callbacks=callbacks,
            backend=self.backend,
            precision=self.precision,
            threads=self.threads,
            microbatch=self.microbatch,
            communicator=communicator,
        )

    def described(self) -> dict[str, Any]:
        """Return all settings by name, the network's own too."""
        return {**self.recipe.settings, **asdict(self)}

    def save(self, folder: Path) -> None:
        """Write the settings into a run folder."""
        with written_atomically(folder / FILE) as stream:
            stream.write(json.dumps(asdict(self), indent=1).encode())

    @staticmethod
    def load(folder: Path) -> RunSettings:
        """Read the settings from a run folder.

        Raises
        ------
        ValueError
            If there are none, or they are damaged.
        """
        file = folder / FILE
        try:
            content = json.loads(file.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            raise ValueError(f"{folder} is no folder of a run (xpnet train): it has no settings") from None
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{file} holds no settings of a run: {error}") from None
        known = {field.name: field.default is MISSING for field in fields(RunSettings)}
        needed = {name for name, is_needed in known.items() if is_needed}
        if not isinstance(content, Mapping) or not needed <= content.keys() <= known.keys():
            raise ValueError(f"{file} holds no settings of a run of this version of xpnet")
        if content["net"] not in RECIPES:
            raise ValueError(f"{file}: there is no network {content['net']!r} in this version of xpnet")
        return RunSettings(**content)


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text

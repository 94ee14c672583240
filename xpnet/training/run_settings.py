"""A training run by names and numbers, as the command line has it, and a run folder keeps it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from xpnet.datasets import load_mnist
from xpnet.device import Device
from xpnet.files import written_atomically
from xpnet.kernels import Backend, Precision
from xpnet.nets import Sequential
from xpnet.optimizers import Optimizer, get_optimizer, get_schedule
from xpnet.training.callbacks import Callback
from xpnet.training.recipes import RECIPES, NetName, Recipe
from xpnet.training.sampling import Sampling
from xpnet.training.trainer import Trainer

__all__ = ["RunSettings"]

FILE = "settings.json"


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
    seed: int = 0
    data: str | None = None

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
        defaults = {"steps": recipe.steps, "optimizer": rule, "schedule": recipe.schedule}
        defaults["lr"] = 0.1 if rule == "sgd" or "lr" in given else get_optimizer(rule).current_lr
        known = {field.name for field in fields(RunSettings)}
        own = {name: value for name, value in recipe.settings.items() if name in known}
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

    def build_network(
        self, x: np.ndarray, labels: Iterable[np.ndarray], device: Device, rng: np.random.Generator
    ) -> Sequential:
        """Return the network for images `x` and all classes among the labels."""
        std = self.weight_init_std
        given: dict[str, Any] = {"hidden_size": self.hidden_size, "activation": self.activation}
        given |= {"weight_init_std": _number(std) if isinstance(std, str) else std}
        classes = max(int(t.max()) for t in labels) + 1
        built = {name: value for name, value in given.items() if value is not None}
        return self.recipe.build(x.shape[1:], classes, built, device=device, dtype=self.dtype, seed=rng)

    def load_data(self) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
        """Return images, uint8 (N, C, H, W), and class ids of the training and the test set."""
        return load_mnist(normalize=False, flatten=False, root=Path(self.data) if self.data else None)

    def build_trainer(self, device: Device, callbacks: Iterable[Callback]) -> Trainer:
        """Load the data, and return the trainer on a device."""
        (x_train, t_train), (x_test, t_test) = self.load_data()
        if self.recipe.flat:
            x_train, x_test = (x.reshape(len(x), -1) for x in (x_train, x_test))
        rng = device.rng(self.seed)
        return Trainer(
            self.build_network(x_train, (t_train, t_test), device, rng),
            x_train,
            t_train,
            x_test,
            t_test,
            mini_batch_size=self.batch_size,
            optimizer=self.build_optimizer(),
            verbose=False,
            steps=self.steps,
            sampling=self.sampling,
            seed=rng,
            callbacks=callbacks,
            backend=self.backend,
            precision=self.precision,
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
        FileNotFoundError
            If there are none.
        ValueError
            If they are damaged.
        """
        file = folder / FILE
        try:
            content = json.loads(file.read_bytes())
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{file} holds no settings of a run: {error}") from None
        names = {field.name for field in fields(RunSettings)}
        if not isinstance(content, Mapping) or content.keys() != names:
            raise ValueError(f"{file} holds no settings of a run of this version of xpnet")
        return RunSettings(**content)


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text

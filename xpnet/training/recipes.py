"""Networks for images and texts by name, with their default training."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from xpnet.device import Device
from xpnet.nets import GPT, DeepConvNet, LanguageModel, LeNet5, MultiLayerNet, Sequential, SimpleConvNet, TwoLayerNet
from xpnet.typing import DTypeLike, NetName, Seed

__all__ = ["RECIPES", "Recipe"]


@dataclass(frozen=True)
class Recipe:
    """A network and its default training.

    Attributes
    ----------
    network : function
        Class or function that builds the network.
    settings : mapping
        Arguments of the network, with their defaults.
    flat : bool
        Whether the network takes images of shape (N, H * W), rather than (N, 1, H, W).
    steps : int
        Number of training steps.
    optimizer : str
        Name of the update rule.
    schedule : str
        Name of the schedule of the learning rate.
    batch_size : int
        Samples per step.
    lr : float, optional
        Learning rate; by default that of the rule.
    length : int, optional
        Bytes of a sample, for a network for texts. None for images.
    """

    network: Callable[..., Sequential]
    settings: Mapping[str, Any] = field(default_factory=dict)
    flat: bool = False
    steps: int = 6_000
    optimizer: str = "adam"
    schedule: str = "cosine"
    batch_size: int = 100
    lr: float | None = None
    length: int | None = None

    def build(
        self,
        sample: tuple[int, ...],
        classes: int,
        settings: Mapping[str, Any],
        *,
        device: Device | str = "cpu",
        dtype: DTypeLike = "float32",
        seed: Seed = None,
    ) -> Sequential:
        """Build the network for samples of this shape. `settings` override the defaults.

        Raises
        ------
        ValueError
            If a setting is unknown.
        """
        if unknown := settings.keys() - self.settings.keys():
            name = self.network.__name__.removeprefix("_")
            raise ValueError(f"{name} has no {' or '.join(sorted(unknown))}; it takes {', '.join(self.settings)}")
        inputs: dict[str, Any] = {"input_size": math.prod(sample)} if self.flat else {"input_dim": sample}
        given = {**self.settings, **settings}
        return self.network(**inputs, output_size=classes, **given, device=device, dtype=dtype, seed=seed)


def _char_lstm(input_dim: tuple[int, ...], output_size: int, hidden_size: int, **given: Any) -> LanguageModel:
    return LanguageModel(output_size, hidden_size, **given)


def _gpt(input_dim: tuple[int, ...], output_size: int, hidden_size: int, **given: Any) -> GPT:
    return GPT(output_size, input_dim[0], hidden_size, **given)


RECIPES: dict[NetName, Recipe] = {
    "two-layer": Recipe(
        TwoLayerNet,
        {"hidden_size": 50, "weight_init_std": 0.01, "activation": "relu"},
        flat=True,
        steps=10_000,
        optimizer="sgd",
        schedule="constant",
    ),
    "mlp": Recipe(
        MultiLayerNet,
        {"hidden_size_list": (100, 100), "weight_init_std": "relu", "activation": "relu"},
        flat=True,
    ),
    "simple-convnet": Recipe(SimpleConvNet, {"hidden_size": 100, "weight_init_std": "he"}),
    "deep-convnet": Recipe(DeepConvNet, {"hidden_size": 50, "weight_init_std": "he"}),
    "lenet5": Recipe(LeNet5, {"weight_init_std": "he"}),
    "char-lstm": Recipe(
        _char_lstm,
        {"hidden_size": 128, "num_layers": 1, "dropout": 0.0, "batch_size": None},
        steps=3_000,
        batch_size=32,
        lr=0.01,
        length=64,
    ),
    "gpt": Recipe(
        _gpt,
        {"hidden_size": 128, "num_layers": 4, "num_heads": 4, "dropout": 0.1},
        steps=3_000,
        batch_size=16,
        length=64,
    ),
}

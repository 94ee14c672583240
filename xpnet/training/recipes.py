"""Networks for images by name, with their default training."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from xpnet.device import Device
from xpnet.nets import DeepConvNet, LeNet5, MultiLayerNet, Sequential, SimpleConvNet, TwoLayerNet
from xpnet.typing import DTypeLike, Seed

__all__ = ["RECIPES", "NetName", "Recipe"]

NetName = Literal["two-layer", "mlp", "simple-convnet", "deep-convnet", "lenet5"]


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
    """

    network: Callable[..., Sequential]
    settings: Mapping[str, Any] = field(default_factory=dict)
    flat: bool = False
    steps: int = 6_000
    optimizer: str = "adam"
    schedule: str = "cosine"

    def build(
        self,
        image: tuple[int, ...],
        classes: int,
        settings: Mapping[str, Any],
        *,
        device: Device | str = "cpu",
        dtype: DTypeLike = "float32",
        seed: Seed = None,
    ) -> Sequential:
        """Build the network for images of this shape. `settings` override the defaults.

        Raises
        ------
        ValueError
            If a setting is unknown.
        """
        if unknown := settings.keys() - self.settings.keys():
            name = self.network.__name__
            raise ValueError(f"{name} has no {' or '.join(sorted(unknown))}; it takes {', '.join(self.settings)}")
        inputs: dict[str, Any] = {"input_size": math.prod(image)} if self.flat else {"input_dim": image}
        given = {**self.settings, **settings}
        return self.network(**inputs, output_size=classes, **given, device=device, dtype=dtype, seed=seed)


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
}

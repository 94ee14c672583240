"""Update rules (section 6.1). Each updates all parameters of a network in place, as one vector."""

import inspect
from typing import Any

from xpnet.optimizers import adaptive, lion, sgd
from xpnet.optimizers.adaptive import *
from xpnet.optimizers.base import Optimizer
from xpnet.optimizers.lion import *
from xpnet.optimizers.schedules import CosineAnnealing, OneCycle, StepLR, Warmup, get_schedule
from xpnet.optimizers.sgd import *
from xpnet.settings import choice

__all__ = [
    "CosineAnnealing",
    "OneCycle",
    "Optimizer",
    "StepLR",
    "Warmup",
    "get_optimizer",
    "get_schedule",
    *sgd.__all__,
    *adaptive.__all__,
    *lion.__all__,
]

OPTIMIZERS: dict[str, type[Optimizer]] = {
    name.lower(): getattr(module, name) for module in (sgd, adaptive, lion) for name in module.__all__
}
"""The update rules by the names that `get_optimizer` and the command line take."""


def get_optimizer(name: str | Optimizer, **settings: Any) -> Optimizer:
    """Return the optimizer called `name` with the given settings. An optimizer is returned unchanged.

    Parameters
    ----------
    name : str or Optimizer
        A key of `OPTIMIZERS`, in upper or lower case, or an optimizer.
    **settings
        Keyword arguments of its class.

    Raises
    ------
    ValueError
        If the name or a setting is unknown, or an optimizer is given with settings.
    """
    if isinstance(name, Optimizer):
        if settings:
            raise ValueError("settings go with an optimizer's name; set them on the optimizer itself")
        return name
    cls = OPTIMIZERS[choice("optimizer", name.lower() if isinstance(name, str) else name, OPTIMIZERS)]
    known = {**inspect.signature(cls).parameters, **inspect.signature(Optimizer).parameters}
    known.pop("clipping", None)
    unknown = ", ".join(repr(setting) for setting in settings if setting not in known)
    if unknown:
        raise ValueError(f"optimizer {name!r} has no {unknown}; its settings are {', '.join(known)}")
    return cls(**settings)

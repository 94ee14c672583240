"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

from xpnet.cli.completion import complete_data, complete_device, complete_run, complete_std
from xpnet.console import Output
from xpnet.device import Device
from xpnet.layers.registry import ACTIVATIONS
from xpnet.optimizers import OPTIMIZERS
from xpnet.typing import NetName

RunArgument = Annotated[
    Path,
    typer.Argument(metavar="RUN", help="Folder of the run.", show_default=False, autocompletion=complete_run),
]
DeviceOption = Annotated[
    str,
    typer.Option(
        "--device", help="cpu, cuda, cuda:N, or auto: cuda if available, else cpu.", autocompletion=complete_device
    ),
]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Seed of the initial weights and the minibatches.")]
DtypeOption = Annotated[
    Literal["float32", "float64"], typer.Option("--dtype", help="Dtype of parameters and computation.")
]
NetOption = Annotated[NetName, typer.Option("--net", help="The network.")]
HiddenOption = Annotated[
    int | None,
    typer.Option(
        "--hidden-size",
        min=1,
        help="Units of the hidden layer; by default 100 for simple-convnet, else 50; 128 for char-lstm and gpt; "
        "not for mlp or lenet5.",
    ),
]
if TYPE_CHECKING:
    ActivationName: TypeAlias = str
    OptimizerName: TypeAlias = str
else:  # declared names, offered as choices by Typer
    ActivationName, OptimizerName = Literal[*ACTIVATIONS], Literal[*OPTIMIZERS]
ActivationOption = Annotated[
    ActivationName | None,
    typer.Option("--activation", help="Activation of the hidden layers of two-layer or mlp; by default relu."),
]
StdOption = Annotated[
    str | None,
    typer.Option(
        "--weight-init-std",
        metavar="STD",
        help="Standard deviation, or he (relu), xavier (sigmoid) ...; by default 0.01 for two-layer, else he.",
        autocompletion=complete_std,
    ),
]
DataOption = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="SOURCE",
        help="Data set: mnist (the default), fashion-mnist, kmnist, a folder of IDX files or of pictures (a subfolder "
        "per class), or an .npz or .csv file. For char-lstm and gpt: any file, read as bytes, or alice (the default).",
        autocompletion=complete_data,
    ),
]


def device_of(name: str, console: Output) -> Device:
    """Return the device of an option; for ``auto``, print the choice."""
    device = Device(name)
    if device.note:
        console.print(f"computing on {device} ({device.note})")
    return device

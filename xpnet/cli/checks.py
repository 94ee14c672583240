"""``xpnet gradcheck``, ``graph`` and ``info``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

import xpnet
from xpnet.cli.options import (
    ActivationOption,
    DataOption,
    DeviceOption,
    HiddenOption,
    NetOption,
    SeedOption,
    StdOption,
    device_of,
)
from xpnet.console import Output
from xpnet.device import Device
from xpnet.files import written_atomically

__all__ = ["gradcheck", "graph", "info"]


def gradcheck(
    device: DeviceOption = "cpu",
    method: Annotated[
        Literal["batched", "loop", "directional"],
        typer.Option(help="Every coordinate, in batches or one by one; or random directions."),
    ] = "batched",
    samples: Annotated[int, typer.Option(min=1, help="Number of images, from the first.")] = 3,
    directions: Annotated[int, typer.Option(min=1, help="Random directions of each parameter.")] = 8,
    net: NetOption = "two-layer",
    hidden_size: HiddenOption = None,
    activation: ActivationOption = None,
    weight_init_std: StdOption = None,
    seed: SeedOption = 0,
    data: DataOption = None,
) -> int:
    """Check backpropagation against numerical gradients; time both.

    The numerical gradients are central differences in float64, at every parameter or, for large networks, along
    random directions. The exit status is 1 if any gradient is wrong.
    """
    from xpnet.gradient import gradient_check
    from xpnet.training.run_settings import RunSettings

    console = Output()
    chosen = device_of(device, console)
    settings = RunSettings.of(
        net, hidden_size=hidden_size, activation=activation, weight_init_std=weight_init_std, dtype="float64", data=data
    )
    dataset = settings.load_data()
    x, t = settings.shaped(dataset.x_train), dataset.t_train
    if samples > len(x):
        raise ValueError(f"--samples must be at most {len(x):,}, the number of images, got {samples:,}")
    network = settings.build_network(dataset, chosen, chosen.rng(seed))
    console.print(f"{network.params.size:,} parameters, {samples} images, on {chosen}\n")
    x, t = chosen.asarray(x[:samples]), chosen.asarray(t[:samples])
    report = gradient_check(network, x, t, method=method, samples=directions, seed=seed)
    console.print(str(report))
    return 0 if report.ok else 1


def graph(
    example: Annotated[
        Literal["apple", "apple-orange", "sigmoid", "softmax", "two-layer", "lstm"],
        typer.Argument(help="One of the book's graphs, or two steps of an LSTM.", show_default=False),
    ],
    device: DeviceOption = "cpu",
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Page (.html) or picture (.svg) to write; by default EXAMPLE.html."),
    ] = None,
) -> int:
    """Draw a computational graph: values forward, gradients backward.

    The page steps through both passes, shows every node's local rule, and recomputes both passes when an input is
    edited.
    """
    from xpnet.examples import build
    from xpnet.graph.labels import number_text

    out = out or Path(f"{example}.html")
    if out.suffix not in (".svg", ".html"):
        raise ValueError(f"--out must end in .svg, for a picture, or .html, for a page, got {str(out)!r}")
    console = Output()
    drawn = build(example, device_of(device, console))
    text = drawn.to_svg() if out.suffix == ".svg" else drawn.to_html()
    with written_atomically(out) as file:
        file.write(text.encode("utf-8"))
    result = number_text(float(drawn.output.value))
    console.print(f"{out} written: {drawn.names[drawn.output]} = {result}, with derivatives")
    return 0


def info(device: DeviceOption = "auto") -> int:
    """Show devices, versions and extras.

    The output includes NumPy's BLAS, its threads, and the purpose of each extra.
    """
    from xpnet import environment

    console = Output()
    chosen = Device(device)
    facts = environment.describe()
    threads = facts["threads"]
    cores = f"{facts['cores']} cores"
    lines = {
        "xpnet": f"{facts['xpnet']} in {Path(xpnet.__file__).parent}",
        "python": f"{facts['python']} on {facts['platform']}",
        "numpy": facts["numpy"],
        "blas": f"{facts['blas']}, {threads} threads on {cores}" if threads else f"{facts['blas']}, {cores}",
    }
    console.print_pairs(lines)
    console.print("\ndevices")
    console.print_pairs(dict(environment.describe_devices()), indent=2)
    console.print(f"  --device {device} computes on {chosen}")
    console.print("\nextras")
    console.print_pairs(
        {e.name: f"{'installed' if e.installed else 'missing  '}  {e.adds}" for e in environment.EXTRAS},
        indent=2,
    )
    return 0

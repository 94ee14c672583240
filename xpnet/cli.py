"""The ``xpnet`` command line: it parses, calls the library, and prints."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import numpy as np
import typer

import xpnet
from xpnet import environment
from xpnet.console import Output, escape_characters, fail, lost_output
from xpnet.datasets import load_mnist
from xpnet.device import Device
from xpnet.examples import build as build_example
from xpnet.extras import import_extra
from xpnet.files import written_atomically
from xpnet.gradient import gradient_check
from xpnet.graph.labels import number_text
from xpnet.interrupts import Ended, EndingSignals, HeldInterrupts
from xpnet.kernels import Backend
from xpnet.layers.registry import ACTIVATIONS
from xpnet.nets import Sequential
from xpnet.optimizers import OPTIMIZERS, get_optimizer, get_schedule
from xpnet.progress import ShowProgress, progress_bar, summary
from xpnet.training import Trainer
from xpnet.training.recipes import RECIPES, NetName, Recipe
from xpnet.training.run_folder import create_run_folder, save_run

__all__ = ["app", "run"]

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
)

INTERRUPTED = 130
"""Exit status that Typer returns for a KeyboardInterrupt (Ctrl-C)."""

DeviceOption = Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:N, or auto: cuda if available, else cpu.")]
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
        help="Units of the hidden layer; by default 100 for simple-convnet, else 50; not for mlp or lenet5.",
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
    ),
]
DataOption = Annotated[
    Path | None, typer.Option("--data", metavar="DIR", help="Folder with data in MNIST's format, instead of MNIST.")
]


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"xpnet {xpnet.__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Neural networks on NumPy or CuPy: train, check and time them by one flag."""


@app.command()
def train(
    net: NetOption = "two-layer",
    device: DeviceOption = "cpu",
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Training steps; by default 10,000 for two-layer, else 6,000."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Samples per step.")] = 100,
    optimizer: Annotated[
        OptimizerName | None,
        typer.Option(help="The update rule; by default sgd for two-layer, else adam."),
    ] = None,
    lr: Annotated[
        float | None, typer.Option(help="Learning rate; by default 0.1 for sgd, else the rule's own default.")
    ] = None,
    momentum: Annotated[float | None, typer.Option(help="By default 0 for sgd, 0.9 for momentum and nesterov.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Weight decay; by default 0.01 for adamw, else 0.")] = None,
    schedule: Annotated[
        Literal["constant", "step", "cosine", "one-cycle"] | None,
        typer.Option(
            help="Learning-rate schedule; step divides the rate by 10 after each third of the run. By default constant "
            "for two-layer, else cosine."
        ),
    ] = None,
    hidden_size: HiddenOption = None,
    activation: ActivationOption = None,
    weight_init_std: StdOption = None,
    dtype: DtypeOption = "float32",
    backend: Annotated[
        Backend | None, typer.Option(help="Backend on the CPU; by default numba if it is installed and faster.")
    ] = None,
    precision: Annotated[
        Literal["float32", "tf32", "float16"],
        typer.Option(
            help="Precision of a float32 network's steps: tf32 rounds inputs of matrix products on a CUDA device to "
            "10 bits, float16 runs all layers in float16 (slow on the CPU)."
        ),
    ] = "float32",
    seed: SeedOption = 0,
    data: DataOption = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Parent of the run's folder.")] = Path("runs"),
    plot: Annotated[bool, typer.Option("--plot", help="Also draw the learning curves.")] = False,
    profile: Annotated[bool, typer.Option("--profile", help="Also show the time of each part of a step.")] = False,
) -> int:
    """Train a network on MNIST.

    The default is the book's run: 784-50-10, batches of 100, learning rate 0.1, 10,000 steps. Each epoch prints a line
    of accuracies. Parameters, history and settings are written to a new folder, also after Ctrl-C, SIGTERM
    or SIGHUP.
    """
    settings = dict(sorted(locals().items())) | {"data": data and str(data), "out": str(out)}
    recipe = RECIPES[net]
    built = _given(hidden_size=hidden_size, activation=activation, weight_init_std=_number(weight_init_std))
    steps, rule_name = steps or recipe.steps, optimizer or recipe.optimizer
    if lr is None:
        lr = 0.1 if rule_name == "sgd" else get_optimizer(rule_name).current_lr
    schedule_name = schedule or recipe.schedule
    rule = get_optimizer(
        rule_name,
        lr=get_schedule(schedule_name, lr, steps),
        **_given(momentum=momentum, weight_decay=weight_decay),
    )
    settings |= {
        "steps": steps,
        "optimizer": rule_name,
        "lr": lr,
        "schedule": schedule_name,
        **recipe.settings,
        **built,
    }
    settings |= {name: getattr(rule, name, None) for name in ("momentum", "weight_decay")}
    if plot:
        import_extra("matplotlib.figure", "plot")  # an error now, not after the training
    console = Output()
    chosen = _device(device, console)
    (x_train, t_train), (x_test, t_test) = load_mnist(normalize=False, flatten=recipe.flat, root=data)
    rng = chosen.rng(seed)
    network = _build(recipe, x_train, t_train, t_test, built, chosen, dtype, rng)
    settings["device"] = chosen.name
    progress = progress_bar(console)
    trainer = Trainer(
        network,
        x_train,
        t_train,
        x_test,
        t_test,
        mini_batch_size=batch_size,
        optimizer=rule,
        verbose=False,
        steps=steps,
        seed=rng,
        callbacks=[ShowProgress(progress, steps)],
        backend=backend,
        precision=precision,
    )
    where = f"{chosen}, by Numba" if trainer.backend == "numba" else str(chosen)
    trouble: BaseException | None = None
    with EndingSignals() as signals, contextlib.ExitStack() as undisturbed:
        console.print(f"{_title(network)}, {network.params.size:,} parameters, {dtype} on {where}")
        folder = create_run_folder(out, net)  # an error now, not after the training
        try:
            try:
                with progress:
                    trainer.train()
            except Exception as error:  # whatever it is, what was learned is saved first
                trouble = error
            undisturbed.enter_context(HeldInterrupts())
        except Ended:
            pass  # raised again when all is saved
        files = save_run(folder, trainer, settings, plot=plot)
        report = f"{summary(trainer)}\nwritten to {folder}{os.sep}: {', '.join(files)}"
        try:
            console.print(report)
        except OSError as error:
            fail(f"{error.strerror}: standard output; {report}", 1)
            trouble = typer.Exit(1)
    trouble = signals.ended or trouble
    if trouble is not None:
        raise trouble
    if profile:
        from xpnet.training.profile import profile_step

        result = profile_step(network, trainer.optimizer, trainer.x_train, trainer.t_train, batch_size, precision)
        console.print(f"\n{result}")
    return 0


@app.command()
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
    console = Output()
    chosen = _device(device, console)
    recipe = RECIPES[net]
    built = _given(hidden_size=hidden_size, activation=activation, weight_init_std=_number(weight_init_std))
    (x, t), (_, t_test) = load_mnist(normalize=False, flatten=recipe.flat, root=data)
    if samples > len(x):
        raise ValueError(f"--samples must be at most {len(x):,}, the number of images, got {samples:,}")
    network = _build(recipe, x, t, t_test, built, chosen, "float64", chosen.rng(seed))
    console.print(f"{network.params.size:,} parameters, {samples} images, on {chosen}\n")
    x, t = chosen.asarray(x[:samples]), chosen.asarray(t[:samples])
    report = gradient_check(network, x, t, method=method, samples=directions, seed=seed)
    console.print(str(report))
    return 0 if report.ok else 1


@app.command()
def graph(
    example: Annotated[
        Literal["apple", "apple-orange", "sigmoid", "softmax", "two-layer"],
        typer.Argument(help="One of the book's graphs.", show_default=False),
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
    out = out or Path(f"{example}.html")
    if out.suffix not in (".svg", ".html"):
        raise ValueError(f"--out must end in .svg, for a picture, or .html, for a page, got {str(out)!r}")
    console = Output()
    drawn = build_example(example, _device(device, console))
    text = drawn.to_svg() if out.suffix == ".svg" else drawn.to_html()
    with written_atomically(out) as file:
        file.write(text.encode("utf-8"))
    result = number_text(float(drawn.output.value))
    console.print(f"{out} written: {drawn.names[drawn.output]} = {result}, with derivatives")
    return 0


@app.command()
def info(device: DeviceOption = "auto") -> int:
    """Show devices, versions and extras.

    The output includes NumPy's BLAS, its threads, and the purpose of each extra.
    """
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


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status. Every error is one line on standard error."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    escape_characters()
    status = _run(arguments)
    lost = lost_output()
    return status if lost is None else status or fail(f"{lost.strerror}: standard output", 1)


def _run(arguments: list[str]) -> int:  # noqa: PLR0911 - one per kind of error
    try:
        status = int(app(arguments or ["--help"], prog_name="xpnet", standalone_mode=False) or 0)
        return fail("interrupted", status) if status == INTERRUPTED else status
    except Ended as ended:
        return fail(str(ended), 128 + ended.number)
    except SystemExit:  # Typer's, if the reader of the output is gone, as in `xpnet info | head -1`
        return 1
    except typer.TyperException as error:  # a usage error, or a value that an option does not take
        return fail(error.format_message(), 2)
    except typer.Abort:
        return fail("aborted", 1)
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        return fail(f"{error.strerror or error}{where}", 1)
    except ImportError as error:
        return fail(str(error), 1)
    except (ValueError, FloatingPointError, xpnet.DeviceError) as error:
        return fail(str(error), 1)
    except MemoryError as error:
        return fail(f"out of memory: {error}", 1)
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{place.filename}:{place.lineno}"
        return fail(f"unexpected {type(error).__name__} at {where}: {error}; please report this", 1)


def _device(name: str, console: Output) -> Device:
    device = Device(name)
    if device.note:
        console.print(f"computing on {device} ({device.note})")
    return device


def _build(
    recipe: Recipe,
    x: np.ndarray,
    t: np.ndarray,
    t_test: np.ndarray,
    settings: dict[str, Any],
    device: Device,
    dtype: str,
    rng: np.random.Generator,
) -> Sequential:
    classes = int(max(t.max(), t_test.max())) + 1
    return recipe.build(x.shape[1:], classes, settings, device=device, dtype=dtype, seed=rng)


def _given(**options: Any) -> dict[str, Any]:
    """Return the options that were given."""
    return {name: value for name, value in options.items() if value is not None}


def _number(text: str | None) -> float | str | None:
    try:
        return text and float(text)
    except ValueError:
        return text


def _title(network: Sequential) -> str:
    """Name a network: a row of affine layers by its sizes, others by their class."""
    matrices = [values.shape for values in network.params.values() if values.ndim > 1]
    if any(len(shape) > 2 for shape in matrices):
        return type(network).__name__
    return f"{'-'.join(str(n) for n in (*(shape[0] for shape in matrices), matrices[-1][1]))} network"

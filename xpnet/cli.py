"""The ``xpnet`` command line: it parses, calls the library, and prints."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

import xpnet
from xpnet import environment
from xpnet.console import Output, escape_characters, fail, lost_output, plain_warnings
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
from xpnet.optimizers import OPTIMIZERS
from xpnet.progress import ShowProgress, progress_bar, summary
from xpnet.training import Checkpoint, Trainer
from xpnet.training.recipes import NetName
from xpnet.training.run_folder import CHECKPOINT, create_run_folder, only_process, save_run, start_run
from xpnet.training.run_settings import RunSettings
from xpnet.training.sampling import Sampling

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
    context: typer.Context,
    net: NetOption = "two-layer",
    device: DeviceOption = "cpu",
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Training steps; by default 10,000 for two-layer, else 6,000."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Samples per step.")] = 100,
    sampling: Annotated[
        Sampling,
        typer.Option(help="random draws with replacement, shuffled visits each sample once an epoch."),
    ] = "random",
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
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN", help="Go on with the run in this folder, with its settings. Only --device may be changed."
        ),
    ] = None,
    checkpoint_seconds: Annotated[
        float | None,
        typer.Option(min=0.1, help="Time between two checkpoints; by default they take less than 1% of the run."),
    ] = None,
    checkpoint_steps: Annotated[int | None, typer.Option(min=1, help="Steps between two checkpoints.")] = None,
) -> int:
    """Train a network on MNIST.

    The default is the book's run: 784-50-10, batches of 100, learning rate 0.1, 10,000 steps. Each epoch prints a line
    of accuracies. Parameters, history and settings are written to a new folder, also after Ctrl-C, SIGTERM or SIGHUP.
    A run that was ended or killed goes on with --resume.
    """
    options = locals()
    options = {field.name: options[field.name] for field in fields(RunSettings)} | {"data": data and str(data)}
    settings = RunSettings.of(**options) if resume is None else _settings_of(resume, context, device)
    if plot:
        import_extra("matplotlib.figure", "plot")  # an error now, not after the training
    console = Output()
    chosen = _device(settings.device, console)
    settings = replace(settings, device=chosen.name)
    progress = progress_bar(console)
    trainer = settings.build_trainer(chosen, [ShowProgress(progress, settings.steps)])
    trouble: BaseException | None = None
    with EndingSignals() as signals, contextlib.ExitStack() as undisturbed:
        console.print(_title(trainer))
        folder = resume or create_run_folder(out, settings)  # an error now, not after the training
        undisturbed.enter_context(only_process(folder))
        if start_run(trainer, Checkpoint(folder / CHECKPOINT, checkpoint_seconds, checkpoint_steps)):
            console.print(f"going on from step {trainer.current_iter:,}")
        try:
            try:
                with progress:
                    trainer.train()
            except Exception as error:  # noqa: BLE001 - whatever it is, what was learned is saved first
                trouble = error
            undisturbed.enter_context(HeldInterrupts())
        except Ended:
            pass  # raised again when all is saved
        files = save_run(folder, trainer, settings.described(), plot=plot)
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

        x, t = trainer.sets["train"]
        result = profile_step(trainer.network, trainer.optimizer, x, t, settings.batch_size, settings.precision)
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
    settings = RunSettings.of(
        net, hidden_size=hidden_size, activation=activation, weight_init_std=weight_init_std, dtype="float64"
    )
    (x, t), (_, t_test) = load_mnist(normalize=False, flatten=settings.recipe.flat, root=data)
    if samples > len(x):
        raise ValueError(f"--samples must be at most {len(x):,}, the number of images, got {samples:,}")
    network = settings.build_network(x, (t, t_test), chosen, chosen.rng(seed))
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
    plain_warnings()
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
    except Exception as error:  # noqa: BLE001 - a fault of xpnet, in one line
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{place.filename}:{place.lineno}"
        return fail(f"unexpected {type(error).__name__} at {where}: {error}; please report this", 1)


def _device(name: str, console: Output) -> Device:
    device = Device(name)
    if device.note:
        console.print(f"computing on {device} ({device.note})")
    return device


def _settings_of(run: Path, context: typer.Context, device: str) -> RunSettings:
    """Return the settings of a run that goes on, on the device that was given, if any."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    given = {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}
    others = given - {"resume", "device", "plot", "profile", "checkpoint_seconds", "checkpoint_steps"}
    if others:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(others))
        raise ValueError(f"--resume takes the settings from {run}; leave out {names}")
    settings = RunSettings.load(run)
    return replace(settings, device=device) if "device" in given else settings


def _title(trainer: Trainer) -> str:
    """Name a trainer's network, a row of affine layers by its sizes and others by their class, and where it is."""
    network = trainer.network
    matrices = [values.shape for values in network.params.values() if values.ndim > 1]
    name = type(network).__name__
    if all(len(shape) == 2 for shape in matrices):
        name = f"{'-'.join(str(n) for n in (*(shape[0] for shape in matrices), matrices[-1][1]))} network"
    where = f"{network.device}, by Numba" if trainer.backend == "numba" else str(network.device)
    return f"{name}, {network.params.size:,} parameters, {network.dtype} on {where}"

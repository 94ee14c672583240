"""``xpnet train``: its options, and the settings of a run that they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from xpnet.cli.completion import RUNS, complete_run
from xpnet.cli.options import (
    ActivationOption,
    DataOption,
    DeviceOption,
    DtypeOption,
    HiddenOption,
    NetOption,
    OptimizerName,
    SeedOption,
    StdOption,
)
from xpnet.kernels import Backend
from xpnet.typing import Sampling

if TYPE_CHECKING:
    from xpnet.training.run_settings import RunSettings

__all__ = ["train"]

FREE = ("device", "threads", "microbatch")
"""Settings that a run that goes on may change: they change its results to rounding at most."""


def train(
    context: typer.Context,
    net: NetOption = "two-layer",
    device: DeviceOption = "cpu",
    steps: Annotated[
        int | None,
        typer.Option(
            min=1, help="Training steps; by default 10,000 for two-layer, 3,000 for char-lstm and gpt, else 6,000."
        ),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Samples per step; by default 32 for char-lstm, 16 for gpt, else 100.")
    ] = None,
    sampling: Annotated[
        Sampling,
        typer.Option(
            help="random draws with replacement, shuffled visits each sample once an epoch, in-order goes "
            "through a text from step to step, and char-lstm then keeps its state."
        ),
    ] = "random",
    optimizer: Annotated[
        OptimizerName | None,
        typer.Option(help="The update rule; by default sgd for two-layer, else adam."),
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option(help="Learning rate; by default 0.1 for sgd, 0.01 for char-lstm, else the rule's own default."),
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
    threads: Annotated[
        int | None, typer.Option(min=1, help="Largest number of threads on the CPU; by default that of NumPy's BLAS.")
    ] = None,
    microbatch: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Samples that are computed at a time, to save memory: their gradients add up to that of the batch.",
        ),
    ] = None,
    parallel: Annotated[
        Literal["mpi", "nccl"] | None,
        typer.Option(help="Share minibatches with the other processes of mpiexec: by MPI, or by NCCL between GPUs."),
    ] = None,
    compression: Annotated[
        Literal["float16"] | None, typer.Option(help="Gradients travel in float16, with --parallel mpi.")
    ] = None,
    seed: SeedOption = 0,
    data: DataOption = None,
    label: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Name or number of the column of labels, for a .csv file."),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Parent of the run's folder.")] = RUNS,
    plot: Annotated[bool, typer.Option("--plot", help="Also draw the learning curves.")] = False,
    profile: Annotated[bool, typer.Option("--profile", help="Also show the time of each part of a step.")] = False,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="Go on with the run in this folder, with its settings, save --device, --threads, --microbatch and "
            "--parallel.",
            autocompletion=complete_run,
        ),
    ] = None,
    checkpoint_seconds: Annotated[
        float | None,
        typer.Option(min=0.1, help="Time between two checkpoints; by default they take less than 1% of the run."),
    ] = None,
    checkpoint_steps: Annotated[int | None, typer.Option(min=1, help="Steps between two checkpoints.")] = None,
) -> int:
    """Train a network on MNIST, or with --net char-lstm or gpt on a text.

    The default is the book's run: 784-50-10, batches of 100, learning rate 0.1, 10,000 steps. Each epoch prints a line
    of accuracies, and for a text perplexities and a sample. Parameters, history and settings are written to a new
    folder, also after Ctrl-C, SIGTERM or SIGHUP.
    A run that was ended or killed goes on with --resume.
    """
    options = locals()

    from xpnet.cli.training_run import run_training
    from xpnet.training.run_settings import RunSettings

    options = {field.name: options[field.name] for field in fields(RunSettings)}
    settings = RunSettings.of(**options) if resume is None else _settings_of(resume, context, options)
    return run_training(
        settings,
        out,
        resume,
        plot=plot,
        profile=profile,
        parallel=parallel,
        compression=compression,
        checkpoint_seconds=checkpoint_seconds,
        checkpoint_steps=checkpoint_steps,
    )


def _settings_of(run: Path, context: typer.Context, options: Mapping[str, Any]) -> RunSettings:
    """Return the settings of a run that goes on. Options in `FREE` are changed if they were given."""
    from xpnet.training.run_settings import RunSettings

    sources = {name: context.get_parameter_source(name) for name in context.params}
    given = {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}
    of_this_process = {"parallel", "compression", "plot", "profile", "checkpoint_seconds", "checkpoint_steps"}
    others = given - {*FREE, *of_this_process, "resume"}
    if others:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(others))
        raise ValueError(f"--resume takes the settings from {run}; leave out {names}")
    return replace(RunSettings.load(run), **{name: options[name] for name in FREE if name in given})

"""``xpnet train``."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.progress import Progress

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
    device_of,
)
from xpnet.console import Output, fail
from xpnet.extras import import_extra
from xpnet.interrupts import Ended, EndingSignals, HeldInterrupts
from xpnet.kernels import Backend
from xpnet.parallel import communicator, device_name, ending_all
from xpnet.progress import ShowProgress, ShowSample, progress_bar, summary
from xpnet.training import Callback, Checkpoint, Trainer
from xpnet.training.run_folder import CHECKPOINT, create_run_folder, only_process, save_run, start_run
from xpnet.training.run_settings import RunSettings
from xpnet.training.sampling import Sampling

__all__ = ["train"]

SHARED = (FloatingPointError, typer.Exit)
"""Errors of a run after which rank 0 saves before any rank ends: all have the first, rank 0 reports the second."""

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
    out: Annotated[Path, typer.Option(metavar="DIR", help="Parent of the run's folder.")] = Path("runs"),
    plot: Annotated[bool, typer.Option("--plot", help="Also draw the learning curves.")] = False,
    profile: Annotated[bool, typer.Option("--profile", help="Also show the time of each part of a step.")] = False,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="Go on with the run in this folder, with its settings, save --device, --threads, --microbatch and "
            "--parallel.",
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
    options = {field.name: options[field.name] for field in fields(RunSettings)}
    settings = RunSettings.of(**options) if resume is None else _settings_of(resume, context, options)
    if plot:
        import_extra("matplotlib.figure", "plot")  # an error now, not after the training
    ranks = communicator(parallel or "local", compression)
    leads = ranks.rank == 0
    console = Output()
    console.quiet = not leads
    trouble: BaseException | None = None
    with EndingSignals() as signals, ending_all(ranks), contextlib.ExitStack() as undisturbed:
        chosen = device_of(device_name(settings.device, ranks), console)
        settings = replace(settings, device=chosen.name)
        progress = progress_bar(console)
        dataset = settings.load_data()
        trainer = settings.build_trainer(dataset, chosen, _shown(progress, settings), ranks)
        console.print(_title(trainer, ranks.size))
        if leads:
            folder = resume or create_run_folder(out, settings)  # an error now, not after the training
            undisturbed.enter_context(only_process(folder))
            if start_run(trainer, Checkpoint(folder / CHECKPOINT, checkpoint_seconds, checkpoint_steps)):
                console.print(f"going on from step {trainer.current_iter:,}")
            if ranks.size > 1:  # now: after Ctrl-C, mpiexec drops what its processes print
                console.print(f"Ctrl-C ends all ranks; go on with: xpnet train --parallel {parallel} --resume {folder}")
        try:
            try:
                with progress:
                    trainer.train()
            except Exception as error:  # noqa: BLE001 - whatever it is, what was learned is saved first
                trouble = error
            undisturbed.enter_context(HeldInterrupts())
        except Ended:
            pass  # raised again when all is saved
        if leads:
            files = save_run(folder, trainer, settings.described(), dataset, plot=plot)
            report = f"{summary(trainer)}\nwritten to {folder}{os.sep}: {', '.join(files)}"
            try:
                console.print(report)
            except OSError as error:
                fail(f"{error.strerror}: standard output; {report}", 1)
                trouble = typer.Exit(1)
        if trouble is not None and not isinstance(trouble, SHARED):
            raise trouble
        ranks.gather(None)  # the first process that ends with an error ends all: rank 0 has saved before
    trouble = signals.ended or trouble
    if trouble is not None:
        raise trouble
    if profile and leads:
        _print_profile(trainer, settings, console)
    return 0


def _shown(progress: Progress, settings: RunSettings) -> list[Callback]:
    """Return the callbacks that print: progress and evaluations, and of a language model a sample."""
    sample = [] if settings.recipe.length is None else [ShowSample(progress.console)]
    return [ShowProgress(progress, settings.steps), *sample]


def _settings_of(run: Path, context: typer.Context, options: Mapping[str, Any]) -> RunSettings:
    """Return the settings of a run that goes on. Options in `FREE` are changed if they were given."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    given = {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}
    of_this_process = {"parallel", "compression", "plot", "profile", "checkpoint_seconds", "checkpoint_steps"}
    others = given - {*FREE, *of_this_process, "resume"}
    if others:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(others))
        raise ValueError(f"--resume takes the settings from {run}; leave out {names}")
    return replace(RunSettings.load(run), **{name: options[name] for name in FREE if name in given})


def _print_profile(trainer: Trainer, settings: RunSettings, console: Output) -> None:
    from xpnet.training.profile import profile_step

    x, t = trainer.sets["train"]
    result = profile_step(trainer.network, trainer.optimizer, x, t, settings.batch_size, settings.precision)
    console.print(f"\n{result}")


def _title(trainer: Trainer, processes: int) -> str:
    """Name a trainer's network, a row of affine layers by its sizes and others by their class, and where it is."""
    network = trainer.network
    matrices = [values.shape for values in network.params.values() if values.ndim > 1]
    name = type(network).__name__
    if all(len(shape) == 2 for shape in matrices):
        name = f"{'-'.join(str(n) for n in (*(shape[0] for shape in matrices), matrices[-1][1]))} network"
    where = f"{network.device}, by Numba" if trainer.backend == "numba" else str(network.device)
    by = f", {processes} processes" if processes > 1 else ""
    return f"{name}, {network.params.size:,} parameters, {network.dtype} on {where}{by}"

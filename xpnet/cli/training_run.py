"""The run of ``xpnet train``: however it ends, what it has learned is saved."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Literal

import typer
from rich.progress import Progress

from xpnet.cli.options import device_of
from xpnet.console import Output, fail
from xpnet.extras import import_extra
from xpnet.interrupts import Ended, EndingSignals, HeldInterrupts
from xpnet.parallel import communicator, device_name, ending_all
from xpnet.progress import ShowProgress, ShowSample, progress_bar, summary
from xpnet.training import Callback, Checkpoint, Trainer
from xpnet.training.run_folder import CHECKPOINT, create_run_folder, only_process, save_run, start_run
from xpnet.training.run_settings import RunSettings

__all__ = ["run_training"]

SHARED = (FloatingPointError, typer.Exit)
"""Errors of a run after which rank 0 saves before any rank ends: all have the first, rank 0 reports the second."""


def run_training(
    settings: RunSettings,
    out: Path,
    resume: Path | None,
    *,
    plot: bool,
    profile: bool,
    parallel: Literal["mpi", "nccl"] | None,
    compression: Literal["float16"] | None,
    checkpoint_seconds: float | None,
    checkpoint_steps: int | None,
) -> int:
    """Train with these settings in a new folder of `out`, or go on in `resume`. Return the exit status."""
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

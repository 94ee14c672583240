"""``xpnet predict``, ``evaluate``, ``report``, ``export`` and ``runs``: what a run has learned."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from xpnet.cli.completion import RUNS, complete_data, complete_run
from xpnet.cli.options import DeviceOption, RunArgument, device_of
from xpnet.console import Output

__all__ = ["evaluate", "export", "predict", "report", "runs"]


def predict(
    run: RunArgument,
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...", help="Pictures (PNG, JPEG ...), IDX, .npy or .csv files.", show_default=False
        ),
    ],
    top_k: Annotated[int, typer.Option("--top-k", min=1, help="Number of classes to show for each sample.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: a list with an object for each sample.")] = False,
    invert: Annotated[
        Literal["auto", "yes", "no"],
        typer.Option(help="Whether dark becomes light; auto inverts a light picture, if the run's are dark."),
    ] = "auto",
    center: Annotated[
        bool | None,
        typer.Option(
            "--center/--no-center",
            help="Crop and center a digit in a picture as in MNIST; by default for runs on MNIST.",
            show_default=False,
        ),
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write a picture of what the network sees (PNG).")
    ] = None,
    device: DeviceOption = "cpu",
) -> int:
    """Predict the classes of samples by the network of a run.

    Pictures are made gray or RGB, resized, and inverted as the run's data are.
    """
    import numpy as np

    from xpnet.datasets import read_samples
    from xpnet.datasets.images import write_images
    from xpnet.training.runs import Run

    if picture is not None and picture.suffix.lower() != ".png":
        raise ValueError(f"--picture must end in .png, got {str(picture)!r}")
    trained, console = Run.read(run), Output()
    net = trained.network_on(device_of(device, console))
    if net.is_language_model:
        raise ValueError(f"{run} is a run of a language model, which has no classes; see xpnet generate")
    sample = trained.sample_shape
    options: dict[str, Any] = {}
    if len(sample) == 3:
        is_digit = trained.settings.source == "mnist" if center is None else center
        inverted = {"auto": False if trained.has_light_images else "auto", "yes": True, "no": False}[invert]
        options = {"size": sample[1:], "channels": sample[0], "invert": inverted, "center_digit": is_digit}
    names = trained.classes or ()
    samples = {str(file): trained.shaped(read_samples(file, **options), str(file)) for file in files}
    found = []
    for file, x in samples.items():
        probabilities = trained.probabilities(net, x)
        best = np.argsort(-probabilities, axis=1, kind="stable")[:, :top_k]
        for i, (row, order) in enumerate(zip(probabilities, best, strict=True)):
            top = [{"label": names[k], "probability": round(float(row[k]), 6)} for k in order]
            found.append({"file": file, "index": i, **top[0], "top": top})
    if picture is not None:
        if len(sample) != 3:
            raise ValueError(f"--picture is for images, but a sample of {run} has the shape {sample}")
        write_images(picture, np.concatenate([x.reshape(len(x), *sample) for x in samples.values()]))
    if as_json:
        console.print(json.dumps(found, indent=1))
        return 0
    for entry in found:
        many = len(samples[entry["file"]]) > 1
        where = f"{entry['file']}[{entry['index']}]" if many else entry["file"]
        console.print(f"{where}: " + ", ".join(f"{c['label']} {c['probability']:.4f}" for c in entry["top"]))
    return 0


def evaluate(
    run: RunArgument,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="SOURCE",
            help="Data set, as for train; by default the run's own.",
            show_default=False,
            autocompletion=complete_data,
        ),
    ] = None,
    device: DeviceOption = "cpu",
) -> int:
    """Evaluate the network of a run on a data set: on its test set, or without one on all samples."""
    from xpnet.training.runs import Run

    trained, console = Run.read(run), Output()
    net = trained.network_on(device_of(device, console))
    dataset = trained.dataset(data)
    part = "training" if dataset.x_test is None else "test"
    x, t = (dataset.x_train, dataset.t_train) if dataset.x_test is None else (dataset.x_test, dataset.t_test)
    source = trained.settings.source if data is None else data
    metrics = net.evaluate(trained.shaped(x, source), t)
    shown = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
    console.print(f"{shown} on the {len(x):,} {part} samples of {source}")
    return 0


def export(
    run: RunArgument,
    onnx: Annotated[Path, typer.Option("--onnx", metavar="FILE", help="The ONNX file to write.", show_default=False)],
) -> int:
    """Write the network of a run as an ONNX file, for ONNX Runtime and others.

    The file takes any number of samples as x, pixels divided by 255 or the bytes of texts, and gives scores and
    probabilities.
    """
    from xpnet.interop.onnx import export as export_onnx
    from xpnet.training.runs import Run

    trained, console = Run.read(run), Output()
    net = trained.network
    shape: tuple[int | str, ...] = ("T",)  # a language model reads any number of ids
    if not net.is_language_model:
        sample = trained.sample_shape
        shape = (math.prod(sample),) if trained.settings.recipe.flat else sample
    export_onnx(net, onnx, input_shape=shape, class_names=trained.classes)
    console.print(f"{onnx} written: input x (N, {', '.join(map(str, shape))}), outputs scores and probabilities")
    return 0


def report(run: RunArgument) -> int:
    """Write a page about a run into its folder: curves, confusion matrix, wrong images, weights, settings.

    The page, report.html, needs only a browser. Matplotlib draws it, and scikit-learn computes precision and recall.
    """
    from xpnet.report import write_report

    console = Output()
    console.print(f"{write_report(run)} written")
    return 0


def runs(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[RUN...]",
            help="Runs to compare; by default all are listed.",
            show_default=False,
            autocompletion=complete_run,
        ),
    ] = None,
    root: Annotated[Path, typer.Option("--in", metavar="DIR", help="Parent of the runs' folders.")] = RUNS,
) -> int:
    """List the runs in a folder, or compare some: which settings and results differ."""
    from xpnet.training.runs import Run, compare_runs, find_runs, list_runs

    console = Output()
    if folders:
        console.print(compare_runs([Run.read(folder) for folder in folders]))
        return 0
    if root.exists() and not root.is_dir():
        raise ValueError(f"--in must be a folder of runs, got {str(root)!r}")
    found = find_runs(root)
    console.print(list_runs(found) if found else f"no runs in {root}; xpnet train starts one")
    return 0

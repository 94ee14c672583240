"""Where xpnet is faster than its peers and where not: a map of the training step over width and batch.

The step is that of a perceptron 784-W-10 in float32 by gradient descent, on the CPU, and on a CUDA device where there
is one. In each cell of the map, the parties take turns (`contest.Contest`), after their parameters have been compared.
The result has medians and quartiles; the picture says who is fastest, and by what ratio.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import threads

PARTIES = ("xpnet", "xpnet, Numba", "PyTorch eager", "PyTorch CUDA graph", "JAX jit", "JAX scanned")

WIDTHS = (16, 64, 256, 1024, 2048)

BATCHES = (1, 4, 16, 64, 256, 1024)

CALL = 1e9
"""Multiplications in a timed call, about: so many steps are taken in it, from 1 to 50."""

ROOT = Path(__file__).parent.parent


def devices() -> list[str]:
    """Return the CPU, and the first CUDA device if there is one."""
    from xpnet import Device

    return list(dict.fromkeys(("cpu", Device("auto").name)))


def measure(device_name: str, width: int, batch: int, rounds: int) -> dict[str, Any]:
    """Hold the contest of one cell."""
    import peers
    from contest import Contest
    from work import Work

    from xpnet import Device

    device = Device(device_name)
    steps = int(np.clip(CALL / (3 * 794 * width * batch), 1, 50))
    work = Work((784, width, 10), batch, "float32", steps=steps).on(device)
    contest = Contest(
        [peers.as_contestant(name, work, functools.partial(peers.enter_steps, name, work, device)) for name in PARTIES],
        rounds,
        work.tolerance,
    )
    quartiles = {}
    for name in PARTIES:
        try:
            quartiles[name] = np.quantile(contest.outcome(name)[0], (0.25, 0.5, 0.75)).tolist()
        except peers.Missing:
            continue  # the versions in the record say who is there
    return {
        "device": device.name,
        "width": width,
        "batch": batch,
        "steps_per_call": work.steps,
        "median_seconds": {name: median for name, (_, median, _) in quartiles.items()},
        "quartiles_seconds": {name: [first, third] for name, (first, _, third) in quartiles.items()},
    }


def measure_all(widths: Sequence[int], batches: Sequence[int], rounds: int) -> Iterator[dict[str, Any]]:
    """Yield all cells, and show each."""
    for device in devices():
        for width in widths:
            for batch in batches:
                cell = measure(device, width, batch, rounds)
                times = ", ".join(f"{name} {taken * 1e6:.0f}" for name, taken in cell["median_seconds"].items())
                print(f"{device}, width {width}, batch {batch}, µs: {times}", file=sys.stderr)
                yield cell


def main() -> None:
    """Measure; write the result and the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="turns of each party in a cell")
    parser.add_argument("--widths", type=int, nargs="+", default=WIDTHS)
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/crossover.json")
    parser.add_argument("--picture", type=Path, default=ROOT / "docs/images/crossover.svg")
    arguments = parser.parse_args()
    threads.pin(threads.available())
    os.environ["CUPY_TF32"] = "0"
    import peers
    from report.crossover_map import draw_map

    from xpnet import Device
    from xpnet.files import written_atomically

    result = {
        "benchmark": "crossover",
        "rounds": arguments.rounds,
        "cells": list(measure_all(arguments.widths, arguments.batches, arguments.rounds)),
        "environment": {name: peers.describe(Device(name)) for name in devices()},
    }
    for file, content in (
        (arguments.out, json.dumps(result, indent=1).encode()),
        (arguments.picture, draw_map(result)),
    ):
        with written_atomically(file) as stream:
            stream.write(content)


if __name__ == "__main__":
    main()

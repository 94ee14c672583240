"""The whole default run, `xpnet train`, against the book's own script, as a user waits for them.

Both train 784-50-10 on MNIST for 10,000 steps of 100 samples and evaluate 17 times on all 70,000 images. Each run is
a process of its own, from start to exit, with its imports and its loading of the data (and for xpnet the writing of
the run folder), with the `numba` extra and without. They take turns, so that a machine that slows down slows all; the
ratio to the book's is taken round by round.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from commands import xpnet_train

from xpnet import Device, environment
from xpnet.files import written_atomically

BOOK = Path(__file__).with_name("book.py")


def timed(command: list[str]) -> tuple[float, str]:
    """Run a command to its end; return the wall time and what it printed."""
    start = time.perf_counter()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return time.perf_counter() - start, done.stdout


def run_xpnet(device: str, steps: int, numba: bool) -> tuple[float, float]:
    """Run `xpnet train`; return its wall time and test accuracy."""
    with tempfile.TemporaryDirectory() as folder:
        seconds, _ = timed(xpnet_train("--device", device, "--steps", str(steps), "--out", folder, numba=numba))
        (report,) = Path(folder).glob("*/run.json")
        return seconds, json.loads(report.read_text())["test_accuracy"]


def run_book(steps: int) -> tuple[float, float]:
    """Run the book's script; return its wall time and test accuracy."""
    seconds, printed = timed([sys.executable, str(BOOK), "--steps", str(steps)])
    return seconds, json.loads(printed)["test_accuracy"]


def main() -> None:
    """Measure, print the comparison, and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", help="of xpnet; the book's script runs on the CPU")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--out", type=Path, help="where to write the figures as JSON")
    arguments = parser.parse_args()

    parties = ["xpnet"]
    if arguments.device == "cpu" and importlib.util.find_spec("numba"):
        parties.append("xpnet_numba")
        run_xpnet("cpu", 1, numba=True)  # Numba compiles once, for all processes to come
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in (*parties, "book")}
    for _ in range(arguments.rounds):
        for name in parties:
            runs[name].append(run_xpnet(arguments.device, arguments.steps, numba=name == "xpnet_numba"))
        runs["book"].append(run_book(arguments.steps))
    figures = {f"{name}_seconds": [seconds for seconds, _ in runs[name]] for name in runs}
    for name in parties:
        pairs = zip(runs[name], runs["book"], strict=True)
        figures[f"{name}_ratio"] = [ours / books for (ours, _), (books, _) in pairs]
    figures |= {f"{name}_test_accuracy": [accuracy for _, accuracy in runs[name]] for name in runs}
    for name, values in figures.items():
        print(f"{name:<25} median {statistics.median(values):8.4f}  ({min(values):.4f} to {max(values):.4f})")
    result = {
        "benchmark": "full run",
        "steps": arguments.steps,
        **figures,
        "environment": environment.describe(Device(arguments.device)),
    }
    if arguments.out:
        with written_atomically(arguments.out) as stream:
            stream.write(json.dumps(result, indent=1).encode())


if __name__ == "__main__":
    main()

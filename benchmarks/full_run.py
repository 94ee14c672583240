"""The whole default run, `xpnet train`, against the book's own script, as a user waits for them.

Both train 784-50-10 on MNIST for 10,000 steps of 100 samples and evaluate 17 times on all 70,000 images. Each run is
a process of its own, from start to exit, with its imports and its loading of the data (and for xpnet the writing of
the run folder). The two take turns, so that a machine that slows down slows both; the ratio is taken pair by pair.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from xpnet import Device, environment
from xpnet.files import written_atomically

BOOK = [sys.executable, str(Path(__file__).with_name("book.py"))]


def seconds(command: list[str]) -> float:
    """Run a command to its end and return the wall time."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def xpnet_run(device: str, steps: int) -> tuple[float, float]:
    """Run `xpnet train`; return its wall time and test accuracy."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["-m", "xpnet", "train", "--device", device, "--steps", str(steps), "--out", folder]
        wall = seconds([sys.executable, *command])
        (report,) = Path(folder).glob("*/run.json")
        return wall, json.loads(report.read_text())["test_accuracy"]


def main() -> None:
    """Measure, print the comparison, and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", help="of xpnet; the book's script runs on the CPU")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--out", type=Path, help="where to write the figures as JSON")
    arguments = parser.parse_args()

    ours, books, accuracies = [], [], []
    for _ in range(arguments.rounds):
        wall, accuracy = xpnet_run(arguments.device, arguments.steps)
        ours.append(wall)
        accuracies.append(accuracy)
        books.append(seconds([*BOOK, "--steps", str(arguments.steps)]))
    ratios = [a / b for a, b in zip(ours, books, strict=True)]
    result = {
        "benchmark": "full run",
        "steps": arguments.steps,
        "xpnet_seconds": ours,
        "book_seconds": books,
        "ratios": ratios,
        "xpnet_test_accuracies": accuracies,
        "environment": environment.describe(Device(arguments.device)),
    }
    for name, values in (("xpnet train", ours), ("the book's script", books), ("ratio", ratios)):
        print(f"{name:<18}  median {statistics.median(values):7.3f}  ({min(values):.3f} to {max(values):.3f})")
    print(f"{'test accuracy':<18}  {statistics.median(accuracies):.4f}")
    if arguments.out:
        with written_atomically(arguments.out) as stream:
            stream.write(json.dumps(result, indent=1).encode())


if __name__ == "__main__":
    main()

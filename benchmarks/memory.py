"""Peak memory of training 784-50-10 on MNIST, of each party in a process of its own.

All take the same steps of 100 samples, and look at their test accuracy at the end. The parties of the benchmarks are
given MNIST in float32; `xpnet train` is what a user types, and keeps the images as bytes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import peers
from commands import xpnet_train
from work import Work

from xpnet import Device, environment
from xpnet.files import written_atomically

WORK = Work((784, 50, 10), batch=100, dtype="float32")

PARTIES = ("xpnet", "xpnet, Numba", "PyTorch eager", "PyTorch compiled", "JAX jit", "JAX scanned", "scikit-learn")

COMMANDS = {"xpnet train": False, "xpnet train, Numba": True}
"""What a user types, as xpnet is installed by default, and with the `numba` extra."""


def train(name: str, steps: int) -> None:
    """Train as a party of the benchmarks does."""
    party = peers.enter(name, WORK, Device("cpu"))
    for start in range(0, steps, 600):
        party.run(WORK.minibatches(min(600, steps - start), start))
    party.accuracy()


def measure(name: str, steps: int) -> float:
    """Return the MiB that a process takes at most."""
    with tempfile.TemporaryDirectory() as folder:
        if name in COMMANDS:
            command = xpnet_train("--steps", str(steps), "--out", folder, numba=COMMANDS[name])
        else:
            command = [sys.executable, __file__, "--party", name, "--steps", str(steps)]
        wrapped = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=2)"
        wrapped += "; print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
        done = subprocess.run([sys.executable, "-c", wrapped, *command], check=True, stdout=subprocess.PIPE, text=True)
    return int(done.stdout) / 2**10


def main() -> None:
    """Measure, print, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--party", choices=PARTIES, help=argparse.SUPPRESS)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--out", type=Path, help="where to write the figures as JSON")
    arguments = parser.parse_args()
    if arguments.party:
        train(arguments.party, arguments.steps)
        return
    figures = {}
    for name in (*COMMANDS, *PARTIES):
        try:
            figures[name] = [measure(name, arguments.steps // 10), measure(name, arguments.steps)]
        except subprocess.CalledProcessError as error:
            print(f"{name:<20} not measured: {error}")
            continue
        print(
            f"{name:<20} {figures[name][0]:7.0f} MiB after a tenth of the steps, {figures[name][1]:7.0f} MiB after all"
        )
    if arguments.out:
        result = {"benchmark": "memory", "unit": "MiB", "steps": arguments.steps, "peak": figures}
        with written_atomically(arguments.out) as stream:
            stream.write(json.dumps({**result, "environment": environment.describe()}, indent=1).encode())


if __name__ == "__main__":
    main()

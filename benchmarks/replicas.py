"""Time of a training step one by one and by replicas on threads, in turns; beside a busy process with ``--busy``.

PyTorch's eager steps are measured as well, if it is installed. Times are medians in milliseconds; the ratio is the
median of the ratios of neighbouring runs.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np

from xpnet.nets import DeepConvNet, LeNet5, Network, Sequential, SimpleConvNet, TwoLayerNet
from xpnet.optimizers import SGD
from xpnet.tables import format_table

SAMPLES, STEPS = 2000, 5

CASES: dict[str, tuple[Callable[[], Network], int]] = {
    "784-50-10": (lambda: TwoLayerNet(784, 50, 10, seed=0), 100),
    "784-1024-1024-10": (lambda: Sequential.mlp([784, 1024, 1024, 10], seed=0), 256),
    "LeNet-5, batch 8": (lambda: LeNet5(seed=0), 8),
    "LeNet-5": (lambda: LeNet5(seed=0), 100),
    "SimpleConvNet": (lambda: SimpleConvNet(seed=0), 100),
    "DeepConvNet": (lambda: DeepConvNet(seed=0), 100),
}


def steps_of(
    build: Callable[[], Network], batch_size: int, backend: str, threads: int
) -> dict[str, Callable[[], object]]:
    """Return functions that take steps: one by one, and by replicas."""
    rng, shape = np.random.default_rng(0), build().input_shape or (784,)
    x, t = rng.random((SAMPLES, *shape), dtype="float32"), rng.integers(0, 10, SAMPLES)
    indices = rng.integers(0, SAMPLES, (STEPS, batch_size))

    def party(shares: int) -> Callable[[], object]:
        step = build().compile(SGD(0.001), batch_size, backend, threads=threads, shares=shares)
        step.runners = step.runners[-1:] if shares == 1 else step.runners[-2:]
        return lambda: step.run(x, t, indices)

    return {"one by one": party(1), "replicas": party(threads)}


def pytorch_steps(batch_size: int) -> Callable[[], object]:
    """Return a function that takes PyTorch's steps of LeNet-5."""
    import torch

    net = torch.nn.Sequential(
        *(torch.nn.Conv2d(1, 6, 5, padding=2), torch.nn.ReLU(), torch.nn.MaxPool2d(2)),
        *(torch.nn.Conv2d(6, 16, 5), torch.nn.ReLU(), torch.nn.MaxPool2d(2), torch.nn.Flatten()),
        *(
            torch.nn.Linear(400, 120),
            torch.nn.ReLU(),
            torch.nn.Linear(120, 84),
            torch.nn.ReLU(),
            torch.nn.Linear(84, 10),
        ),
    )
    rule = torch.optim.SGD(net.parameters(), 0.001)
    x, t = torch.rand(batch_size, 1, 28, 28), torch.randint(0, 10, (batch_size,))

    def take() -> None:
        for _ in range(STEPS):
            rule.zero_grad()
            torch.nn.functional.cross_entropy(net(x), t).backward()
            rule.step()

    return take


@contextlib.contextmanager
def busy_process() -> Iterator[None]:
    """Context with another process that computes without a pause."""
    process = multiprocessing.get_context("spawn").Process(target=compute, daemon=True)
    process.start()
    try:
        yield
    finally:
        process.terminate()
        process.join()


def compute() -> None:
    while True:
        sum(range(10**6))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--busy", action="store_true", help="run another process that computes without a pause")
    parser.add_argument("--backend", choices=("numpy", "numba"), default="numpy")
    parser.add_argument("--threads", type=int, default=2, help="threads and shares")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--cases", nargs="*", choices=CASES, default=[*CASES])
    given = parser.parse_args()
    rows = []
    with busy_process() if given.busy else contextlib.nullcontext():
        for name in given.cases:
            build, batch_size = CASES[name]
            parties = steps_of(build, batch_size, given.backend, given.threads)
            if name.startswith("LeNet-5") and importlib.util.find_spec("torch"):
                parties["PyTorch"] = pytorch_steps(batch_size)
            times: dict[str, list[float]] = {party: [] for party in parties}
            for turn in range(given.rounds + 1):
                for party, take in parties.items():
                    start = time.perf_counter()
                    take()
                    if turn:  # the first one warms up
                        times[party].append((time.perf_counter() - start) / STEPS * 1e3)
            ratio = statistics.median(a / b for a, b in zip(times["one by one"], times["replicas"], strict=True))
            medians = {party: f"{statistics.median(each):.2f}" for party, each in times.items()}
            rows.append((name, medians["one by one"], medians["replicas"], f"{ratio:.2f}", medians.get("PyTorch", "")))
    print(format_table(("network", "one by one", "replicas", "gain", "PyTorch eager"), rows))


if __name__ == "__main__":
    main()

"""Time of a training step by replicas on threads, in turns with steps one by one and PyTorch's eager steps.

Each round gives each party a turn (`contest.Repeated`). The table has medians in milliseconds and, in brackets, the
quartiles of the ratio to "one by one" in the same round. With ``--busy``, another process computes all the time.

``--scaling`` divides each minibatch into eight shares, for one thread and for two. The time of n threads is taken to be
s + p / n, with a serial part s and a parallel part p. Both follow from the two measured times, and give the predicted
times of four and eight threads. Memory bandwidth, and memory on other sockets, are not part of the prediction.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import time
from collections.abc import Callable, Iterator

import contest
import numpy as np
import threads
from work import ImageWork, Work

from xpnet import Device
from xpnet.optimizers import SGD
from xpnet.tables import format_table

WORKS = {
    "784-50-10": Work((784, 50, 10), 100, "float32"),
    "784-1024-1024-10": Work((784, 1024, 1024, 10), 256, "float32", steps=5),
    "LeNet5": ImageWork("LeNet5", 100, "float32"),
    "SimpleConvNet": ImageWork("SimpleConvNet", 100, "float32"),
    "DeepConvNet": ImageWork("DeepConvNet", 100, "float32", steps=1),
}

SHARES = 8
"""Shares of a minibatch in the table of scaling."""

Call = Callable[[], object]


def steps_of(work: Work | ImageWork, backend: str, shares: int | None, number: int | None = None) -> Call:
    """Return a call that takes steps by xpnet, with this number of shares and threads."""
    (x, t), _ = work.data()
    indices = np.random.default_rng(0).integers(0, len(x), (work.steps, work.batch))
    net = work.build_network(Device("cpu"))
    step = net.compile(SGD(lr=0.01), work.batch, backend, threads=number, shares=shares)
    if shares is not None:  # the step by two threads would come first
        step.runners = step.runners[-1:] if shares == 1 else step.runners[-2:]
    return lambda: step.run(x, t, indices)


def by_pytorch(work: Work | ImageWork) -> Call | None:
    """Return a call that takes the steps by PyTorch, eager; None without it, or for layers that the peer lacks."""
    if work.network == "DeepConvNet":
        return None
    try:
        from peers.pytorch import PyTorchEager
    except ImportError:
        return None
    indices = np.random.default_rng(0).integers(0, 60_000, (work.steps, work.batch))
    party = PyTorchEager(work, Device("cpu"))
    return lambda: party.run(indices)


def in_turns(calls: dict[str, Call], steps: int, rounds: int) -> dict[str, np.ndarray]:
    """Return the seconds per step of each party, the median of its turn, in each round."""
    parties = {name: contest.Repeated(call, steps=steps) for name, call in calls.items()}
    rows = [
        [np.median(party.turn(number, time.perf_counter)) for party in parties.values()] for number in range(rounds)
    ]
    return dict(zip(parties, np.array(rows).T, strict=True))


def compared(work: Work | ImageWork, backend: str, rounds: int) -> list[str]:
    """Measure one network: one by one, by replicas, by PyTorch."""
    calls = {"one by one": steps_of(work, backend, 1), "replicas": steps_of(work, backend, threads.available())}
    if pytorch := by_pytorch(work):
        calls["PyTorch eager"] = pytorch
    seconds = in_turns(calls, work.steps, rounds)
    cells = [f"{np.median(seconds['one by one']) * 1e3:.2f}"]
    for name in ("replicas", "PyTorch eager"):
        if name not in seconds:
            cells.append("-")
            continue
        low, middle, high = np.percentile(seconds[name] / seconds["one by one"], (25, 50, 75))
        cells.append(f"{np.median(seconds[name]) * 1e3:.2f}, {middle:.2f} ({low:.2f} to {high:.2f})")
    if pytorch:
        low, middle, high = np.percentile(seconds["replicas"] / seconds["PyTorch eager"], (25, 50, 75))
        cells.append(f"{middle:.2f} ({low:.2f} to {high:.2f})")
    return cells if pytorch else [*cells, "-"]


def scaling(work: Work | ImageWork, backend: str, rounds: int) -> list[str]:
    """Measure one network on one thread and on two, and predict four and eight."""
    calls = {str(number): steps_of(work, backend, SHARES, number) for number in (1, 2)}
    one, two = (np.median(each) * 1e3 for each in in_turns(calls, work.steps, rounds).values())
    serial = max(2 * two - one, 0.0)
    predicted = [serial + (one - serial) / number for number in (4, 8)]
    return [f"{value:.2f}" for value in (one, two, serial, *predicted)]


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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--busy", action="store_true", help="run another process that computes without a pause")
    parser.add_argument("--scaling", action="store_true", help="predict the time of more threads")
    parser.add_argument("--backend", choices=("numpy", "numba"), default="numpy")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--networks", nargs="*", choices=WORKS, default=[*WORKS])
    given = parser.parse_args()
    threads.pin(threads.available())
    measure = scaling if given.scaling else compared
    header = ("network", "one by one", "replicas, ratio", "PyTorch eager, ratio", "replicas / PyTorch")
    if given.scaling:
        header = ("network", "1 thread", "2 threads", "serial", "4, predicted", "8, predicted")
    with busy_process() if given.busy else contextlib.nullcontext():
        rows = [(name, *measure(WORKS[name], given.backend, given.rounds)) for name in given.networks]
    print(format_table(header, rows, align="<" + ">" * (len(header) - 1)))


if __name__ == "__main__":
    main()

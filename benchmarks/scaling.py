"""Weak and strong scaling over processes, and a cost model that predicts it.

``python benchmarks/scaling.py`` runs itself under mpiexec with 1 and 2 ranks, fits the model, predicts 4 ranks, and
only then measures 4. ``--json FILE`` writes all figures.

The model, for p ranks with b samples each: a step takes

    T = f + c b + o + a(p) + s(p) / w,    a(p) = 2 ceil(log2 p) l,    s(p) = 2 (p - 1) / p bytes

f: time of a step that does not depend on the samples; c: time per sample; o: time for the copies and the division
around the all-reduce; l: latency of a message; w: bandwidth of the all-reduce. f and c come from steps of one process
with two batch sizes, l and w from all-reduces of 8 bytes and of the gradient between two ranks, o from steps of two
ranks. Nothing overlaps: the all-reduce follows the backward pass. If there are more ranks than cores, they take turns:
the computation (f + c b + o) is multiplied by p / cores.

``--share`` measures what share of a step of two ranks the all-reduce is, for networks with much and with little work
per parameter, and predicts it for slower connections. That share is the most that an overlap with the backward pass
could save.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np

from xpnet.nets import DeepConvNet, MultiLayerNet
from xpnet.optimizers import SGD
from xpnet.parallel import communicator, sum_in_float16
from xpnet.steps import compile_step
from xpnet.tables import format_table

BATCH = 128
"""Samples per step: of all ranks together (strong scaling), or of each (weak scaling)."""

STEPS = 40
"""Steps of a measurement. The fastest of five counts: other programs may run beside."""

NETWORKS = {
    "784-1024-1024-10, 256 samples": (lambda: MultiLayerNet(784, [1024, 1024], 10, seed=0), (784,), 256),
    "DeepConvNet, 100 samples": (lambda: DeepConvNet(seed=0), (1, 28, 28), 100),
}
"""Networks, shapes of a sample and samples of all ranks together."""

WIRES = {"10 Gbit/s": 1.25e9, "1 Gbit/s": 1.25e8}
"""Bytes per second between machines."""

ALLOWED = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "OMPI_MCA_mpi_yield_when_idle": "1",
}


def seconds(run, repeats, ranks):
    """Return the shortest time of a call, among repeats that all ranks begin together."""
    found = []
    for _ in range(5):
        ranks.gather(None)
        started = time.perf_counter()
        for _ in range(repeats):
            run()
        found.append(max(ranks.gather((time.perf_counter() - started) / repeats)))
    return min(found)


def shared(kind):
    """Return the times of steps of this number of ranks, and of their all-reduces, plain and in float16."""
    ranks, rng = communicator(kind), np.random.default_rng(0)
    found = {}
    for name, (build, shape, size) in NETWORKS.items():
        x, t = rng.random((512, *shape), dtype="float32"), rng.integers(0, 10, 512)
        net = build()
        vector = net.params.flat.copy()
        step = compile_step(net, SGD(0.01), size, "numpy", threads=1, shares=1, communicator=ranks)
        indices = rng.integers(0, len(x), (6, size))
        step.run(x, t, indices[:2])
        found[name] = {
            "bytes": vector.nbytes,
            "step": seconds(partial(step.run, x, t, indices), 1, ranks) / len(indices),
            "allreduce": seconds(partial(ranks.sum, vector), 10, ranks),
            "float16": seconds(partial(sum_in_float16, ranks, vector), 10, ranks),
        }
    return found


def print_shares(found):
    """Print what share of a step the all-reduce is, here and by slower connections."""
    rows = []
    for name, figures in found.items():
        rest = figures["step"] - figures["allreduce"]
        by_wire = [figures["bytes"] / speed for speed in WIRES.values()]
        shares = [figures["allreduce"] / figures["step"], *(wire / (rest + wire) for wire in by_wire)]
        times = (f"{figures[part] * 1e3:,.1f} ms" for part in ("step", "allreduce", "float16"))
        rows.append([name, *times, *(f"{share:.0%}" for share in shares)])
    head = ["network", "step", "all-reduce", "in float16", "share", *(f"predicted, {wire}" for wire in WIRES)]
    print(format_table(head, rows, align="<" + ">" * (len(head) - 1)))


def measured(kind):
    """Return the times of this number of ranks, in seconds."""
    ranks, rng = communicator(kind), np.random.default_rng(0)
    x, t = rng.random((2048, 784), dtype="float32"), rng.integers(0, 10, 2048)
    net = MultiLayerNet(784, [256, 256], 10, seed=0)
    vector, word = net.params.flat.copy(), np.zeros(1)

    def step_of(size):
        step = compile_step(net, SGD(0.01), size, "numpy", threads=1, shares=1, communicator=ranks)
        indices = rng.integers(0, len(x), (STEPS, size))
        step.run(x, t, indices[:2])
        return seconds(lambda: step.run(x, t, indices), 1, ranks) / STEPS

    return {
        "ranks": ranks.size,
        "bytes": vector.nbytes,
        "strong": step_of(BATCH),
        "weak": step_of(BATCH * ranks.size),
        "half": step_of(BATCH // 2),
        "latency": seconds(lambda: ranks.sum(word), 200, ranks),
        "allreduce": seconds(lambda: ranks.sum(vector), 20, ranks),
    }


class CostModel:
    """Time of a step, from measurements with one and two ranks."""

    def __init__(self, one, two, cores):
        self.bytes, self.cores = one["bytes"], cores
        self.per_sample = max((one["strong"] - one["half"]) / (BATCH - BATCH // 2), 0.0)
        self.fixed = max(one["strong"] - self.per_sample * BATCH, 0.0)
        self.latency = two["latency"] / 2
        self.bandwidth = self.bytes / max(two["allreduce"] - two["latency"], 1e-9)
        self.overhead = 0.0
        self.overhead = max(two["weak"] - self.seconds(2, BATCH), 0.0)

    def seconds(self, ranks, samples):
        """Return the time of a step of this number of ranks, with so many samples each."""
        turns = max(ranks / self.cores, 1.0)
        computed = turns * (self.fixed + self.per_sample * samples + (self.overhead if ranks > 1 else 0.0))
        message = 2 * (ranks - 1) / ranks * self.bytes / self.bandwidth
        return computed + 2 * math.ceil(math.log2(ranks)) * self.latency + turns * message


def run(ranks, what="scaling"):
    """Measure in this number of processes."""
    mpiexec = Path(sys.executable).with_name("mpiexec")
    environment = os.environ | ALLOWED | {"OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [mpiexec, "-n", str(ranks), sys.executable, __file__, "--worker", what],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return json.loads(done.stdout)


def figures_of(rows):
    """Return a table of steps per second."""
    return format_table(["ranks", "strong", "weak"], rows, align=">>>")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--share", action="store_true", help="measure the share of the all-reduce in a step")
    parser.add_argument("--worker", choices=["scaling", "share"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        figures = measured("mpi") if arguments.worker == "scaling" else shared("mpi")
        if communicator("mpi").rank == 0:
            print(json.dumps(figures))
        return
    if arguments.share:
        print_shares(run(2, "share"))
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    one, two = run(1), run(2)
    model = CostModel(one, two, cores)
    foretold = {"strong": model.seconds(4, BATCH / 4), "weak": model.seconds(4, BATCH)}  # before 4 are measured
    four = run(4)
    rows = [
        [str(found["ranks"]), *(f"{1 / found[kind]:,.0f}" for kind in ("strong", "weak"))] for found in (one, two, four)
    ]
    print(f"measured on {cores} cores, steps/s\n{figures_of(rows)}\n")
    rows = [["4", *(f"{1 / foretold[kind]:,.0f}" for kind in ("strong", "weak"))]]
    print(f"predicted from 1 and 2 ranks, same machine, steps/s\n{figures_of(rows)}\n")
    large = CostModel(one, two, cores=math.inf)
    apart = {p: {"strong": large.seconds(p, BATCH / p), "weak": large.seconds(p, BATCH)} for p in (8, 64, 1024)}
    rows = [[f"{p:,}", *(f"{1 / apart[p][kind]:,.0f}" for kind in ("strong", "weak"))] for p in apart]
    print("predicted, a core for each rank, messages as between two ranks of this machine, steps/s")
    print(figures_of(rows))
    if arguments.json:
        content = {"measured": [one, two, four], "predicted": {"4": foretold}, "predicted apart": apart, "cores": cores}
        arguments.json.write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()

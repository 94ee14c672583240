"""What a GPU takes for the parts that a captured training step is made of, as JSON.

Kernels launched one by one and in CUDA graphs of 8, 64 and 512; the matrix products of 784-50-10 and of
784-1024-1024-10, eager and in a graph, in float32 and TF32; the nodes of each product in a graph, plain, with a bias
and with sums, in three dtypes; each kernel of a step of the first, and the whole step, eager and captured, whose
parameters are compared bit by bit. Medians of many, in microseconds; each in a loop long enough that the wait at its
end weighs little.
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import json
from functools import partial
from pathlib import Path

import numpy as np

from xpnet import Device, environment, kernels
from xpnet.datasets import load_mnist
from xpnet.files import written_atomically
from xpnet.nets import TwoLayerNet
from xpnet.optimizers import SGD
from xpnet.timing import median_seconds

ROUNDS = 20

LONGEST = 0.1
"""Seconds that a round takes at most, if a call takes less."""

PRODUCTS = {
    "784-50-10, batch 100": ((100, 784, 50), (100, 50, 10), (50, 100, 10), (100, 10, 50), (784, 100, 50)),
    "1024 x 1024, batch 1024": ((1024, 1024, 1024),),
}


def measure(device: Device, call, calls: int) -> float:
    """Return the median microseconds of a call, of so many in a row; of fewer, if a round would take `LONGEST`."""
    calls = max(1, min(calls, int(LONGEST / median_seconds(call, device, 3))))

    def call_in_a_row():
        for _ in range(calls):
            call()

    call_in_a_row()
    return 1e6 * median_seconds(call_in_a_row, device, ROUNDS) / calls


class Captured:
    """A CUDA graph of a number of calls, and the memory that it uses."""

    def __init__(self, device: Device, call, calls: int) -> None:
        cuda = device.xp.cuda
        stream, self.pool = cuda.Stream(), cuda.MemoryPool()
        with stream, cuda.using_allocator(self.pool.malloc):
            call()
            stream.begin_capture()
            for _ in range(calls):
                call()
            self.graph = stream.end_capture()

    def launch(self) -> None:
        """Launch the graph on the current stream."""
        self.graph.launch()

    def nodes(self) -> int:
        """Return the number of nodes, by the driver: CuPy does not tell."""
        count = ctypes.c_size_t()
        status = ctypes.CDLL("libcuda.so.1").cuGraphGetNodes(
            ctypes.c_void_p(self.graph.graph), None, ctypes.byref(count)
        )
        if status:
            raise RuntimeError(f"cuGraphGetNodes failed with status {status}")
        return count.value


def measure_kernels(device: Device) -> dict[str, float]:
    """Time the smallest kernel there is, by itself and as a node."""
    x = device.zeros(256, "float32")

    def sgd_update():
        kernels.sgd_update(x, x, 0.0, x)

    sgd_update()
    figures = {"launched": measure(device, sgd_update, 1000)}
    for nodes in (8, 64, 512):
        figures[f"node of {nodes}"] = measure(device, Captured(device, sgd_update, nodes).launch, 20) / nodes
    return figures


def measure_products(device: Device, precision: str) -> dict[str, dict[str, float]]:
    """Time products by cublasLt, all of a list together."""
    figures = {}
    rng = np.random.default_rng(0)
    for name, shapes in PRODUCTS.items():
        operands = [
            (
                device.asarray(rng.standard_normal((m, k)).astype("float32")),
                device.asarray(rng.standard_normal((k, n)).astype("float32")),
                device.zeros(m * n, "float32").reshape(m, n),
            )
            for m, k, n in shapes
        ]

        def multiply(operands=operands):
            for a, b, out in operands:
                kernels.matmul(a, b, out=out)

        with kernels.using(precision=precision):
            multiply()
            figures[name] = {
                "eager": measure(device, multiply, 200),
                "in a graph": measure(device, Captured(device, multiply, 20).launch, 20) / 20,
            }
    return figures


def measure_parts(device: Device) -> dict[str, float]:
    """Time each kernel of a step of 784-50-10 at batch 100, as a node of a graph; its products are measured above."""
    rng, graph = np.random.default_rng(0), 100
    hidden, scores = (device.asarray(rng.standard_normal((100, m)).astype("float32")) for m in (50, 10))
    pixels, labels = (
        device.asarray(rng.integers(0, 256, (60000, 784), "uint8")),
        device.asarray(rng.integers(0, 10, 100)),
    )
    index, mask = device.asarray(rng.integers(0, 60000, 100)), hidden > 0
    samples, params, loss = (
        device.zeros(78400, "float32").reshape(100, 784),
        device.zeros(39808, "float32"),
        device.zeros(1, "float32"),
    )
    y, dx, out, scratch = (device.xp.empty_like(x) for x in (scores, scores, hidden, params))
    parts = {
        "gather": lambda: kernels.gather(pixels, index, samples),
        "relu": lambda: kernels.relu(hidden, mask, out),
        "softmax, loss and gradient": lambda: kernels.softmax_cross_entropy_with_gradient(
            scores, labels, 0.01, y, dx, loss[0, ...]
        ),
        "relu's gradient": lambda: kernels.relu_gradient(hidden, mask, out),
        "update": lambda: kernels.sgd_update(params, params, 0.0, scratch),
    }
    return {name: measure(device, Captured(device, part, graph).launch, 20) / graph for name, part in parts.items()}


def count_nodes(device: Device) -> dict[str, dict[str, int | None]]:
    """Count the nodes of each product in a graph; None where cublasLt has no algorithm with a bias, or with sums."""
    from xpnet.kernels import cublaslt

    counted = {}
    for name, shapes in PRODUCTS.items():
        for (m, k, n), dtype in itertools.product(shapes, ("float16", "float32", "float64")):
            a, b, out, vector = (device.zeros(size, dtype) for size in (m * k, k * n, m * n, n))
            product = a.reshape(m, k), b.reshape(k, n), out.reshape(m, n)
            ends = {"plain": {}, "with a bias": {"bias": vector}, "with sums": {"sums": vector}}
            counted[f"{m} x {k} x {n} of {name}, {dtype}"] = {
                end: Captured(device, multiply, 1).nodes() if multiply() else None
                for end, vectors in ends.items()
                for multiply in [partial(cublaslt.multiply, *product, **vectors)]
            }
    return counted


def measure_steps(device: Device) -> dict[str, float | bool]:
    """Time a step of 784-50-10 at batch 100, on pixels."""
    (x, t), _ = load_mnist(normalize=False)
    x, t = device.asarray(x), device.asarray(t)
    indices = device.asarray(np.random.default_rng(0).integers(0, len(x), (600, 100)))
    nets = {name: TwoLayerNet(784, 50, 10, device=device, seed=0) for name in ("captured", "eager")}
    steps = {name: net.compile(SGD(0.1), 100) for name, net in nets.items()}
    steps["eager"].runners = steps["eager"].runners[-1:]  # one by one
    for step in steps.values():
        step.run(x, t, indices)
    same = bool((nets["captured"].params.flat == nets["eager"].params.flat).all())
    figures = {name: measure(device, partial(step.run, x, t, indices), 2) / 600 for name, step in steps.items()}
    return {**figures, "the same bits after 600 steps": same}


def main() -> None:
    """Measure, print, and write JSON, part by part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="where to write the figures as JSON")
    arguments = parser.parse_args()
    device = Device("cuda")
    result = {"benchmark": "gpu facts", "unit": "microseconds", "environment": environment.describe(device)}
    parts = {
        "kernel": measure_kernels,
        "products in float32": partial(measure_products, precision="float32"),
        "products in tf32": partial(measure_products, precision="tf32"),
        "kernels of a step of 784-50-10, batch 100": measure_parts,
        "step of 784-50-10, batch 100": measure_steps,
        "nodes of a product": count_nodes,
    }
    for name, measure_part in parts.items():
        with device.activate():
            result[name] = measure_part(device)
        print(json.dumps({name: result[name]}, indent=1), flush=True)
        if arguments.out:  # after each part: time may run out
            with written_atomically(arguments.out) as stream:
                stream.write(json.dumps(result, indent=1).encode())


if __name__ == "__main__":
    main()

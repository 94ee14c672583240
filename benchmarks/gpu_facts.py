"""What a GPU takes for the parts that a captured training step is made of, as JSON.

Kernels launched one by one and in CUDA graphs of 8, 64 and 512; the matrix products of 784-50-10 and of
784-1024-1024-10, eager and in a graph, in float32 and TF32, and those that cublasLt does not do with a bias or sums;
each kernel of a step of the first, and the whole step, eager and captured. Medians of many, in microseconds; each in a
loop long enough that the wait at its end weighs little.
"""

from __future__ import annotations

import argparse
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

PRODUCTS = {
    "784-50-10, batch 100": ((100, 784, 50), (100, 50, 10), (50, 100, 10), (100, 10, 50), (784, 100, 50)),
    "1024 x 1024, batch 1024": ((1024, 1024, 1024),),
}


def measure(device: Device, call, calls: int) -> float:
    """Return the median microseconds of a call, of `calls` in a row."""

    def call_in_a_row():
        for _ in range(calls):
            call()

    call_in_a_row()
    return 1e6 * median_seconds(call_in_a_row, device, ROUNDS) / calls


def captured(device: Device, call, calls: int):
    """Return the launch of a graph of so many calls."""
    cuda = device.xp.cuda
    stream, pool = cuda.Stream(), cuda.MemoryPool()
    with stream, cuda.using_allocator(pool.malloc):
        call()
        stream.begin_capture()
        for _ in range(calls):
            call()
        graph = stream.end_capture()

    def launch(kept=pool):  # as long as the graph may run
        graph.launch()

    return launch


def measure_kernels(device: Device) -> dict[str, float]:
    """Time the smallest kernel there is, by itself and as a node."""
    x = device.zeros(256, "float32")

    def sgd_update():
        kernels.sgd_update(x, x, 0.0, x)

    sgd_update()
    figures = {"launched": measure(device, sgd_update, 1000)}
    for nodes in (8, 64, 512):
        figures[f"node of {nodes}"] = measure(device, captured(device, sgd_update, nodes), 20) / nodes
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
                "in a graph": measure(device, captured(device, multiply, 20), 20) / 20,
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
    return {name: measure(device, captured(device, part, graph), 20) / graph for name, part in parts.items()}


def list_refused(device: Device) -> list[str]:
    """Name the products for which cublasLt has no algorithm with a bias, or with sums of columns."""
    from xpnet.kernels import cublaslt

    refused = []
    for name, shapes in PRODUCTS.items():
        for (m, k, n), dtype in itertools.product(shapes, ("float16", "float32", "float64")):
            a, b, out, vector = (device.zeros(size, dtype) for size in (m * k, k * n, m * n, n))
            product = a.reshape(m, k), b.reshape(k, n), out.reshape(m, n)
            refused += [
                f"{m} x {k} x {n} of {name} in {dtype} with {end}"
                for end in ("bias", "sums")
                if not cublaslt.multiply(*product, **{end: vector})
            ]
    return refused


def measure_steps(device: Device) -> dict[str, float]:
    """Time a step of 784-50-10 at batch 100, on pixels."""
    (x, t), _ = load_mnist(normalize=False)
    x, t = device.asarray(x), device.asarray(t)
    indices = device.asarray(np.random.default_rng(0).integers(0, len(x), (600, 100)))
    step = TwoLayerNet(784, 50, 10, device=device, seed=0).compile(SGD(0.1), 100)
    step.run(x, t, indices)
    figures = {"captured": measure(device, lambda: step.run(x, t, indices), 3) / len(indices)}
    step.runners = step.runners[-1:]  # one by one
    figures["eager"] = measure(device, lambda: step.run(x, t, indices), 1) / len(indices)
    return figures


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
        "refused": list_refused,
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

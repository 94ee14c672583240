"""The bare limit: the matrix products of a training step and nothing else, into results allocated beforehand."""

from __future__ import annotations

import numpy as np

from . import Missing, Party


class MatrixProducts(Party):
    """What no implementation on the same BLAS gets below.

    On CUDA they are captured into a graph, so that the limit is the GPU's and not that of whoever launches them.
    CuPy's matrix products cannot be captured, PyTorch's can, and call the same cuBLAS.
    """

    def __init__(self, work, device, seed=0):
        rng = np.random.default_rng(seed)
        operands = list_products(work, rng)
        if device.name == "cpu":
            self._products = lambda: multiply(np.matmul, operands)
            self._synchronize = device.synchronize
        else:
            self._products, self._synchronize = capture(operands, device, work.precision)

    def run(self, indices):
        for _ in indices:
            self._products()

    def synchronize(self):
        self._synchronize()

    def parameters(self):
        return None


def list_products(work, rng):
    """Return the operands and results of the products of a step, in order: forward, then backward."""
    activations = [rng.standard_normal((work.batch, size)).astype(work.dtype) for size in work.sizes]
    weights = [values for name, values in work.initial_parameters().items() if name.startswith("W")]
    forward = [(x, W, np.empty_like(y)) for x, W, y in zip(activations, weights, activations[1:], strict=False)]
    backward = []
    for x, W, dy in reversed(list(zip(activations, weights, activations[1:], strict=False))):
        backward.append((x.T, dy, np.empty_like(W)))
        if W is not weights[0]:  # nobody reads the gradient of the images
            backward.append((dy, W.T, np.empty_like(x)))
    return forward + backward


def multiply(matmul, operands):
    """Do the products."""
    for a, b, out in operands:
        matmul(a, b, out=out)


def capture(operands, device, precision):
    """Return the products as the replay of a CUDA graph, and the function that waits for it."""
    try:
        import torch
    except ModuleNotFoundError as error:
        raise Missing("matrix products in a CUDA graph: torch is not installed") from error
    if not torch.cuda.is_available():
        raise Missing(f"matrix products in a CUDA graph: PyTorch {torch.__version__} finds no CUDA device")
    from .pytorch import PRECISIONS

    torch.set_float32_matmul_precision(PRECISIONS[precision])

    def on_device(array):  # a transposed operand stays a transposed view
        transposed = not array.flags.c_contiguous
        tensor = torch.from_numpy(array.T if transposed else array).to(device.name)
        return tensor.T if transposed else tensor

    operands = [tuple(map(on_device, product)) for product in operands]
    stream = torch.cuda.Stream(device.name)
    with torch.cuda.stream(stream):  # warm-up: cuBLAS makes its workspace
        multiply(torch.mm, operands)
    torch.cuda.synchronize(device.name)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.device(device.name), torch.cuda.graph(graph):
        multiply(torch.mm, operands)
    return graph.replay, lambda: torch.cuda.synchronize(device.name)

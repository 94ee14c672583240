"""The one place that chooses how a network's training steps are computed and driven."""

from __future__ import annotations

from collections.abc import Callable

from xpnet import kernels
from xpnet.layers import Convolution, Pooling
from xpnet.nets import Network
from xpnet.optimizers import Optimizer
from xpnet.parameters import ParameterVector
from xpnet.steps.cuda_graph import CudaGraph
from xpnet.steps.mixed import MixedPrecision
from xpnet.steps.step import FullPrecision, Gradient, OneByOne, Runner, TrainingStep
from xpnet.steps.two_threads import TwoThreads

__all__ = ["compile_step"]

GAINING = (Convolution, Pooling)
"""Layers that Numba's kernels (`xpnet.kernels.numba.images`) make so much faster that it is chosen for them."""


def compile_step(
    net: Network,
    optimizer: Optimizer,
    batch_size: int,
    backend: kernels.Backend | None = None,
    precision: kernels.Precision = "float32",
    reduce: Callable[[ParameterVector], None] | None = None,
) -> TrainingStep:
    """Return the training steps of a network; ``net.compile(...)`` is short for it.

    Parameters
    ----------
    net : Network
        The network to train.
    optimizer : Optimizer
        The update rule.
    batch_size : int
        Largest number of samples per step.
    backend : {"numpy", "numba"}, optional
        What computes on the CPU. By default Numba, where it is installed, for two kinds of networks: perceptrons
        (`TwoThreads`), of which small ones take half the time with it, and networks with convolution or pooling, which
        save about a fifth. It takes half a second and 70 MB to load, and the first time some seconds to compile.
    precision : {"float32", "tf32", "float16"}, default "float32"
        Of the matrix products on a CUDA device: with ``"tf32"`` their float32 inputs may be rounded to 10 bits, which
        is faster. With ``"float16"`` all layers of a float32 network compute in float16 (`MixedPrecision`).
    reduce : function, optional
        Called between backward and update with the gradient, which it changes in place: an all-reduce between
        processes, for instance. The gradient is that of the step's own minibatch.

    Raises
    ------
    ValueError
        If a setting is out of its range, or the network cannot be trained with it.
    TypeError
        If `precision` is float16 and the optimizer has an ``update`` of its own.
    ModuleNotFoundError
        If the backend is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> from xpnet.nets import TwoLayerNet
    >>> from xpnet.optimizers import SGD
    >>> rng = np.random.default_rng(0)
    >>> x = rng.standard_normal((1000, 20))
    >>> t = (x[:, 0] > 0).astype(int)
    >>> step = TwoLayerNet(20, 10, 2, "he", seed=0).compile(SGD(lr=0.5), batch_size=50)
    >>> losses = step.run(x, t, rng.integers(0, 1000, (200, 50)))
    >>> bool(losses[-1] < 0.2 * losses[0])
    True
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    precision = kernels.check_precision(precision, net.device, net.dtype)
    on_host, in_half = net.device.name == "cpu", precision == "float16"
    in_two_threads = reduce is None and TwoThreads.suits(net, batch_size)
    gains = in_two_threads or any(isinstance(layer, GAINING) for layer in net.modules().values())
    backend = kernels.choose_backend(backend, "float16" if in_half else net.dtype, on_host and gains)

    gradient: Gradient = MixedPrecision(net, optimizer) if in_half else FullPrecision(net, optimizer)
    one_by_one = OneByOne(gradient, optimizer, reduce)
    runners: list[Runner] = [one_by_one]
    accuracy = net.accuracy
    if in_two_threads and backend == "numba":
        two_threads = TwoThreads(net, optimizer, gradient.grads)
        runners.insert(0, two_threads)
        accuracy = two_threads.accuracy
    # A rule with an `update` of its own may do there what is not the same in each step.
    if not on_host and type(optimizer).update is Optimizer.update:
        runners.insert(0, CudaGraph(one_by_one))
    return TrainingStep(net, optimizer, batch_size, gradient, runners, accuracy, backend, precision)

"""Choice of the gradient, runners and backend of a network's training steps."""

import numpy as np

from xpnet import kernels
from xpnet.layers import Convolution, Pooling
from xpnet.nets import Network
from xpnet.optimizers import Optimizer
from xpnet.parallel import Communicator
from xpnet.settings import count, fit_in_memory
from xpnet.steps.cuda_graph import CudaGraph
from xpnet.steps.layer_arrays import largest_of_sample
from xpnet.steps.mixed import MixedPrecision
from xpnet.steps.protocols import Evaluator, Gradient, Runner, Steps
from xpnet.steps.ranks import Ranks
from xpnet.steps.replicas import Replicas
from xpnet.steps.step import FullPrecision, OneByOne, TrainingStep
from xpnet.steps.sums import MeanGradient, Microbatches
from xpnet.steps.two_threads import TwoThreads

__all__ = ["compile_step"]

LEAST = 2
"""Bytes of a value in the smallest dtype of layers, float16."""

GAINING = (Convolution, Pooling)
"""Layers with much faster kernels in Numba (`xpnet.kernels.numba.images`), the default backend for them."""


def compile_step(
    net: Network,
    optimizer: Optimizer,
    batch_size: int,
    backend: kernels.Backend | None = None,
    precision: kernels.Precision = "float32",
    threads: int | None = None,
    shares: int | None = None,
    microbatch: int | None = None,
    communicator: Communicator | None = None,
) -> TrainingStep:
    """Return the training steps of a network. ``net.compile(...)`` calls this function without `communicator`.

    Parameters
    ----------
    net : Network
        The network to train.
    optimizer : Optimizer
        The update rule.
    batch_size : int
        Largest number of samples per step.
    backend : {"numpy", "numba"}, optional
        Backend for arrays on the CPU. By default Numba, if installed, for perceptrons (`TwoThreads`) and for networks
        with convolution or pooling; else NumPy. Numba halves the time of small perceptrons, and saves about a fifth
        with convolution or pooling. Loading it takes half a second and 70 MB; the first compilation, some seconds.
    precision : {"float32", "tf32", "float16"}, default "float32"
        Precision of matrix products on a CUDA device. ``"tf32"`` may round their float32 inputs to 10 bits, and is
        faster. ``"float16"`` runs all layers of a float32 network in float16 (`MixedPrecision`).
    threads : int, optional
        Largest number of threads on the CPU; by default that of the BLAS.
    shares : int, optional
        Number of shares that `Replicas` divides a minibatch into, each with a thread. It fixes the results to the bit,
        on any number of threads, and is kept in `TrainingStep.state`. By default the number of threads, if shares of
        that size are faster, else fewer. With 1 the steps are taken one by one.
    microbatch : int, optional
        Largest number of samples that a thread or process computes at a time, to save memory. The gradients of the
        microbatches add up to that of the minibatch, and one update follows (`Microbatches`). So the results are those
        of whole minibatches to rounding. Perceptrons then take their steps in NumPy.
    communicator : Communicator, optional
        Connection to other processes, which take the same steps (`xpnet.parallel`). With more than one process, each
        computes the gradient of its slice of the minibatch (`Ranks`), and BLAS has one thread.

    Raises
    ------
    ValueError
        If a setting is out of range or does not suit the network, such as shares or microbatches for a network
        with batch normalization, or if the optimizer updates another network.
    TypeError
        If the network has a ``loss`` or ``gradient`` of its own, which training steps do not call, or if `precision` is
        float16 and the optimizer has an ``update`` of its own.
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
    batch_size = count("batch_size", batch_size)
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer must be an xpnet.optimizers.Optimizer, got {type(optimizer).__name__}")
    _check_own_passes(net)
    optimizer.claim(net.params)
    precision = kernels.check_precision(precision, net.device, net.dtype)
    threads = None if threads is None else count("threads", threads)
    microbatch = None if microbatch is None else count("microbatch", microbatch)
    if microbatch is not None and precision == "float16":
        raise ValueError(f"microbatch must be None with precision float16, got {microbatch}: use float32 or tf32")
    _check_memory(net, batch_size, microbatch, communicator)
    if communicator is not None and communicator.size > 1:
        return _compile_ranks(net, optimizer, batch_size, backend, precision, shares, communicator, microbatch)
    on_host, in_half = net.device.name == "cpu", precision == "float16"
    in_two_threads = shares in (None, 2) and microbatch is None and TwoThreads.suits(net, batch_size)
    gains = in_two_threads or any(isinstance(layer, GAINING) for layer in net.modules().values())
    backend = kernels.choose_backend(backend, "float16" if in_half else net.dtype, on_host and gains)

    gradient: Gradient
    steps: Steps
    if microbatch is None:
        full = FullPrecision(net, optimizer)
        gradient = MixedPrecision(net, optimizer) if in_half else full
        steps = OneByOne(gradient, optimizer)
    else:
        gradient = full = mean = MeanGradient(net, optimizer)
        steps = Microbatches(mean, optimizer, microbatch)
    runners: list[Runner] = [steps]
    in_two_threads = in_two_threads and backend == "numba"
    suits = not in_half and Replicas.suits(net)
    if shares is None:
        shares = Replicas.best_shares(net, batch_size, threads) if suits and not in_two_threads else 1
    elif count("shares", shares) > 1 and not suits:
        raise ValueError(
            f"shares must be 1 for this network, got {shares}: {Replicas.name}, layers must compute each sample by "
            "itself, in float32 or float64 on the CPU, with threadpoolctl installed"
        )
    replicas = Replicas(net, optimizer, full, shares, threads, microbatch) if suits else None
    evaluator: Evaluator = replicas or net
    if in_two_threads:
        two_threads = TwoThreads(net, optimizer, gradient.grads, threads)
        runners.insert(0, two_threads)
        evaluator = two_threads
    runners = [*_captures(steps), *runners]
    return TrainingStep(net, optimizer, batch_size, gradient, runners, evaluator, backend, precision, replicas)


def _compile_ranks(
    net: Network,
    optimizer: Optimizer,
    batch_size: int,
    backend: kernels.Backend | None,
    precision: kernels.Precision,
    shares: int | None,
    communicator: Communicator,
    microbatch: int | None,
) -> TrainingStep:
    if precision == "float16":
        raise ValueError("precision must be float32 or tf32 with several processes, got float16")
    if shares not in (None, 1):
        raise ValueError(f"shares must be 1 with several processes, got {shares}: each process computes one share")
    if communicator.compression is not None and net.dtype != "float32":
        raise ValueError(f"compression must be None for a network in {net.dtype}, got {communicator.compression!r}")
    gains = net.device.name == "cpu" and any(isinstance(layer, GAINING) for layer in net.modules().values())
    backend = kernels.choose_backend(backend, net.dtype, gains)
    ranks = Ranks(net, optimizer, communicator, microbatch)
    runners: list[Runner] = [*(_captures(ranks) if communicator.capturable else []), ranks]
    return TrainingStep(net, optimizer, batch_size, ranks.gradient, runners, ranks, backend, precision)


def _captures(steps: Steps) -> list[Runner]:
    """Return a runner that captures steps in a CUDA graph; none on the CPU, and none if a graph would not be the same.

    An overridden `Optimizer.update` may differ from step to step. A graph repeats one computation.
    """
    is_on_gpu = steps.gradient.net.device.name != "cpu"
    return [CudaGraph(steps)] if is_on_gpu and type(steps.optimizer).update is Optimizer.update else []


def _check_memory(net: Network, batch_size: int, microbatch: int | None, communicator: Communicator | None) -> None:
    """Check that the host has memory for a minibatch: for its indices and, on the CPU, the largest array of a layer."""
    at_a_time = -(-batch_size // (1 if communicator is None else communicator.size))
    if microbatch is not None:
        at_a_time = min(at_a_time, microbatch)
    values = (largest_of_sample(net) or 0) if net.device.name == "cpu" else 0
    size = batch_size * np.dtype("int64").itemsize + at_a_time * values * LEAST
    fit_in_memory("batch_size", f"{batch_size:,}", size, "lower it, or set microbatch")


def _check_own_passes(net: Network) -> None:
    """Check that training steps call what a subclass overrides: they call `Network.backpropagate`."""
    cls = type(net)
    if cls.backpropagate is not Network.backpropagate:
        return
    for name in ("loss", "gradient", "loss_and_gradient"):
        is_own = getattr(cls, name) is not getattr(Network, name) or name in vars(net)
        if is_own and not (name == "loss" and cls.loss_of is not Network.loss_of):
            raise TypeError(
                f"{cls.__name__} overrides {name}, which training steps do not call; override loss_of(scores, t) and "
                "backward(dout), or backpropagate(x, t, grads)"
            )

"""PyTorch: eager, compiled, and on CUDA captured into a graph.

Matrix products are in TF32 only where the work says so. Compilation starts cold each time: the caches on disk are off,
which hold what was compiled before.
"""

from __future__ import annotations

import itertools
import os
import warnings

os.environ["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from . import Missing, Party

PRECISIONS = {"float32": "highest", "tf32": "high"}
"""What PyTorch calls them."""

with warnings.catch_warnings():  # PyTorch's compiler loads a module of PyTorch that warns of PyTorch
    warnings.filterwarnings("ignore", "`torch.jit.script_method` is deprecated", DeprecationWarning)
    import torch.utils.mkldnn


class PyTorchEager(Party):
    """A module, `cross_entropy`, `backward` and `SGD`: the loop of every tutorial, with the data on the device.

    ``index_select`` gathers faster than ``x[index]`` does; ``fused`` and ``foreach`` gain nothing on the CPU.
    """

    def __init__(self, work, device, seed=0):
        if device.name != "cpu" and not torch.cuda.is_available():
            raise Missing(f"PyTorch {torch.__version__} finds no CUDA device")
        torch.set_float32_matmul_precision(PRECISIONS[work.precision])
        torch.backends.cudnn.allow_tf32 = work.precision == "tf32"  # convolutions have a switch of their own
        self.device = torch.device(device.name)
        self.lr = work.lr
        (self.x, self.t), (self.x_test, self.t_test) = (map(self._on_device, part) for part in work.data())
        self.network = build_network(work, seed).to(self.device)
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=work.lr)

    def run(self, indices):
        for index in self._on_device(indices):
            self.optimizer.zero_grad()
            self.loss = self._loss(index)
            self.loss.backward()
            self.optimizer.step()

    def synchronize(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def parameters(self):
        found = {}
        for number, layer in enumerate(learning(self.network), 1):
            weight = layer.weight.detach().cpu().numpy()
            found[f"W{number}"] = (weight.T if isinstance(layer, nn.Linear) else weight).copy()
            found[f"b{number}"] = layer.bias.detach().cpu().numpy().copy()
        return found

    def accuracy(self):
        with torch.no_grad():
            return (self.network(self.x_test).argmax(1) == self.t_test).float().mean().item()

    def _loss(self, index):
        return cross_entropy(self.network(self.x.index_select(0, index)), self.t.index_select(0, index))

    def _on_device(self, array):
        return torch.from_numpy(array).to(self.device)


class PyTorchCompiled(PyTorchEager):
    """The whole step in one graph for `torch.compile`: gather, loss, gradient and update.

    A gradient taken by `torch.func` is part of the graph; ``loss.backward()`` would break it in two.
    """

    def __init__(self, work, device, seed=0):
        super().__init__(work, device, seed)
        torch.compiler.reset()  # another instance's code is not reused
        self.step = torch.compile(self._step, fullgraph=True, dynamic=False, mode="max-autotune")

    def run(self, indices):
        with warnings.catch_warnings(), torch.no_grad():
            warnings.filterwarnings("ignore", "dynamo_pgo force disabled", UserWarning)  # said once, of the caches
            warnings.filterwarnings("ignore", "TensorFloat32 tensor cores .* not enabled", UserWarning)  # on purpose
            for index in self._on_device(indices):
                if self.device.type == "cuda":
                    torch.compiler.cudagraph_mark_step_begin()  # the loss before may be overwritten
                self.loss = self.step(index)

    def _step(self, index):
        def loss(parameters):
            scores = torch.func.functional_call(self.network, parameters, self.x.index_select(0, index))
            return cross_entropy(scores, self.t.index_select(0, index))

        parameters = dict(self.network.named_parameters())
        gradients, value = torch.func.grad_and_value(loss)(parameters)
        for name, parameter in parameters.items():
            parameter.sub_(gradients[name], alpha=self.lr)
        return value


class PyTorchCudaGraph(PyTorchEager):
    """The eager step, captured once with `torch.cuda.graph` and replayed, as PyTorch's documentation has it."""

    def __init__(self, work, device, seed=0):
        if device.name == "cpu":
            raise Missing("a CUDA graph needs a CUDA device")
        super().__init__(work, device, seed)
        self.index = torch.zeros(work.batch, dtype=torch.int64, device=self.device)
        self.graph = None

    def run(self, indices):
        if self.graph is None:
            self._capture()
        for index in self._on_device(indices):
            self.index.copy_(index)
            self.graph.replay()

    def _capture(self):
        initial = {name: values.clone() for name, values in self.network.state_dict().items()}
        stream = torch.cuda.Stream(self.device)
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):  # warm-up, on a stream of its own; what it learns is undone
            super().run(self.index.cpu().numpy()[None].repeat(3, 0))
        torch.cuda.current_stream(self.device).wait_stream(stream)
        self.network.load_state_dict(initial)
        self.optimizer.zero_grad(set_to_none=True)  # so that backward, captured, writes its gradients and adds none
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, stream=stream):  # another one than the warm-up's is warned of
            self.loss = self._loss(self.index)
            self.loss.backward()
            self.optimizer.step()


def build_network(work, seed):
    """Return the module with the initial weights; a `Linear` keeps its weights transposed."""
    modules = IMAGE_NETWORKS[work.network]() if work.network in IMAGE_NETWORKS else affine_layers(work.sizes)
    network = nn.Sequential(*modules)
    parameters = {name: torch.from_numpy(values) for name, values in work.initial_parameters(seed).items()}
    network.to(parameters["W1"].dtype)
    with torch.no_grad():
        for number, layer in enumerate(learning(network), 1):
            weight = parameters[f"W{number}"]
            layer.weight.copy_(weight.T if isinstance(layer, nn.Linear) else weight)
            layer.bias.copy_(parameters[f"b{number}"])
    return network


def learning(network):
    """Return the modules with parameters."""
    return [module for module in network if isinstance(module, (nn.Linear, nn.Conv2d))]


def affine_layers(sizes):
    """Return linear modules with ReLU in between."""
    modules = []
    for inputs, outputs in itertools.pairwise(sizes):
        modules += [nn.Linear(inputs, outputs), nn.ReLU()]
    return modules[:-1]


def simple_conv_net():
    """Return the modules of the book's network."""
    convolution = [nn.Conv2d(1, 30, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
    return [*convolution, *affine_layers((4320, 100, 10))]


def lenet5():
    """Return the modules of LeNet-5."""
    first = [nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)]
    second = [nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
    return [*first, *second, *affine_layers((400, 120, 84, 10))]


IMAGE_NETWORKS = {"SimpleConvNet": simple_conv_net, "LeNet5": lenet5}

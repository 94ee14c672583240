"""Networks, and their training, against PyTorch's."""

import itertools

import pytest
from test_oracle import F, compare, scores, tensor, torch

from xpnet import asnumpy
from xpnet.layers import Affine, BatchNormalization, Convolution, Relu, Residual, Sigmoid, Tanh
from xpnet.nets import Sequential, TwoLayerNet
from xpnet.optimizers import SGD


def torch_twin(net):
    """Build the same network in PyTorch."""
    modules = []
    for layer in net.layers.values():
        if isinstance(layer, Affine):
            linear = torch.nn.Linear(*layer.W.shape, dtype=torch.float64)
            linear.weight.data = tensor(layer.W).detach().T.contiguous()
            linear.bias.data = tensor(layer.b).detach()
            modules.append(linear)
        else:
            modules.append({Relu: torch.nn.ReLU, Sigmoid: torch.nn.Sigmoid}[type(layer)]())
    return torch.nn.Sequential(*modules)


@pytest.mark.parametrize("kind", ["relu", "sigmoid", "ten layers"])
def test_a_network_trains_as_in_pytorch(device, rng, kind):
    if kind == "ten layers":
        sizes = [6, *[8] * 9, 3]
        bricks = []
        for i, o in itertools.pairwise(sizes):
            bricks += [Affine.from_sizes(i, o, std="he", rng=rng, dtype="float64"), Relu()]
        net = Sequential(bricks[:-1], device=device)
    else:
        net = TwoLayerNet(6, 8, 3, 0.5, activation=kind, device=device, dtype="float64", seed=1)
    twin = torch_twin(net)
    ours, theirs = SGD(lr=0.2), torch.optim.SGD(twin.parameters(), lr=0.2)
    for _ in range(20):
        x, t = device.asarray(rng.standard_normal((7, 6))), device.asarray(rng.integers(0, 3, 7))
        loss, grads = net.loss_and_gradient(x, t)
        ours.update(net.params, grads)
        theirs.zero_grad()
        expected = F.cross_entropy(twin(tensor(x).detach()), tensor(t))
        expected.backward()
        theirs.step()
        compare(loss, expected)
    linears = [module for module in twin if isinstance(module, torch.nn.Linear)]
    for i, linear in enumerate(linears, 1):
        compare(net.params[f"W{i}"], linear.weight.T)
        compare(net.params[f"b{i}"], linear.bias)


class TorchResidual(torch.nn.Module):
    def __init__(self, *block):
        super().__init__()
        self.block = torch.nn.Sequential(*block)

    def forward(self, x):
        return self.block(x) + x


def test_a_residual_network(device, rng):
    nn, float64 = torch.nn, {"dtype": torch.float64}
    modules = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1, **float64),
        TorchResidual(
            nn.BatchNorm2d(3, **float64), nn.ReLU(), nn.Conv2d(3, 3, 3, padding=1, **float64), TorchResidual(nn.Tanh())
        ),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(3 * 5 * 4, 6, **float64),
        TorchResidual(nn.Linear(6, 4, **float64), nn.Sigmoid(), nn.Linear(4, 6, **float64)),
        nn.Linear(6, 3, **float64),
    )
    # In the order of our parameters.
    theirs = [m for m in modules.modules() if isinstance(m, (nn.Conv2d, nn.Linear, nn.BatchNorm2d))]
    arrays = [[p.detach().numpy() for p in m.parameters()] for m in theirs]
    arrays = [[W.T.copy(), b] if isinstance(m, nn.Linear) else [W, b] for m, (W, b) in zip(theirs, arrays, strict=True)]
    conv1, norm, conv2, affine1, affine2, affine3, affine4 = arrays
    net = Sequential(
        [
            Convolution(*conv1, 1, 1),
            Residual(BatchNormalization(*norm), Relu(), Convolution(*conv2, 1, 1), Residual(Tanh())),
            Relu(),
            Affine(*affine1),
            Residual(Affine(*affine2), Sigmoid(), Affine(*affine3)),
            Affine(*affine4),
        ],
        device=device,
    )
    x, t = scores(device, rng, (6, 2, 5, 4)), device.asarray(rng.integers(0, 3, 6))
    loss, grads = net.loss_and_gradient(x, t)
    x_ = tensor(x)
    expected = F.cross_entropy(modules(x_), torch.tensor(asnumpy(t)))
    expected.backward()
    compare(loss, expected)
    names = [["W1", "b1"], ["gamma1", "beta1"], *([f"W{i}", f"b{i}"] for i in range(2, 7))]
    assert sorted(name for pair in names for name in pair) == sorted(net.params)
    for module, pair in zip(theirs, names, strict=True):
        for name, parameter in zip(pair, module.parameters(), strict=True):
            linear = isinstance(module, nn.Linear) and name.startswith("W")
            compare(grads[name], parameter.grad.T if linear else parameter.grad)
    modules.eval()
    compare(net.predict(x), modules(x_))

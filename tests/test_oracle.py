"""Values and gradients of layers and losses against PyTorch, in float64 on the CPU, for everything that it has too."""

import numpy as np
import pytest

from xpnet import asnumpy, functions
from xpnet.layers import (
    Affine,
    AveragePooling,
    BatchNormalization,
    Convolution,
    Dropout,
    Elu,
    Gelu,
    HingeWithLoss,
    HuberWithLoss,
    IdentityWithLoss,
    LayerNorm,
    LeakyRelu,
    Normalize,
    PoissonWithLoss,
    Pooling,
    Relu,
    Sigmoid,
    SigmoidWithLoss,
    Silu,
    Softmax,
    SoftmaxWithLoss,
    Softplus,
    Tanh,
)

torch = pytest.importorskip("torch", reason="PyTorch, the oracle extra, is not installed")
F = torch.nn.functional

ATOL = 1e-12


def tensor(x):
    x = np.array(asnumpy(x))
    return torch.tensor(x, requires_grad=x.dtype.kind == "f")


def compare(ours, theirs):
    np.testing.assert_allclose(asnumpy(ours), theirs.detach().numpy(), rtol=1e-10, atol=ATOL)


def scores(device, rng, shape=(5, 4), scale=3.0):
    return device.asarray(scale * rng.standard_normal(shape))


ACTIVATIONS = {
    "relu": (Relu, torch.relu),
    "leaky relu": (LeakyRelu, F.leaky_relu),
    "leaky relu, 0.3": (lambda: LeakyRelu(0.3), lambda x: F.leaky_relu(x, 0.3)),
    "elu": (Elu, F.elu),
    "elu, 0.3": (lambda: Elu(0.3), lambda x: F.elu(x, 0.3)),
    "sigmoid": (Sigmoid, torch.sigmoid),
    "tanh": (Tanh, torch.tanh),
    "softplus": (Softplus, lambda x: F.softplus(x, threshold=1e9)),
    "silu": (Silu, F.silu),
    "gelu": (Gelu, F.gelu),
    "gelu, tanh": (lambda: Gelu("tanh"), lambda x: F.gelu(x, approximate="tanh")),
    "softmax": (Softmax, lambda x: torch.softmax(x, -1)),
}


@pytest.mark.parametrize("scale", [3.0, 30.0])
@pytest.mark.parametrize(("layer", "reference"), ACTIVATIONS.values(), ids=ACTIVATIONS)
@pytest.mark.parametrize("shape", [(1, 4), (5, 4), (2, 3, 4, 4), (0, 4)])
def test_activations(device, rng, layer, reference, shape, scale):
    x, dout = scores(device, rng, shape, scale), scores(device, rng, shape)
    layer, theirs = layer(), tensor(x)
    y = reference(theirs)
    compare(layer.forward(x), y)
    y.backward(tensor(dout))
    compare(layer.backward(dout), theirs.grad)


@pytest.mark.parametrize("shape", [(1, 6), (5, 6), (5, 1, 2, 3), (0, 6)])
def test_affine(device, rng, shape):
    W, b, x = scores(device, rng, (6, 4)), scores(device, rng, (4,)), scores(device, rng, shape)
    dout = scores(device, rng, (shape[0], 4))
    layer = Affine(W, b)
    W_, b_, x_ = tensor(W), tensor(b), tensor(x)
    y = F.linear(x_.flatten(1), W_.T, b_)
    compare(layer.forward(x), y)
    y.backward(tensor(dout))
    compare(layer.backward(dout), x_.grad)
    compare(layer.dW, W_.grad)
    compare(layer.db, b_.grad)


@pytest.mark.parametrize("shape", [(5, 6), (2, 3, 6), (2, 3, 1, 6), (2, 0, 6), (0, 3, 6)])
def test_affine_of_each_position(device, rng, shape):
    layer = Affine(scores(device, rng, (6, 4)), scores(device, rng, (4,)), axis=-1)
    compare_layer(layer, lambda x, W, b: F.linear(x, W.T, b), device, rng, scores(device, rng, shape), ("W", "b"))


def compare_layer(layer, reference, device, rng, x, parameters=()):
    """Compare the output and all gradients, for an output gradient that lies in memory as x does, or otherwise."""
    theirs = tensor(x)
    learned = [tensor(getattr(layer, name)) for name in parameters]
    y = reference(theirs, *learned)
    compare(layer.forward(x), y)
    dout = scores(device, rng, y.shape)
    y.backward(tensor(dout))
    compare(layer.backward(dout), theirs.grad)
    for name, parameter in zip(parameters, learned, strict=True):
        compare(getattr(layer, f"d{name}"), parameter.grad)


@pytest.mark.parametrize("groups", [1, 2])
def test_convolution_and_pooling_on_each_device(device, rng, groups):
    x = scores(device, rng, (3, 4, 9, 8))
    layer = Convolution(
        scores(device, rng, (6, 4 // groups, 3, 2)), scores(device, rng, (6,)), (2, 1), 1, (1, 2), groups
    )
    compare_layer(layer, lambda *a: F.conv2d(*a, (2, 1), 1, (1, 2), groups), device, rng, x, ("W", "b"))
    compare_layer(Pooling(3, 2, 2, 1), lambda a: F.max_pool2d(a, (3, 2), 2, 1), device, rng, x)
    compare_layer(AveragePooling(3, 2, 2, 1), lambda a: F.avg_pool2d(a, (3, 2), 2, 1), device, rng, x)


def test_ties_infinities_and_nan_in_max_pooling(device):
    rng = np.random.default_rng(0)
    x = rng.choice([0.0, -0.0, 1.0, np.inf, -np.inf, np.nan], (20, 3, 7, 8), p=[0.3, 0.1, 0.3, 0.1, 0.1, 0.1])
    for size, stride, pad in (((2, 2), 2, 0), ((3, 2), (1, 2), (1, 0))):
        theirs = tensor(x)
        y = F.max_pool2d(theirs, size, stride, pad)
        layer, dout = Pooling(*size, stride, pad), scores(device, rng, y.shape)
        compare(layer.forward(device.asarray(x)), y)
        y.backward(tensor(dout))
        compare(layer.backward(dout), theirs.grad)


@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize("labels", ["class ids", "probabilities"])
@pytest.mark.parametrize("n", [1, 5])
def test_softmax_with_loss(device, rng, scale, labels, n):
    x = scores(device, rng, (n, 4), scale)
    t = device.asarray(rng.integers(0, 4, n) if labels == "class ids" else rng.random((n, 4)))
    layer, theirs = SoftmaxWithLoss(), tensor(x)
    loss = F.cross_entropy(theirs, tensor(t))
    compare(layer.forward(x, t), loss)
    (3.0 * loss).backward()
    compare(layer.backward(3.0), theirs.grad)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("labels", ["class ids", "probabilities"])
@pytest.mark.parametrize("n", [1, 5])
def test_label_smoothing_and_class_weights(device, rng, smoothing, weighted, labels, n):
    x = scores(device, rng, (n, 4))
    t = device.asarray(rng.integers(0, 4, n) if labels == "class ids" else rng.random((n, 4)))
    weight = device.asarray(0.5 + rng.random(4)) if weighted else None
    layer, theirs = SoftmaxWithLoss(smoothing, weight), tensor(x)
    loss = F.cross_entropy(theirs, tensor(t), tensor(weight).detach() if weighted else None, label_smoothing=smoothing)
    compare(layer.forward(x, t), loss)
    loss.backward()
    compare(layer.backward(), theirs.grad)


LOSSES = {
    "sigmoid": (SigmoidWithLoss, F.binary_cross_entropy_with_logits),
    "identity": (IdentityWithLoss, lambda x, t: F.mse_loss(x, t) * x.shape[1] / 2),
    "poisson": (PoissonWithLoss, F.poisson_nll_loss),
    "huber": (HuberWithLoss, F.huber_loss),
    "huber, 0.3": (lambda: HuberWithLoss(0.3), lambda x, t: F.huber_loss(x, t, delta=0.3)),
}


@pytest.mark.parametrize("scale", [1.0, 1e3])
@pytest.mark.parametrize(("layer", "reference"), LOSSES.values(), ids=LOSSES)
def test_elementwise_losses(device, rng, layer, reference, scale):
    x, t = scores(device, rng, scale=scale), device.asarray(rng.random((5, 4)))
    layer, theirs = layer(), tensor(x)
    loss = reference(theirs, tensor(t))
    with np.errstate(over="ignore"):  # a rate of exp(1000) is infinite in both
        compare(layer.forward(x, t), loss)
        loss.backward()
        compare(layer.backward(), theirs.grad)


@pytest.mark.parametrize("margin", [1.0, 0.4])
def test_hinge_loss(device, rng, margin):
    x, t = scores(device, rng, (6, 4)), device.asarray(rng.integers(0, 4, 6))
    layer, theirs = HingeWithLoss(margin), tensor(x)
    loss = F.multi_margin_loss(theirs, tensor(t), margin=margin)
    compare(layer.forward(x, t), loss)
    loss.backward()
    compare(layer.backward(), theirs.grad)


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_softmax_along_any_axis(device, rng, axis):
    x = scores(device, rng, (2, 3, 4))
    compare(functions.softmax(x, axis=axis), torch.softmax(tensor(x), axis))


def test_loss_functions_and_one_hot(device, rng):
    y, t = scores(device, rng), scores(device, rng)
    compare(functions.mean_squared_error(y, t) * 2 / 4, F.mse_loss(tensor(y), tensor(t)))
    p, ids = functions.softmax(y), device.asarray(rng.integers(0, 4, 5))
    compare(functions.cross_entropy_error(p, ids), F.nll_loss(torch.log(tensor(p) + 1e-7), tensor(ids)))
    compare(functions.one_hot(ids, 4), F.one_hot(tensor(ids), 4))


@pytest.mark.parametrize("shape", [(6, 4), (2, 4), (5, 4, 3, 2)])
@pytest.mark.parametrize("momentum", [0.1, 0.5])
def test_batch_normalization_in_training_and_after(device, rng, shape, momentum):
    gamma, beta, dout = scores(device, rng, (4,)), scores(device, rng, (4,)), scores(device, rng, shape)
    layer = BatchNormalization(gamma, beta, momentum=1 - momentum)
    mean, var = torch.zeros(4, dtype=torch.float64), torch.ones(4, dtype=torch.float64)
    for train in (True, True, False):
        x = scores(device, rng, shape)
        x_, gamma_, beta_ = tensor(x), tensor(gamma), tensor(beta)
        y = F.batch_norm(x_, mean, var, gamma_, beta_, train, momentum)
        compare(layer.forward(x, train), y)
        y.backward(tensor(dout))
        compare(layer.backward(dout), x_.grad)
        compare(layer.dgamma, gamma_.grad)
        compare(layer.dbeta, beta_.grad)
        compare(layer.running_mean, mean)
        compare(layer.running_var, var)


@pytest.mark.parametrize(("shape", "features"), [((5, 4), (4,)), ((2, 3, 4), (4,)), ((2, 3, 4), (3, 4))])
def test_layer_norm(device, rng, shape, features):
    gamma, beta, x = scores(device, rng, features), scores(device, rng, features), scores(device, rng, shape)
    dout, layer = scores(device, rng, shape), LayerNorm(gamma, beta)
    x_, gamma_, beta_ = tensor(x), tensor(gamma), tensor(beta)
    y = F.layer_norm(x_, features, gamma_, beta_)
    compare(layer.forward(x), y)
    y.backward(tensor(dout))
    compare(layer.backward(dout), x_.grad)
    compare(layer.dgamma, gamma_.grad)
    compare(layer.dbeta, beta_.grad)


@pytest.mark.parametrize("shape", [(6, 4), (0, 4), (5, 4, 3, 2)])
def test_normalize_is_batch_normalization_with_fixed_averages(device, rng, shape):
    mean, std, x, dout = (scores(device, rng, size) for size in ((4,), (4,), shape, shape))
    layer, x_ = Normalize(mean, abs(std)), tensor(x)
    y = F.batch_norm(x_, tensor(mean).detach(), tensor(std).detach() ** 2, eps=0.0)
    compare(layer.forward(x), y)
    y.backward(tensor(dout))
    compare(layer.backward(dout), x_.grad)


def test_dropout_scales_what_is_left_as_pytorch_does(device, rng):
    x, layer = scores(device, rng, (50, 40)), Dropout(0.3, seed=0)
    y = asnumpy(layer.forward(x))
    theirs = F.dropout(tensor(x), 0.3).detach().numpy()
    kept = (y != 0) & (theirs != 0)
    np.testing.assert_allclose(y[kept], theirs[kept], rtol=1e-12)
    assert abs((y != 0).mean() - (theirs != 0).mean()) < 0.06

"""The chapter's experiment (section 5.7.3): what a gradient costs, numerically and by backpropagation.

784-50-10 on the first three images of MNIST, in float64, beside a training step at batch 100 in float32. The names
say what is timed; the groups are what may be compared.
"""

from __future__ import annotations

import numpy as np
import pytest
from book import BookNet

from xpnet import asnumpy
from xpnet.datasets import load_mnist
from xpnet.nets import TwoLayerNet
from xpnet.training import Trainer


@pytest.fixture(scope="module")
def mnist():
    return load_mnist()


@pytest.fixture
def case(mnist, device):
    (x, t), _ = mnist
    net = TwoLayerNet(784, 50, 10, device=device, dtype="float64", seed=0)
    return net, device.asarray(x[:3]), device.asarray(t[:3])


@pytest.mark.benchmark(group="gradient of 784-50-10, 3 images, float64")
def test_numerical_loop(measure, case):
    net, x, t = case
    found = measure(lambda: net.numerical_gradient(x, t), rounds=3)
    np.testing.assert_allclose(asnumpy(found.flat), asnumpy(net.gradient(x, t).flat), atol=1e-7)


@pytest.mark.benchmark(group="gradient of 784-50-10, 3 images, float64")
def test_backpropagation(measure, case):
    net, x, t = case
    measure(lambda: net.gradient(x, t), rounds=300)


@pytest.mark.benchmark(group="gradient of 784-50-10, 3 images, float64")
def test_book_numerical_loop(benchmark, mnist, request):
    if request.config.getoption("--device") == "cuda":
        pytest.skip("the book's loop runs on the CPU")
    (x, t), _ = mnist
    net = BookNet(784, 50, 10, np.random.default_rng(0))
    x, t = x[:3].astype("float64"), np.eye(10)[t[:3]]
    found = benchmark.pedantic(lambda: net.numerical_gradient(x, t), rounds=3)
    for key, gradient in net.gradient(x, t).items():
        np.testing.assert_allclose(found[key], gradient, atol=1e-6)


@pytest.mark.benchmark(group="training step of 784-50-10, batch 100, float32")
def test_training_step(measure, mnist, device):
    (x, t), (x_test, t_test) = mnist
    net = TwoLayerNet(784, 50, 10, device=device, seed=0)
    trainer = Trainer(net, x, t, x_test, t_test, verbose=False, optimizer_param={"lr": 0.1})
    index = device.asarray(device.rng(0).integers(0, len(x), 100))
    measure(lambda: trainer.train_step(index), rounds=1000)


@pytest.mark.benchmark(group="training step of 784-50-10, batch 100, float32")
def test_bare_matrix_products(measure, mnist, device):
    """The five products of a step alone, with results preallocated: what no implementation gets below."""
    xp = device.xp
    x, hidden, scores = (xp.ones((100, n), "float32") for n in (784, 50, 10))
    W1, W2 = xp.ones((784, 50), "float32"), xp.ones((50, 10), "float32")
    z, y, dW1, dW2, dhidden = (xp.empty_like(a) for a in (hidden, scores, W1, W2, hidden))

    def products():
        xp.matmul(x, W1, out=z)
        xp.matmul(hidden, W2, out=y)
        xp.matmul(hidden.T, scores, out=dW2)
        xp.matmul(scores, W2.T, out=dhidden)
        xp.matmul(x.T, dhidden, out=dW1)

    measure(products, rounds=1000)

"""The convolutional networks, and what training steps make of their layers."""

import copy

import numpy as np
import pytest

from xpnet import asnumpy, kernels
from xpnet.datasets import load_mnist
from xpnet.gradient import gradient_check
from xpnet.layers import (
    Convolution,
    Flatten,
    Pooling,
    Relu,
)
from xpnet.nets import LeNet5, Sequential, SimpleConvNet
from xpnet.optimizers import SGD


class TestConvolutionalNetworks:
    def test_simple_conv_net_has_the_names_and_sizes_of_the_book(self, device):
        net = SimpleConvNet(device=device, seed=0)
        assert list(net.layers) == ["Conv1", "Relu1", "Pool1", "Affine1", "Relu2", "Affine2"]
        assert {name: values.shape for name, values in net.params.items()} == {
            "W1": (30, 1, 5, 5),
            "b1": (30,),
            "W2": (30 * 12 * 12, 100),
            "b2": (100,),
            "W3": (100, 10),
            "b3": (10,),
        }
        assert float(asnumpy(net.params["W2"]).std()) == pytest.approx(0.01, rel=0.05)
        assert net.layers["Conv1"].name == "Conv1"

    def test_its_settings_are_those_of_the_book(self):
        conv = {"filter_num": 4, "filter_size": 3, "pad": 1, "stride": 2}
        net = SimpleConvNet(
            (3, 17, 14), conv, hidden_size=7, output_size=5, weight_init_std="he", dtype="float64", seed=1
        )
        assert net.params["W1"].shape == (4, 3, 3, 3)
        assert net.params["W2"].shape == (4 * 4 * 3, 7)
        assert net.predict(np.zeros((2, 3, 17, 14))).shape == (2, 5)
        assert SimpleConvNet(conv_param={"filter_num": 2}).params["W1"].shape == (2, 1, 5, 5)
        with pytest.raises(ValueError, match="conv_param may hold filter_num, filter_size, pad, stride, got filters"):
            SimpleConvNet(conv_param={"filters": 2})
        with pytest.raises(ValueError, match=r"expected larger images .* windows of \(5, 5\) do not fit"):
            SimpleConvNet((1, 4, 4))

    def test_lenet_5_has_its_61_706_parameters(self):
        net = LeNet5(seed=0)
        assert net.params.size == 61_706
        assert "Pool2    (N, 16, 5, 5)" in net.summary()

    @pytest.mark.parametrize("kind", [SimpleConvNet, LeNet5])
    def test_gradients_are_right(self, device, rng, kind):
        net = kind((1, 14, 14), weight_init_std="he", device=device, seed=0)
        x, t = device.asarray(rng.random((2, 1, 14, 14))), device.asarray([3, 9])
        assert gradient_check(net, x, t, method="directional").ok

    @pytest.mark.parametrize("kind", [SimpleConvNet, LeNet5])
    def test_say_which_images_they_take(self, device, kind):
        net = kind(device=device)
        with pytest.raises(
            ValueError,
            match=rf"{kind.__name__} expected x of shape \(N, 1, 28, 28\), got \(5, 784\); these samples are flat, see "
            r"load_mnist\(flatten=False\), or x.reshape\(-1, 1, 28, 28\)",
        ):
            net.predict(device.xp.zeros((5, 784), "float32"))
        with pytest.raises(ValueError, match=r"got \(1, 28, 28\); a single sample needs a batch axis: x\[None\]"):
            net.predict(device.xp.zeros((1, 28, 28), "float32"))
        with pytest.raises(ValueError, match=r"got \(2, 1, 30, 28\)$"):
            net.predict(device.xp.zeros((2, 1, 30, 28), "float32"))

    def test_accuracy_predicts_as_many_samples_at_a_time_as_stay_in_the_cache(self, rng, monkeypatch):
        x, t = rng.random((300, 1, 28, 28), dtype="float32"), rng.integers(0, 10, 300)
        net = SimpleConvNet(seed=0)
        sizes = []
        predict = net.predict
        monkeypatch.setattr(net, "predict", lambda x: (sizes.append(len(x)), predict(x))[1])
        found = net.accuracy(x, t)
        assert sum(sizes) == 300
        assert max(sizes) * 30 * 24 * 24 * 4 <= kernels.scratch_size(x) < (max(sizes) + 1) * 30 * 24 * 24 * 4
        assert found == (asnumpy(predict(x)).argmax(axis=1) == t).mean()

    def test_learn_mnist(self):
        (x, t), (x_test, t_test) = load_mnist(normalize=False, flatten=False)
        net = LeNet5(seed=0)
        step = net.compile(SGD(lr=0.1), batch_size=50)
        step.run(x, t, np.random.default_rng(0).integers(0, 60_000, (150, 50)))
        assert net.accuracy(x_test[:1000], t_test[:1000]) > 0.85


@pytest.mark.parametrize("pool", [Pooling(2, 2), Pooling(3, 2, stride=1, pad=1)])
def test_training_steps_run_max_pooling_before_relu_which_changes_nothing(device, rng, pool):
    class OwnRelu(Relu):
        """Not known to be a ReLU, so left where it is."""

    def build(relu):
        convolution = Convolution.from_sizes(1, 3, 3, rng=1, dtype="float64")
        return Sequential([convolution, relu, copy.deepcopy(pool), Flatten()], device=device)

    x = device.asarray(rng.integers(-1, 2, (4, 1, 8, 8)), "float64")  # with many equal numbers
    indices, W = device.asarray(np.arange(4)[None]), rng.integers(-1, 2, (3, 1, 3, 3))
    first, second = build(Relu()), build(OwnRelu())
    for net in (first, second):
        net.params["W1"] = W
        t = device.asarray(np.arange(4) % net.predict(x).shape[1])
        net.compile(SGD(0.1), 4, backend=None).run(x, t, indices)
    # The scores lie in memory in another order, and so CuPy may add their exponentials in another.
    rtol = 0 if str(device) == "cpu" else 1e-12
    np.testing.assert_allclose(asnumpy(first.params.flat), asnumpy(second.params.flat), rtol=rtol)
    assert list(first.layers) == ["Convolution1", "Relu1", "Pooling1", "Flatten1"]
    if str(device) == "cpu":  # on a CUDA device the pooling and the ReLU are one layer
        sizes = [net.layers[name].mask.size for net, name in ((first, "Relu1"), (second, "OwnRelu1"))]
        assert sizes[0] < sizes[1] or pool.windows.stride == (1, 1)
    # Outside a training step each layer's backward takes the gradient of its own output: the book's loop works.
    first.loss(x, t, train=True)
    dx = first.last_layer.backward()
    for layer in reversed(first.layers.values()):
        dx = layer.backward(dx)
    np.testing.assert_allclose(
        asnumpy(first.layers["Convolution1"].dW), asnumpy(first.gradient(x, t)["W1"]), rtol=1e-12, atol=1e-15
    )

"""Convolution and pooling beyond what holds for every layer: blocks, compiled steps, memory order, errors, im2col."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpnet import asnumpy, kernels
from xpnet.functions import col2im, im2col
from xpnet.layers import Affine, AveragePooling, Convolution, Flatten, GlobalAveragePooling, Pooling, Relu
from xpnet.nets import Sequential
from xpnet.optimizers import SGD
from xpnet.windows import samples_last


def convolution(*sizes, **settings):
    return Convolution.from_sizes(*sizes, rng=sizes[0], dtype="float64", **settings)


def network(device, hidden=12):
    """Return a small network of every layer for images, for (N, 1, 10, 9)."""
    layers = [
        convolution(1, 4, 3, pad=1),
        Relu(),
        Pooling(2, 2),
        convolution(4, 6, (3, 2), groups=2, pad=(1, 0)),
        Relu(),
        AveragePooling(2, 2, stride=1),
        Flatten(),
        Affine.from_sizes(6 * 4 * 2, 3, std="he", rng=1, dtype="float64"),
    ]
    return Sequential(layers, device=device)


def batch(device, rng, n=4):
    return device.asarray(rng.standard_normal((n, 1, 10, 9))), device.asarray(rng.integers(0, 3, n))


class TestIm2col:
    def test_a_row_is_what_a_filter_sees(self, device):
        x = device.asarray(np.arange(12.0).reshape(1, 1, 3, 4))
        expected = [[0, 1, 4, 5], [1, 2, 5, 6], [2, 3, 6, 7], [4, 5, 8, 9], [5, 6, 9, 10], [6, 7, 10, 11]]
        np.testing.assert_array_equal(asnumpy(im2col(x, 2, 2)), expected)

    def test_convolution_is_its_product_with_the_filters(self, device, rng):
        x = device.asarray(rng.standard_normal((3, 2, 6, 5)))
        layer = convolution(2, 4, 3, stride=2, pad=1)
        layer.to(device)
        y = im2col(x, 3, 3, 2, 1) @ layer.W.reshape(4, -1).T + layer.b
        np.testing.assert_allclose(
            asnumpy(layer.forward(x)), asnumpy(y).reshape(3, 3, 3, 4).transpose(0, 3, 1, 2), rtol=1e-12
        )

    @given(st.integers(0, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2))
    def test_col2im_is_its_adjoint(self, n, h, w, stride, pad):
        rng = np.random.default_rng(n)
        x = rng.standard_normal((n, 2, 5, 4))
        col = im2col(x, h, w, stride, pad)
        other = rng.standard_normal(col.shape)
        back = col2im(other, x.shape, h, w, stride, pad)
        assert back.shape == x.shape
        np.testing.assert_allclose((col * other).sum(), (x * back).sum(), rtol=1e-10, atol=1e-10)

    def test_says_what_does_not_fit(self):
        with pytest.raises(ValueError, match=r"windows of \(5, 2\) do not fit images of \(4, 6\), padding included"):
            im2col(np.zeros((1, 1, 2, 4)), 5, 2, pad=1)
        with pytest.raises(ValueError, match="im2col expected stride to be an int of at least 1, or a pair of them"):
            im2col(np.zeros((1, 1, 2, 4)), 1, 1, stride=0)


@pytest.mark.parametrize("rows", [1, 3])
def test_convolution_in_blocks_gives_the_same(device, rng, monkeypatch, rows):
    x = device.asarray(rng.standard_normal((3, 4, 9, 8)))
    whole, blocks = (convolution(4, 6, 3, stride=(1, 2), pad=1, groups=2) for _ in range(2))
    for layer in (whole, blocks):
        layer.to(device)
    y = whole.forward(x)
    row = 4 * 9 * y.shape[3] * 3 * 8
    monkeypatch.setattr(kernels.memory, "HOST_SCRATCH", rows * row)
    monkeypatch.setattr(kernels.memory, "DEVICE_SCRATCH", rows * row)
    results = [asnumpy(array) for array in (y, whole.backward(y), whole.dW, whole.db)]
    found = [asnumpy(array) for array in (blocks.forward(x), blocks.backward(y), blocks.dW, blocks.db)]
    assert blocks.columns.size * 8 == rows * row < whole.columns.size * 8
    for a, b in zip(found, results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def test_a_layer_takes_what_another_made_without_a_copy(rng):
    y = convolution(1, 2, 3).forward(rng.standard_normal((5, 1, 6, 6)))
    assert y.shape == (5, 2, 4, 4)
    for layer in (Relu(), Pooling(2, 2), AveragePooling(2, 2), convolution(2, 2, 1)):
        assert np.shares_memory(samples_last(y), y)
        y = layer.forward(y)
        assert np.shares_memory(layer.backward(y), samples_last(layer.backward(y))) is False  # results are their own
    affine = Affine.from_sizes(2, 3, dtype="float64")
    affine.forward(y)
    assert np.shares_memory(affine.x, y)


def test_a_compiled_step_gives_the_numbers_of_the_plain_one(device, rng):
    plain, compiled = network(device), network(device)
    x, t = batch(device, rng, 20)
    indices = rng.integers(0, 20, (5, 4))
    step = compiled.compile(SGD(lr=0.1), batch_size=4)
    losses = step.run(x, t, device.asarray(indices))
    optimizer = SGD(lr=0.1)
    for index, loss in zip(indices, asnumpy(losses), strict=True):
        index = device.asarray(index)
        expected, grads = plain.loss_and_gradient(x[index], t[index])
        optimizer.update(plain.params, grads)
        assert float(expected) == pytest.approx(float(loss), rel=1e-12)
    np.testing.assert_allclose(asnumpy(compiled.params.flat), asnumpy(plain.params.flat), rtol=1e-12)


class TestConvolution:
    def test_keeps_the_very_arrays_it_is_given(self, device):
        W, b = device.xp.zeros((2, 1, 3, 3)), device.xp.zeros(2)
        layer = Convolution(W, b)
        assert layer.W is W
        assert layer.b is b
        b += 2.0
        np.testing.assert_array_equal(asnumpy(layer.forward(device.xp.zeros((1, 1, 3, 3)))), np.full((1, 2, 1, 1), 2.0))

    def test_from_sizes_draws_for_its_fan_in(self):
        layer = Convolution.from_sizes(16, 400, (5, 3), groups=4, rng=0)
        assert layer.W.shape == (400, 4, 5, 3)
        assert layer.W.dtype == layer.b.dtype == "float32"
        assert layer.W.std() == pytest.approx((2 / 60) ** 0.5, rel=0.05)
        assert Convolution.from_sizes(16, 400, 3, std=0.5, rng=0).W.std() == pytest.approx(0.5, rel=0.05)
        assert not layer.b.any()

    def test_says_which_images_it_expected(self, device):
        layer = convolution(3, 2, 5)
        layer.to(device)
        with pytest.raises(ValueError, match=r"Convolution expected x of shape \(N, 3, H, W\), got \(N, 1, 28, 28\)"):
            layer.forward(device.xp.zeros((2, 1, 28, 28)))
        with pytest.raises(ValueError, match=r"got \(N, 784\); images come flat from load_mnist unless flatten=False"):
            layer.forward(device.xp.zeros((2, 784)))
        with pytest.raises(ValueError, match=r"larger images .* windows of \(5, 5\) do not fit images of \(4, 6\)"):
            layer.forward(device.xp.zeros((2, 3, 4, 6)))
        dilated = convolution(1, 1, 3, dilation=2, pad=1)
        with pytest.raises(
            ValueError, match=r"windows of \(5, 5\) \(dilation \(2, 2\)\) do not fit images of \(4, 4\)"
        ):
            dilated.output_shape((1, 2, 2))

    def test_refuses_parameters_and_settings_that_do_not_fit(self):
        W, b = np.zeros((4, 2, 3, 3)), np.zeros(4)
        for arguments, message in [
            ((W[0], b), r"expected W to be an array of shape \(F, C / groups, h, w\), got shape \(2, 3, 3\)"),
            (([[1.0]], b), r"expected W to be an array .*, got list"),
            ((W, b[:3]), r"expected b of shape \(4,\) to go with W \(4, 2, 3, 3\), got \(3,\)"),
            ((W, b, 0), "stride to be an int of at least 1, or a pair of them, got 0"),
            ((W, b, (1, 2, 3)), r"stride to be .*, got \(1, 2, 3\)"),
            ((W, b, 1.5), "stride to be .*, got 1.5"),
            ((W, b, 1, -1), "pad to be an int of at least 0"),
            ((W, b, 1, 0, "x"), "dilation to be .*, got 'x'"),
            ((W, b, 1, 0, 1, 3), "groups must divide the number of filters, 4, got 3"),
            ((W, b, 1, 0, 1, 0), "groups must divide the number of filters, 4, got 0"),
        ]:
            with pytest.raises(ValueError, match=message):
                Convolution(*arguments)
        with pytest.raises(ValueError, match="groups must divide in_channels, 3, got 2"):
            Convolution.from_sizes(3, 4, 3, groups=2)

    def test_networks_refuse_layers_that_do_not_fit_when_they_are_built(self):
        net = Sequential([convolution(1, 2, 5), Relu(), Pooling(2, 2), Affine.from_sizes(288, 10, dtype="float64")])
        assert "(N, 2, 12, 12)" in net.summary((1, 28, 28))
        with pytest.raises(ValueError, match=r"Pooling1 does not fit Affine1: Affine1? expected x of shape \(N, 288\)"):
            net.summary((1, 30, 30))


class TestPooling:
    def test_takes_the_first_of_equal_numbers(self, device):
        layer = Pooling(2, 2)
        layer.forward(device.asarray(np.zeros((1, 1, 4, 4))))
        dx = layer.backward(device.asarray(np.ones((1, 1, 2, 2))))
        np.testing.assert_array_equal(asnumpy(dx)[0, 0], np.tile([[1.0, 0.0], [0.0, 0.0]], (2, 2)))

    def test_windows_of_many_pixels(self, device, rng):
        x = device.asarray(rng.permutation(2 * 400).reshape(2, 1, 20, 20) * 1.0)
        layer = Pooling(20, 20)
        y = layer.forward(x)
        np.testing.assert_array_equal(asnumpy(y).ravel(), asnumpy(x).max(axis=(1, 2, 3)))
        np.testing.assert_array_equal(asnumpy(layer.backward(y)), np.where(asnumpy(x) == asnumpy(y), asnumpy(x), 0.0))

    @pytest.mark.parametrize("kind", [Pooling, AveragePooling])
    def test_says_what_does_not_fit(self, kind):
        with pytest.raises(ValueError, match=r"pad to be at most half the window \(2, 3\).*, got 2"):
            kind(2, 3, pad=2)
        with pytest.raises(ValueError, match="pool_h and pool_w to be an int of at least 1"):
            kind(0, 2)
        with pytest.raises(ValueError, match=rf"{kind.__name__} expected x of shape \(N, C, H, W\), got \(N, 784\)"):
            kind(2, 2).forward(np.zeros((1, 784)))
        with pytest.raises(ValueError, match=r"larger images .* windows of \(3, 3\) do not fit images of \(2, 5\)"):
            kind(3, 3).forward(np.zeros((1, 1, 2, 5)))

    def test_a_global_mean_needs_images(self):
        with pytest.raises(ValueError, match=r"GlobalAveragePooling expected x of shape \(N, C, H, W\), got \(N, 3\)"):
            GlobalAveragePooling().forward(np.zeros((2, 3)))


def test_padding_shifts_windows_that_would_tile_the_image(device):
    pooling = Pooling(3, 1, stride=(3, 1), pad=(1, 0))  # one window, over the padding and two of three pixels
    assert asnumpy(pooling.forward(device.asarray(np.array([[[[1.0], [2.0], [3.0]]]])))).item() == 2.0
    dx = pooling.backward(device.asarray(np.ones((1, 1, 1, 1))))
    assert asnumpy(dx).ravel().tolist() == [0.0, 1.0, 0.0]


def test_filters_may_lie_in_any_order_in_memory(device, rng):
    W = rng.standard_normal((3, 3, 2, 4)).transpose(3, 2, 0, 1)  # as channels-last libraries keep them
    x, dout = device.asarray(rng.standard_normal((2, 2, 5, 5))), device.asarray(rng.standard_normal((2, 4, 3, 3)))
    layers = [Convolution(device.asarray(w), device.asarray(np.zeros(4))) for w in (W, np.ascontiguousarray(W))]
    for layer in layers:
        layer.forward(x)
    dx = [asnumpy(layer.backward(dout)) for layer in layers]
    np.testing.assert_array_equal(*dx)
    np.testing.assert_array_equal(*(asnumpy(layer.dW) for layer in layers))

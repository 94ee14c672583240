"""The CUDA kernels of windows on images compute what their definitions say."""

import numpy as np
import pytest
from test_cuda_kernels import DTYPES, both

from xpnet import asnumpy, kernels
from xpnet.layers import Convolution
from xpnet.nets import SimpleConvNet
from xpnet.windows import Windows

WINDOWS = [
    Windows((2, 2), (2, 2)),
    Windows((3, 2), (2, 1), (1, 1)),
    Windows((3, 3), (1, 1), (1, 0), (2, 1)),
    Windows((2, 3), (3, 4), (0, 1)),
    Windows((1, 1), (3, 3)),
]


class TestWindows:
    @DTYPES
    @pytest.mark.parametrize("windows", WINDOWS)
    def test_largest_numbers_and_their_gradients(self, device, monkeypatch, rng, dtype, windows):
        x = rng.standard_normal((3, 8, 7, 5)).round(1).astype(dtype)  # some equal
        x[0, 2, 2, 0], x[1, :4, :4, 1], x[2, :, :, 2] = np.nan, np.nan, -np.inf
        x, places = device.asarray(x), (3, *windows.places(8, 7), 5)
        dout = device.asarray(rng.standard_normal(places).astype(dtype))

        def call():
            y, index, dx = device.xp.empty(places, dtype), device.xp.empty(places, "uint8"), device.xp.empty_like(x)
            kernels.max_pool(x, y, index, windows)
            kernels.max_pool_gradient(dout, index, dx, windows)
            return [asnumpy(array) for array in (y, index, dx)]

        for fast, slow in zip(*both(monkeypatch, call), strict=True):
            np.testing.assert_array_equal(fast, slow)

    @DTYPES
    @pytest.mark.parametrize("windows", WINDOWS)
    @pytest.mark.parametrize("rows", [range(0, 1), range(1, 2), None])
    def test_windows_are_added_to_images(self, device, monkeypatch, rng, dtype, windows, rows):
        down, across = windows.places(8, 7)
        rows = range(down) if rows is None else rows
        seen = device.asarray(rng.standard_normal((3, *windows.size, len(rows), across, 5)).astype(dtype))
        images = rng.standard_normal((3, 8, 7, 5)).astype(dtype)

        def call():
            out = device.asarray(images.copy())
            kernels.add_windows(seen, out, windows, rows)
            return asnumpy(out)

        fast, slow = both(monkeypatch, call)
        np.testing.assert_array_equal(fast, slow)
        if rows.start == 0:  # what was there is replaced
            images[...] = 0
            np.testing.assert_array_equal(fast, call())

    @DTYPES
    @pytest.mark.parametrize("windows", WINDOWS)
    def test_largest_numbers_and_relu_have_the_bits_of_both(self, device, monkeypatch, rng, dtype, windows):
        x = rng.standard_normal((3, 8, 7, 5)).round(1).astype(dtype)
        x[0, 2, 2, 0], x[1, :4, :4, 1], x[2, :, :, 2] = np.nan, np.nan, -np.inf
        x, places = device.asarray(x), (3, *windows.places(8, 7), 5)
        dout = device.asarray(rng.standard_normal(places).astype(dtype))

        def call():
            y, index, dx = device.xp.empty(places, dtype), device.xp.empty(places, "uint8"), device.xp.empty_like(x)
            mask = device.xp.empty(places, bool)
            kernels.max_pool_relu(x, y, index, mask, windows)
            kernels.max_pool_relu_gradient(dout, index, mask, dx, windows)
            return [asnumpy(array) for array in (y, index, mask, dx)]

        for fast, slow in zip(*both(monkeypatch, call), strict=True):
            np.testing.assert_array_equal(fast, slow)

    @pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
    @pytest.mark.parametrize(("groups", "held"), [(1, 20), (1, 12), (2, 20)])
    def test_gradients_of_filters_and_biases(self, device, rng, dtype, groups, held):
        def array(*shape):
            return device.asarray(rng.integers(-3, 4, shape).astype(dtype))

        dout, columns, ones = array(groups, 4, 20), array(groups, 6, held), device.xp.ones(20, dtype)
        dW, db = device.xp.empty((groups, 4, 6), dtype), device.xp.empty(4 * groups, dtype)
        kernels.filter_gradients(dout, columns, ones, dW, db)
        expected = asnumpy(dout)[:, :, :held] @ asnumpy(columns).transpose(0, 2, 1)
        np.testing.assert_array_equal(asnumpy(dW), expected)
        np.testing.assert_array_equal(asnumpy(db), asnumpy(dout).sum(axis=2).reshape(-1))

    def test_layers_for_images_use_them(self, cuda, launched, rng):
        device = cuda
        net = SimpleConvNet(device=device, seed=0)
        x = device.asarray(rng.standard_normal((2, 1, 28, 28)).astype("float32"))
        net.gradient(x, device.asarray([0, 1]))
        layer = Convolution(net.params["W1"], net.params["b1"], 1, 0)
        layer.backward(layer.forward(x))
        assert {"max_pool", "max_pool_gradient", "add_windows"} <= set(launched)

"""The CUDA kernels compute what their definitions say."""

import importlib.util
from importlib import resources

import numpy as np
import pytest

from xpnet import asnumpy, kernels
from xpnet.nets import TwoLayerNet
from xpnet.optimizers import SGD

FOLDER = resources.files("xpnet.kernels")
SOURCE = "".join(
    FOLDER.joinpath(name).read_text() for name in ("kernels.cu", "images.cu", "normalization.cu", "gates.cu")
)
ARCHITECTURES = ("sm_80", "sm_90", "sm_120")  # from A100 to Blackwell: each takes 6 s

FASTEST = "numba" if importlib.util.find_spec("numba") else "numpy"

DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])


def both(monkeypatch, call):
    """Return what a call gives by the kernels, on the CPU those of Numba, and by the definitions."""
    with kernels.using(FASTEST):
        fast = call()
    with monkeypatch.context() as patch:
        patch.setattr(kernels.operations, "_for_cuda", lambda: None)
        return fast, call()


class TestKernels:
    @DTYPES
    def test_gather_and_divide_by_255(self, device, monkeypatch, rng, dtype):
        x, index = device.asarray(rng.integers(0, 256, (9, 2, 5), dtype="uint8")), device.asarray([3, 0, 8, 3])
        fast, slow = both(monkeypatch, lambda: asnumpy(kernels.gather(x, index, device.xp.empty((4, 2, 5), dtype))))
        np.testing.assert_array_equal(fast, slow)
        np.testing.assert_array_equal(fast, asnumpy(x)[[3, 0, 8, 3]].astype(dtype) / 255)

    @pytest.mark.parametrize("dtype", ["uint8", "float32"])
    def test_gather_into_float16(self, cuda, monkeypatch, rng, dtype):
        x, index = cuda.asarray(rng.integers(0, 256, (9, 5)), dtype), cuda.asarray([3, 0, 9, 3])
        fast, slow = both(monkeypatch, lambda: asnumpy(kernels.gather(x, index, cuda.xp.empty((4, 5), "float16"))))
        np.testing.assert_array_equal(fast, slow)

    @pytest.mark.parametrize("dtype", ["float32", "float64", "uint8", "int32", "int64", "float16", "bool"])
    def test_gather_marks_indices_out_of_range(self, device, monkeypatch, rng, dtype):
        if device.name == "cpu":
            pytest.skip("on the host the caller checks indices")
        x, index = device.asarray(rng.integers(0, 2, (9, 3)), dtype), device.asarray([[3, 9], [-1, 8]])
        fast, slow = both(monkeypatch, lambda: asnumpy(kernels.gather(x, index, device.xp.empty((2, 2, 3), dtype))))
        np.testing.assert_array_equal(fast, slow)
        np.testing.assert_array_equal(fast[[0, 1], [0, 1]], asnumpy(x)[[3, 8]])
        missing = {"f": np.nan, "u": 255, "i": -1, "b": True}[fast.dtype.kind]
        np.testing.assert_array_equal(fast[[0, 1], [1, 0]], np.full((2, 3), missing))

    @DTYPES
    @pytest.mark.parametrize("shape", [(3, 5), (1, 1), (0, 4)])
    def test_gates_and_their_gradients(self, cuda, monkeypatch, launched, rng, dtype, shape):
        N, H = shape
        a, product = (cuda.asarray(rng.standard_normal((N, 4 * H)), dtype) for _ in range(2))
        a3, product3 = (cuda.xp.ascontiguousarray(x[:, : 3 * H]) for x in (a, product))
        c, dh, dc = cuda.asarray(rng.standard_normal((3, N, H)), dtype)
        bn = cuda.asarray(rng.standard_normal(H), dtype)

        def run():
            gates, cell, h = (cuda.xp.empty(made, dtype) for made in ((5, N, H), shape, shape))
            kernels.lstm_step(a, product, c, gates, cell, h)
            before, da = dc.copy(), cuda.xp.empty_like(a)
            kernels.lstm_step_gradient(gates, c, dh, before, da)
            gated, out, through = cuda.xp.empty((4, N, H), dtype), cuda.xp.empty(shape, dtype), dh.copy()
            kernels.gru_step(a3, product3, bn, c, gated, out)
            da3, du = (cuda.xp.empty_like(a3) for _ in range(2))
            kernels.gru_step_gradient(gated, c, through, da3, du)
            return [*map(asnumpy, (gates, cell, h, before, da, gated, out, through, da3, du))]

        eps = float(np.finfo(dtype).eps)
        for fast, slow in zip(*both(monkeypatch, run), strict=True):
            np.testing.assert_allclose(fast, slow, rtol=8 * eps, atol=8 * eps)
        assert launched == ["lstm_step", "lstm_step_gradient", "gru_step", "gru_step_gradient"]

    @DTYPES
    @pytest.mark.parametrize("shape", [(7, 3), (1,), (0, 3), (2, 3, 4, 5)])
    def test_relu(self, device, monkeypatch, rng, dtype, shape):
        x = rng.standard_normal(shape).astype(dtype)
        x.reshape(-1)[:1] = np.nan
        for order in (range(len(shape)), reversed(range(len(shape)))):  # as of rows, and with samples last
            given = device.asarray(x).transpose(*order)

            def call(given=given):
                y, mask = kernels.relu(given)
                return y, mask, kernels.relu_gradient(given, mask), kernels.relu_gradient(given, mask, out=y)

            for fast, slow in zip(*both(monkeypatch, call), strict=True):
                np.testing.assert_array_equal(asnumpy(fast), asnumpy(slow))

    @DTYPES
    @pytest.mark.parametrize("shape", [(700, 3), (1,), (0, 3), (2, 3, 4, 5)])
    def test_random_masks(self, device, monkeypatch, dtype, shape):
        x = device.asarray(np.zeros(shape), dtype)
        for state in (0, 1, 2**64 - 1, 0x123456789ABCDEF0):
            for least, factor in ((0, 1.0), (2**31, 1 / 3), (2**32, 5.0)):
                given = device.asarray(np.array([state], "uint64"))

                def call(given=given, least=least, factor=factor):
                    return asnumpy(kernels.random_mask(x, given, least, factor))

                fast, slow = both(monkeypatch, call)
                np.testing.assert_array_equal(fast, slow)
                assert fast.dtype == dtype

    @DTYPES
    @pytest.mark.parametrize("counted", [True, False])
    def test_loss_scales_are_adapted(self, device, monkeypatch, dtype, counted):
        def call():
            scale, steps, updates = (
                device.asarray(np.array(v, d)) for v, d in ((8, dtype), (0, "int64"), ([5, 0], "int64"))
            )
            seen = []
            for finite in (True, True, True, False, True, True, False, False):
                overflowed = device.asarray(np.array(not finite))
                kernels.adapt_scale(scale, overflowed, steps, 2, updates if counted else None)
                assert not overflowed
                seen.append([float(scale), int(steps), *asnumpy(updates)])
            return seen

        fast, slow = both(monkeypatch, call)
        assert fast == slow
        assert fast[-1] == [4.0, 0, *((10, 5) if counted else (5, 0))]

    @DTYPES
    @pytest.mark.parametrize("place", [None, 0, 1499])
    @pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
    def test_an_overflow_is_found_wherever_it_is(self, device, monkeypatch, rng, dtype, place, value):
        x = rng.standard_normal(1500).astype(dtype)
        x[1:4] = np.finfo(dtype).max, np.finfo(dtype).min, np.finfo(dtype).tiny
        if place is not None:
            x[place] = value

        def call():
            found = [device.asarray(np.array(before)) for before in (False, True)]
            for overflowed in found:
                kernels.find_overflow(device.asarray(x), overflowed)
            return [bool(overflowed) for overflowed in found]

        assert both(monkeypatch, call) == ([place is not None, True],) * 2

    @DTYPES
    @pytest.mark.parametrize("order", ["rows", "samples last"])
    def test_dropout(self, device, monkeypatch, rng, dtype, order):
        x = rng.standard_normal((9, 2, 3, 5)).astype(dtype)
        x = (
            device.asarray(x)
            if order == "rows"
            else device.asarray(x.transpose(1, 2, 3, 0).copy()).transpose(3, 0, 1, 2)
        )
        state = device.asarray(np.array([7], "uint64"))
        for fast, slow in zip(*both(monkeypatch, lambda: kernels.dropout(x, state, 2**31, 2.0)), strict=True):
            np.testing.assert_array_equal(asnumpy(fast), asnumpy(slow))

    @DTYPES
    @pytest.mark.parametrize("shape", [(1, 1), (1, 3), (300, 33), (9, 70), (2, 3, 4, 5), (17, 2, 3, 1)])
    @pytest.mark.parametrize("order", ["rows", "samples last"])
    @pytest.mark.parametrize("averages", [True, False])
    def test_batch_normalization(self, device, monkeypatch, rng, dtype, shape, order, averages):
        def array(*shape):
            x = rng.standard_normal(shape).astype(dtype) + 1
            last = (*range(1, len(shape)), 0)
            return x if order == "rows" or len(shape) == 1 else x.transpose(last).copy().transpose(np.argsort(last))

        x, dout, gamma, beta, mean, var = (array(*s) for s in (shape, shape, *[shape[1:2]] * 4))

        def call():
            given, d, g, b, m, v = (device.xp.asarray(a.copy(order="K")) for a in (x, dout, gamma, beta, mean, var))
            y, xn, scale = kernels.normalize_batch(given, g, b, (m, v) if averages else None, 0.9, 1e-5)
            return [asnumpy(a) for a in (y, xn, scale, m, v, *kernels.normalize_batch_gradient(d, xn, scale))]

        eps = np.finfo(dtype).eps
        for fast, slow in zip(*both(monkeypatch, call), strict=True):
            np.testing.assert_allclose(fast, slow, rtol=1000 * eps, atol=1000 * eps * max(np.abs(slow).max(), 1))
            assert (fast.dtype, fast.shape) == (slow.dtype, slow.shape)

    @DTYPES
    @pytest.mark.parametrize("labels", ["uint8", "int32", "int64"])
    @pytest.mark.parametrize(("n", "classes"), [(1, 1), (5, 3), (300, 10), (4, 100)])
    def test_softmax_and_cross_entropy(self, device, monkeypatch, rng, dtype, labels, n, classes):
        x = device.asarray((5 * rng.standard_normal((n, classes))).astype(dtype))
        t = device.asarray(rng.integers(0, classes, n).astype(labels))

        def call():
            loss, y = kernels.softmax_cross_entropy(x, t)
            dx = kernels.softmax_cross_entropy_gradient(y, t, 1.0 / n)
            for one, other in zip(
                kernels.softmax_cross_entropy_with_gradient(x, t, 1.0 / n), (loss, y, dx), strict=True
            ):
                np.testing.assert_array_equal(asnumpy(one), asnumpy(other))
            return float(loss), asnumpy(y), asnumpy(dx)

        for fast, slow in zip(*both(monkeypatch, call), strict=True):
            np.testing.assert_allclose(fast, slow, rtol=50 * np.finfo(dtype).eps, atol=10 * np.finfo(dtype).eps)

    def test_what_is_no_number_and_no_class_makes_the_loss_nan(self, cupy):
        x = cupy.zeros((2, 3), "float32")
        for bad in ([0, 3], [-1, 0]):
            assert np.isnan(float(kernels.softmax_cross_entropy(x, cupy.array(bad))[0]))
        x[1, 2] = np.nan
        assert np.isnan(float(kernels.softmax_cross_entropy(x, cupy.array([0, 0]))[0]))

    @DTYPES
    @pytest.mark.parametrize("on_device", [False, True])
    def test_optimizers(self, device, monkeypatch, rng, dtype, on_device):
        arrays = [rng.random(1000).astype(dtype) for _ in range(4)]

        def number(value):
            return device.asarray(np.array(value, dtype)) if on_device else value

        def call():
            p, g, m, v = (device.asarray(array.copy()) for array in arrays)
            scratch = device.xp.empty_like(p)
            kernels.sgd_update(p, g, number(0.1), scratch)
            kernels.momentum_update(p, g, m, number(0.1), 0.9, False, scratch)
            kernels.momentum_update(p, g, m, number(0.3), 0.8, True, scratch)
            kernels.adam_update(p, g, m, v, number(0.01), number(1e-8), (0.9, 0.99), scratch)
            return [asnumpy(array) for array in (p, g, m, v)]

        for fast, slow in zip(*both(monkeypatch, call), strict=True):
            np.testing.assert_array_equal(fast, slow)

    def test_relu_of_every_float16(self, cupy, launched):
        x = np.arange(2**16, dtype="uint16").view("float16")
        y, mask = kernels.relu(cupy.asarray(x))
        assert launched == ["relu"]
        np.testing.assert_array_equal(asnumpy(mask), x > 0)
        np.testing.assert_array_equal(asnumpy(y), np.where(x <= 0, np.float16(0), x))

    def test_what_there_is_no_kernel_for_is_left_to_the_definition(self, cupy, launched):
        x = cupy.zeros((4, 6))[:, ::2]
        y, mask = kernels.relu(x)
        assert (y.shape, y.dtype, mask.dtype) == (x.shape, x.dtype, bool)
        kernels.softmax_cross_entropy(cupy.zeros((2, 3)), cupy.zeros((2, 3)))  # labels one by one for each class
        assert launched == []

    def test_a_step_of_the_books_network_is_eleven_kernels_beside_what_cupy_launches(self, cuda, launched, rng):
        device = cuda
        net = TwoLayerNet(12, 8, 3, seed=0, device=device)
        x = device.asarray(rng.integers(0, 256, (20, 12), dtype="uint8"))
        t = device.asarray(rng.integers(0, 3, 20))
        step = net.compile(SGD(0.1), 5)
        step.run(x, t, device.asarray(rng.integers(0, 20, (1, 5))))
        assert launched == [
            *("gather", "gather_pixels", "product and bias", "relu", "product and bias"),
            *("softmax_cross_entropy.int64", "softmax_cross_entropy_gradient.int64"),
            *("product and sums", "product", "relu_gradient", "product and sums", "sgd_update"),
        ]


def compiled(cupy, name):
    """Return a kernel, for blocks of up to eight threads."""
    return cupy.RawModule(code=SOURCE, options=("--fmad=false", "-DBLOCK=8")).get_function(name)


@pytest.mark.parametrize("threads", [32, 96, 1024])
def test_warps_of_a_block_share_the_sum_of_the_losses(cupy, rng, threads):
    x, t = rng.standard_normal((37, 40)), rng.integers(0, 40, 37, dtype="int32")
    y, dx, loss = cupy.empty(x.shape), cupy.empty(x.shape), cupy.empty(())
    arrays, sizes = (cupy.asarray(x), cupy.asarray(t), y, dx), (np.int64(37), np.int64(40))
    compiled(cupy, "softmax_cross_entropy_double_int32")((1,), (threads,), (*arrays, np.float64(0.5), loss, *sizes))
    expected_loss, expected = kernels.softmax_cross_entropy(x, t)
    np.testing.assert_allclose(asnumpy(y), expected, rtol=1e-14)
    np.testing.assert_allclose(asnumpy(dx), kernels.softmax_cross_entropy_gradient(expected, t, 0.5), rtol=1e-13)
    assert float(loss) == pytest.approx(float(expected_loss), rel=1e-14)


@pytest.mark.parametrize(("blocks", "threads"), [(1, 1), (3, 4), (8, 8)])
def test_any_launch_covers_all_elements_once(cupy, rng, blocks, threads):
    p, direction = rng.random(50), rng.random(50)
    found = cupy.asarray(p)
    kernel = compiled(cupy, "sgd_update_double")
    kernel((blocks,), (threads,), (found, cupy.asarray(direction), np.int64(0), np.float64(0.1), np.int64(50)))
    np.testing.assert_array_equal(asnumpy(found), p - 0.1 * direction)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_nvrtc_compiles_every_kernel(architecture):
    nvrtc = pytest.importorskip("cupy_backends.cuda.libs.nvrtc", reason="CuPy is not installed (it needs no GPU here)")
    program = nvrtc.createProgram(SOURCE, "kernels.cu", (), ())
    options = ("-std=c++17", "--fmad=false", "-ftz=true", "-DBLOCK=256", f"--gpu-architecture={architecture}")
    try:
        nvrtc.compileProgram(program, options)
    except (RuntimeError, ImportError) as error:
        if "not found" in str(error) or "DynamicLibNotFound" in type(error).__name__:
            pytest.skip("NVRTC is not installed")
        pytest.fail(nvrtc.getProgramLog(program))
    assert nvrtc.getProgramLog(program).strip("\0\n ") == ""
    assert b"softmax_cross_entropy_double_int64" in nvrtc.getCUBIN(program)

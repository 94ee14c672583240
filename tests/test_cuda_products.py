"""Products of matrices on CUDA devices: cuBLASLt with bias and sums, and what is left to the array module."""

import ctypes
import importlib

import numpy as np
import pytest
from test_cuda_kernels import DTYPES, FASTEST

from xpnet import asnumpy, kernels
from xpnet.nets import TwoLayerNet
from xpnet.optimizers import SGD


class TestProducts:
    @DTYPES
    @pytest.mark.parametrize("shape", [(4, 3, 5), (1, 3, 5), (4, 1, 5), (4, 3, 1), (1, 1, 1), (0, 3, 5), (4, 0, 5)])
    @pytest.mark.parametrize("order", ["NN", "NT", "TN", "TT"])
    def test_matrices_in_any_order(self, device, monkeypatch, rng, dtype, shape, order):
        m, k, n = shape
        a, b = (device.asarray(rng.standard_normal(s).astype(dtype)) for s in ((m, k), (k, n)))
        if order[0] == "T":
            a = device.asarray(asnumpy(a).T.copy()).T
        if order[1] == "T":
            b = device.asarray(asnumpy(b).T.copy()).T
        wide = device.xp.zeros((m, n + 2), dtype)
        result = kernels.matmul(a, b, out=wide[:, 1:-1])
        expected = asnumpy(a) @ asnumpy(b)
        tolerance = {"rtol": 100 * np.finfo(dtype).eps, "atol": 100 * np.finfo(dtype).eps}
        np.testing.assert_allclose(asnumpy(wide)[:, 1:-1], expected, **tolerance)
        np.testing.assert_array_equal(asnumpy(wide)[:, [0, -1]], 0)
        np.testing.assert_allclose(asnumpy(result), expected, **tolerance)
        np.testing.assert_allclose(asnumpy(kernels.matmul(a, b)), expected, **tolerance)

    @pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
    @pytest.mark.parametrize("shape", [(3, 4, 5), (1, 1, 1), (2, 0, 3), (0, 2, 3), (2, 3, 0)])
    def test_a_bias_and_the_sums_of_columns(self, device, rng, dtype, shape):
        m, k, n = shape
        a, b, wide = (device.asarray(rng.integers(-9, 9, s).astype(dtype)) for s in ((m, k), (k, n), (2 * n,)))
        product, sums = asnumpy(a) @ asnumpy(b), asnumpy(b).sum(axis=0)
        for bias in (wide[:n], wide[::2]):
            expected = product + asnumpy(bias)
            for out in (None, device.xp.empty((m, n), dtype), device.xp.empty((n, m), dtype).T):
                np.testing.assert_array_equal(asnumpy(kernels.matmul(a, b, out, bias=bias)), expected)
                assert out is None or asnumpy(out).tolist() == expected.tolist()
        for found in (device.xp.empty(n, dtype), device.xp.empty((n, 2), dtype)[:, 0]):
            for out in (None, device.xp.empty((m, n), dtype), device.xp.empty((n, m), dtype).T):
                found[...] = 0
                np.testing.assert_array_equal(asnumpy(kernels.matmul(a, b, out, sums=found)), product)
                np.testing.assert_array_equal(asnumpy(found), sums)

    def test_a_matrix_times_a_vector_takes_a_bias(self, device):
        a, b = device.xp.ones((2, 3)), device.xp.ones(3)
        np.testing.assert_array_equal(asnumpy(kernels.matmul(a, b, bias=device.xp.ones(2))), [4, 4])

    @pytest.mark.parametrize("length", [3, 5])
    @pytest.mark.parametrize("end", ["bias", "sums"])
    def test_a_vector_of_another_length_is_refused(self, device, monkeypatch, end, length):
        a, b, vector = (device.xp.ones(shape, "float32") for shape in ((2, 3), (3, 4), (length,)))
        with kernels.using(FASTEST), pytest.raises(ValueError):  # noqa: PT011 - the message is the array module's
            kernels.matmul(a, b, device.xp.empty((2, 4), "float32"), **{end: vector})

    def test_what_cublaslt_cannot_do_is_left_to_the_module(self, cupy, monkeypatch, rng):
        monkeypatch.setattr(kernels.operations._for_cuda().cublaslt, "_product", lambda *description: None)
        a, b = (cupy.asarray(rng.random(shape)) for shape in ((2, 3), (3, 4)))
        out, sums = cupy.empty((2, 4)), cupy.empty(4)
        y = kernels.matmul(a, b, out, bias=b[0], sums=sums)
        np.testing.assert_allclose(asnumpy(y), asnumpy(a) @ asnumpy(b) + asnumpy(b)[0])
        np.testing.assert_allclose(asnumpy(sums), asnumpy(b).sum(axis=0))

    def test_stacks_columns_gaps_and_other_dtypes(self, device, rng):
        def array(*shape):
            return device.asarray(rng.standard_normal(shape))

        cases = [
            (array(2, 3, 4), array(2, 4, 5)),
            (array(1, 3, 4), array(2, 4, 5)),
            (array(2, 3, 4).transpose(0, 2, 1), array(2, 3, 5)),
            (array(3, 4), array(4)),
            (array(3, 8)[:, ::2], array(4, 5)),
            (array(3, 4), array(4, 5).astype("float32")),
            (array(2, 3, 4), array(4, 5)),
        ]
        for a, b in cases:
            np.testing.assert_allclose(asnumpy(kernels.matmul(a, b)), asnumpy(a) @ asnumpy(b), rtol=1e-12)
        column_order = device.xp.zeros((5, 3)).T
        kernels.matmul(*cases[4], out=column_order)
        np.testing.assert_allclose(asnumpy(column_order), asnumpy(cases[4][0]) @ asnumpy(cases[4][1]), rtol=1e-12)

    def test_matrices_that_do_not_fit_are_the_modules_own_error(self, device):
        xp = device.xp
        for a, b in (((2, 3), (4, 5)), ((2, 2, 3), (3, 3, 5))):
            with pytest.raises(ValueError, match=r"matmul|broadcast|mismatch"):
                kernels.matmul(xp.zeros(a), xp.zeros(b))

    @pytest.mark.parametrize("precision", ["float32", "tf32"])
    def test_the_precision_is_the_steps(self, cuda, monkeypatch, rng, precision):
        device, seen = cuda, []
        cublaslt = kernels.operations._for_cuda().cublaslt
        multiply = cublaslt.multiply
        monkeypatch.setattr(cublaslt, "multiply", lambda *args: (seen.append(args[3]), multiply(*args))[1])
        net = TwoLayerNet(4, 3, 2, device=device)
        x, t = device.asarray(rng.random((6, 4), dtype="float32")), device.asarray([0, 1] * 3)
        net.compile(SGD(0.1), 2, precision=precision).run(x, t, device.asarray([[0, 1]]))
        assert seen == [precision] * 5
        net.predict(x)
        assert seen[5:] == ["float32"] * 2

    def test_a_precision_that_there_is_not_is_refused(self, cupy):
        for net, precision in (
            (TwoLayerNet(4, 3, 2), "tf32"),
            (TwoLayerNet(4, 3, 2, device="cuda", dtype="float64"), "tf32"),
            (TwoLayerNet(4, 3, 2, device="cuda"), "half"),
        ):
            with pytest.raises(ValueError, match=r"precision .*tf32"):
                net.compile(SGD(0.1), 2, precision=precision)


def test_cublaslt_takes_the_descriptions():
    """Without a GPU too: descriptions ask for none."""
    pytest.importorskip("cupy", reason="CuPy is not installed (it needs no GPU here)")
    lt = importlib.import_module("xpnet.kernels.cublaslt")
    try:
        lt._library()
    except RuntimeError:
        pytest.skip("cublasLt is not installed")
    described = lt._create("MatmulDesc", ctypes.c_int(lt._COMPUTE["tf32"]), ctypes.c_int(0))
    lt._set("MatmulDesc", described, lt._DESC_TRANSA, ctypes.c_int32(1))
    preference = lt._create("MatmulPreference")
    for epilogue in lt._EPILOGUES.values():
        lt._set("MatmulDesc", described, lt._DESC_EPILOGUE, ctypes.c_uint32(epilogue))
    lt._set("MatmulDesc", described, lt._DESC_VECTOR, ctypes.c_void_p(lt.ALIGNMENT))
    for attribute in (lt._PREF_REDUCTIONS, *lt._PREF_ALIGNMENTS):
        lt._set("MatmulPreference", preference, attribute, ctypes.c_uint32(4))
    assert lt._layout(0, lt.Operand(784, 100, 800, False, 0), 3).value
    with pytest.raises(RuntimeError, match=r"cublasLtMatmulDescSetAttribute failed with cuBLAS status 7"):
        lt._set("MatmulDesc", described, 999, ctypes.c_int32(1))

"""Backends compute what the kernels' definitions say."""

import importlib.util
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from xpnet import kernels
from xpnet.layers import Affine, Convolution, Flatten, Pooling, Relu, Residual
from xpnet.nets import Sequential
from xpnet.optimizers import SGD

needs_numba = pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="Numba is not installed")

FLOATS = st.sampled_from(["float32", "float64"])
SHAPES = st.tuples(st.integers(1, 7), st.integers(1, 6))


@st.composite
def matrices(draw, numbers=1):
    """Matrices of one shape and dtype, of which some are not in C order."""
    shape, dtype = draw(SHAPES), draw(FLOATS)
    elements = st.floats(-10, 10, width=32)
    found = [draw(arrays(dtype, shape, elements=elements)) for _ in range(numbers)]
    return [np.asfortranarray(a) if draw(st.booleans()) else a for a in found]


def both(call):
    """Return what a call gives by NumPy and by Numba."""
    results = []
    for backend in ("numpy", "numba"):
        with kernels.using(backend):
            results.append(call())
    return results


class TestDefinitions:
    """Where the definition for the host takes a way of its own: it is not seen in the result."""

    @given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 6), st.integers(0, 30), st.integers(1, 200))
    def test_products_in_parts(self, groups, m, k, length, unpacked):
        rng = np.random.default_rng(length)
        a, b, c = (rng.standard_normal((groups, *shape)) for shape in ((m, k), (k, length), (m, length)))
        wide = np.empty((groups, m, 3 * length))  # the result is a part of a larger array
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(kernels.images, "UNPACKED", unpacked)
            patch.setattr(kernels.images, "LEAST", 1)
            patch.setattr(kernels.images, "TRANSPOSED", 2 * m)
            out = kernels.batched_matmul(a, b, out=wide[:, :, length : 2 * length])
            np.testing.assert_allclose(out, a @ b, rtol=1e-12, atol=1e-12)
            np.testing.assert_array_equal(wide[:, :, length : 2 * length], out)
            np.testing.assert_allclose(
                kernels.batched_matmul_transposed(c, b), c @ b.transpose(0, 2, 1), rtol=1e-12, atol=1e-12
            )

    def test_products_of_a_convolution_are_done_in_parts(self, rng, monkeypatch):
        shapes = []
        matmul = kernels.matmul
        monkeypatch.setattr(
            kernels.images, "matmul", lambda a, b, out=None: (shapes.append(a.shape), matmul(a, b, out))[1]
        )
        a, b = rng.random((1, 6, 20_000), dtype="float32"), rng.random((1, 25, 20_000), dtype="float32")
        kernels.batched_matmul_transposed(a, b)
        kernels.batched_matmul(rng.random((1, 6, 25), dtype="float32"), b, out=np.empty_like(a))
        assert shapes == [(4, 1, 1, 6, 5000), (1, 6, 25)]

    @given(st.permutations(range(3)), st.booleans(), st.integers(1, 30))
    def test_relu_of_arrays_in_any_order(self, order, gaps, run):
        x = np.random.default_rng(run).standard_normal((4, 3, 5, 2))[..., 0 if gaps else slice(None)]
        x = x.transpose(*order, *range(3, x.ndim))
        x[0, 0, 0] = np.nan
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(kernels.operations, "RUN", run)
            y, mask = kernels.relu(x)
        np.testing.assert_array_equal(y, np.where(x <= 0, 0.0, x))
        np.testing.assert_array_equal(mask, x > 0)

    def test_vectors_in_memory_order_are_views(self, rng):
        x = rng.random((2, 3, 4)).transpose(1, 2, 0)
        mask = np.empty_like(x, dtype=bool)
        vectors = kernels.in_memory_order(x, mask)
        assert all(np.shares_memory(*pair) for pair in zip(vectors, (x, mask), strict=True))
        assert all(vector.shape == (24,) for vector in vectors)
        assert kernels.in_memory_order(x, x.copy()) is None
        assert kernels.in_memory_order(x[:, ::2]) is None
        assert kernels.in_memory_order(np.broadcast_to(1.0, (2, 3))) is None

    def test_slabs_cover_an_array(self, device, monkeypatch):
        monkeypatch.setattr(kernels.memory, "SLAB", 100)
        x = device.xp.zeros((7, 5), "float64")
        assert [range(7)[slab] for slab in kernels.slabs(x)] == (
            [range(0, 2), range(2, 4), range(4, 6), range(6, 7)] if device.name == "cpu" else [range(7)]
        )
        assert list(kernels.slabs(x[:0])) == []


@needs_numba
@pytest.mark.slow
class TestNumba:
    @given(st.permutations(range(3)))
    def test_relu_of_images_with_samples_last(self, order):
        x = np.random.default_rng(0).standard_normal((3, 4, 5)).transpose(order)
        (y, mask), (fast_y, fast_mask) = both(lambda: kernels.relu(x))
        np.testing.assert_array_equal(fast_y, y)
        np.testing.assert_array_equal(fast_mask, mask)
        assert fast_y.strides == x.strides
        np.testing.assert_array_equal(*both(lambda: kernels.relu_gradient(x, mask)))

    @given(matrices())
    def test_relu_and_its_gradient(self, matrices):
        (x,) = matrices
        (y, mask), (fast_y, fast_mask) = both(lambda: kernels.relu(x))
        np.testing.assert_array_equal(fast_y, y)
        np.testing.assert_array_equal(fast_mask, mask)
        np.testing.assert_array_equal(*both(lambda: kernels.relu_gradient(x, mask)))

    @given(matrices(), st.booleans())
    def test_relu_and_its_gradient_in_place(self, matrices, same_object):
        (x,) = matrices
        y, mask = kernels.relu(x)
        for backend in ("numpy", "numba"):
            z, found = x.copy(order="K"), np.empty_like(mask)
            with kernels.using(backend):
                kernels.relu(z, found, z if same_object else z[:])
                np.testing.assert_array_equal(z, y)
                np.testing.assert_array_equal(found, mask)
                z[...] = x
                kernels.relu_gradient(z, mask, z if same_object else z[:])
                np.testing.assert_array_equal(z, x * mask)

    def test_relu_keeps_nan(self):
        x = np.array([[np.nan, -1.0, 0.0, 2.0, np.inf, -np.inf]])
        for y, mask in both(lambda: kernels.relu(x)):
            np.testing.assert_array_equal(y, [[np.nan, 0, 0, 2, np.inf, 0]])
            np.testing.assert_array_equal(mask, [[False, False, False, True, True, False]])

    @given(matrices())
    def test_products_with_a_bias_and_with_sums(self, matrices):
        (x,) = matrices
        w, y, sums = x.T.copy(), np.empty((len(x), len(x)), x.dtype), np.empty(x.shape[1], x.dtype)
        bias = np.arange(len(x), dtype=x.dtype)
        with_bias = both(lambda: kernels.matmul(x, w, y, bias=bias).copy())
        np.testing.assert_array_equal(*with_bias)
        np.testing.assert_array_equal(with_bias[0], x @ w + bias)
        with_sums = both(lambda: (kernels.matmul(w, x, sums=sums), sums.copy()))
        np.testing.assert_array_equal(*(product for product, _ in with_sums))
        np.testing.assert_allclose(*(found for _, found in with_sums), rtol=1e-5, atol=1e-5)

    @given(matrices(), st.data())
    def test_softmax_cross_entropy_and_its_gradient(self, matrices, data):
        (x,) = matrices
        t = data.draw(
            arrays(data.draw(st.sampled_from(["int64", "uint8"])), len(x), elements=st.integers(0, x.shape[1] - 1))
        )
        (loss, y), (fast_loss, fast_y) = both(lambda: kernels.softmax_cross_entropy(x, t))
        tolerance = 50 * np.finfo(x.dtype).eps
        assert fast_loss.dtype == loss.dtype == x.dtype
        np.testing.assert_allclose(fast_loss, loss, rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(fast_y, y, rtol=tolerance, atol=tolerance)
        np.testing.assert_array_equal(*both(lambda: kernels.softmax_cross_entropy_gradient(y, t, 0.25)))

    @pytest.mark.parametrize("ids", [[0, 3], [-1, 0]])
    def test_a_wrong_class_id_is_the_same_error(self, ids):
        with kernels.using("numba"), pytest.raises(ValueError, match=r"class ids must lie in \[0, 3\)"):
            kernels.softmax_cross_entropy(np.zeros((2, 3)), np.array(ids))

    def test_scores_that_are_not_finite_give_no_number(self):
        x = np.array([[np.nan, 1.0], [0.0, 1.0]])
        with np.errstate(all="ignore"):
            for loss, _ in both(lambda: kernels.softmax_cross_entropy(x, np.array([0, 1]))):
                assert np.isnan(loss)

    @given(matrices(numbers=2))
    def test_sgd_update(self, matrices):
        p, direction = matrices

        def descended():
            changed = p.copy(order="K")
            kernels.sgd_update(changed, direction, 0.3, np.empty_like(changed))
            return changed

        np.testing.assert_array_equal(*both(descended))

    @given(matrices(numbers=3), st.booleans())
    def test_momentum_update(self, matrices, nesterov):
        def descended():
            p, g, v = (a.copy(order="K") for a in matrices)
            kernels.momentum_update(p, g, v, 0.3, 0.9, nesterov, np.empty_like(p))
            return p, v

        for found, expected in zip(*both(descended), strict=True):
            np.testing.assert_array_equal(found, expected)

    @given(matrices(numbers=4))
    def test_adam_update(self, matrices):
        def descended():
            p, g, m, v = (a.copy(order="K") for a in matrices)
            v = np.abs(v)
            kernels.adam_update(p, g, m, v, 0.3, 1e-8, (0.9, 0.999), np.empty_like(p))
            return p, m, v

        for found, expected in zip(*both(descended), strict=True):
            np.testing.assert_array_equal(found, expected)

    @given(st.sampled_from(["uint8", "int16", "float32"]), FLOATS, st.lists(st.integers(0, 8), max_size=5))
    def test_gather(self, dtype, out_dtype, index):
        x = (np.arange(9 * 6).reshape(9, 2, 3) % 251).astype(dtype)
        np.testing.assert_array_equal(
            *both(lambda: kernels.gather(x, np.array(index, int), np.empty((len(index), 2, 3), out_dtype)))
        )

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_a_network_trains_as_it_does_by_numpy(self, dtype, rng):
        x, t = rng.integers(0, 256, (60, 12)).astype("uint8"), rng.integers(0, 3, 60)
        indices = rng.integers(0, 60, (25, 8))
        losses = {}
        for backend in ("numpy", "numba"):
            layers = [
                Affine.from_sizes(12, 9, std="he", rng=0, dtype=dtype),
                Relu(),
                Affine.from_sizes(9, 3, rng=1, dtype=dtype),
            ]
            step = Sequential(layers, dtype=dtype).compile(SGD(0.1), 8, backend)
            losses[backend] = step.run(x, t, indices)
        np.testing.assert_allclose(losses["numba"], losses["numpy"], rtol=1e-4 if dtype == "float32" else 1e-12)

    def test_it_is_used_where_it_is_asked_for_and_where_it_gains_most(self):
        net, images = (
            Sequential([Affine.from_sizes(2, 2)]),
            Sequential([Pooling(2, 2), Flatten(), Affine.from_sizes(2, 2)]),
        )
        assert net.compile(SGD(), 1).backend == images.compile(SGD(), 1, backend="numpy").backend == "numpy"
        assert net.compile(SGD(), 1, backend="numba").backend == images.compile(SGD(), 1).backend == "numba"
        in_a_block = Sequential([Residual(Convolution.from_sizes(1, 1, 3, pad=1))])
        assert in_a_block.compile(SGD(), 1).backend == "numba"
        assert images.compile(SGD(), 1, precision="float16").backend == "numpy"


@needs_numba
class TestNumbaForSequences:
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_gelu_and_its_slope(self, dtype):
        x = np.concatenate([np.random.default_rng(0).standard_normal(70_000) * 4, [0.0, 1e4, -1e4, np.inf, -np.inf]])
        for a, b in zip(*both(lambda: kernels.gelu(x.astype(dtype))), strict=True):
            np.testing.assert_allclose(b, a, rtol=2e-6, atol=5e-7)
        y, _ = kernels.gelu(x.astype(dtype))
        finite = np.isfinite(x)
        expected = [v * math.erfc(-v / math.sqrt(2)) / 2 for v in x[finite]]
        np.testing.assert_allclose(y[finite], expected, rtol=1e-6, atol=1e-6 if dtype == "float32" else 1e-14)

    @given(SHAPES, FLOATS, st.integers(0, 9))
    def test_rows_are_normalized_and_their_gradients(self, shape, dtype, seed):
        rng = np.random.default_rng(seed)
        x, dout = (rng.standard_normal(shape).astype(dtype) for _ in range(2))
        gamma, beta = (rng.standard_normal(shape[1]).astype(dtype) for _ in range(2))

        def run():
            y, xn, inverse = kernels.normalize_features(x, gamma, beta, 1e-2)
            return y, xn, inverse, *kernels.normalize_features_gradient(dout, xn, inverse, gamma)

        for a, b in zip(*both(run), strict=True):
            assert a.dtype == b.dtype == dtype
            np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-4 if dtype == "float32" else 1e-12)

    @given(SHAPES, FLOATS, st.sampled_from([1.0, 10.0, 1000.0]), st.integers(0, 9))
    def test_gates_and_their_gradients(self, shape, dtype, size, seed):
        rng, (N, H) = np.random.default_rng(seed), shape

        def normal(*shape):
            return rng.standard_normal(shape).astype(dtype)

        a, product, c, dh, dc, bn = size * normal(N, 4 * H), normal(N, 4 * H), *normal(3, N, H), normal(H)
        a3, product3 = (np.ascontiguousarray(x[:, : 3 * H]) for x in (a, product))

        def run():
            gates, h, cell = np.empty((5, N, H), dtype), np.empty_like(c), np.empty_like(c)
            kernels.lstm_step(a, product, c, gates, cell, h)
            before, da = dc.copy(), np.empty_like(a)
            kernels.lstm_step_gradient(gates, c, dh, before, da)
            gated, out = np.empty((4, N, H), dtype), np.empty_like(c)
            kernels.gru_step(a3, product3, bn, c, gated, out)
            through, da3, du = dh.copy(), np.empty_like(a3), np.empty_like(a3)
            kernels.gru_step_gradient(gated, c, through, da3, du)
            return gates, cell, h, before, da, gated, out, through, da3, du

        eps = float(np.finfo(dtype).eps)
        for x, y in zip(*both(run), strict=True):
            np.testing.assert_allclose(y, x, rtol=40 * eps, atol=40 * eps)

    def test_gates_stay_within_their_range_and_nan_stays_nan(self):
        a = np.tile(np.array([[-1e30, 9.0, np.nan, 8.9]], "float32"), 4)
        gates, zeros = np.empty((5, 1, 4), "float32"), np.zeros((1, 4), "float32")
        with kernels.using("numba"):
            kernels.lstm_step(a, np.zeros_like(a), zeros, gates, zeros.copy(), zeros.copy())
        np.testing.assert_array_equal(np.isnan(gates), np.isnan(a[:, :4])[None].repeat(5, axis=0))
        assert np.nanmax(abs(gates)) <= 1.0

    @given(SHAPES, FLOATS, st.integers(0, 9))
    def test_cross_entropy_of_sequences_and_sums_of_rows(self, shape, dtype, seed):
        rng, (N, C) = np.random.default_rng(seed), shape
        x, t = 5 * rng.standard_normal((N, 3, C)).astype(dtype), rng.integers(0, C, (N, 3))

        def run():
            loss, y, dx = kernels.softmax_cross_entropy_with_gradient(x, t, 0.5)
            return loss, y, dx, kernels.add_at(np.ones((C, C), dtype), t, x)

        for a, b in zip(*both(run), strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-5 if dtype == "float32" else 1e-12)


def test_asking_for_numba_without_it_names_the_remedy(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    net = Sequential([Pooling(2, 2), Flatten(), Affine.from_sizes(2, 2)])
    assert net.compile(SGD(), 1).backend == "numpy"
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'xpnet\[numba\]'"):
        net.compile(SGD(), 1, backend="numba")


def test_an_unknown_backend_is_named():
    with pytest.raises(ValueError, match="backend must be one of 'numpy', 'numba', got 'fortran'"):
        Sequential([Affine.from_sizes(2, 2)]).compile(SGD(), 1, backend="fortran")


def test_a_backend_is_in_use_as_long_as_its_context(monkeypatch):
    monkeypatch.setitem(
        __import__("sys").modules, "xpnet.kernels.numba", type("Module", (), {"relu": staticmethod(lambda *_: "own")})
    )
    with kernels.using("numba"):
        assert kernels.relu(np.zeros(1)) == "own"
    assert kernels.relu(np.zeros(1))[0] == 0

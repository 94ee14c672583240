import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from xpnet import asnumpy, functions
from xpnet.functions import (
    cross_entropy_error,
    identity_function,
    mean_squared_error,
    one_hot,
    relu,
    sigmoid,
    softmax,
    step_function,
)

floats = hnp.arrays(
    np.float64, hnp.array_shapes(max_dims=3, min_side=0), elements=st.floats(-1e4, 1e4, allow_subnormal=False)
)


def test_values_of_the_book(device):
    x = device.asarray([-1.0, 1.0, 2.0])
    np.testing.assert_array_equal(asnumpy(identity_function(x)), [-1.0, 1.0, 2.0])
    np.testing.assert_array_equal(asnumpy(step_function(x)), [0, 1, 1])
    np.testing.assert_array_equal(asnumpy(relu(x)), [0.0, 1.0, 2.0])
    np.testing.assert_allclose(asnumpy(sigmoid(x)), [0.26894142, 0.73105858, 0.88079708], rtol=1e-8)
    y = softmax(device.asarray([0.3, 2.9, 4.0]))
    np.testing.assert_allclose(asnumpy(y), [0.01821127, 0.24519181, 0.73659691], rtol=1e-6)
    y = device.asarray([0.1, 0.05, 0.6, 0.0, 0.05, 0.1, 0.0, 0.1, 0.0, 0.0])
    t = device.asarray([0, 0, 1, 0, 0, 0, 0, 0, 0, 0])
    assert float(mean_squared_error(y, t)) == pytest.approx(0.0975, rel=1e-12)
    assert float(cross_entropy_error(y, t)) == pytest.approx(0.510825457099338, rel=1e-12)
    assert float(cross_entropy_error(y, device.asarray(2))) == pytest.approx(0.510825457099338, rel=1e-12)


def test_functions_take_scalars_and_lists():
    assert sigmoid(0) == 0.5
    assert relu(-2.0) == 0.0
    assert step_function(3) == 1
    np.testing.assert_allclose(softmax([1010, 1000, 990]), [9.99954600e-01, 4.53978686e-05, 2.06106005e-09])


def test_sigmoid_neither_overflows_nor_loses_small_values(device):
    for dtype in ("float16", "float32", "float64"):
        x = device.asarray([-1e4, -20.0, 0.0, 20.0, 1e4], dtype)  # warnings are errors in these tests
        y = asnumpy(sigmoid(x))
        assert y.dtype == dtype
        assert y[0] == 0.0
        assert y[4] == 1.0
        assert y[2] == 0.5
    assert float(sigmoid(device.asarray(-700.0))) == pytest.approx(math.exp(-700.0), rel=1e-12)


@given(floats)
def test_sigmoid_is_symmetric_and_softmax_sums_to_one(x):
    np.testing.assert_allclose(sigmoid(x) + sigmoid(-x), 1.0, rtol=1e-12)
    assert relu(x).shape == step_function(x).shape == x.shape
    for axis in range(x.ndim):
        if x.shape[axis]:
            np.testing.assert_allclose(softmax(x, axis=axis).sum(axis=axis), 1.0, rtol=1e-12)


def test_relu_keeps_nan(device):
    assert math.isnan(float(relu(device.asarray(math.nan))))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_floats_keep_their_dtype(device, dtype):
    x = device.asarray([[0.5, -0.5]], dtype)
    for function in (identity_function, relu, sigmoid, softmax):
        assert function(x).dtype == dtype
    for t in (device.asarray([1]), device.asarray([[0, 1]], dtype)):
        assert cross_entropy_error(softmax(x), t).dtype == dtype
        assert functions.softmax_cross_entropy(x, t)[0].dtype == dtype
    assert mean_squared_error(x, x).dtype == dtype


def test_functions_leave_their_arguments_unchanged(device, rng):
    host = rng.standard_normal((3, 4))
    x = device.asarray(host.copy())
    for function in (identity_function, relu, sigmoid, softmax, step_function):
        function(x)
    cross_entropy_error(x**2, device.asarray([0, 1, 2]))
    mean_squared_error(x, x)
    np.testing.assert_array_equal(asnumpy(x), host)


def test_losses_are_means_over_the_batch(device, rng):
    y = softmax(device.asarray(rng.standard_normal((5, 3))))
    t = device.asarray([0, 2, 1, 1, 0])
    one = [float(cross_entropy_error(y[i], t[i])) for i in range(5)]
    assert float(cross_entropy_error(y, t)) == pytest.approx(np.mean(one), rel=1e-12)
    assert float(cross_entropy_error(y, one_hot(t, 3))) == pytest.approx(np.mean(one), rel=1e-12)
    target = one_hot(t, 3, "float64")
    one = [float(mean_squared_error(y[i], target[i])) for i in range(5)]
    assert float(mean_squared_error(y, target)) == pytest.approx(np.mean(one), rel=1e-12)


def test_the_loss_of_no_samples_is_nan(device):
    y = device.asarray(np.zeros((0, 3)))
    for t in (device.asarray(np.zeros(0, "int64")), device.asarray(np.zeros((0, 3)))):
        assert math.isnan(float(cross_entropy_error(y, t)))
    assert math.isnan(float(mean_squared_error(y, y)))


def test_one_hot(device):
    t = device.asarray([[0, 2], [1, 1]])
    encoded = one_hot(t, 3)
    assert encoded.dtype == "float32"
    np.testing.assert_array_equal(asnumpy(encoded), np.eye(3)[[[0, 2], [1, 1]]])
    assert one_hot(t).shape == (2, 2, 3)
    assert one_hot(device.asarray(np.zeros(0, int)), 4).shape == (0, 4)


def test_one_hot_refuses_what_it_cannot_encode(device):
    with pytest.raises(ValueError, match=r"class ids must lie in \[0, 3\), got ids from -1 to 2"):
        one_hot(device.asarray([2, -1]), 3)
    with pytest.raises(ValueError, match=r"got ids from 3 to 3"):
        one_hot(device.asarray([3]), 3)
    with pytest.raises(TypeError, match="integer class ids, got dtype float64"):
        one_hot(device.asarray([1.0]))
    with pytest.raises(ValueError, match="pass num_classes"):
        one_hot(device.asarray(np.zeros(0, int)))


def test_labels_are_told_apart_by_shape_and_dtype_never_by_size(device):
    square = device.asarray(np.full((2, 2), 0.5))
    assert functions.class_ids(square, device.asarray([[0, 1], [1, 0]])) is None
    for ids in ([0, 1], [[0], [1]], np.array([0, 1], "uint8")):
        assert functions.class_ids(square, device.asarray(ids)).tolist() == [0, 1]
    # Two labels for one sample of two classes: the book's `t.size == y.size` would take them for one-hot.
    with pytest.raises(ValueError, match=r"one-hot of shape \(1, 2\) or integer class ids of shape \(1,\), got"):
        functions.class_ids(square[:1], device.asarray([0, 1]))
    with pytest.raises(ValueError, match="class ids must be integers"):
        functions.class_ids(square, device.asarray([0.0, 1.0]))


def test_mean_squared_error_refuses_to_broadcast(device):
    with pytest.raises(ValueError, match=r"expected t of y's shape \(3, 1\), got \(3,\)"):
        mean_squared_error(device.asarray(np.zeros((3, 1))), device.asarray(np.zeros(3)))


@given(hnp.mutually_broadcastable_shapes(num_shapes=1, base_shape=(2, 3, 4), max_dims=3))
def test_sum_to_shape_is_the_adjoint_of_broadcasting(shapes):
    (shape,) = shapes.input_shapes
    g = np.arange(24.0).reshape(2, 3, 4)
    if np.broadcast_shapes(shape, g.shape) != g.shape:
        return
    x = np.arange(math.prod(shape), dtype=float).reshape(shape)
    assert np.vdot(np.broadcast_to(x, g.shape), g) == pytest.approx(np.vdot(x, functions.sum_to_shape(g, shape)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_erf_is_good_to_the_last_places(device, dtype):
    x = np.concatenate([np.linspace(-7, 7, 4001), np.geomspace(1e-300, 1e-3, 200), [0.0, -0.0, 1e30, -1e30]]).astype(
        dtype
    )
    y = asnumpy(functions.erf(device.asarray(x)))
    expected = np.array([math.erf(value) for value in x])
    assert y.dtype == dtype
    np.testing.assert_allclose(y, expected, rtol=4 * np.finfo(dtype).eps, atol=np.finfo(dtype).smallest_subnormal)
    assert np.isnan(asnumpy(functions.erf(device.asarray(np.array([np.nan]))))[0])


def test_softplus_overflows_nowhere(device):
    x = device.asarray(np.array([-np.inf, -1e4, -50.0, 0.0, 50.0, 1e4, np.inf]))
    expected = [0.0, 0.0, math.exp(-50), math.log(2), 50.0, 1e4, np.inf]
    np.testing.assert_allclose(asnumpy(functions.softplus(x)), expected, rtol=1e-15)


@pytest.mark.parametrize("kind", ["i", "u"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("size", [2, 4, 8])
def test_ids_are_checked_in_any_byte_order(kind, order, size):
    ids = np.array([0, 3, 1], f"{order}{kind}{size}")
    functions.check_ids(ids, 4)
    with pytest.raises(ValueError, match=r"class ids must lie in \[0, 3\), got ids from 0 to 3"):
        functions.check_ids(ids, 3)

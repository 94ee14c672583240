import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from xpnet import Device, ParameterVector, asnumpy, get_device

SHAPES = {"W1": (7, 3), "b1": (3,), "scale": ()}


@pytest.fixture
def params(device):
    return ParameterVector(SHAPES, "float64", device)


def test_arrays_are_views_of_one_contiguous_vector(params):
    params["W1"] += 1.0
    params["b1"][...] = 2.0
    assert float(params.flat.sum()) == 7 * 3 + 2 * 3
    params.flat[...] = 5.0
    assert float(params["scale"]) == 5.0
    assert params.flat.flags.c_contiguous
    assert params.flat.ndim == 1


@given(st.lists(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0), max_size=6), st.sampled_from("efd"))
def test_every_view_starts_on_a_256_byte_boundary_or_in_float16_on_a_128_byte_one(shapes, dtype):
    params = ParameterVector({f"p{i}": shape for i, shape in enumerate(shapes)}, dtype)
    for i, shape in enumerate(shapes):
        view = params[f"p{i}"]
        assert view.shape == shape
        assert view.ctypes.data % (128 if dtype == "e" else 256) == 0 or view.size == 0
        view[...] = i + 1
    for i in range(len(shapes)):
        assert (params[f"p{i}"] == i + 1).all()
    assert params.size == sum(view.size for view in params.values())


def test_assignment_copies_in(params, device):
    value = device.asarray(np.ones((7, 3), "float32"))
    params["W1"] = value
    value *= 9.0
    assert float(params["W1"].sum()) == 21.0
    assert params["W1"].dtype == "float64"
    params["b1"] = [1, 2, 3]
    np.testing.assert_array_equal(asnumpy(params["b1"]), [1, 2, 3])


def test_in_place_update_as_in_the_book(params):
    view = params["b1"]
    params["b1"] -= 0.5
    assert params["b1"] is view
    assert float(params.flat.sum()) == -1.5


def test_what_does_not_fit_is_refused(params):
    with pytest.raises(ValueError, match=r"'b1' has shape \(3,\), cannot be set to an array of shape \(1, 3\)"):
        params["b1"] = np.zeros((1, 3))
    with pytest.raises(ValueError, match="cannot be set to an array of shape"):
        params["W1"] = 0.0
    with pytest.raises(KeyError, match="no parameter is called 'W9'; there are W1, b1, scale"):
        params["W9"] = 0.0
    with pytest.raises(TypeError, match="names of a ParameterVector are fixed"):
        del params["W1"]
    with pytest.raises(TypeError, match="floating dtype, got int64"):
        ParameterVector({"W": (2,)}, "int64")


def test_is_a_mapping(params):
    assert list(params) == ["W1", "b1", "scale"]
    assert len(params) == 3
    assert "b1" in params
    assert params.size == 25
    assert "W1 (7, 3)" in repr(params)


def test_zeros_like_has_the_layout_and_nothing_shared(params):
    grads = params.zeros_like()
    assert params.layout == grads.layout
    grads.flat += 1.0
    assert not float(params.flat.sum())
    assert params.layout != ParameterVector(SHAPES, "float32", params.device).layout
    assert params.layout != ParameterVector(dict(reversed(SHAPES.items())), "float64", params.device).layout
    assert params.layout != ()


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p)), ParameterVector.to])
def test_copies_are_views_of_a_vector_of_their_own(params, duplicate):
    params.flat += 1.0
    twin = duplicate(params)
    twin["W1"] += 1.0
    assert float(params["W1"].sum()) == 21.0
    assert float(twin["W1"].sum()) == 42.0
    twin.flat[...] = 0.0
    assert float(twin["W1"].sum()) == 0.0


def test_moving_to_another_device_and_dtype_keeps_values(params, device, rng):
    values = {name: rng.standard_normal(shape) for name, shape in SHAPES.items()}
    params.update(values)
    there = params.to(Device("cpu"), "float32")
    assert there.dtype == "float32"
    assert there.device == Device("cpu")
    back = there.to(device, "float64")
    assert get_device(back.flat) == device
    for name, value in values.items():
        np.testing.assert_array_equal(asnumpy(back[name]), value.astype("float32"))
        np.testing.assert_array_equal(params.asnumpy()[name], value)

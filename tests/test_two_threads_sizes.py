"""Steps on two cores of perceptrons of any sizes, and in blocks of any number of columns."""

from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_two_threads import SAMPLES, compiled, data, net_of, train_plainly

from xpnet.blas import blas
from xpnet.optimizers import SGD


@given(
    hidden=st.lists(st.integers(1, 9), max_size=4),
    activation=st.sampled_from(["relu", "sigmoid", "tanh"]),
    batch_size=st.integers(2, 9),
    dtype=st.sampled_from(["float32", "float64"]),
    of_data=st.sampled_from(["uint8", None]),
    steps=st.integers(0, 5),
    small=st.sampled_from([0, 10**6, 90, 25]),
    seed=st.integers(0, 99),
)
@settings(deadline=None)
def test_of_any_sizes_and_in_blocks_of_any_number_of_columns(
    hidden, activation, batch_size, dtype, of_data, steps, small, seed
):
    rng = np.random.default_rng(seed)
    x, t = data(rng, 7, of_data or dtype)
    net, plain = (net_of(7, *hidden, 3, activation=activation, dtype=dtype) for _ in range(2))
    indices = rng.integers(0, SAMPLES, (steps, batch_size))
    expected = train_plainly(plain, SGD(0.05), x, t, indices)
    with mock.patch.object(blas, "small", small):
        step = compiled(net, SGD(0.05), batch_size)
        found = step.run(x, t, indices)
        assert step.accuracy(x, t) == pytest.approx(net.accuracy(x, t), abs=1.5 / SAMPLES)  # one may be on the edge
    tolerance = {"rtol": 1e-3, "atol": 1e-4} if dtype == "float32" else {"rtol": 1e-9, "atol": 1e-11}
    np.testing.assert_allclose(found, expected, **tolerance)
    np.testing.assert_allclose(net.params.flat, plain.params.flat, **tolerance)

"""The gradients of every layer, for any numbers and any number of samples."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_cases import CASES, check_case


@given(st.integers(0, 2**32), st.integers(1, 6), st.sampled_from(sorted(CASES)))
@settings(max_examples=60)
def test_backward_is_the_derivative_of_forward_anywhere(seed, n, name):
    check_case(name, "gradient", "cpu", np.random.default_rng(seed), n)

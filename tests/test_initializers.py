"""Initial weights have the spread that their rule promises, the same on every device."""

import math

import numpy as np
import pytest

from xpnet.initializers import fans, initial_weights, orthogonal, scale


@pytest.mark.parametrize(
    ("std", "expected"),
    [
        (0.3, 0.3),
        ("he", math.sqrt(2 / 400)),
        ("ReLU", math.sqrt(2 / 400)),
        ("gelu", math.sqrt(2 / 400)),
        ("xavier", math.sqrt(1 / 400)),
        ("sigmoid", math.sqrt(1 / 400)),
        ("lecun", math.sqrt(1 / 400)),
        ("glorot", math.sqrt(2 / 700)),
    ],
)
def test_the_standard_deviation_is_the_rules(std, expected):
    assert scale(std, (400, 300)) == pytest.approx(expected, rel=1e-15)
    weights = initial_weights((400, 300), std, 0, "float64")
    assert weights.std() == pytest.approx(expected, rel=0.01)
    assert abs(weights.mean()) < 0.01 * expected


def test_the_inputs_of_a_filter_are_its_channels_times_its_size():
    assert fans((784, 50)) == (784, 50)
    assert fans((16, 3, 5, 4)) == (3 * 5 * 4, 16 * 5 * 4)
    assert scale("he", (16, 3, 5, 4)) == pytest.approx(math.sqrt(2 / 60))


@pytest.mark.parametrize("shape", [(7, 7), (9, 4), (4, 9), (6, 2, 3, 3), (20, 2, 2, 1)])
def test_orthogonal_rows_or_columns(shape):
    matrix = orthogonal(shape, 0, "float64").reshape(shape[0], -1)
    gram = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    np.testing.assert_allclose(gram, np.eye(len(gram)), atol=1e-14)


def test_orthogonal_matrices_favor_no_direction():
    # Without the signs of R's diagonal, QR would give its first entry one sign.
    first = [orthogonal((3, 3), seed)[0, 0] for seed in range(200)]
    assert 60 < sum(x > 0 for x in first) < 140


@pytest.mark.parametrize("std", [0.01, "he", "orthogonal"])
def test_a_seed_means_the_same_at_every_precision(std):
    wide, narrow = (initial_weights((5, 4), std, 3, dtype) for dtype in ("float64", "float32"))
    assert narrow.dtype == "float32"
    np.testing.assert_array_equal(narrow, wide.astype("float32"))


@pytest.mark.parametrize("std", ["heh", -1.0, math.nan, math.inf])
def test_what_is_no_rule_is_refused(std):
    with pytest.raises(ValueError, match="std must be"):
        initial_weights((2, 2), std)

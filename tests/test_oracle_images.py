"""Convolution and pooling of any sizes, and of images in any order in memory, against PyTorch's."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from test_oracle import F, compare_layer, scores

from xpnet import Device
from xpnet.layers import AveragePooling, Convolution, GlobalAveragePooling, Pooling


def lying_otherwise(x, order, rng):
    """Return the same images with their axes in another order in memory, or as every other column of wider ones."""
    if order is None:
        wide = rng.standard_normal((*x.shape[:-1], 2 * x.shape[-1]))
        wide[..., ::2] = x
        return wide[..., ::2]
    return np.ascontiguousarray(x.transpose(order)).transpose(np.argsort(order))


pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
orders = st.sampled_from([(0, 1, 2, 3), (1, 2, 3, 0), (0, 2, 3, 1), None])


@given(
    st.data(),
    st.integers(0, 3),
    st.integers(1, 3),
    st.tuples(st.integers(1, 2), st.integers(1, 2)),
    pairs,
    pairs,
    orders,
)
def test_convolution(data, n, groups, channels, size, stride, order):
    dilation = data.draw(pairs, "dilation")
    pad = data.draw(st.tuples(st.integers(0, 3), st.integers(0, 3)), "pad")
    extent = [d * (k - 1) + 1 for d, k in zip(dilation, size, strict=True)]
    H, W = (data.draw(st.integers(max(e - 2 * p, 1), e + 5)) for e, p in zip(extent, pad, strict=True))
    rng = np.random.default_rng(data.draw(st.integers(0, 99), "seed"))
    (C, M), device = (groups * c for c in channels), Device("cpu")
    layer = Convolution(
        scores(device, rng, (M, C // groups, *size)), scores(device, rng, (M,)), stride, pad, dilation, groups
    )
    x = lying_otherwise(scores(device, rng, (n, C, H, W)), order, rng)
    compare_layer(layer, lambda *a: F.conv2d(*a, stride, pad, dilation, groups), device, rng, x, ("W", "b"))


@given(st.data(), st.integers(0, 3), st.integers(1, 2), pairs, pairs, orders)
@settings(max_examples=300)
def test_pooling(data, n, channels, size, stride, order):
    pad = tuple(data.draw(st.integers(0, k // 2)) for k in size)
    H, W = (data.draw(st.integers(max(k - 2 * p, 1), k + 5)) for k, p in zip(size, pad, strict=True))
    rng, device = np.random.default_rng(data.draw(st.integers(0, 99), "seed")), Device("cpu")
    x = lying_otherwise(scores(device, rng, (n, channels, H, W)), order, rng)
    compare_layer(Pooling(*size, stride, pad), lambda a: F.max_pool2d(a, size, stride, pad), device, rng, x)
    compare_layer(AveragePooling(*size, stride, pad), lambda a: F.avg_pool2d(a, size, stride, pad), device, rng, x)
    compare_layer(GlobalAveragePooling(), lambda a: a.mean((2, 3)), device, rng, x)

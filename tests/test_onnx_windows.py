"""ONNX files of convolution and pooling, for windows of any kind."""

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from test_onnx import expect, run

from xpnet.interop.onnx import export
from xpnet.layers import AveragePooling, Convolution, IdentityWithLoss, Pooling
from xpnet.nets import Sequential


@given(st.data())
@settings(max_examples=30)
def test_windows_of_any_kind(data):
    """Convolution and pooling of any size, stride, padding and dilation."""
    pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
    size, stride, dilation, groups = (
        data.draw(pair),
        data.draw(pair),
        data.draw(pair),
        data.draw(st.sampled_from([1, 2])),
    )
    pad = data.draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
    kind = data.draw(st.sampled_from([Pooling, AveragePooling]))
    window, step = data.draw(pair), data.draw(pair)
    border = tuple(data.draw(st.integers(0, n // 2)) for n in window)
    options = {"stride": stride, "pad": pad, "dilation": dilation, "groups": groups}
    shape = (2, 14, 13)
    layers = [Convolution.from_sizes(2, 4, size, rng=0, **options), kind(*window, stride=step, pad=border)]
    net = Sequential(layers, IdentityWithLoss(), input_shape=shape)
    x = np.random.default_rng(0).standard_normal((2, *shape)).astype("float32")
    with tempfile.TemporaryDirectory() as folder:
        export(net, Path(folder) / "m.onnx")
        expect(run(Path(folder) / "m.onnx", x)[0], net.predict(x), "float32")

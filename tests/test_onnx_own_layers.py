"""ONNX files of networks with layers of a user's own: their converters."""

import numpy as np
import pytest
from test_models import Scale
from test_onnx import expect, onnx, referenced

from xpnet.interop.onnx import builder, converter, export
from xpnet.layers import Affine, LayerNorm, Relu, Residual, Tanh
from xpnet.nets import Sequential


def test_a_layer_of_a_user_needs_a_converter(tmp_path, rng, monkeypatch):
    monkeypatch.setattr(builder, "CONVERTERS", dict(builder.CONVERTERS))
    net = Sequential({"scale": Scale(np.full(3, 2.0), power=2)}, input_shape=(3,))
    file = tmp_path / "m.onnx"
    with pytest.raises(TypeError, match=r"no operator for scale, a Scale; .*@xpnet\.interop\.onnx\.converter\(Scale\)"):
        export(net, file)

    @converter(Scale)
    def scale(graph, layer, x):
        return graph.op("Mul", x, graph.op("Pow", graph.array(layer, "s"), layer.power))

    export(net, file)
    x = rng.random((2, 3))
    expect(referenced(file, x)[0], net.predict(x), "float64")

    @converter(Scale)
    def wrong(graph, layer, x):
        return graph.op("Mull", x, 2.0)

    before = file.read_bytes()
    with pytest.raises(ValueError, match=r"ONNX cannot hold this Sequential: .*Mull"):
        export(net, file)
    assert file.read_bytes() == before
    with pytest.raises(TypeError, match="converter expected a class of layers"):
        converter("Scale")


def test_a_subclass_with_a_forward_of_its_own_is_not_its_base(tmp_path):
    class Wide(Relu):
        def __init__(self):
            self.note = "only a constructor"

    class Steep(Relu):
        def forward(self, x, train=True):
            return super().forward(2.0 * x)

    class Steeper(LayerNorm):
        def _rows(self, x):
            return 2.0 * super()._rows(x)

    class Own(Sequential):
        def predict(self, x, train=False):
            return super().predict(x, train) * 2.0

    export(Sequential([Wide()], input_shape=(3,)), tmp_path / "m.onnx")
    for layer in (Steep(), Steeper(np.ones(3), np.zeros(3))):
        with pytest.raises(TypeError, match="no operator for"):
            export(Sequential([layer], input_shape=(3,)), tmp_path / "m.onnx")
    with pytest.raises(TypeError, match="Own defines predict, which has no layers for ONNX"):
        export(Own([Relu()], input_shape=(3,)), tmp_path / "m.onnx")


def test_a_container_of_a_user_applies_its_parts(tmp_path, rng, monkeypatch):
    """A converter may add the layers within its layer, and ask for shapes of their inputs and outputs alone."""
    monkeypatch.setattr(builder, "CONVERTERS", dict(builder.CONVERTERS))

    class Doubled(Residual):
        def forward(self, x, train=True):
            return 2.0 * super().forward(x, train)

    @converter(Doubled)
    def doubled(graph, layer, x):
        y = x
        for part in layer.parts.values():
            y = graph.apply(part, y)
            assert graph.shape(y) == (4,)
        y = graph.op("Add", y, x)
        with pytest.raises(ValueError, match=r"'Doubled1\.Add' is no input or output of a layer"):
            graph.shape(y)
        return graph.op("Mul", y, 2.0)

    net = Sequential([Doubled(Affine.from_sizes(4, 4, std=1.0, rng=0), Tanh()), Affine.from_sizes(4, 3, rng=1)])
    export(net, tmp_path / "m.onnx")
    x = rng.random((2, 4), dtype="float32")
    expect(referenced(tmp_path / "m.onnx", x)[0], net.predict(x), "float32")
    names = {array.name for array in onnx.load(tmp_path / "m.onnx").graph.initializer}
    assert {"Doubled1.Affine1.W", "Affine1.W"} <= names

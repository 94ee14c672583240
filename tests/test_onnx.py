"""ONNX files of networks: `xpnet.interop.onnx`."""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_layers import CASES
from test_models import NETWORKS, Scale, samples

import xpnet
from xpnet.graph import Constant, Input
from xpnet.interop.onnx import IR_VERSION, OPSET, builder, converter, export, model
from xpnet.layers import (
    GRU,
    LSTM,
    RNN,
    Affine,
    AveragePooling,
    Bidirectional,
    Convolution,
    CrossAttention,
    Dropout,
    Embedding,
    Flatten,
    Gelu,
    GlobalAveragePooling,
    HingeWithLoss,
    IdentityWithLoss,
    Layer,
    LayerNorm,
    Loss,
    MaxLayer,
    MultiHeadAttention,
    PaddedMean,
    PoissonWithLoss,
    Pooling,
    PositionalEncoding,
    Relu,
    Residual,
    Sigmoid,
    SigmoidWithLoss,
    Softmax,
    SoftmaxWithLoss,
    Tanh,
    TransformerBlock,
    Unembedding,
)
from xpnet.nets import (
    GPT,
    GraphNetwork,
    LanguageModel,
    SequenceClassifier,
    Sequential,
    SimpleConvNet,
    TwoLayerNet,
)

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
reference = pytest.importorskip("onnx.reference")

TOLERANCE = {"float16": 5e-3, "float32": 1e-5, "float64": 1e-7}  # ONNX's eps of normalizations is a float32


def referenced(file, x):
    """Compute with the reference of the ONNX project, in NumPy."""
    with np.errstate(over="ignore", invalid="ignore"):  # in its sigmoid
        try:
            return reference.ReferenceEvaluator(str(file)).run(None, {"x": x})
        except NotImplementedError as error:  # onnx 1.17 has LSTMs of one direction
            pytest.skip(f"the reference of onnx {onnx.__version__}: {error}")


def run(file, x):
    """Compute with onnxruntime."""
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    return runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"]).run(None, {"x": x})


def batches(net, compute):
    """Return numbers of samples that a runtime can take."""
    recurrent = any(isinstance(layer, (LSTM, GRU)) for layer in net.modules().values())  # onnxruntime aborts for 0
    return (1, 3) if compute is referenced or recurrent else (1, 3, 0)  # the reference cannot flatten an empty batch


def expect(found, expected, dtype):
    assert found.dtype == expected.dtype == dtype
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


def network_of(case, dtype):
    """Return a network of a layer alone, and the samples of a batch of n."""
    layer = case.make(np.random.default_rng(0), dtype)

    def inputs(n):
        rng = np.random.default_rng(n)
        return [x.astype("int64" if x.dtype.kind in "iu" else dtype) for x in case.inputs(rng, n)]

    if isinstance(layer, Unembedding):  # not without the embedding
        net = Sequential([layer.embedding, layer], IdentityWithLoss(), dtype=dtype)
        return net, lambda n: [np.random.default_rng(n).integers(0, 5, (n, 2))]
    x = inputs(1)
    if layer.inputs == 1:
        for part in layer.modules().values():
            part.fixed_buffers = False
        net = Sequential([layer], IdentityWithLoss(), input_shape=x[0].shape[1:], dtype=dtype)
        net.predict(inputs(4)[0], train=True)  # changes the running averages
        return net, inputs
    value = Input("x")  # the second input is computed from the first, or a constant
    second = x[1] if x[1].shape != x[0].shape else Gelu()(value) + 2.0
    if isinstance(layer, CrossAttention):  # as many sequences, of another length
        second = value.sum(axis=1, keepdims=True) + x[1][0]
    return GraphNetwork(IdentityWithLoss()(layer(value, second), Input("t")), dtype=dtype), inputs


MADE = {name: case.make(np.random.default_rng(0), "f") for name, case in CASES.items()}
LAYERS = {name: case for name, case in CASES.items() if not isinstance(MADE[name], Loss)}


@pytest.mark.parametrize("compute", [run, referenced])
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_computes_the_same(name, compute, tmp_path):
    net, inputs = network_of(LAYERS[name], "float32")
    export(net, tmp_path / "m.onnx", input_shape=inputs(1)[0].shape[1:])
    for n in batches(net, compute):
        x = inputs(n)[0]
        expect(compute(tmp_path / "m.onnx", x)[0], np.asarray(net.predict(x)), "float32")


@pytest.mark.parametrize("dtype", ["float16", "float64"])
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_computes_the_same_in_other_dtypes(name, dtype, tmp_path):
    net, inputs = network_of(LAYERS[name], dtype)
    x = inputs(3)[0]
    export(net, tmp_path / "m.onnx", input_shape=x.shape[1:])
    expect(referenced(tmp_path / "m.onnx", x)[0], np.asarray(net.predict(x)), dtype)


@pytest.mark.parametrize("compute", [run, referenced])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_computes_the_same(name, compute, tmp_path):
    net = NETWORKS[name]()
    x, t = samples(net) if name != "no parameters" else (np.ones((6, 3), "f"), np.arange(6) % 3)
    net.loss(x, t, train=True)  # changes the running averages
    export(net, tmp_path / "m.onnx", input_shape=x.shape[1:])
    for n in batches(net, compute):
        scores, probabilities = compute(tmp_path / "m.onnx", x[:n])
        expected = net.predict(x[:n])
        expect(scores, expected, net.dtype.name)
        expect(probabilities, Softmax().forward(expected), net.dtype.name)


SEQUENCES = {
    "gpt": lambda: GPT(7, 20, 8, num_heads=2, num_layers=2, dropout=0.1, seed=0),
    "gpt, rotary": lambda: GPT(7, None, 8, num_heads=2, num_layers=1, seed=0),
    "lstm": lambda: LanguageModel(7, 8, num_layers=2, batch_size=2, seed=0),
    "gru": lambda: LanguageModel(7, 8, cell="gru", dropout=0.1, seed=0),
    "classifier": lambda: SequenceClassifier(7, 8, 3, cell="rnn", seed=0),
    "classifier, bidirectional": lambda: SequenceClassifier(7, 8, 3, bidirectional=True, num_layers=2, seed=0),
    "layers": lambda: Sequential(
        [
            Embedding.from_sizes(7, 5, rng=0),
            PositionalEncoding(),
            Bidirectional(RNN.from_sizes(5, 2, rng=1), GRU.from_sizes(5, 4, rng=2)),
            Bidirectional(Affine.from_sizes(6, 2, rng=3, axis=-1), LSTM.from_sizes(6, 2, rng=4)),
            MaxLayer(1, keepdims=True),
        ]
    ),
}


@pytest.mark.parametrize("compute", [run, referenced])
@pytest.mark.parametrize("name", SEQUENCES)
def test_sequences_of_any_length(name, compute, tmp_path, rng):
    net = SEQUENCES[name]()
    for vector in net.params.values():
        vector += 0.2 * rng.standard_normal(vector.shape).astype("f")  # biases too
    net.predict(rng.integers(0, 7, (2, 5)), train=True)  # changes carried states
    export(net, tmp_path / "m.onnx", input_shape=("T",))
    for N, T in ((1, 1), (2, 7), (3, 20)):
        x = rng.integers(0, 7, (N, T))
        scores, probabilities = compute(tmp_path / "m.onnx", x)
        expect(scores, net.predict(x), "float32")
        expect(probabilities, Softmax().forward(net.predict(x)), "float32")


PADDED = {
    "lstm": lambda: [LSTM.from_sizes(4, 4, rng=1)],
    "bidirectional": lambda: [
        Bidirectional(*(GRU.from_sizes(4, 2, rng=rng) for _ in range(2))) for rng in map(np.random.default_rng, (1, 2))
    ],
    "attention": lambda: [PositionalEncoding(), MultiHeadAttention.from_sizes(4, 2, rng=1)],
    "blocks": lambda: [TransformerBlock.from_sizes(4, 2, rotary=True, rng=rng) for rng in (1, 2)],
    "residual": lambda: [Residual(Bidirectional(*(RNN.from_sizes(4, 2, rng=rng) for rng in (1, 2))), Residual(Tanh()))],
}


@pytest.mark.parametrize("compute", [run, referenced])
@pytest.mark.parametrize("kind", PADDED)
def test_padded_sequences(kind, compute, tmp_path, rng):
    layers = [Embedding.from_sizes(7, 4, rng=0), *PADDED[kind]()]
    net = Sequential([PaddedMean(*layers, padding_id=6), Affine.from_sizes(4, 3, std="lecun", rng=3)])
    for vector in net.params.values():
        vector += 0.2 * rng.standard_normal(vector.shape).astype("f")  # biases too
    export(net, tmp_path / "m.onnx", input_shape=("T",))
    for lengths in ([1], [3, 3], [4, 0, 9, 2]):
        x = rng.integers(0, 6, (len(lengths), max(lengths)))
        for row, length in zip(x, lengths, strict=True):
            row[length:] = 6
        expect(compute(tmp_path / "m.onnx", x)[0], net.predict(x), "float32")


@pytest.mark.parametrize("compute", [run, referenced])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_classifier_of_padded_sequences(bidirectional, compute, tmp_path):
    net = SequenceClassifier(6, 4, 3, num_layers=2, bidirectional=bidirectional, padding_id=0, seed=0)
    export(net, tmp_path / "m.onnx", input_shape=("T",))
    x = np.array([[1, 2, 3, 4], [5, 1, 0, 0], [0, 0, 0, 0]])  # the last one is padding alone
    scores, probabilities = compute(tmp_path / "m.onnx", x)
    expect(scores, net.predict(x), "float32")
    expect(probabilities, Softmax().forward(scores), "float32")


def test_a_sequence_beyond_the_learnt_positions_is_an_error(tmp_path, rng):
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    export(SEQUENCES["gpt"](), tmp_path / "m.onnx", input_shape=("T",))
    with pytest.raises(runtime.capi.onnxruntime_pybind11_state.Fail, match="LearntPositionalEncoding1"):
        run(tmp_path / "m.onnx", rng.integers(0, 7, (2, 21)))


def axes(value):
    return [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]


class Twice(Layer):
    """A sequence, and the same again."""

    def forward(self, x, train=True):
        return np.concatenate([x, x], axis=1)


def test_dynamic_axes_of_inputs_and_outputs(tmp_path, monkeypatch):
    """An axis whose length is computed from a dynamic one has no name."""
    monkeypatch.setattr(builder, "CONVERTERS", dict(builder.CONVERTERS))
    converter(Twice)(lambda graph, layer, x: graph.op("Concat", x, x, axis=1))
    file = tmp_path / "m.onnx"
    for net, shape, axes_of_x, axes_of_scores in (
        (SEQUENCES["gpt"](), ("T",), ["N", "T"], ["N", "T", 7]),
        (SEQUENCES["gpt"](), (4,), ["N", 4], ["N", 4, 7]),
        (SEQUENCES["classifier"](), ("time",), ["N", "time"], ["N", 3]),
        (Sequential([LSTM.from_sizes(3, 2, rng=0)]), ("T", 3), ["N", "T", 3], ["N", "T", 2]),
        (Sequential([Twice(), Relu()]), ("T", 3), ["N", "T", 3], ["N", 0, 3]),
        (Sequential([GlobalAveragePooling()]), (3, "H", "W"), ["N", 3, "H", "W"], ["N", 3]),
        (Sequential([Relu()]), ("H", "W"), ["N", "H", "W"], ["N", "H", "W"]),
        (Sequential([Relu()]), ("T", "T"), ["N", "T", "T"], ["N", "T", "T"]),
    ):
        export(net, file, input_shape=shape)
        graph = onnx.load(file).graph
        assert (axes(graph.input[0]), axes(graph.output[0])) == (axes_of_x, axes_of_scores)


def test_layers_that_do_not_take_each_length_and_shapes_that_are_none(tmp_path):
    file = tmp_path / "m.onnx"
    for net, shape, message in (
        (
            TwoLayerNet(4, 3, 2, seed=0),
            ("D",),
            r"Affine1 does not take each length of a dynamic axis.*With D = 2: .*N, 4",
        ),
        (
            GPT(7, 2, 4, num_heads=2, num_layers=1),
            ("T",),
            r"LearntPositionalEncoding1 does not.*With T = 3: .*T up to 2",
        ),
        (TwoLayerNet(4, 3, 2), ("N",), "axis 'N'; the name of an axis of any length must be an identifier, and not N"),
        (TwoLayerNet(4, 3, 2), "T", "input_shape must be a tuple of sizes, and names of axes of any length, got 'T'"),
        (TwoLayerNet(4, 3, 2), (None,), "input_shape must be a tuple of integers"),
        (
            Sequential([PositionalEncoding()]),
            ("T", "D"),
            "PositionalEncoding1 is exported for a fixed number of features",
        ),
        (
            Sequential([Convolution.from_sizes(1, 2, 2, rng=0)]),
            (1, "H", 8),
            r"Convolution1 is exported for images of one size; input_shape must be numbers, got \(1, 'H', 8\)",
        ),
        (SEQUENCES["lstm"](), None, r"with a name for an axis of any length: \('T',\) for sequences of ids"),
    ):
        with pytest.raises(ValueError, match=message):
            export(net, file, input_shape=shape)
    assert not file.exists()


def test_tied_weights_and_parts_of_attention_are_stored_once(tmp_path):
    names = {}
    for name in ("gpt", "lstm", "classifier, bidirectional"):
        export(SEQUENCES[name](), tmp_path / "m.onnx", input_shape=("T",))
        arrays = onnx.load(tmp_path / "m.onnx").graph.initializer
        names[name] = {array.name for array in arrays if "constant" not in array.name}
        large = sum(array.dims == [7, 8] for array in arrays)
        assert large == 1
    assert {f"LSTM{i}.{name}" for i in (1, 2) for name in "WRB"} | {"Embedding1.W"} == names["lstm"]
    assert {f"TransformerBlock1.Residual1.MultiHeadAttention1.{name}" for name in ("W", "b", "Wo", "bo")} <= names[
        "gpt"
    ]
    assert {f"Bidirectional2.{name}" for name in "WRB"} <= names["classifier, bidirectional"]
    ids = Input("x")
    table = Embedding.from_sizes(5, 3, rng=0)
    net = GraphNetwork(SoftmaxWithLoss()((table(ids) * table(ids)).sum(axis=1), Input("t")))
    export(net, tmp_path / "m.onnx", input_shape=("T",))
    assert [array.name for array in onnx.load(tmp_path / "m.onnx").graph.initializer if array.dims == [5, 3]] == [
        "Embedding1.W"
    ]


def test_a_model_says_what_it_is(tmp_path):
    net = TwoLayerNet(4, 3, 2, seed=0)
    export(net, tmp_path / "m.onnx", class_names=["no", "ja é"])
    model = onnx.load(tmp_path / "m.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert (model.opset_import[0].version, model.ir_version) == (OPSET, IR_VERSION) == (18, 8)
    assert {node.domain for node in model.graph.node} == {""}  # ONNX's own operators
    assert not model.functions
    assert (model.producer_name, model.producer_version) == ("xpnet", xpnet.__version__)
    properties = {entry.key: entry.value for entry in model.metadata_props}
    assert properties["xpnet"] == xpnet.__version__
    assert json.loads(properties["class_names"]) == ["no", "ja é"]
    names = [value.name for value in (*model.graph.input, *model.graph.output)]
    assert names == ["x", "scores", "probabilities"]
    for value, size in zip((*model.graph.input, *model.graph.output), (4, 2, 2), strict=True):
        batch, axis = value.type.tensor_type.shape.dim
        assert (batch.dim_param, axis.dim_value) == ("N", size)
    assert {array.name for array in model.graph.initializer} == {
        f"{layer}.{name}" for layer in ("Affine1", "Affine2") for name in "Wb"
    }


@pytest.mark.parametrize("compute", [run, referenced])
def test_outputs_by_the_loss(compute, tmp_path, rng):
    x = rng.random((3, 4), dtype="float32")
    bare = [(loss, None) for loss in (IdentityWithLoss(), HingeWithLoss(), PoissonWithLoss())]
    for loss, activation in ((SigmoidWithLoss(), Sigmoid()), *bare):
        net = Sequential([Affine.from_sizes(4, 2, std=1.0, rng=0)], loss)
        export(net, tmp_path / "m.onnx")
        scores, *probabilities = compute(tmp_path / "m.onnx", x)
        expect(scores, net.predict(x), "float32")
        assert len(probabilities) == (activation is not None)
        for found in probabilities:
            expect(found, activation.forward(net.predict(x)), "float32")


def test_the_network_stays_as_it_was(tmp_path, rng):
    """An export between forward and backward does not change the gradient."""
    x, t = rng.random((5, 12), dtype="float32"), rng.integers(0, 3, 5)
    nets = [NETWORKS["extended"]() for _ in range(2)]
    for net in nets:
        net.loss(x, t, train=True)
        if net is nets[0]:
            export(net, tmp_path / "m.onnx")
        net.backward(net.last_layer.backward())
        net.collect_gradients(net.params.zeros_like())
    for name, its in nets[1].state().items():
        np.testing.assert_array_equal(nets[0].state()[name], its)
    np.testing.assert_array_equal(nets[0].layers["Affine1"].dW, nets[1].layers["Affine1"].dW)


def test_a_network_of_a_gpu_is_exported(cuda, tmp_path, rng):
    net = SimpleConvNet((1, 8, 8), {"filter_num": 3, "filter_size": 3, "pad": 1}, 4, 3, device=cuda, seed=0)
    x = rng.random((2, 1, 8, 8), dtype="float32")
    export(net, tmp_path / "m.onnx")
    assert net.device == cuda
    expect(referenced(tmp_path / "m.onnx", x)[0], net.copy().to("cpu").predict(x), "float32")


@pytest.mark.parametrize("compute", [run, referenced])
def test_graphs_of_ids_constants_and_mixed_dtypes(compute, tmp_path):
    """NumPy converts a number or an integer to the dtype of the result; the model does so by Cast."""
    ids, t = Input("x"), Input("t")
    table = Embedding(np.arange(12, dtype="float32").reshape(6, 2))
    h = table(ids) * table(ids + 1) - np.array([1.0, 2.0]) / 3
    h = Affine.from_sizes(2, 3, rng=0)(2 ** (h / 100)) + ids.sum(axis=1, keepdims=True) * np.float32(0.5)
    net = GraphNetwork(SoftmaxWithLoss()(h, t))
    x = np.array([[1], [4], [0]])
    with pytest.raises(ValueError, match="pass input_shape="):
        export(net, tmp_path / "m.onnx")
    export(net, tmp_path / "m.onnx", input_shape=(1,))
    scores, _ = compute(tmp_path / "m.onnx", x)
    np.testing.assert_allclose(scores, net.predict(x), rtol=1e-5)


GRAPHS = {
    "mean of the batch": lambda x: x - x.mean(axis=0),
    "maximum of the batch": lambda x: x - x.max(axis=(0,), keepdims=True),
    "no axes": lambda x: x.sum(axis=()),
    "one number": lambda x: (x * x).sum(),
    "powers and quotients": lambda x: 1 / (x**2 + 1) - 3**x,
    "product with a constant": lambda x: x @ np.arange(8.0).reshape(4, 2),
    "layer of a constant": lambda x: x + Affine.from_sizes(2, 4, std=1.0, rng=1)(Constant(np.ones((1, 2)))),
    "nothing": lambda x: x,
}


@pytest.mark.parametrize("compute", [run, referenced])
@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_computes_the_same(name, compute, tmp_path, rng):
    net = GraphNetwork(IdentityWithLoss()(GRAPHS[name](Input("x")), Input("t")))
    export(net, tmp_path / "m.onnx", input_shape=(4,))
    x = rng.standard_normal((3, 4)).astype("float32")
    expect(compute(tmp_path / "m.onnx", x)[0], np.asarray(net.predict(x)), "float32")


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


def test_names_that_onnx_reserves_or_cannot_hold(tmp_path, rng):
    names = ["x", "scores", "probabilities", "", "x.W", "a/b\n", "\ud800", "\ud801"]
    net = Sequential({name: Affine.from_sizes(3, 3, std=1.0, rng=i) for i, name in enumerate(names)})
    export(net, tmp_path / "m.onnx")
    x = rng.random((2, 3), dtype="float32")
    expect(referenced(tmp_path / "m.onnx", x)[0], net.predict(x), "float32")


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


def test_what_cannot_be_exported_and_where_not_to(tmp_path, monkeypatch):
    net, file = TwoLayerNet(4, 3, 2, seed=0), tmp_path / "m.onnx"
    with pytest.raises(TypeError, match=r"net must be an xpnet\.nets\.Network, got Affine"):
        export(Affine.from_sizes(2, 2), file)
    with pytest.raises(ValueError, match="class_names has 3 names, but there are scores for 2 classes"):
        export(net, file, class_names=["a", "b", "c"])
    for names in ("ab", [1, 2]):
        with pytest.raises(TypeError, match="class_names must be a sequence of texts"):
            export(net, file, class_names=names)
    with pytest.raises(ValueError, match=r"expected x of shape \(N, 4\)"):
        export(net, file, input_shape=(5,))
    with pytest.raises(
        ValueError, match="the layers of this Sequential fit samples of several shapes; pass input_shape"
    ):
        export(Sequential([Flatten(), Dropout(0.1)]), file)
    monkeypatch.setattr(model, "LARGEST", 100)
    with pytest.raises(ValueError, match=r"ONNX files hold up to 2 GiB, the parameters take 0\.0 GiB"):
        export(net, file)
    monkeypatch.undo()
    if np.finfo(np.longdouble).bits > 64:
        with pytest.raises(ValueError, match="ONNX has no type"):
            export(net.copy().to(dtype=np.longdouble), file)
    assert not file.exists()
    with pytest.raises(FileNotFoundError, match="none"):
        export(net, tmp_path / "none" / "m.onnx")
    file.write_text("precious")
    file.chmod(0o444)
    with pytest.raises(PermissionError, match="read-only"):
        export(net, file)
    assert file.read_text() == "precious"
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
    export(net, tmp_path / "ö \n .onnx")
    assert (tmp_path / "ö \n .onnx").stat().st_size > 100


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


def test_pixels_are_floats_of_the_unit_interval(tmp_path, rng):
    net = TwoLayerNet(4, 3, 2, seed=0)
    export(net, tmp_path / "m.onnx")
    pixels = rng.integers(0, 256, (3, 4), dtype="uint8")
    expect(referenced(tmp_path / "m.onnx", pixels.astype("float32") / 255)[0], net.predict(pixels), "float32")


def test_the_error_without_onnx_names_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'xpnet\[onnx\]'"):
        export(TwoLayerNet(4, 3, 2), tmp_path / "m.onnx")

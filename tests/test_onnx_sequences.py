"""ONNX files of networks for sequences, and of other samples of any length."""

import numpy as np
import pytest
from test_onnx import expect, onnx, referenced, run

from xpnet.graph import Input
from xpnet.interop.onnx import builder, converter, export
from xpnet.layers import (
    GRU,
    LSTM,
    RNN,
    Affine,
    Bidirectional,
    Convolution,
    Embedding,
    GlobalAveragePooling,
    Layer,
    MaxLayer,
    MultiHeadAttention,
    PaddedMean,
    PositionalEncoding,
    Relu,
    Residual,
    Softmax,
    SoftmaxWithLoss,
    Tanh,
    TransformerBlock,
)
from xpnet.nets import GPT, GraphNetwork, LanguageModel, SequenceClassifier, Sequential, TwoLayerNet

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


def test_a_sequence_beyond_the_learned_positions_is_an_error(tmp_path, rng):
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    export(SEQUENCES["gpt"](), tmp_path / "m.onnx", input_shape=("T",))
    with pytest.raises(runtime.capi.onnxruntime_pybind11_state.Fail, match="LearnedPositionalEncoding1"):
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
            r"LearnedPositionalEncoding1 does not.*With T = 3: .*T up to 2",
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

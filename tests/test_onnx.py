"""ONNX files of networks: `xpnet.interop.onnx`."""

import json
import sys

import numpy as np
import pytest
from layer_cases import CASES
from test_models import NETWORKS, samples

import xpnet
from xpnet.graph import Constant, Input
from xpnet.interop.onnx import IR_VERSION, OPSET, export, model
from xpnet.layers import (
    GRU,
    LSTM,
    Affine,
    CrossAttention,
    Dropout,
    Embedding,
    Flatten,
    Gelu,
    HingeWithLoss,
    IdentityWithLoss,
    Loss,
    PoissonWithLoss,
    Sigmoid,
    SigmoidWithLoss,
    Softmax,
    SoftmaxWithLoss,
    Unembedding,
)
from xpnet.nets import GraphNetwork, Sequential, SimpleConvNet, TwoLayerNet

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


def test_names_that_onnx_reserves_or_cannot_hold(tmp_path, rng):
    names = ["x", "scores", "probabilities", "", "x.W", "a/b\n", "\ud800", "\ud801"]
    net = Sequential({name: Affine.from_sizes(3, 3, std=1.0, rng=i) for i, name in enumerate(names)})
    export(net, tmp_path / "m.onnx")
    x = rng.random((2, 3), dtype="float32")
    expect(referenced(tmp_path / "m.onnx", x)[0], net.predict(x), "float32")


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


def test_pixels_are_floats_of_the_unit_interval(tmp_path, rng):
    net = TwoLayerNet(4, 3, 2, seed=0)
    export(net, tmp_path / "m.onnx")
    pixels = rng.integers(0, 256, (3, 4), dtype="uint8")
    expect(referenced(tmp_path / "m.onnx", pixels.astype("float32") / 255)[0], net.predict(pixels), "float32")


def test_the_error_without_onnx_names_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'xpnet\[onnx\]'"):
        export(TwoLayerNet(4, 3, 2), tmp_path / "m.onnx")

"""Files from which networks are rebuilt: `Network.save` and `xpnet.load`."""

import copy
import json
import pickle
import re
import subprocess
import sys

import numpy as np
import pytest
from layer_cases import CASES

import xpnet
from xpnet.graph import Input
from xpnet.layers import Affine, Dropout, Embedding, Flatten, Gelu, Layer, LayerNorm, Relu, Residual, SoftmaxWithLoss
from xpnet.nets import (
    DeepConvNet,
    GraphNetwork,
    LeNet5,
    MultiLayerNet,
    MultiLayerNetExtend,
    Network,
    Sequential,
    SimpleConvNet,
    TwoLayerNet,
)
from xpnet.optimizers import Adam
from xpnet.tensors import read_tensors, write_tensors
from xpnet.training import Trainer, load_checkpoint, save_checkpoint


def graph_network(**options):
    x, t = Input("x"), Input("t")
    shared = Affine.from_sizes(12, 12, rng=0)
    h = Relu()(shared(x))
    h = 0.5 * h + Relu()(shared(h)) + np.arange(12.0)
    h = h + h.mean(axis=(1,), keepdims=True)
    return GraphNetwork(SoftmaxWithLoss()(Affine.from_sizes(12, 3, rng=2)(h), t), **options)


def residual_network():
    block = Residual(Affine.from_sizes(6, 6, rng=1), Relu(), LayerNorm(np.ones(6, "f"), np.zeros(6, "f"), eps=1e-3))
    layers = [Affine.from_sizes(12, 6, rng=0), block, Gelu("tanh"), Affine.from_sizes(6, 3, rng=0)]
    return Sequential(layers, SoftmaxWithLoss(0.1, np.array([1.0, 2.0, 3.0]), ignore_index=-1))


NETWORKS = {
    "two-layer": lambda: TwoLayerNet(12, 5, 3, activation="sigmoid", seed=0),
    "float64": lambda: TwoLayerNet(12, 5, 3, dtype="float64", seed=0),
    "float16": lambda: TwoLayerNet(12, 5, 3, dtype="float16", seed=0),
    "multi-layer": lambda: MultiLayerNet(12, [4, 5], 3, weight_decay_lambda=0.1, seed=0),
    "extended": lambda: MultiLayerNetExtend(12, [7, 6], 3, use_batchnorm=True, use_dropout=True, seed=1),
    "lenet5": lambda: LeNet5((1, 16, 16), 3, seed=0),
    "simple": lambda: SimpleConvNet((1, 10, 8), {"filter_num": 3, "filter_size": 3, "pad": 1}, 4, 3, seed=0),
    "deep": lambda: DeepConvNet((1, 12, 12), 4, 3, seed=0),
    "residual": residual_network,
    "graph": graph_network,
    "row of layers": lambda: Network(
        {"first": Flatten(), "second": Affine.from_sizes(12, 3, rng=0)}, SoftmaxWithLoss()
    ),
    "named layers": lambda: Sequential({"in": Affine.from_sizes(12, 3, rng=0)}, input_shape=(12,)),
    "no parameters": lambda: Sequential([Relu()], input_shape=(3,)),
}


class Scale(Layer):
    """A layer of a user's."""

    parameter_names = ("s",)

    def __init__(self, s, power=1):
        self.s, self.power = s, power

    def forward(self, x, train=True):
        return x * self.s**self.power


def samples(net):
    rng = np.random.default_rng(0)
    shape = net.input_shape or (12,)
    return rng.random((6, *shape)).astype(net.dtype), rng.integers(0, 3, 6)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_rebuilt(name, tmp_path):
    net = NETWORKS[name]()
    x, t = samples(net)
    net.loss_and_gradient(x, t)  # changes the buffers
    net.save(tmp_path / "model.safetensors")
    loaded = xpnet.load(tmp_path / "model.safetensors")
    assert type(loaded) is type(net)
    assert loaded.layers.keys() == net.layers.keys()
    assert loaded.params.layout == net.params.layout
    assert loaded.input_shape == net.input_shape
    for (loss, gradient), (expected, its) in zip(
        [loaded.loss_and_gradient(x, t) for _ in range(2)], [net.loss_and_gradient(x, t) for _ in range(2)], strict=True
    ):  # twice: dropout's masks go on, and running averages
        assert loss == expected
        np.testing.assert_array_equal(gradient.flat, its.flat)
    np.testing.assert_array_equal(loaded.predict(x), net.predict(x))


@pytest.mark.parametrize("name", CASES)
def test_every_layer_is_rebuilt_from_its_config(name):
    layer = CASES[name].make(np.random.default_rng(0), "float64")
    config = copy.deepcopy(layer.config())  # copies: sublayers belong to the layer
    made = type(layer)(*config.pop("layers", ()), **config)
    assert made.parameters().keys() == layer.parameters().keys()
    again = made.config()
    assert again.keys() == layer.config().keys()
    for key, value in config.items():
        if isinstance(value, Layer):
            assert type(again[key]) is type(value)
        else:
            np.testing.assert_array_equal(again[key], value)


def test_a_trained_network_goes_on_from_its_file(tmp_path):
    net = MultiLayerNetExtend(12, [7, 6], 3, use_batchnorm=True, use_dropout=True, seed=1)
    x, t = samples(net)
    indices = np.arange(6)[None].repeat(3, axis=0)
    net.compile(Adam(), 6).run(x, t, indices)
    net.save(tmp_path / "m.safetensors")
    loaded = xpnet.load(tmp_path / "m.safetensors")
    losses = [its.compile(Adam(), 6).run(x, t, indices) for its in (net, loaded)]
    np.testing.assert_array_equal(*losses)


def test_a_file_of_a_gpu_is_for_every_device(cuda, tmp_path):
    net = MultiLayerNetExtend(12, [7], 3, use_batchnorm=True, use_dropout=True, device=cuda, seed=1)
    x, t = samples(net)
    net.loss(cuda.asarray(x), cuda.asarray(t), train=True)
    net.save(tmp_path / "m.safetensors")
    scores = xpnet.load(tmp_path / "m.safetensors").predict(x)
    there = xpnet.load(tmp_path / "m.safetensors", device="cuda")
    assert there.device == cuda
    np.testing.assert_allclose(scores, cuda.asnumpy(net.predict(cuda.asarray(x))), rtol=1e-5)
    np.testing.assert_array_equal(there.predict(cuda.asarray(x)).get(), net.predict(cuda.asarray(x)).get())
    there.loss(cuda.asarray(x), cuda.asarray(t), train=True)


def test_arrays_in_another_order_of_memory(tmp_path):
    W = np.asfortranarray(np.arange(12.0).reshape(3, 4))
    net = Sequential([Affine(W, np.zeros(4))], SoftmaxWithLoss(class_weight=np.arange(8.0)[::2] + 1.0))
    net.save(tmp_path / "m.safetensors")
    loaded = xpnet.load(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(loaded.params["W1"], W)
    np.testing.assert_array_equal(loaded.last_layer.class_weight, [1.0, 3.0, 5.0, 7.0])
    write_tensors(tmp_path / "t", "things", "text", {"big-endian": np.array([1.5], ">f8"), "0-d": np.array(7)})
    text, arrays = read_tensors(tmp_path / "t", "things")
    assert (text, arrays["big-endian"].tolist(), arrays["0-d"].shape) == ("text", [1.5], ())


def test_layers_of_a_user_are_built_only_if_they_are_trusted(tmp_path):
    file = tmp_path / "m.safetensors"
    net = Sequential({"scale": Scale(np.full(3, 2.0), power=2)})
    net.save(file)
    with pytest.raises(ValueError, match=r"needs the layer test_models\.Scale.*trusted=\['test_models\.Scale'\]"):
        xpnet.load(file)
    with pytest.raises(TypeError, match="trusted must be a list of classes or import paths"):
        xpnet.load(file, trusted="test_models.Scale")
    for trusted in ([Scale], ["test_models.Scale"]):
        np.testing.assert_array_equal(xpnet.load(file, trusted=trusted).predict(np.ones((1, 3))), [[4.0, 4.0, 4.0]])


def test_a_file_imports_nothing_by_itself(tmp_path):
    """A path in a file is no reason to import it."""
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')")
    description = {"version": 1, "network": "Sequential", "dtype": "float32", "input_shape": None}
    description |= {
        "layers": {"a": {"class": "evil.Layer", "config": {}}},
        "loss": {"class": "os.system", "config": {}},
    }
    write_tensors(tmp_path / "m", "model", json.dumps(description), {})
    code = "import sys, xpnet\ntry: xpnet.load('m')\nexcept ValueError as e: print(e)\nprint('evil' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "needs the layer evil.Layer" in found.stdout
    assert found.stdout.endswith("False\n")


def test_models_and_checkpoints_are_written_and_read_without_pickle(tmp_path, monkeypatch):
    net = MultiLayerNetExtend(12, [7], 3, use_batchnorm=True, seed=1)
    x, t = samples(net)
    trainer = Trainer(net, x, t, steps=2, mini_batch_size=3, optimizer="adam", seed=0)
    trainer.train()
    for name in ("dump", "dumps", "load", "loads", "Pickler", "Unpickler"):
        monkeypatch.setattr(pickle, name, None)
    net.save(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(xpnet.load(tmp_path / "model.safetensors").params.flat, net.params.flat)
    save_checkpoint(tmp_path / "checkpoint.safetensors", trainer.state())
    trainer.load_state(load_checkpoint(tmp_path / "checkpoint.safetensors"))


def test_what_a_file_cannot_hold_is_refused_and_nothing_is_written(tmp_path):
    class Own(Sequential):
        def predict(self, x, train=False):
            return super().predict(x, train) * 2.0

    class Kept(Layer):
        def __init__(self, size):
            self._size = size

    class Odd(Layer):
        def __init__(self, function):
            self.function = function

    file = tmp_path / "m.safetensors"
    with pytest.raises(TypeError, match=r"Own defines predict, which a file cannot hold; use save_params"):
        Own([Relu()]).save(file)
    with pytest.raises(TypeError, match=r"Kept1 has no attribute 'size'.*define Kept\.config\(\)"):
        Sequential([Kept(3)]).save(file)
    with pytest.raises(TypeError, match=r"Odd1\.function is <built-in function abs>"):
        Sequential([Odd(abs)]).save(file)
    assert not file.exists()


def test_a_class_that_only_constructs_is_saved_as_its_base(tmp_path):
    class Mine(Sequential):
        def __init__(self, size):
            super().__init__([Affine.from_sizes(size, 3, rng=0)])

    Mine(4).save(tmp_path / "m")
    assert type(xpnet.load(tmp_path / "m")) is Sequential


def test_damaged_and_other_files(tmp_path):
    file = tmp_path / "model.safetensors"
    net = TwoLayerNet(4, 3, 2, seed=0)
    net.save(file)
    whole = file.read_bytes()
    for content in (b"", whole[:20], whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1]), whole + b"x"):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=rf"{re.escape(str(file))} is not a whole model"):
            xpnet.load(file)
    net.save_params(tmp_path / "params.npz")
    with pytest.raises(ValueError, match=r"params\.npz holds parameters only; build the network"):
        xpnet.load(tmp_path / "params.npz")
    with pytest.raises(ValueError, match="is a folder, not a model"):
        xpnet.load(tmp_path)
    with pytest.raises(FileNotFoundError):
        xpnet.load(tmp_path / "none")
    write_tensors(file, "checkpoint", "{}", {})
    with pytest.raises(ValueError, match="is not a model of xpnet"):
        xpnet.load(file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "its version is 2, this xpnet reads 1"),
        ({"network": "os"}, "there is no network 'os'"),
        ({"layers": {"a": {"class": "Affine", "config": {"W": {"array": "none"}}}}}, "none"),
        ({"layers": {"a": {"class": "Affine", "config": {"X": 1}}}}, "unexpected keyword argument 'X'"),
        ({"layers": []}, ""),
        ({"dtype": "U3"}, ""),
    ],
)
def test_descriptions_that_make_no_network(change, message, tmp_path):
    TwoLayerNet(4, 3, 2, seed=0).save(tmp_path / "m")
    text, arrays = read_tensors(tmp_path / "m", "model")
    write_tensors(tmp_path / "m", "model", json.dumps(json.loads(text) | change), arrays)
    with pytest.raises(ValueError, match=f"m is not a model that can be rebuilt: .*{message}"):
        xpnet.load(tmp_path / "m")


def test_embeddings_keep_their_ids(tmp_path):
    net = Sequential(
        [Embedding(np.arange(10.0).reshape(5, 2)), Flatten(), Affine(np.ones((4, 3)), np.zeros(3)), Dropout(0.5)]
    )
    net.save(tmp_path / "m")
    x = np.array([[0, 4], [2, 1]])
    np.testing.assert_array_equal(xpnet.load(tmp_path / "m").predict(x), net.predict(x))

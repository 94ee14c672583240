"""Weights to and from PyTorch (`xpnet.interop.torch`), and memory shared with it by DLPack."""

import numpy as np
import pytest
from test_models import Scale

from xpnet.device import as_array, asnumpy
from xpnet.interop.torch import load_state_dict, to_state_dict
from xpnet.layers import (
    GRU,
    LSTM,
    RNN,
    Affine,
    AveragePooling,
    BatchNormalization,
    Bidirectional,
    Convolution,
    Dropout,
    Elu,
    Embedding,
    Flatten,
    Gelu,
    GlobalAveragePooling,
    LayerNorm,
    LeakyRelu,
    LearnedPositionalEncoding,
    MultiHeadAttention,
    Pooling,
    Relu,
    Residual,
    Sigmoid,
    Silu,
    Softmax,
    Softplus,
    Tanh,
    TransformerBlock,
    Unembedding,
)
from xpnet.nets import Sequential, TwoLayerNet

torch = pytest.importorskip("torch", reason="PyTorch, the oracle extra, is not installed")
nn = torch.nn


class TorchResidual(nn.Sequential):
    def forward(self, x):
        return super().forward(x) + x


class TorchGlobalAverage(nn.Module):
    def forward(self, x):
        return x.mean(dim=(2, 3))


class TorchLSTM(nn.LSTM):
    def forward(self, x):
        return super().forward(x)[0]


class TorchGRU(nn.GRU):
    def forward(self, x):
        return super().forward(x)[0]


class TorchRNN(nn.RNN):
    def forward(self, x):
        return super().forward(x)[0]


class TorchAttention(nn.MultiheadAttention):
    def forward(self, x):
        hidden = torch.ones(x.shape[1], x.shape[1], dtype=bool).triu(1)
        return super().forward(x, x, x, attn_mask=hidden, need_weights=False)[0]


class TorchPositions(nn.Embedding):
    def forward(self, x):
        return x + self.weight[: x.shape[1]]


class TorchBidirectional(nn.Module):
    """Two recurrent modules of different kinds."""

    def __init__(self, ahead, back):
        super().__init__()
        self.add_module("0", ahead)
        self.add_module("1", back)

    def forward(self, x):
        ahead, back = self.children()
        return torch.cat([ahead(x), back(x.flip(1)).flip(1)], dim=-1)


def tied_modules():
    """Return an embedding, and a linear module with the same weights."""
    embedding, linear = nn.Embedding(7, 4), nn.Linear(4, 7, bias=False)
    linear.weight = embedding.weight
    return embedding, linear


def language_model():
    embedding, (theirs, linear) = Embedding.from_sizes(7, 4, rng=0), tied_modules()
    return [
        (embedding, theirs),
        (LSTM.from_sizes(4, 4, batch_size=5, rng=1), TorchLSTM(4, 4, batch_first=True)),
        (Unembedding(embedding), linear),
    ]


def attention(**settings):
    return MultiHeadAttention.from_sizes(4, 2, causal=True, rng=0), TorchAttention(4, 2, batch_first=True, **settings)


def recurrent(kind, theirs, inputs=4, outputs=3, **settings):
    return kind.from_sizes(inputs, outputs, rng=0), theirs(inputs, outputs, batch_first=True, **settings)


def ones(*shape):
    return np.ones(shape, "f"), np.zeros(shape, "f")


def affine(inputs=4, outputs=3, **settings):
    return Affine.from_sizes(inputs, outputs, std=0.5, rng=0, **settings)


def convolution(inputs=2, filters=4, size=3, **settings):
    return Convolution.from_sizes(inputs, filters, size, rng=0, **settings)


FLAT, IMAGES, SEQUENCES = (4,), (2, 6, 5), (6, 4)
PAIRS = {
    "affine": (FLAT, lambda: [(affine(), nn.Linear(4, 3))]),
    "perceptron": (
        FLAT,
        lambda: [(affine(4, 3), nn.Linear(4, 3)), (Relu(), nn.ReLU()), (affine(3, 3), nn.Linear(3, 3))],
    ),
    "convolution": (IMAGES, lambda: [(convolution(), nn.Conv2d(2, 4, 3))]),
    "convolution in groups": (
        IMAGES,
        lambda: [
            (
                convolution(groups=2, stride=2, pad=1, dilation=(2, 1)),
                nn.Conv2d(2, 4, 3, 2, 1, dilation=(2, 1), groups=2),
            )
        ],
    ),
    "images to rows": (
        IMAGES,
        lambda: [
            (convolution(), nn.Conv2d(2, 4, 3)),
            (BatchNormalization(*ones(4)), nn.BatchNorm2d(4)),
            (Pooling(2, 2), nn.MaxPool2d(2)),
            (Flatten(), nn.Flatten()),
            (Dropout(0.3), nn.Dropout(0.3)),
            (affine(8, 3), nn.Linear(8, 3)),
            (BatchNormalization(*ones(3)), nn.BatchNorm1d(3)),
        ],
    ),
    "layer norm": (FLAT, lambda: [(LayerNorm(*ones(4)), nn.LayerNorm(4))]),
    "layer norm over images": (IMAGES, lambda: [(LayerNorm(*ones(6, 5)), nn.LayerNorm((6, 5)))]),
    "residual": (
        FLAT,
        lambda: [
            (affine(4, 4), nn.Linear(4, 4)),
            (
                Residual(LayerNorm(*ones(4)), affine(4, 4), Residual(Tanh(), affine(4, 4))),
                TorchResidual(nn.LayerNorm(4), nn.Linear(4, 4), TorchResidual(nn.Tanh(), nn.Linear(4, 4))),
            ),
        ],
    ),
    "twelve layers": (FLAT, lambda: [(affine(4, 4), nn.Linear(4, 4)) for _ in range(12)]),
    "no parameters": (
        IMAGES,
        lambda: [
            (AveragePooling(2, 2, stride=1, pad=1), nn.AvgPool2d(2, 1, 1)),
            *[(Elu(0.5), nn.ELU(0.5)), (Gelu(), nn.GELU()), (Gelu("tanh"), nn.GELU("tanh")), (Silu(), nn.SiLU())],
            *[(LeakyRelu(0.2), nn.LeakyReLU(0.2)), (Softplus(), nn.Softplus()), (Sigmoid(), nn.Sigmoid())],
            *[(GlobalAveragePooling(), TorchGlobalAverage()), (Softmax(), nn.Softmax(-1))],
        ],
    ),
    "recurrent layers": (
        SEQUENCES,
        lambda: [
            recurrent(LSTM, TorchLSTM),
            recurrent(GRU, TorchGRU, 3, 5),
            recurrent(RNN, TorchRNN, 5, 2),
        ],
    ),
    "both directions": (
        SEQUENCES,
        lambda: [
            (
                Bidirectional(GRU.from_sizes(4, 3, rng=0), GRU.from_sizes(4, 3, rng=1)),
                TorchGRU(4, 3, batch_first=True, bidirectional=True),
            ),
            (
                Bidirectional(LSTM.from_sizes(6, 2, rng=0), RNN.from_sizes(6, 3, rng=1)),
                TorchBidirectional(TorchLSTM(6, 2, batch_first=True), TorchRNN(6, 3, batch_first=True)),
            ),
        ],
    ),
    "attention": (
        SEQUENCES,
        lambda: [
            (LearnedPositionalEncoding.from_sizes(8, 4, rng=0), TorchPositions(8, 4)),
            attention(),
            (affine(4, 3, axis=-1), nn.Linear(4, 3)),
        ],
    ),
    "tied weights": (None, language_model),
    "embedding": (
        None,
        lambda: [
            (Embedding.from_sizes(7, 4, rng=0), nn.Embedding(7, 4)),
            (Flatten(), nn.Flatten()),
            (affine(12, 3), nn.Linear(12, 3)),
        ],
    ),
}


def pair(name, device="cpu"):
    """Return a network, PyTorch's with other weights, and samples for both."""
    shape, make = PAIRS[name]
    ours, theirs = zip(*make(), strict=True)
    torch.manual_seed(1)
    rng = np.random.default_rng(1)
    x = rng.integers(0, 7, (5, 3)) if shape is None else rng.standard_normal((5, *shape)).astype("f")
    net, module = Sequential(ours, device=device), nn.Sequential(*theirs)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        module.train()(torch.from_numpy(x))  # running averages
    return net, module.eval(), x


def expect_equal(net, module, x):
    found = asnumpy(net.predict(net.device.asarray(x)))
    np.testing.assert_allclose(found, module(torch.from_numpy(x)).detach().numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", PAIRS)
def test_pytorch_s_weights_are_read(name, device):
    net, module, x = pair(name, device)
    load_state_dict(net, module.state_dict())
    expect_equal(net, module, x)


@pytest.mark.parametrize("name", PAIRS)
def test_pytorch_reads_the_weights(name, device):
    net, module, x = pair(name, device)
    net.predict(device.asarray(x), train=True)  # running averages
    state = to_state_dict(net)
    assert {key: tuple(value.shape) for key, value in state.items()} == {
        key: tuple(value.shape) for key, value in module.state_dict().items()
    }
    assert list(state) == list(module.state_dict())
    module.load_state_dict(state)
    expect_equal(net, module, x)


def test_the_state_dict_is_a_copy():
    net = TwoLayerNet(4, 3, 2, seed=0)
    before = net.state()
    for value in to_state_dict(net).values():
        value.zero_()
    for name, array in net.state().items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("name", ["images to rows", "twelve layers", "residual"])
def test_other_names_are_taken_in_order(name, tmp_path):
    numpy = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")
    net, module, x = pair(name)
    renamed = {f"model.block{key}": value for key, value in module.state_dict().items()}
    load_state_dict(net, renamed)
    expect_equal(net, module, x)
    numpy.save_file({key: value.numpy() for key, value in renamed.items()}, tmp_path / "m.safetensors")
    net, _, _ = pair(name)
    load_state_dict(net, numpy.load_file(tmp_path / "m.safetensors"))
    expect_equal(net, module, x)


@pytest.mark.parametrize("bias", [True, False])
def test_files_with_words_in_another_order_need_names(bias):
    """A file of safetensors is sorted: taken in order, layers of one shape would be swapped in silence."""
    net = Sequential([affine(4, 4), affine(4, 4)])
    state = nn.ModuleDict({"in": nn.Linear(4, 4, bias=bias), "head": nn.Linear(4, 4, bias=bias)}).state_dict()
    load_state_dict(net, state)
    in_file = {key: state[key] for key in sorted(state)}
    with pytest.raises(
        ValueError, match=r"not in the order of a module's layers.*names=, a mapping from 0, 1 to head, in"
    ):
        load_state_dict(net, in_file)
    before = net.params.flat.copy()
    load_state_dict(net, in_file, {"0": "in", "1": "head"})
    np.testing.assert_array_equal(net.params.flat, before)


def test_modules_by_a_mapping(rng):
    net = Sequential([affine(4, 4), Relu(), affine(4, 4)])
    last, first = nn.Linear(4, 4), nn.Linear(4, 4)
    state = nn.ModuleDict({"last": last, "first": first}).state_dict()
    load_state_dict(net, state, {"0": "first", "2": "last"})
    x = rng.standard_normal((3, 4)).astype("f")
    expect_equal(net, nn.Sequential(first, nn.ReLU(), last), x)
    with pytest.raises(ValueError, match=r"names must have the keys 0, 2, the modules of the network; got \['0'\]"):
        load_state_dict(net, state, {"0": "first"})
    with pytest.raises(ValueError, match="names has 'second', but the modules of state_dict are last, first"):
        load_state_dict(net, state, {"0": "first", "2": "second"})


def test_modules_without_bias_and_other_dtypes(rng):
    net = Sequential([convolution(), Relu(), affine(48, 3)], input_shape=IMAGES)
    module = nn.Sequential(nn.Conv2d(2, 4, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(48, 3, bias=False))
    net.params["b1"] += 1.0
    load_state_dict(net, {key: value.to(torch.bfloat16) for key, value in module.state_dict().items()})
    x = rng.standard_normal((3, *IMAGES)).astype("f")
    expect_equal(net, module.to(torch.bfloat16).float(), x)
    lone = Sequential([affine()])
    load_state_dict(lone, nn.Linear(4, 3, dtype=torch.float64).state_dict())
    assert lone.dtype == "float32"


def test_a_transformer_block_is_read_by_a_mapping(rng):
    net = Sequential([TransformerBlock.from_sizes(4, 2, hidden_size=6, rng=0)])
    module = nn.TransformerEncoderLayer(4, 2, 6, dropout=0.0, activation="gelu", batch_first=True, norm_first=True)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    attention = {"0.0.0": "norm1", "0.0.1": "self_attn", "0.0.1.out_proj": "self_attn.out_proj"}
    names = attention | {"0.1.0": "norm2", "0.1.1": "linear1", "0.1.3": "linear2"}
    load_state_dict(net, module.state_dict(), names)
    expect_equal(net, module.eval(), rng.standard_normal((3, 5, 4)).astype("f"))


@pytest.mark.parametrize(
    "make", [lambda: attention(bias=False), lambda: recurrent(GRU, TorchGRU, bias=False)], ids=["attention", "gru"]
)
def test_modules_of_sequences_without_bias(make, rng):
    layer, module = make()
    net = Sequential([layer])
    net.params.flat[...] = 1.0
    load_state_dict(net, nn.Sequential(module).state_dict())
    expect_equal(net, module, rng.standard_normal((3, *SEQUENCES)).astype("f"))


def test_tied_weights_are_there_once_or_equal():
    net, module, x = pair("tied weights")
    state = module.state_dict()
    once = {key: value for key, value in state.items() if key != "2.weight"}
    load_state_dict(net, once)
    expect_equal(net, module, x)
    before = net.params.flat.copy()
    renamed = {f"model.{key}": value for key, value in once.items()}
    net.params.flat[...] = 0.0
    load_state_dict(net, renamed, {"0": "model.0", "1": "model.1"})
    np.testing.assert_array_equal(net.params.flat, before)
    with pytest.raises(ValueError, match="Unembedding1 uses W1 of another layer, but state_dict has different values"):
        load_state_dict(net, {**state, "2.weight": state["2.weight"] + 1.0})
    np.testing.assert_array_equal(net.params.flat, before)


def test_layers_of_one_recurrent_module_are_named():
    """PyTorch's module may have several layers, and projections, which a recurrent layer has not."""
    net = Sequential([LSTM.from_sizes(4, 3, rng=0)])
    for settings, missing in (({"num_layers": 2}, "weight_ih_l1"), ({"bidirectional": True}, "weight_ih_l0_reverse")):
        state = nn.Sequential(nn.LSTM(4, 3, **settings)).state_dict()
        with pytest.raises(ValueError, match=f"state_dict has 0.{missing}, which has no counterpart"):
            load_state_dict(net, state)
    with pytest.raises(ValueError, match=r"Wx1 of LSTM1 is 0\.weight_ih_l0 of shape \(12, 4\) in PyTorch.*\(9, 4\)"):
        load_state_dict(net, nn.Sequential(nn.GRU(4, 3)).state_dict())


def test_what_does_not_fit_is_named_and_nothing_is_changed():
    net = Sequential([affine(4, 3), Relu(), affine(3, 2)])
    before = net.params.flat.copy()
    fits = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).state_dict()
    wrong = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(2, 3)).state_dict()
    cases = [
        (
            wrong,
            r"W2 of Affine2 is 2\.weight of shape \(2, 3\) in PyTorch, but 2\.weight of state_dict has shape \(3, 2\)",
        ),
        ({**fits, "3.weight": torch.ones(2)}, r"state_dict has 3 modules with arrays \(0, 2, 3\), the network has 2"),
        ({**fits, "2.gain": torch.ones(2)}, r"state_dict has 2\.gain, which has no counterpart in this Sequential"),
        ({key: fits[key] for key in fits if key != "2.weight"}, r"state_dict has no 2\.weight, for W2 of Affine2"),
        ({}, "state_dict has 0 modules"),
    ]
    for state, message in cases:
        with pytest.raises(ValueError, match=message):
            load_state_dict(net, state)
    with pytest.raises(TypeError, match=r"0\.bias must hold real numbers, got dtype complex64"):
        load_state_dict(net, {**fits, "0.bias": np.ones(3, "complex64")})
    np.testing.assert_array_equal(net.params.flat, before)
    for function in (to_state_dict, lambda net: load_state_dict(net, fits)):
        with pytest.raises(TypeError, match=r"net must be an xpnet\.nets\.Network, got Affine"):
            function(affine())


def test_layers_of_a_user_keep_their_names():
    net = Sequential([Scale(np.full(4, 2.0, "f")), affine()])
    state = to_state_dict(net)
    assert list(state) == ["0.s", "1.weight", "1.bias"]
    load_state_dict(net, {**state, "0.s": np.arange(4.0)})
    np.testing.assert_array_equal(net.params["s1"], np.arange(4.0))


class Foreign:
    """An array that has DLPack and nothing else."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


class TestDLPack:
    def test_pytorch_shares_the_memory_of_parameters(self):
        net = TwoLayerNet(4, 3, 2, seed=0)
        W = torch.from_dlpack(net.params["W1"])
        W[1, 2] = 7.0
        assert net.layers["Affine1"].W[1, 2] == 7.0
        net.params["W1"] *= 2.0
        assert W[1, 2] == 14.0
        assert torch.from_dlpack(net.params.flat).data_ptr() == net.params.flat.ctypes.data

    @pytest.mark.parametrize("wrap", [lambda x: x, Foreign], ids=["tensor", "DLPack alone"])
    def test_data_are_read_without_a_copy(self, wrap):
        x = torch.arange(6.0).reshape(2, 3)
        array = as_array("x", wrap(x))
        x[0, 1] = 9.0
        assert array[0, 1] == 9.0
        assert array.ctypes.data == x.data_ptr()

    @pytest.mark.parametrize("wrap", [lambda x: x, Foreign], ids=["array", "DLPack alone"])
    def test_data_on_a_cuda_device_are_read_without_a_copy(self, cuda, wrap):
        x = cuda.xp.arange(6, dtype="float32")
        array = as_array("x", wrap(x))
        x[1] = 9.0
        assert float(array[1]) == 9.0
        assert array.data.ptr == x.data.ptr
        assert cuda.xp.from_dlpack(array).data.ptr == x.data.ptr

    def test_a_network_predicts_from_dlpack(self, rng):
        net, x = TwoLayerNet(4, 3, 2, seed=0), rng.random((2, 4), dtype="float32")
        np.testing.assert_array_equal(net.predict(Foreign(x)), net.predict(x))

    def test_what_dlpack_cannot_say_is_named(self):
        class Broken(Foreign):
            def __dlpack__(self, **options):
                raise BufferError("not exportable")

        with pytest.raises(TypeError, match="x cannot be read as an array of numbers from Broken: not exportable"):
            as_array("x", Broken(np.ones(3)))

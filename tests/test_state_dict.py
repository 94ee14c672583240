"""Weights to and from PyTorch (`xpnet.interop.torch`), and memory shared with it by DLPack."""

import numpy as np
import pytest
from test_models import Scale

from xpnet.device import as_array, asnumpy
from xpnet.interop.torch import load_state_dict, to_state_dict
from xpnet.layers import (
    Affine,
    AveragePooling,
    BatchNormalization,
    Convolution,
    Dropout,
    Elu,
    Embedding,
    Flatten,
    Gelu,
    GlobalAveragePooling,
    LayerNorm,
    LeakyRelu,
    Pooling,
    Relu,
    Residual,
    Sigmoid,
    Silu,
    Softmax,
    Softplus,
    Tanh,
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


def ones(*shape):
    return np.ones(shape, "f"), np.zeros(shape, "f")


def affine(inputs=4, outputs=3):
    return Affine.from_sizes(inputs, outputs, std=0.5, rng=0)


def convolution(inputs=2, filters=4, size=3, **settings):
    return Convolution.from_sizes(inputs, filters, size, rng=0, **settings)


FLAT, IMAGES = (4,), (2, 6, 5)
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

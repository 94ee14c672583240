"""Values and gradients against PyTorch, in float64 on the CPU, for everything that PyTorch has too."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xpnet import Device, asnumpy, functions
from xpnet.layers import (
    GRU,
    LSTM,
    RNN,
    Affine,
    AveragePooling,
    BatchNormalization,
    Bidirectional,
    Convolution,
    CrossAttention,
    Dropout,
    Elu,
    Embedding,
    Gelu,
    GlobalAveragePooling,
    HingeWithLoss,
    HuberWithLoss,
    IdentityWithLoss,
    LayerNorm,
    LeakyRelu,
    LearntPositionalEncoding,
    MultiHeadAttention,
    Normalize,
    PoissonWithLoss,
    Pooling,
    Relu,
    Residual,
    Sigmoid,
    SigmoidWithLoss,
    Silu,
    Softmax,
    SoftmaxWithLoss,
    Softplus,
    Tanh,
    TransformerBlock,
    Unembedding,
)
from xpnet.nets import Sequential, TwoLayerNet
from xpnet.optimizers import SGD

torch = pytest.importorskip("torch", reason="PyTorch, the oracle extra, is not installed")
F = torch.nn.functional

ATOL = 1e-12


def tensor(x):
    x = np.array(asnumpy(x))
    return torch.tensor(x, requires_grad=x.dtype.kind == "f")


def compare(ours, theirs):
    np.testing.assert_allclose(asnumpy(ours), theirs.detach().numpy(), rtol=1e-10, atol=ATOL)


def scores(device, rng, shape=(5, 4), scale=3.0):
    return device.asarray(scale * rng.standard_normal(shape))


ACTIVATIONS = {
    "relu": (Relu, torch.relu),
    "leaky relu": (LeakyRelu, F.leaky_relu),
    "leaky relu, 0.3": (lambda: LeakyRelu(0.3), lambda x: F.leaky_relu(x, 0.3)),
    "elu": (Elu, F.elu),
    "elu, 0.3": (lambda: Elu(0.3), lambda x: F.elu(x, 0.3)),
    "sigmoid": (Sigmoid, torch.sigmoid),
    "tanh": (Tanh, torch.tanh),
    "softplus": (Softplus, lambda x: F.softplus(x, threshold=1e9)),
    "silu": (Silu, F.silu),
    "gelu": (Gelu, F.gelu),
    "gelu, tanh": (lambda: Gelu("tanh"), lambda x: F.gelu(x, approximate="tanh")),
    "softmax": (Softmax, lambda x: torch.softmax(x, -1)),
}


@pytest.mark.parametrize("scale", [3.0, 30.0])
@pytest.mark.parametrize(("layer", "reference"), ACTIVATIONS.values(), ids=ACTIVATIONS)
@pytest.mark.parametrize("shape", [(1, 4), (5, 4), (2, 3, 4, 4), (0, 4)])
def test_activations(device, rng, layer, reference, shape, scale):
    x, dout = scores(device, rng, shape, scale), scores(device, rng, shape)
    layer, theirs = layer(), tensor(x)
    y = reference(theirs)
    compare(layer.forward(x), y)
    y.backward(tensor(dout))
    compare(layer.backward(dout), theirs.grad)


@pytest.mark.parametrize("shape", [(1, 6), (5, 6), (5, 1, 2, 3), (0, 6)])
def test_affine(device, rng, shape):
    W, b, x = scores(device, rng, (6, 4)), scores(device, rng, (4,)), scores(device, rng, shape)
    dout = scores(device, rng, (shape[0], 4))
    layer = Affine(W, b)
    W_, b_, x_ = tensor(W), tensor(b), tensor(x)
    y = F.linear(x_.flatten(1), W_.T, b_)
    compare(layer.forward(x), y)
    y.backward(tensor(dout))
    compare(layer.backward(dout), x_.grad)
    compare(layer.dW, W_.grad)
    compare(layer.db, b_.grad)


@pytest.mark.parametrize("shape", [(5, 6), (2, 3, 6), (2, 3, 1, 6), (2, 0, 6), (0, 3, 6)])
def test_affine_of_each_position(device, rng, shape):
    layer = Affine(scores(device, rng, (6, 4)), scores(device, rng, (4,)), axis=-1)
    compare_layer(layer, lambda x, W, b: F.linear(x, W.T, b), device, rng, scores(device, rng, shape), ("W", "b"))


RECURRENT = {"rnn": (RNN, torch.nn.RNN), "lstm": (LSTM, torch.nn.LSTM), "gru": (GRU, torch.nn.GRU)}


def recurrent(kind, device, rng, D, H, batch_size=None):
    layer = kind.from_sizes(D, H, batch_size=batch_size, std=0.7, rng=rng, dtype="float64")
    for name in kind.parameter_names[2:]:
        setattr(layer, name, rng.standard_normal(getattr(layer, name).shape))
    layer.to(device)
    return layer


def use_weights(theirs, layer, suffix):
    """Copy our weights into PyTorch's layer; suffix is l0, l1_reverse ..."""
    values = {"weight_ih": layer.Wx.T, "weight_hh": layer.Wh.T, "bias_ih": layer.b}
    with torch.no_grad():
        for name, value in values.items():
            getattr(theirs, f"{name}_{suffix}").copy_(torch.tensor(asnumpy(value)))
        hidden = getattr(theirs, f"bias_hh_{suffix}").zero_()
        if isinstance(layer, GRU):
            hidden[-len(layer.bn) :] = torch.tensor(asnumpy(layer.bn))


def compare_recurrent_gradients(layer, theirs, suffix):
    compare(layer.dWx, getattr(theirs, f"weight_ih_{suffix}").grad.T)
    compare(layer.dWh, getattr(theirs, f"weight_hh_{suffix}").grad.T)
    compare(layer.db, getattr(theirs, f"bias_ih_{suffix}").grad)
    if isinstance(layer, GRU):
        compare(layer.dbn, getattr(theirs, f"bias_hh_{suffix}").grad[-len(layer.bn) :])


@pytest.mark.parametrize(("kind", "reference"), RECURRENT.values(), ids=RECURRENT)
@pytest.mark.parametrize(("N", "T"), [(3, 5), (1, 1), (0, 4)])
@pytest.mark.parametrize("with_state", [False, True])
def test_recurrent_layers(device, rng, kind, reference, N, T, with_state):
    D, H = 4, 3
    layer, theirs = recurrent(kind, device, rng, D, H), reference(D, H, batch_first=True, dtype=torch.float64)
    use_weights(theirs, layer, "l0")
    x, dout = scores(device, rng, (N, T, D)), scores(device, rng, (N, T, H))
    state = scores(device, rng, (layer.states, N, H)) if with_state else None
    first = None if state is None else tuple(torch.tensor(asnumpy(s))[None] for s in state)
    x_ = tensor(x)
    y, last = theirs(x_, first if first is None or kind is LSTM else first[0])
    compare(layer.forward(x, state=state), y)
    y.backward(tensor(dout))
    compare(layer.backward(dout), x_.grad)
    compare_recurrent_gradients(layer, theirs, "l0")
    found, final = layer.advance(x, state)
    compare(found, y)
    compare(final, torch.cat(last) if kind is LSTM else last)


@pytest.mark.parametrize(("kind", "reference"), RECURRENT.values(), ids=RECURRENT)
def test_deep_recurrent_layers_in_both_directions(device, rng, kind, reference):
    D, H = 4, 3
    theirs = reference(D, H, num_layers=2, bidirectional=True, batch_first=True, dtype=torch.float64)
    rows = [[recurrent(kind, device, rng, size, H) for _ in range(2)] for size in (D, 2 * H)]
    for number, pair in enumerate(rows):
        for layer, suffix in zip(pair, (f"l{number}", f"l{number}_reverse"), strict=True):
            use_weights(theirs, layer, suffix)
    x, dout = scores(device, rng, (2, 5, D)), scores(device, rng, (2, 5, 2 * H))
    x_ = tensor(x)
    y, _ = theirs(x_)
    y.backward(tensor(dout))
    lower, upper = (Bidirectional(*pair) for pair in rows)
    compare(upper.forward(lower.forward(x)), y)
    compare(lower.backward(upper.backward(dout)), x_.grad)
    for number, pair in enumerate(rows):
        for layer, suffix in zip(pair, (f"l{number}", f"l{number}_reverse"), strict=True):
            compare_recurrent_gradients(layer, theirs, suffix)


def attention(kind, device, rng, **settings):
    """Return a layer with 2 heads of 4 features, and PyTorch's with the same weights."""
    layer = kind.from_sizes(8, 2, std=0.7, rng=rng, dtype="float64", **settings)
    layer.b, layer.bo = rng.standard_normal(24), rng.standard_normal(8)
    theirs = torch.nn.MultiheadAttention(8, 2, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.tensor(layer.W.T))
        theirs.in_proj_bias.copy_(torch.tensor(layer.b))
        theirs.out_proj.weight.copy_(torch.tensor(layer.Wo.T))
        theirs.out_proj.bias.copy_(torch.tensor(layer.bo))
    layer.to(device)
    return layer, theirs


def compare_attention_gradients(layer, theirs):
    compare(layer.dW, theirs.in_proj_weight.grad.T)
    compare(layer.db, theirs.in_proj_bias.grad)
    compare(layer.dWo, theirs.out_proj.weight.grad.T)
    compare(layer.dbo, theirs.out_proj.bias.grad)


@pytest.mark.parametrize("block_size", [None, 1, 3, 256])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("padded", [False, True])
def test_attention(device, rng, block_size, causal, padded):
    layer, theirs = attention(MultiHeadAttention, device, rng, causal=causal, block_size=block_size)
    x, dout = scores(device, rng, (3, 7, 8)), scores(device, rng, (3, 7, 8))
    padding = np.arange(7) >= np.array([7, 5, 1])[:, None] if padded else None
    x_, theirs_padding = tensor(x), None if padding is None else torch.tensor(padding)
    mask = torch.ones(7, 7, dtype=torch.bool).triu(1) if causal else None
    y, _ = theirs(x_, x_, x_, key_padding_mask=theirs_padding, attn_mask=mask)
    compare(layer.forward(x, padding=None if padding is None else device.asarray(padding)), y)
    y.backward(tensor(dout))
    compare(layer.backward(dout), x_.grad)
    compare_attention_gradients(layer, theirs)


@pytest.mark.parametrize("block_size", [None, 2, 256])
def test_cross_attention(device, rng, block_size):
    layer, theirs = attention(CrossAttention, device, rng, block_size=block_size)
    x, memory, dout = (scores(device, rng, (3, T, 8)) for T in (4, 5, 4))
    x_, memory_ = tensor(x), tensor(memory)
    y, _ = theirs(x_, memory_, memory_)
    compare(layer.forward(x, memory), y)
    y.backward(tensor(dout))
    for ours, reference in zip(layer.backward(dout), (x_.grad, memory_.grad), strict=True):
        compare(ours, reference)
    compare_attention_gradients(layer, theirs)


def test_rotary_attention(device, rng):
    layer, _ = attention(MultiHeadAttention, device, rng, causal=True, rotary=True, block_size=3)
    x = scores(device, rng, (2, 7, 8), scale=1.0)
    angles = torch.arange(7.0, dtype=torch.float64)[:, None] * torch.tensor([1.0, 0.01], dtype=torch.float64)
    turns = torch.polar(torch.ones_like(angles), angles)

    def reference(x, W, b, Wo, bo):
        heads = (x @ W + b).reshape(2, 7, 3, 2, 4).permute(2, 0, 3, 1, 4)
        turned = torch.view_as_real(torch.view_as_complex(heads[:2].reshape(2, 2, 2, 7, 2, 2)) * turns).flatten(-2)
        o = F.scaled_dot_product_attention(turned[0], turned[1], heads[2], is_causal=True)
        return o.transpose(1, 2).flatten(2) @ Wo + bo

    compare_layer(layer, reference, device, rng, x, ("W", "b", "Wo", "bo"))


@pytest.mark.parametrize("causal", [False, True])
def test_transformer_block(device, rng, causal):
    layer = TransformerBlock.from_sizes(8, 2, causal=causal, hidden_size=6, block_size=2, rng=rng, dtype="float64")
    for value in layer.parameters().values():
        value += 0.3 * rng.standard_normal(value.shape)
    theirs = torch.nn.TransformerEncoderLayer(
        8, 2, 6, 0.0, "gelu", batch_first=True, norm_first=True, dtype=torch.float64
    )
    places = {
        "Residual1.LayerNorm1": {"gamma": theirs.norm1.weight, "beta": theirs.norm1.bias},
        "Residual2.LayerNorm1": {"gamma": theirs.norm2.weight, "beta": theirs.norm2.bias},
        "Residual2.Affine1": {"W": theirs.linear1.weight, "b": theirs.linear1.bias},
        "Residual2.Affine2": {"W": theirs.linear2.weight, "b": theirs.linear2.bias},
        "Residual1.MultiHeadAttention1": {
            "W": theirs.self_attn.in_proj_weight,
            "b": theirs.self_attn.in_proj_bias,
            "Wo": theirs.self_attn.out_proj.weight,
            "bo": theirs.self_attn.out_proj.bias,
        },
    }
    pairs = [(layer.modules()[place], n, p) for place, names in places.items() for n, p in names.items()]
    with torch.no_grad():
        for part, name, parameter in pairs:
            parameter.copy_(torch.tensor(getattr(part, name).T))
    layer.to(device)
    x, dout = scores(device, rng, (3, 5, 8)), scores(device, rng, (3, 5, 8))
    x_, mask = tensor(x), torch.ones(5, 5, dtype=torch.bool).triu(1) if causal else None
    y = theirs(x_, src_mask=mask)
    compare(layer.forward(x), y)
    y.backward(tensor(dout))
    compare(layer.backward(dout), x_.grad)
    for part, name, parameter in pairs:
        compare(getattr(part, f"d{name}").T, parameter.grad)


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4), (0, 3, 4)])
def test_unembedding(device, rng, shape):
    layer, x = Unembedding(Embedding(scores(device, rng, (6, 4)))), scores(device, rng, shape)
    x_, W_, dout = tensor(x), tensor(layer.embedding.W), scores(device, rng, (*shape[:-1], 6))
    y = F.linear(x_, W_)
    compare(layer.forward(x), y)
    y.backward(tensor(dout))
    compare(layer.backward(dout), x_.grad)
    compare(layer.dW, W_.grad)


@pytest.mark.parametrize("T", [5, 3, 0])
def test_learnt_positions(device, rng, T):
    layer = LearntPositionalEncoding(scores(device, rng, (5, 4)))
    compare_layer(layer, lambda x, W: x + W[:T], device, rng, scores(device, rng, (2, T, 4)), ("W",))


@pytest.mark.parametrize("shape", [(1,), (9,), (5, 3), (2, 3, 4), (0,), (0, 3)])
def test_embedding(device, rng, shape):
    W, ids, dout = scores(device, rng, (6, 4)), rng.integers(0, 6, shape), scores(device, rng, (*shape, 4))
    layer, W_ = Embedding(W), tensor(W)
    y = F.embedding(torch.tensor(ids), W_)
    compare(layer.forward(device.asarray(ids)), y)
    y.backward(tensor(dout))
    layer.backward(dout)
    compare(layer.dW, W_.grad)


def compare_layer(layer, reference, device, rng, x, parameters=()):
    """Compare the output and all gradients, for an output gradient that lies in memory as x does, or otherwise."""
    theirs = tensor(x)
    learnt = [tensor(getattr(layer, name)) for name in parameters]
    y = reference(theirs, *learnt)
    compare(layer.forward(x), y)
    dout = scores(device, rng, y.shape)
    y.backward(tensor(dout))
    compare(layer.backward(dout), theirs.grad)
    for name, parameter in zip(parameters, learnt, strict=True):
        compare(getattr(layer, f"d{name}"), parameter.grad)


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


@pytest.mark.parametrize("groups", [1, 2])
def test_convolution_and_pooling_on_each_device(device, rng, groups):
    x = scores(device, rng, (3, 4, 9, 8))
    layer = Convolution(
        scores(device, rng, (6, 4 // groups, 3, 2)), scores(device, rng, (6,)), (2, 1), 1, (1, 2), groups
    )
    compare_layer(layer, lambda *a: F.conv2d(*a, (2, 1), 1, (1, 2), groups), device, rng, x, ("W", "b"))
    compare_layer(Pooling(3, 2, 2, 1), lambda a: F.max_pool2d(a, (3, 2), 2, 1), device, rng, x)
    compare_layer(AveragePooling(3, 2, 2, 1), lambda a: F.avg_pool2d(a, (3, 2), 2, 1), device, rng, x)


def test_ties_infinities_and_nan_in_max_pooling(device):
    rng = np.random.default_rng(0)
    x = rng.choice([0.0, -0.0, 1.0, np.inf, -np.inf, np.nan], (20, 3, 7, 8), p=[0.3, 0.1, 0.3, 0.1, 0.1, 0.1])
    for size, stride, pad in (((2, 2), 2, 0), ((3, 2), (1, 2), (1, 0))):
        theirs = tensor(x)
        y = F.max_pool2d(theirs, size, stride, pad)
        layer, dout = Pooling(*size, stride, pad), scores(device, rng, y.shape)
        compare(layer.forward(device.asarray(x)), y)
        y.backward(tensor(dout))
        compare(layer.backward(dout), theirs.grad)


@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize("labels", ["class ids", "probabilities"])
@pytest.mark.parametrize("n", [1, 5])
def test_softmax_with_loss(device, rng, scale, labels, n):
    x = scores(device, rng, (n, 4), scale)
    t = device.asarray(rng.integers(0, 4, n) if labels == "class ids" else rng.random((n, 4)))
    layer, theirs = SoftmaxWithLoss(), tensor(x)
    loss = F.cross_entropy(theirs, tensor(t))
    compare(layer.forward(x, t), loss)
    (3.0 * loss).backward()
    compare(layer.backward(3.0), theirs.grad)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("labels", ["class ids", "probabilities"])
@pytest.mark.parametrize("n", [1, 5])
def test_label_smoothing_and_class_weights(device, rng, smoothing, weighted, labels, n):
    x = scores(device, rng, (n, 4))
    t = device.asarray(rng.integers(0, 4, n) if labels == "class ids" else rng.random((n, 4)))
    weight = device.asarray(0.5 + rng.random(4)) if weighted else None
    layer, theirs = SoftmaxWithLoss(smoothing, weight), tensor(x)
    loss = F.cross_entropy(theirs, tensor(t), tensor(weight).detach() if weighted else None, label_smoothing=smoothing)
    compare(layer.forward(x, t), loss)
    loss.backward()
    compare(layer.backward(), theirs.grad)


LOSSES = {
    "sigmoid": (SigmoidWithLoss, F.binary_cross_entropy_with_logits),
    "identity": (IdentityWithLoss, lambda x, t: F.mse_loss(x, t) * x.shape[1] / 2),
    "poisson": (PoissonWithLoss, F.poisson_nll_loss),
    "huber": (HuberWithLoss, F.huber_loss),
    "huber, 0.3": (lambda: HuberWithLoss(0.3), lambda x, t: F.huber_loss(x, t, delta=0.3)),
}


@pytest.mark.parametrize("scale", [1.0, 1e3])
@pytest.mark.parametrize(("layer", "reference"), LOSSES.values(), ids=LOSSES)
def test_elementwise_losses(device, rng, layer, reference, scale):
    x, t = scores(device, rng, scale=scale), device.asarray(rng.random((5, 4)))
    layer, theirs = layer(), tensor(x)
    loss = reference(theirs, tensor(t))
    with np.errstate(over="ignore"):  # a rate of exp(1000) is infinite in both
        compare(layer.forward(x, t), loss)
        loss.backward()
        compare(layer.backward(), theirs.grad)


@pytest.mark.parametrize("margin", [1.0, 0.4])
def test_hinge_loss(device, rng, margin):
    x, t = scores(device, rng, (6, 4)), device.asarray(rng.integers(0, 4, 6))
    layer, theirs = HingeWithLoss(margin), tensor(x)
    loss = F.multi_margin_loss(theirs, tensor(t), margin=margin)
    compare(layer.forward(x, t), loss)
    loss.backward()
    compare(layer.backward(), theirs.grad)


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_softmax_along_any_axis(device, rng, axis):
    x = scores(device, rng, (2, 3, 4))
    compare(functions.softmax(x, axis=axis), torch.softmax(tensor(x), axis))


def test_loss_functions_and_one_hot(device, rng):
    y, t = scores(device, rng), scores(device, rng)
    compare(functions.mean_squared_error(y, t) * 2 / 4, F.mse_loss(tensor(y), tensor(t)))
    p, ids = functions.softmax(y), device.asarray(rng.integers(0, 4, 5))
    compare(functions.cross_entropy_error(p, ids), F.nll_loss(torch.log(tensor(p) + 1e-7), tensor(ids)))
    compare(functions.one_hot(ids, 4), F.one_hot(tensor(ids), 4))


def torch_twin(net):
    """Build the same network in PyTorch."""
    modules = []
    for layer in net.layers.values():
        if isinstance(layer, Affine):
            linear = torch.nn.Linear(*layer.W.shape, dtype=torch.float64)
            linear.weight.data = tensor(layer.W).detach().T.contiguous()
            linear.bias.data = tensor(layer.b).detach()
            modules.append(linear)
        else:
            modules.append({Relu: torch.nn.ReLU, Sigmoid: torch.nn.Sigmoid}[type(layer)]())
    return torch.nn.Sequential(*modules)


@pytest.mark.parametrize("kind", ["relu", "sigmoid", "ten layers"])
def test_a_network_trains_as_in_pytorch(device, rng, kind):
    if kind == "ten layers":
        sizes = [6, *[8] * 9, 3]
        bricks = []
        for i, o in itertools.pairwise(sizes):
            bricks += [Affine.from_sizes(i, o, std="he", rng=rng, dtype="float64"), Relu()]
        net = Sequential(bricks[:-1], device=device)
    else:
        net = TwoLayerNet(6, 8, 3, 0.5, activation=kind, device=device, dtype="float64", seed=1)
    twin = torch_twin(net)
    ours, theirs = SGD(lr=0.2), torch.optim.SGD(twin.parameters(), lr=0.2)
    for _ in range(20):
        x, t = device.asarray(rng.standard_normal((7, 6))), device.asarray(rng.integers(0, 3, 7))
        loss, grads = net.loss_and_gradient(x, t)
        ours.update(net.params, grads)
        theirs.zero_grad()
        expected = F.cross_entropy(twin(tensor(x).detach()), tensor(t))
        expected.backward()
        theirs.step()
        compare(loss, expected)
    linears = [module for module in twin if isinstance(module, torch.nn.Linear)]
    for i, linear in enumerate(linears, 1):
        compare(net.params[f"W{i}"], linear.weight.T)
        compare(net.params[f"b{i}"], linear.bias)


class TorchResidual(torch.nn.Module):
    def __init__(self, *block):
        super().__init__()
        self.block = torch.nn.Sequential(*block)

    def forward(self, x):
        return self.block(x) + x


def test_a_residual_network(device, rng):
    nn, float64 = torch.nn, {"dtype": torch.float64}
    modules = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1, **float64),
        TorchResidual(
            nn.BatchNorm2d(3, **float64), nn.ReLU(), nn.Conv2d(3, 3, 3, padding=1, **float64), TorchResidual(nn.Tanh())
        ),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(3 * 5 * 4, 6, **float64),
        TorchResidual(nn.Linear(6, 4, **float64), nn.Sigmoid(), nn.Linear(4, 6, **float64)),
        nn.Linear(6, 3, **float64),
    )
    # In the order of our parameters.
    theirs = [m for m in modules.modules() if isinstance(m, (nn.Conv2d, nn.Linear, nn.BatchNorm2d))]
    arrays = [[p.detach().numpy() for p in m.parameters()] for m in theirs]
    arrays = [[W.T.copy(), b] if isinstance(m, nn.Linear) else [W, b] for m, (W, b) in zip(theirs, arrays, strict=True)]
    conv1, norm, conv2, affine1, affine2, affine3, affine4 = arrays
    net = Sequential(
        [
            Convolution(*conv1, 1, 1),
            Residual(BatchNormalization(*norm), Relu(), Convolution(*conv2, 1, 1), Residual(Tanh())),
            Relu(),
            Affine(*affine1),
            Residual(Affine(*affine2), Sigmoid(), Affine(*affine3)),
            Affine(*affine4),
        ],
        device=device,
    )
    x, t = scores(device, rng, (6, 2, 5, 4)), device.asarray(rng.integers(0, 3, 6))
    loss, grads = net.loss_and_gradient(x, t)
    x_ = tensor(x)
    expected = F.cross_entropy(modules(x_), torch.tensor(asnumpy(t)))
    expected.backward()
    compare(loss, expected)
    names = [["W1", "b1"], ["gamma1", "beta1"], *([f"W{i}", f"b{i}"] for i in range(2, 7))]
    assert sorted(name for pair in names for name in pair) == sorted(net.params)
    for module, pair in zip(theirs, names, strict=True):
        for name, parameter in zip(pair, module.parameters(), strict=True):
            linear = isinstance(module, nn.Linear) and name.startswith("W")
            compare(grads[name], parameter.grad.T if linear else parameter.grad)
    modules.eval()
    compare(net.predict(x), modules(x_))


@pytest.mark.parametrize("shape", [(6, 4), (2, 4), (5, 4, 3, 2)])
@pytest.mark.parametrize("momentum", [0.1, 0.5])
def test_batch_normalization_in_training_and_after(device, rng, shape, momentum):
    gamma, beta, dout = scores(device, rng, (4,)), scores(device, rng, (4,)), scores(device, rng, shape)
    layer = BatchNormalization(gamma, beta, momentum=1 - momentum)
    mean, var = torch.zeros(4, dtype=torch.float64), torch.ones(4, dtype=torch.float64)
    for train in (True, True, False):
        x = scores(device, rng, shape)
        x_, gamma_, beta_ = tensor(x), tensor(gamma), tensor(beta)
        y = F.batch_norm(x_, mean, var, gamma_, beta_, train, momentum)
        compare(layer.forward(x, train), y)
        y.backward(tensor(dout))
        compare(layer.backward(dout), x_.grad)
        compare(layer.dgamma, gamma_.grad)
        compare(layer.dbeta, beta_.grad)
        compare(layer.running_mean, mean)
        compare(layer.running_var, var)


@pytest.mark.parametrize(("shape", "features"), [((5, 4), (4,)), ((2, 3, 4), (4,)), ((2, 3, 4), (3, 4))])
def test_layer_norm(device, rng, shape, features):
    gamma, beta, x = scores(device, rng, features), scores(device, rng, features), scores(device, rng, shape)
    dout, layer = scores(device, rng, shape), LayerNorm(gamma, beta)
    x_, gamma_, beta_ = tensor(x), tensor(gamma), tensor(beta)
    y = F.layer_norm(x_, features, gamma_, beta_)
    compare(layer.forward(x), y)
    y.backward(tensor(dout))
    compare(layer.backward(dout), x_.grad)
    compare(layer.dgamma, gamma_.grad)
    compare(layer.dbeta, beta_.grad)


@pytest.mark.parametrize("shape", [(6, 4), (0, 4), (5, 4, 3, 2)])
def test_normalize_is_batch_normalization_with_fixed_averages(device, rng, shape):
    mean, std, x, dout = (scores(device, rng, size) for size in ((4,), (4,), shape, shape))
    layer, x_ = Normalize(mean, abs(std)), tensor(x)
    y = F.batch_norm(x_, tensor(mean).detach(), tensor(std).detach() ** 2, eps=0.0)
    compare(layer.forward(x), y)
    y.backward(tensor(dout))
    compare(layer.backward(dout), x_.grad)


def test_dropout_scales_what_is_left_as_pytorch_does(device, rng):
    x, layer = scores(device, rng, (50, 40)), Dropout(0.3, seed=0)
    y = asnumpy(layer.forward(x))
    theirs = F.dropout(tensor(x), 0.3).detach().numpy()
    kept = (y != 0) & (theirs != 0)
    np.testing.assert_allclose(y[kept], theirs[kept], rtol=1e-12)
    assert abs((y != 0).mean() - (theirs != 0).mean()) < 0.06

"""Layers for sequences against PyTorch's: recurrent ones, attention, embeddings, positions."""

import numpy as np
import pytest
from test_oracle import F, compare, compare_layer, scores, tensor, torch

from xpnet import asnumpy
from xpnet.layers import (
    GRU,
    LSTM,
    RNN,
    Bidirectional,
    CrossAttention,
    Embedding,
    LearnedPositionalEncoding,
    MultiHeadAttention,
    TransformerBlock,
    Unembedding,
)

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
def test_learned_positions(device, rng, T):
    layer = LearnedPositionalEncoding(scores(device, rng, (5, 4)))
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

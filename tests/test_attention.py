"""Attention: blocks against the definition, memory, sequences in pieces, positions, networks."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import xpnet
from xpnet import asnumpy
from xpnet.gradient import gradient_check
from xpnet.graph import Input
from xpnet.layers import (
    Affine,
    CrossAttention,
    Embedding,
    LearnedPositionalEncoding,
    MultiHeadAttention,
    PositionalEncoding,
    SoftmaxWithLoss,
)
from xpnet.nets import GraphNetwork, Sequential
from xpnet.optimizers import SGD


def same_layer(layer, block_size):
    return MultiHeadAttention(
        layer.W, layer.b, layer.Wo, layer.bo, layer.num_heads, layer.causal, layer.rotary, block_size
    )


@given(
    st.integers(0, 99),
    st.integers(0, 3),
    st.integers(1, 9),
    st.integers(1, 10),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_blocks_are_the_definition(seed, N, T, block_size, causal, rotary, padded):
    rng = np.random.default_rng(seed)
    whole = MultiHeadAttention.from_sizes(
        4, 2, causal=causal, rotary=rotary, block_size=None, std=1.0, rng=rng, dtype="float64"
    )
    blocks, x, dout = same_layer(whole, block_size), *(3.0 * rng.standard_normal((2, N, T, 4)))
    padding = rng.random((N, T)) < 0.5 if padded else None
    found, expected = (layer.forward(x, padding=padding) for layer in (blocks, whole))
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(blocks.backward(dout), whole.backward(dout), rtol=1e-10, atol=1e-11)
    for name in whole.parameter_names:
        np.testing.assert_allclose(getattr(blocks, f"d{name}"), getattr(whole, f"d{name}"), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("causal", [False, True])
def test_memory_of_blocks_is_linear_in_the_length(causal):
    layer = MultiHeadAttention.from_sizes(8, 2, causal=causal, block_size=64, rng=0)

    def peak(layer, T):
        x = np.ones((1, T, 8), "float32")
        tracemalloc.start()
        layer.backward(layer.forward(x))
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(layer, 1024) < 2.3 * peak(layer, 512)
    assert peak(layer, 1024) < peak(same_layer(layer, None), 1024) / 3


@pytest.mark.parametrize("rotary", [False, True])
@pytest.mark.parametrize("block_size", [None, 2])
def test_a_sequence_in_pieces_has_the_outputs_of_the_whole(device, rng, rotary, block_size):
    layer = MultiHeadAttention.from_sizes(
        4, 2, causal=True, rotary=rotary, block_size=block_size, rng=0, dtype="float64"
    )
    layer.to(device)
    x, state, found = device.asarray(rng.standard_normal((2, 6, 4))), None, []
    for start, stop in ((0, 3), (3, 4), (4, 6)):
        piece, state = layer.advance(x[:, start:stop], state)
        found.append(asnumpy(piece))
    np.testing.assert_allclose(np.concatenate(found, axis=1), asnumpy(layer.forward(x)), rtol=1e-12)


def test_positions_go_on_from_piece_to_piece(device, rng):
    x = device.asarray(rng.standard_normal((2, 5, 6)))
    learned = LearnedPositionalEncoding.from_sizes(5, 6, rng=0, dtype="float64")
    learned.to(device)
    for layer in (PositionalEncoding(), learned):
        first, state = layer.advance(x[:, :2])
        second, _ = layer.advance(x[:, 2:], state)
        np.testing.assert_array_equal(
            np.concatenate([asnumpy(first), asnumpy(second)], axis=1), asnumpy(layer.forward(x))
        )


def test_sines_and_cosines_of_the_paper():
    p = PositionalEncoding().forward(np.zeros((1, 50, 6)))[0]
    for t in (0, 1, 49):
        for i in range(3):
            angle = t / 10000 ** (2 * i / 6)
            np.testing.assert_allclose(p[t, 2 * i : 2 * i + 2], [np.sin(angle), np.cos(angle)], rtol=1e-12, atol=1e-12)


def test_rotary_scores_depend_on_distances_only(rng):
    from xpnet.layers.positions import rotate

    q, k = (np.broadcast_to(rng.standard_normal(8), (1, 9, 8)) for _ in range(2))
    scores = (rotate(q) @ rotate(k).transpose(0, 2, 1))[0]
    for distance in range(-8, 9):
        diagonal = np.diagonal(scores, distance)
        np.testing.assert_allclose(diagonal, diagonal[0], rtol=1e-12)


def network(device, dtype="float64", block_size=2):
    rng = np.random.default_rng(3)
    return Sequential(
        [
            Embedding.from_sizes(5, 4, rng=rng, dtype=dtype),
            LearnedPositionalEncoding.from_sizes(6, 4, std=0.5, rng=rng, dtype=dtype),
            MultiHeadAttention.from_sizes(4, 2, causal=True, rotary=True, block_size=block_size, rng=rng, dtype=dtype),
            Affine.from_sizes(4, 5, std="lecun", rng=rng, dtype=dtype, axis=-1),
        ],
        device=device,
    )


def test_numerical_gradients_in_batches_where_they_reach_one_output(device, rng):
    x, t = device.asarray(rng.integers(0, 5, (3, 6))), device.asarray(rng.integers(0, 5, (3, 6)))
    report = gradient_check(network(device), x, t)
    assert report.ok, str(report)
    notes = {name: check.note for name, check in report.parameters.items()}
    assert [name for name, note in notes.items() if note] == ["W3", "b3"]
    assert "does not declare what W reaches" in notes["W3"]


def test_compiled_steps_train_as_plain_ones(device, rng):
    x, t = device.asarray(rng.integers(0, 5, (8, 6))), device.asarray(rng.integers(0, 5, (8, 6)))
    net, twin = network(device), network(device)
    indices = device.asarray(np.array([[0, 1, 2, 3], [4, 5, 6, 7]] * 30))
    losses, rule, expected = asnumpy(net.compile(SGD(lr=0.1), 4).run(x, t, indices)), SGD(lr=0.1), []
    for index in indices:
        loss, grads = twin.loss_and_gradient(x[index], t[index])
        expected.append(float(loss))
        rule.update(twin.params, grads)
    np.testing.assert_allclose(losses, expected, rtol=1e-9)


def test_a_network_is_rebuilt_from_its_file(device, rng, tmp_path):
    pytest.importorskip("safetensors", reason="the extra xpnet[cli] is not installed")
    x, net = device.asarray(rng.integers(0, 5, (3, 6))), network(device, block_size=None)
    net.save(tmp_path / "model.safetensors")
    found = xpnet.load(tmp_path / "model.safetensors", device)
    np.testing.assert_array_equal(asnumpy(found.predict(x)), asnumpy(net.predict(x)))
    assert found.layers["MultiHeadAttention1"].block_size is None


def test_cross_attention_in_a_graph(device, rng):
    x, t = Input("x"), Input("t")
    first, second = (Affine.from_sizes(3, 4, std=1.0, rng=i, dtype="float64", axis=-1)(x) for i in range(2))
    cross = CrossAttention.from_sizes(4, 2, rng=2, dtype="float64")(first, second)
    net = GraphNetwork(SoftmaxWithLoss()(cross, t), device=device)
    x, t = device.asarray(rng.standard_normal((2, 3, 3))), device.asarray(rng.integers(0, 4, (2, 3)))
    assert gradient_check(net, x, t).ok


def test_what_does_not_fit_is_named(device):
    layer = MultiHeadAttention.from_sizes(4, 2, rng=0)
    x = np.zeros((2, 3, 4), "float32")
    with pytest.raises(ValueError, match=r"MultiHeadAttention expected x of shape \(N, T, 4\), got \(N, 3, 5\)"):
        layer.forward(np.zeros((2, 3, 5)))
    with pytest.raises(ValueError, match=r"expected padding of shape \(2, 3\) and dtype bool, got \(2, 4\), bool"):
        layer.forward(x, padding=np.zeros((2, 4), bool))
    with pytest.raises(ValueError, match=r"expected padding of shape \(2, 3\) and dtype bool, got \(2, 3\), int64"):
        layer.forward(x, padding=[[0, 0, 1], [0, 1, 1]])
    with pytest.raises(TypeError, match="is not causal: earlier outputs would depend on later pieces"):
        layer.advance(x)
    with pytest.raises(ValueError, match="num_heads must divide the number of features, 4, got 3"):
        MultiHeadAttention.from_sizes(4, 3)
    with pytest.raises(ValueError, match="rotary needs an even number of features per head, got 6 / 2"):
        MultiHeadAttention.from_sizes(6, 2, rotary=True)
    with pytest.raises(ValueError, match=r"expected W of shape \(4, 12\), got \(4, 8\)"):
        MultiHeadAttention(np.zeros((4, 8)), layer.b, layer.Wo, layer.bo, 2)
    with pytest.raises(ValueError, match=r"expected x of shape \(N, T, 4\) with T up to 5, got \(N, 6, 4\)"):
        LearnedPositionalEncoding.from_sizes(5, 4).forward(np.zeros((1, 6, 4)))
    with pytest.raises(ValueError, match="has vectors for 5 positions, got a sequence of 6"):
        LearnedPositionalEncoding.from_sizes(5, 4).advance(x, 3)
    with pytest.raises(ValueError, match="as many sequences of both kinds, got 2 and 1"):
        CrossAttention.from_sizes(4, 2).forward(x, x[:1])

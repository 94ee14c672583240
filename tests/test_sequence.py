"""Networks for sequences: tied weights, generation, files, compiled steps, tasks that need memory."""

import copy
import pickle

import numpy as np
import pytest

import xpnet
from xpnet import asnumpy
from xpnet.gradient import gradient_check
from xpnet.layers import (
    GRU,
    LSTM,
    Affine,
    Bidirectional,
    Embedding,
    MultiHeadAttention,
    PaddedMean,
    TransformerBlock,
    Unembedding,
)
from xpnet.nets import GPT, LanguageModel, SequenceClassifier, Sequential
from xpnet.optimizers import SGD, Adam

MODELS = {
    "gpt": lambda **settings: GPT(5, 8, 4, num_heads=2, num_layers=2, seed=0, **settings),
    "gpt, rotary": lambda **settings: GPT(5, None, 4, num_heads=2, num_layers=1, seed=0, **settings),
    "lstm": lambda **settings: LanguageModel(5, 4, num_layers=2, seed=0, **settings),
    "gru": lambda **settings: LanguageModel(5, 4, cell="gru", seed=0, **settings),
    "rnn": lambda **settings: LanguageModel(5, 4, cell="rnn", seed=0, **settings),
}


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param]


def ids(device, rng, N=3, T=6, V=5):
    x = rng.integers(0, V, (N, T + 1))
    return device.asarray(x[:, :-1]), device.asarray(x[:, 1:])


def test_a_tied_parameter_has_the_gradients_of_both_uses(device, rng, model):
    net = model(device=device, dtype="float64")
    assert [name for name in net.params if name.startswith("W1")] == ["W1"]
    report = gradient_check(net, *ids(device, rng))
    assert report.ok, str(report)
    assert "Unembedding1 uses parameters of Embedding1 too" in report.parameters["W1"].note


def test_compiled_steps_add_both_gradients_of_a_tied_parameter(device, rng, model):
    net, (x, t) = model(device=device, dtype="float64"), ids(device, rng, 8)
    twin, rule, expected = net.copy(), SGD(lr=0.1), []
    indices = device.asarray(np.array([[0, 1, 2, 3], [4, 5, 6, 7]] * 26))
    losses = asnumpy(net.compile(SGD(lr=0.1), 4).run(x, t, indices))
    for index in indices:
        loss, grads = twin.loss_and_gradient(x[index], t[index])
        expected.append(float(loss))
        rule.update(twin.params, grads)
    np.testing.assert_allclose(losses, expected, rtol=1e-9)


def test_copies_moves_and_pickles_stay_tied(device, rng, model):
    net = model(device=device)
    x, _ = ids(device, rng)
    for other in (net.copy(), copy.deepcopy(net), pickle.loads(pickle.dumps(net)), net.copy().to("cpu").to(device)):
        assert other.layers["Unembedding1"].embedding is other.layers["Embedding1"]
        np.testing.assert_allclose(asnumpy(other.predict(x)), asnumpy(net.predict(x)), rtol=1e-6, atol=1e-7)
        other.params["W1"][...] = 0.0
        np.testing.assert_array_equal(asnumpy(other.predict(x)), 0.0)
        assert net.params["W1"].any()


def test_a_language_model_is_rebuilt_from_its_file(device, rng, tmp_path, model):
    pytest.importorskip("safetensors", reason="the extra xpnet[cli] is not installed")
    x, t = ids(device, rng)
    net = model(device=device)
    net.save(tmp_path / "model.safetensors")
    found = xpnet.load(tmp_path / "model.safetensors", device)
    assert type(found) is type(net)
    np.testing.assert_array_equal(asnumpy(found.predict(x)), asnumpy(net.predict(x)))
    assert found.layers["Unembedding1"].embedding is found.layers["Embedding1"]
    np.testing.assert_array_equal(asnumpy(found.gradient(x, t).flat), asnumpy(net.gradient(x, t).flat))
    np.testing.assert_array_equal(asnumpy(found.generate(x, 2, rng=0)), asnumpy(net.generate(x, 2, rng=0)))


def test_an_unembedding_needs_its_embedding_in_the_network():
    with pytest.raises(
        ValueError, match=r"Unembedding1 uses W of a layer \(Embedding\) that is not in the network; add it, or use"
    ):
        Sequential([Embedding.from_sizes(5, 4), Unembedding(Embedding.from_sizes(5, 4))])
    with pytest.raises(TypeError, match="Unembedding expected an Embedding, got ndarray"):
        Unembedding(np.zeros((5, 4)))


def test_generating_step_by_step_is_predicting_the_whole(device, rng, model):
    net = model(device=device, dtype="float64")
    x, _ = ids(device, rng, T=2)
    found = net.generate(x, 5, temperature=0)
    assert found.shape == (3, 7)
    assert found.dtype == x.dtype
    expected = x
    for _ in range(5):
        following = net.predict(expected)[:, -1].argmax(axis=-1)[:, None]
        expected = device.xp.concatenate([expected, following], axis=1)
    np.testing.assert_array_equal(asnumpy(found), asnumpy(expected))


def test_ids_are_drawn_by_their_probabilities(device):
    net = LanguageModel(4, 3, cell="rnn", device=device, dtype="float64", seed=0)
    x = device.asarray(np.zeros((20_000, 1), int))
    scores = asnumpy(net.predict(x[:1]))[0, 0]
    for temperature, top_k in ((1.0, None), (0.5, None), (1.0, 2), (2.0, 9), (1.0, 1)):
        kept = np.sort(scores)[-min(top_k or 4, 4) :]
        expected = np.where(scores >= kept[0], np.exp(scores / temperature), 0.0)
        drawn = asnumpy(net.generate(x, 1, temperature=temperature, top_k=top_k, rng=1))[:, 1]
        shares = np.bincount(drawn, minlength=4) / len(drawn)
        np.testing.assert_allclose(shares, expected / expected.sum(), atol=0.015)


def test_a_gpt_generates_beyond_its_positions(device, rng):
    net = GPT(5, 4, 4, num_heads=2, num_layers=1, device=device, dtype="float64", seed=0)
    x = device.asarray(rng.integers(0, 5, (3, 6)))
    found = asnumpy(net.generate(x, 5, temperature=0))
    np.testing.assert_array_equal(found[:, 6], asnumpy(net.predict(x[:, 2:])[:, -1].argmax(axis=-1)))
    # Behind the fourth position the last half is read anew.
    for start, stop in ((5, 7), (5, 8), (7, 9), (7, 10)):
        read = device.asarray(found[:, start:stop])
        np.testing.assert_array_equal(found[:, stop], asnumpy(net.predict(read)[:, -1].argmax(axis=-1)))


def test_two_continuations_of_one_beginning_do_not_disturb_each_other(device, rng):
    layer = MultiHeadAttention.from_sizes(4, 2, causal=True, rng=0, dtype="float64")
    layer.to(device)
    x = [device.asarray(rng.standard_normal((2, T, 4))) for T in (3, 2, 2, 1)]
    _, state = layer.advance(x[0])
    first, after = layer.advance(x[1], state)
    second, _ = layer.advance(x[2], state)
    third, _ = layer.advance(x[3], after)
    for pieces, found in (((0, 1), first), ((0, 2), second), ((0, 1, 3), third)):
        whole = layer.forward(device.xp.concatenate([x[i] for i in pieces], axis=1))
        np.testing.assert_allclose(asnumpy(found), asnumpy(whole[:, -found.shape[1] :]), rtol=1e-12)


def test_perplexity_is_the_exponential_of_the_loss(device, rng, model):
    x, t = ids(device, rng)
    metrics = model(device=device).evaluate(x, t)
    assert metrics["perplexity"] == pytest.approx(np.exp(metrics["loss"]))
    assert "perplexity" not in SequenceClassifier(5, 2, 4, device=device).evaluate(x, t[:, 0] % 4)


def test_a_seed_fixes_what_is_generated(device, model):
    net, x = model(device=device), device.asarray(np.array([[1, 2], [3, 4]]))
    a, b, other = (asnumpy(net.generate(x, 6, rng=seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert (a != other).any()


def test_wrong_settings_are_named(device):
    net = GPT(5, 4, 4, num_heads=2, num_layers=1, seed=0)
    with pytest.raises(ValueError, match=r"GPT.generate expected x of shape \(N, T\) with T > 0, got \(2, 0\)"):
        net.generate(np.zeros((2, 0), int), 1)
    with pytest.raises(ValueError, match="temperature must be finite and not negative, got -1"):
        net.generate([[1]], 1, temperature=-1)
    with pytest.raises(ValueError, match="top_k must be a positive integer, got 0"):
        net.generate([[1]], 1, top_k=0)
    with pytest.raises(ValueError, match="cell must be one of 'rnn', 'lstm', 'gru', got 'elman'"):
        LanguageModel(5, 4, cell="elman")


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_gradients_of_a_classifier(device, rng, cell, bidirectional):
    net = SequenceClassifier(
        5, 2, 4, cell=cell, num_layers=2, bidirectional=bidirectional, device=device, dtype="float64", seed=0
    )
    x, _ = ids(device, rng)
    assert gradient_check(net, x, device.asarray(rng.integers(0, 4, 3))).ok


def test_a_classifier_learns_which_of_two_ids_comes_first():
    device = xpnet.Device("cpu")  # the same steps on each
    rng = np.random.default_rng(0)
    x = rng.integers(2, 6, (2000, 8))
    t, places = rng.integers(0, 2, 2000), np.sort(rng.permuted(np.tile(np.arange(8), (2000, 1)), axis=1)[:, :2])
    rows = np.arange(2000)
    x[rows, places[:, 0]], x[rows, places[:, 1]] = t, 1 - t
    x, t = device.asarray(x), device.asarray(t)
    net = SequenceClassifier(6, 12, 2, bidirectional=True, dropout=0.1, device=device, seed=0)
    step = net.compile(Adam(lr=0.02), 50)
    for _ in range(6):
        step.run(x[:1500], t[:1500], device.asarray(rng.permutation(1500).reshape(-1, 50)))
    assert net.accuracy(x[1500:], t[1500:]) > 0.99


def test_a_gpt_learns_to_copy():
    """Four ids, a separator, and the same four ids: each must be looked up five places back."""
    device = xpnet.Device("cpu")  # the same steps on each
    rng = np.random.default_rng(0)
    words = rng.integers(0, 5, (2000, 4))
    text = np.concatenate([words, np.full((2000, 1), 5), words], axis=1)
    x, t = device.asarray(text[:, :-1]), device.asarray(np.where(np.arange(8) < 4, -1, text[:, 1:]))
    net = GPT(6, 8, 16, num_heads=2, num_layers=2, device=device, seed=0)
    net.last_layer.ignore_index = -1
    step = net.compile(Adam(lr=0.01), 50)
    for _ in range(10):
        step.run(x[:1500], t[:1500], device.asarray(rng.permutation(1500).reshape(-1, 50)))
    assert net.accuracy(x[1500:], t[1500:]) > 0.99
    prompt = text[1500:, :5]
    np.testing.assert_allclose(
        (asnumpy(net.generate(prompt, 4, temperature=0))[:, 5:] == words[1500:]).mean(), 1.0, atol=0.01
    )


def test_a_gpt_learns_to_sort():
    """Four digits, a separator, and the digits in order."""
    device = xpnet.Device("cpu")  # the same steps on each
    rng = np.random.default_rng(0)
    words = rng.integers(0, 5, (2500, 4))
    text = np.concatenate([words, np.full((2500, 1), 5), np.sort(words, axis=1)], axis=1)
    x, t = device.asarray(text[:, :-1]), device.asarray(np.where(np.arange(8) < 4, -1, text[:, 1:]))
    net = GPT(6, 8, 16, num_heads=2, num_layers=1, device=device, seed=0)
    net.last_layer.ignore_index = -1
    step = net.compile(Adam(lr=0.02), 50)
    for _ in range(8):
        step.run(x[:2000], t[:2000], device.asarray(rng.permutation(2000).reshape(-1, 50)))
    assert net.accuracy(x[2000:], t[2000:]) > 0.99


def test_a_recurrent_network_learns_the_parity_of_each_prefix():
    device = xpnet.Device("cpu")  # the same steps on each
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2, (2500, 10))
    x, t = device.asarray(bits), device.asarray(bits.cumsum(axis=1) % 2)
    net = LanguageModel(2, 16, cell="gru", device=device, seed=0)
    step = net.compile(Adam(lr=0.02), 50)
    for _ in range(8):
        step.run(x[:2000], t[:2000], device.asarray(rng.permutation(2000).reshape(-1, 50)))
    assert net.accuracy(x[2000:], t[2000:]) > 0.99


LAYERS = {
    "lstm": lambda rng: [LSTM.from_sizes(4, 4, rng=rng, dtype="float64")],
    "bidirectional": lambda rng: [
        Bidirectional(*(GRU.from_sizes(width, 2, rng=rng, dtype="float64") for _ in range(2))) for width in (4, 4)
    ],
    "attention": lambda rng: [
        TransformerBlock.from_sizes(4, 2, rotary=True, rng=rng, dtype="float64", block_size=size) for size in (2, 256)
    ],
}


@pytest.mark.parametrize("kind", LAYERS)
def test_a_padded_minibatch_is_its_sequences_one_by_one(device, rng, kind):
    made = np.random.default_rng(0)
    layers = [Embedding.from_sizes(6, 4, rng=made, dtype="float64"), *LAYERS[kind](made)]
    output = Affine.from_sizes(4, 3, std="lecun", rng=made, dtype="float64")
    net = Sequential([PaddedMean(*layers, padding_id=5), output], device=device, dtype="float64")
    x, t, lengths = rng.integers(0, 5, (4, 7)), device.asarray(rng.integers(0, 3, 4)), (7, 3, 1, 5)
    for row, length in zip(x, lengths, strict=True):
        row[length:] = 5
    x = device.asarray(x)
    alone = [(x[n : n + 1, :length], t[n : n + 1]) for n, length in enumerate(lengths)]
    expected = np.concatenate([asnumpy(net.predict(part)) for part, _ in alone])
    np.testing.assert_allclose(asnumpy(net.predict(x)), expected, rtol=1e-10, atol=1e-12)
    grads = np.mean([asnumpy(net.gradient(*one).flat) for one in alone], axis=0)
    np.testing.assert_allclose(asnumpy(net.gradient(x, t).flat), grads, rtol=1e-10, atol=1e-12)


def test_a_classifier_of_padded_sequences(device, rng, tmp_path):
    pytest.importorskip("safetensors", reason="the extra xpnet[cli] is not installed")
    net = SequenceClassifier(6, 4, 3, bidirectional=True, padding_id=0, device=device, dtype="float64", seed=0)
    x = device.asarray(np.array([[1, 2, 3, 4], [5, 1, 0, 0], [0, 0, 0, 0]]))
    t = device.asarray(np.array([0, 1, 2]))
    assert gradient_check(net, x, t).ok
    np.testing.assert_allclose(asnumpy(net.predict(x[1:2, :2])), asnumpy(net.predict(x))[1:2], rtol=1e-12)
    net.save(tmp_path / "model.safetensors")
    found = xpnet.load(tmp_path / "model.safetensors", device)
    np.testing.assert_array_equal(asnumpy(found.predict(x)), asnumpy(net.predict(x)))
    if device.name == "cpu":
        with pytest.raises(ValueError, match=r"expected padding \(0\) only behind the last id of a sequence"):
            net.predict(np.array([[0, 1]]))

"""Recurrent layers in networks: states that are carried, files, compiled steps, a task that needs memory."""

import numpy as np
import pytest

import xpnet
from xpnet import asnumpy
from xpnet.gradient import gradient_check
from xpnet.layers import GRU, LSTM, RNN, Affine, Bidirectional, Embedding, SoftmaxWithLoss
from xpnet.nets import Sequential
from xpnet.optimizers import SGD, Adam

KINDS = [RNN, LSTM, GRU]


def network(kind, device, *, batch_size=None, dtype="float64"):
    """A network that labels each step of a sequence of ids."""
    rng = np.random.default_rng(3)
    layers = [
        Embedding.from_sizes(5, 3, rng=rng, dtype=dtype),
        kind.from_sizes(3, 4, batch_size=batch_size, rng=rng, dtype=dtype),
        Affine.from_sizes(4, 5, std="lecun", rng=rng, dtype=dtype, axis=-1),
    ]
    return Sequential(layers, device=device)


def ids(device, rng, shape=(4, 6)):
    return device.asarray(rng.integers(0, 5, shape)), device.asarray(rng.integers(0, 5, shape))


@pytest.mark.parametrize("kind", KINDS)
def test_a_sequence_in_pieces_has_the_outputs_of_the_whole(device, rng, kind):
    layer, x = kind.from_sizes(3, 4, rng=0, dtype="float64"), device.asarray(rng.standard_normal((2, 7, 3)))
    layer.to(device)
    whole, state, found = layer.forward(x), None, []
    for start in (0, 3, 4):
        piece, state = layer.advance(x[:, start : {0: 3, 3: 4, 4: 7}[start]], state)
        found.append(asnumpy(piece))
    np.testing.assert_allclose(np.concatenate(found, axis=1), asnumpy(whole), rtol=1e-13)


@pytest.mark.parametrize("kind", KINDS)
def test_a_carried_state_is_a_constant_of_the_next_batch(device, rng, kind):
    layer, x = kind.from_sizes(3, 4, batch_size=2, rng=0, dtype="float64"), rng.standard_normal((2, 6, 3))
    layer.to(device)
    first, second = device.asarray(x[:, :3]), device.asarray(x[:, 3:])
    whole, state = layer.advance(device.asarray(x))
    predicted = asnumpy(layer.forward(first, False))
    np.testing.assert_array_equal(asnumpy(layer.state), 0.0)
    found = [asnumpy(layer.forward(first)), asnumpy(layer.forward(second))]
    np.testing.assert_allclose(np.concatenate(found, axis=1), asnumpy(whole), rtol=1e-13)
    np.testing.assert_allclose(asnumpy(layer.state), asnumpy(state), rtol=1e-13)
    np.testing.assert_array_equal(predicted, found[0])
    dout = device.asarray(rng.standard_normal((2, 3, 4)))
    dx = layer.backward(dout)
    other = kind.from_sizes(3, 4, rng=0, dtype="float64")
    other.to(device)
    other.forward(second, state=other.advance(first)[1])
    np.testing.assert_allclose(asnumpy(other.backward(dout)), asnumpy(dx), rtol=1e-12)
    layer.state[...] = 0.0
    np.testing.assert_array_equal(asnumpy(layer.forward(first)), found[0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch_size", [None, 4])
def test_numerical_gradients_say_that_they_go_one_by_one(device, rng, kind, batch_size):
    net = network(kind, device, batch_size=batch_size)
    report = gradient_check(net, *ids(device, rng))
    assert report.ok, str(report)
    notes = {name: check.note for name, check in report.parameters.items()}
    assert "does not declare what Wx reaches" in notes["Wx1"]
    assert ("treat samples one by one" in notes["W1"]) == (batch_size is not None)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch_size", [None, 4])
def test_compiled_steps_train_as_plain_ones(device, rng, kind, batch_size):
    x, t = ids(device, rng, (8, 6))
    net, twin = network(kind, device, batch_size=batch_size), network(kind, device, batch_size=batch_size)
    indices = np.array([[0, 1, 2, 3], [4, 5, 6, 7]] * 30)
    step = net.compile(SGD(lr=0.1), 4)
    losses = asnumpy(step.run(x, t, device.asarray(indices)))
    rule, expected = SGD(lr=0.1), []
    for index in indices:
        loss, grads = twin.loss_and_gradient(x[device.asarray(index)], t[device.asarray(index)])
        expected.append(float(loss))
        rule.update(twin.params, grads)
    np.testing.assert_allclose(losses, expected, rtol=1e-9)
    np.testing.assert_allclose(asnumpy(net.params.flat), asnumpy(twin.params.flat), rtol=1e-8, atol=1e-12)
    if batch_size:
        np.testing.assert_allclose(
            asnumpy(net.layers[f"{kind.__name__}1"].state), asnumpy(twin.layers[f"{kind.__name__}1"].state), rtol=1e-8
        )


def test_a_network_with_a_carried_state_is_rebuilt_from_its_file(device, rng, tmp_path):
    pytest.importorskip("safetensors", reason="the extra xpnet[cli] is not installed")
    rows = [
        LSTM.from_sizes(3, 4, batch_size=2, rng=0, dtype="float64"),
        Bidirectional(RNN.from_sizes(4, 3, rng=1, dtype="float64"), GRU.from_sizes(4, 2, rng=2, dtype="float64")),
        Affine.from_sizes(5, 2, rng=3, dtype="float64", axis=-1),
    ]
    net, x = Sequential(rows, device=device), device.asarray(rng.standard_normal((2, 5, 3)))
    net.predict(x, train=True)
    net.save(tmp_path / "model.safetensors")
    found = xpnet.load(tmp_path / "model.safetensors", device)
    np.testing.assert_array_equal(asnumpy(found.predict(x, train=True)), asnumpy(net.predict(x, train=True)))
    np.testing.assert_array_equal(asnumpy(found.layers["LSTM1"].state), asnumpy(net.layers["LSTM1"].state))


@pytest.mark.parametrize("kind", [LSTM, GRU])
def test_a_network_learns_to_add_bits(kind):
    """The sum of two binary numbers, lowest bits first: each step needs the carry of the step before."""
    device = xpnet.Device("cpu")  # the same steps on each
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 2**9, (2, 2000))
    bits = lambda n: n[:, None] >> np.arange(10) & 1  # noqa: E731
    x, t = device.asarray(bits(a) + 2 * bits(b)), device.asarray(bits(a + b))
    layers = [
        Embedding.from_sizes(4, 4, rng=rng),
        kind.from_sizes(4, 12, rng=rng),
        Affine.from_sizes(12, 2, std="lecun", rng=rng, axis=-1),
    ]
    net = Sequential(layers, device=device)
    step = net.compile(Adam(lr=0.02), 50)
    for _ in range(8):
        step.run(x[:1500], t[:1500], device.asarray(rng.permutation(1500).reshape(-1, 50)))
    assert net.accuracy(x[1500:], t[1500:]) > 0.99


def test_what_does_not_fit_is_named(device):
    layer = LSTM.from_sizes(3, 4, rng=0)
    with pytest.raises(ValueError, match=r"LSTM expected x of shape \(N, T, 3\), got \(N, 5, 2\)"):
        layer.forward(np.zeros((2, 5, 2)))
    with pytest.raises(ValueError, match=r"expected a state of shape \(2, 2, 4\), got shape \(1, 2, 4\)"):
        layer.forward(np.zeros((2, 5, 3)), state=np.zeros((1, 2, 4)))
    with pytest.raises(ValueError, match=r"takes training batches of one size"):
        LSTM.from_sizes(3, 4, batch_size=3, rng=0).forward(np.zeros((2, 5, 3)))
    with pytest.raises(ValueError, match=r"GRU expected Wh of shape \(H, 3 H\), got \(2, 8\)"):
        GRU(np.zeros((3, 8)), np.zeros((2, 8)), np.zeros(8), np.zeros(2))
    with pytest.raises(ValueError, match=r"RNN expected Wx of shape \(D, 2\) to go with Wh \(2, 2\), got \(3, 4\)"):
        RNN(np.zeros((3, 4)), np.zeros((2, 2)), np.zeros(2))
    with pytest.raises(ValueError, match="axis=-1 transforms each position by itself"):
        Affine.from_sizes(3, 2).forward(np.zeros((2, 5, 3)))
    with pytest.raises(ValueError, match=r"axis must be 1, .*, or -1, .*, got 2"):
        Affine(np.zeros((3, 2)), np.zeros(2), axis=2)
    assert SoftmaxWithLoss(ignore_index=-1).forward(layer.forward(np.zeros((1, 2, 3))), np.array([[0, -1]])) > 0

"""Embeddings in networks: ids that stay ids, gradients that add up, and ids that there are not."""

import numpy as np
import pytest

from xpnet import asnumpy
from xpnet.gradient import gradient_check
from xpnet.graph import Graph, Input
from xpnet.layers import AddLayer, Affine, Embedding, Flatten, Relu, SoftmaxWithLoss
from xpnet.nets import GraphNetwork, Sequential
from xpnet.optimizers import SGD, Adam
from xpnet.training import Trainer

IDS, LENGTH, SIZE = 7, 3, 4


def sentences(device="cpu", dtype="float32"):
    rng = np.random.default_rng(0)
    layers = [
        Embedding.from_sizes(IDS, SIZE, rng=rng, dtype=dtype),
        Flatten(),
        Affine.from_sizes(LENGTH * SIZE, 5, std="he", rng=rng, dtype=dtype),
        Relu(),
        Affine.from_sizes(5, 3, std="he", rng=rng, dtype=dtype),
    ]
    return Sequential(layers, device=device)


def batch(device, rng, n=6, dtype="int64"):
    return device.asarray(rng.integers(0, IDS, (n, LENGTH)), dtype), device.asarray(rng.integers(0, 3, n))


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint32", "int64", "uint64"])
def test_ids_of_any_integers_stay_what_they_are(device, rng, dtype):
    net = sentences(device)
    x, t = batch(device, rng, dtype=dtype)
    expected = asnumpy(net.params["W1"])[asnumpy(x).astype(int)]
    np.testing.assert_array_equal(asnumpy(net.layers["Embedding1"].forward(x)), expected)
    assert net.predict(x).dtype == "float32"
    np.testing.assert_array_equal(asnumpy(net.predict(x)), asnumpy(net.predict(x.astype("int64"))))
    assert 0 <= net.accuracy(x, t) <= 1


def test_pixels_elsewhere_are_still_divided_by_255(rng):
    net, x = Sequential([Affine.from_sizes(LENGTH, 2, rng=0)]), rng.integers(0, 256, (2, LENGTH)).astype("uint8")
    np.testing.assert_allclose(net.predict(x), net.predict(x / 255), rtol=1e-6)


@pytest.mark.parametrize("dtype", ["uint8", "int64"])
@pytest.mark.parametrize("rule", [lambda: SGD(0.5), lambda: Adam(0.1)], ids=["sgd", "adam"])
def test_compiled_steps_are_the_plain_ones(device, rng, dtype, rule):
    x, t = batch(device, rng, 30, dtype)
    indices = device.asarray(rng.integers(0, 30, (60, 5)))
    plain, fast = sentences(device), sentences(device)
    optimizer, losses = rule(), []
    for index in indices:
        loss, grads = plain.loss_and_gradient(x[index], t[index])
        optimizer.update(plain.params, grads)
        losses.append(float(loss))
    step = fast.compile(rule(), 5, backend="numpy")
    found = [asnumpy(step.run(x, t, part)) for part in (indices[:2], indices[2:])]
    np.testing.assert_array_equal(np.concatenate(found), np.array(losses, "float32"))
    np.testing.assert_array_equal(asnumpy(fast.params.flat), asnumpy(plain.params.flat))
    if device.name != "cpu":
        assert {n for n, _ in step.runners[0].graphs} == {1, 50}


def test_a_step_on_cuda_asks_the_host_for_nothing(cuda, rng, counted):
    net, (x, t) = sentences(cuda), batch(cuda, rng)
    net.loss_and_gradient(x, t)  # compiles
    with counted() as work:
        net.loss_and_gradient(x, t)
    assert (work["synchronizations"], work["copies_to_host"], work["copies_to_device"]) == (0, 0, 0)


@pytest.mark.parametrize("method", ["batched", "loop", "directional"])
def test_gradients_are_right_and_batched(device, rng, method):
    net = sentences(device)
    report = gradient_check(net, *batch(device, rng), method=method)
    assert report.ok, str(report)
    assert [check.note for check in report.parameters.values()] == [""] * 5


def test_what_is_not_asked_for_has_no_gradient_and_what_is_asked_twice_has_the_sum(device):
    layer = Embedding(device.xp.zeros((4, 2)))
    layer.forward(device.asarray([[3, 1], [3, 3]]))
    assert layer.backward(device.asarray([[[1.0, 2.0], [3.0, 4.0]], [[10.0, 20.0], [100.0, 200.0]]])) is None
    np.testing.assert_array_equal(asnumpy(layer.dW), [[0, 0], [3, 4], [0, 0], [111, 222]])


@pytest.mark.parametrize("bad", [-1, 7])
def test_an_id_out_of_range_is_refused_on_the_host_and_is_nan_on_cuda(device, rng, bad):
    net = sentences(device)
    x, t = batch(device, rng)
    x[1, 2] = bad
    if device.name == "cpu":
        with pytest.raises(ValueError, match=r"ids for Embedding1 must lie in \[0, 7\), got ids from "):
            net.predict(x)
    else:
        y = asnumpy(net.layers["Embedding1"].forward(x))
        assert np.isnan(y[1, 2]).all()
        assert np.isnan(y).sum() == SIZE
        assert np.isnan(float(net.loss_and_gradient(x, t)[0]))


def test_what_does_not_fit_is_named(device):
    with pytest.raises(TypeError, match=r"Embedding1 expected integer ids, got dtype float32; see x.astype\('int64'\)"):
        sentences(device).predict(device.xp.zeros((2, LENGTH), "float32"))
    with pytest.raises(ValueError, match=r"expected W to be an array of shape \(V, D\), got shape \(3,\)"):
        Embedding(np.zeros(3))
    with pytest.raises(ValueError, match=r"got list"):
        Embedding([[1.0]])
    layer = Embedding(device.xp.zeros((4, 2)))
    layer.forward(device.asarray([1, 2, 3]))
    with pytest.raises(ValueError, match=r"expected dout of its output's shape \(3, 2\), got \(3, 1\)"):
        layer.backward(device.xp.zeros((3, 1)))


def test_ids_may_lie_in_memory_as_they_like(device, rng):
    x = device.asarray(rng.integers(0, IDS, (4, 10)))
    layer, dout = Embedding(device.asarray(rng.standard_normal((IDS, 2)))), device.asarray(np.ones((5, 4, 2)))
    y = layer.forward(x[:, ::2].T)
    np.testing.assert_array_equal(asnumpy(y), asnumpy(layer.W)[asnumpy(x)[:, ::2].T])
    layer.backward(dout)
    assert float(layer.dW.sum()) == dout.size


def test_an_embedding_in_a_graph(device, rng):
    x, t = Input("x"), Input("t")
    embedding = Embedding(rng.standard_normal((IDS, 2)))
    scores = Affine(rng.standard_normal((2, 3)), np.zeros(3))(AddLayer()(embedding(x), embedding(x)))
    net = GraphNetwork(SoftmaxWithLoss()(scores, t), device=device)
    ids, labels = device.asarray(rng.integers(0, IDS, 5).astype("uint8")), device.asarray(rng.integers(0, 3, 5))
    assert gradient_check(net, ids, labels).ok
    y = Embedding(np.arange(6.0).reshape(3, 2))(Input("x")).sum()
    graph = Graph(y)
    assert float(graph.forward(x=np.array([2, 2, 0]))) == 19
    graph.backward()
    np.testing.assert_array_equal(y.inputs[0].layer.dW, [[1, 1], [0, 0], [2, 2]])
    assert "Embedding" in graph.to_svg()
    assert "Embedding" in graph.to_html()


def test_a_network_learns_which_ids_stand_for_what(device, rng):
    x = rng.integers(0, IDS, (200, LENGTH))
    t = (x == 2).any(axis=1).astype(int)
    net = sentences(device)
    trainer = Trainer(
        net, x, t, x, t, epochs=6, mini_batch_size=10, optimizer="adam", optimizer_param={"lr": 0.02}, verbose=False
    )
    assert trainer.train().evaluations[-1].test_accuracy > 0.9

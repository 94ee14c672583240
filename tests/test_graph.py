"""Computational graphs: built by writing the computation, run forward and backward, copied."""

import copy
import pickle

import numpy as np
import pytest

from xpnet import asnumpy, functions
from xpnet.gradient import numerical_gradient
from xpnet.graph import Constant, Graph, Input
from xpnet.layers import Affine, Layer, MulLayer, Relu, Sigmoid, SoftmaxWithLoss


def test_the_apple_of_the_book():
    apple, number, tax = Input("apple", 100), Input("apple_num", 2), Input("tax", 1.1)
    apple_price = apple * number
    price = apple_price * tax
    assert price.forward() == pytest.approx(220)
    price.backward()
    assert [price.grad, apple_price.grad, tax.grad] == pytest.approx([1, 1.1, 200])
    assert [apple.grad, number.grad] == pytest.approx([2.2, 110])


def test_the_apple_and_orange_of_the_book():
    names = ("apple", "apple_num", "orange", "orange_num", "tax")
    apple, n_apples, orange, n_oranges, tax = map(Input, names)
    all_fruit = apple * n_apples + orange * n_oranges
    price = all_fruit * tax
    assert price.forward(apple=100, apple_num=2, orange=150, orange_num=3, tax=1.1) == pytest.approx(715)
    price.backward()
    assert [price.grad, all_fruit.grad, tax.grad] == pytest.approx([1, 1.1, 650])
    gradients = [apple.grad, n_apples.grad, orange.grad, n_oranges.grad]
    assert gradients == pytest.approx([2.2, 110, 3.3, 165])
    assert price.forward(tax=1.2) == pytest.approx(780)  # again, without building it again
    price.backward()
    assert apple.grad == pytest.approx(2.4)


def test_sigmoid_from_its_atoms(device, rng):
    x = Input("x", device.asarray(rng.standard_normal((3, 4))))
    y = 1 / (1 + (-x).exp())
    y.forward()
    dout = device.asarray(rng.standard_normal((3, 4)))
    y.backward(dout)
    layer = Sigmoid()
    np.testing.assert_allclose(asnumpy(y.value), asnumpy(layer.forward(x.value)), rtol=1e-14)
    np.testing.assert_allclose(asnumpy(x.grad), asnumpy(layer.backward(dout)), rtol=1e-12)
    np.testing.assert_allclose(asnumpy(x.grad), asnumpy(dout * y.value * (1 - y.value)), rtol=1e-12)


def test_softmax_with_loss_from_its_atoms(device, rng):
    x, t = rng.standard_normal((3, 4)), np.eye(4)[[1, 0, 3]]
    scores, labels = Input("x", device.asarray(x)), Input("t", device.asarray(t))
    e = (scores - scores.max(axis=1, keepdims=True)).exp()
    y = e / e.sum(axis=1, keepdims=True)
    loss = -(labels * y.log()).sum(axis=1).mean()
    layer = SoftmaxWithLoss()
    assert float(loss.forward()) == pytest.approx(float(layer.forward(scores.value, labels.value)), rel=1e-12)
    loss.backward()
    np.testing.assert_allclose(asnumpy(scores.grad), asnumpy(layer.backward()), rtol=0, atol=1e-15)
    np.testing.assert_allclose(asnumpy(scores.grad), (functions.softmax(x) - t) / 3, rtol=0, atol=1e-15)


def test_a_value_used_twice_gets_both_gradients():
    x = Input("x", 3.0)
    y = x * x + x
    y.forward()
    y.backward()
    assert x.grad == 7.0
    y.backward()  # again, and nothing is left over from the first time
    assert x.grad == 7.0


def test_each_node_runs_once(rng):
    calls = []

    class Counted(Layer):
        def forward(self, x, train=True):
            calls.append("forward")
            return x * 1.0

        def backward(self, dout):
            calls.append("backward")
            return dout

    x = Input("x", 2.0)
    shared = Counted()(x)
    y = shared * shared + shared
    y.forward()
    y.backward()
    assert calls == ["forward", "backward"]
    assert x.grad == 5.0


def test_graphs_deeper_than_pythons_stack_run():
    x = Input("x", 1.0)
    value = x
    for _ in range(10_000):
        value = value + x
    assert value.forward() == 10_001
    value.backward()
    assert x.grad == 10_001


def pickled(thing):
    return pickle.loads(pickle.dumps(thing))


COPIES = pytest.mark.parametrize("made_by", [copy.deepcopy, pickled])


@COPIES
def test_copies_of_graphs_deeper_than_pythons_stack_run(made_by):
    x = Input("x", 1.0)
    value = x
    for _ in range(10_000):
        value = value + x
    value.forward()
    made, graph = made_by(value), made_by(Graph(value))
    assert made.value == 10_001
    made.backward()
    assert Graph(made).inputs["x"].grad == 10_001
    assert not x.has_grad
    assert graph.forward(x=2.0) == 20_002
    graph.backward()
    assert graph.inputs["x"].grad == 10_001
    assert value.value == 10_001


@COPIES
def test_all_values_of_a_deep_graph_are_copied_once(made_by):
    value = Input("x", 1.0)
    for _ in range(2_000):
        value = value + 1
    for values in (Graph(value).values, Graph(value).values[::-1]):  # each before, or behind, what it is computed from
        made = made_by(list(values))
        assert [len(one.inputs) for one in made] == [len(one.inputs) for one in values]
        assert {source for one in made for source in one.inputs} <= set(made)


@COPIES
def test_a_copy_shares_no_parameter_with_the_original(made_by, rng):
    affine = Affine(rng.random((3, 3)), rng.random(3))
    x = Input("x", rng.random((2, 3)))
    y = (affine(affine(x)) ** 2).sum()
    before = float(y.forward())
    made = made_by(y)
    inner, outer = (value.layer for value in Graph(made).values if isinstance(value.layer, Affine))
    Graph(made).values[1].shared.W *= 2.0
    assert made.forward() != before
    assert inner.W is outer.W
    assert y.forward() == before


def test_a_shallow_copy_has_the_same_inputs():
    y = Input("x", 1.0) * 2
    made = copy.copy(y)
    assert made is not y
    assert made.inputs is y.inputs
    assert made.forward() == 2


@COPIES
def test_values_that_know_each_other_are_copied(made_by):
    x = Input("x", 1.0)
    y = x * 2
    x.note = y
    made = made_by(x)
    assert made.note.inputs[0] is made
    assert made_by(y).inputs[0].note.forward() == 2


def test_a_layer_used_twice_shares_its_parameters(device, rng):
    W, b = rng.standard_normal((3, 3)), rng.standard_normal(3)
    affine = Affine(device.asarray(W), device.asarray(b))
    x = Input("x", device.asarray(rng.standard_normal((2, 3))))
    y = (affine(affine(x)) ** 2).sum()
    y.forward()
    y.backward()
    for parameter, gradient in ((affine.W, affine.dW), (affine.b, affine.db)):
        expected = numerical_gradient(lambda _: y.forward(), parameter, 1e-5)
        np.testing.assert_allclose(asnumpy(gradient), asnumpy(expected), rtol=1e-7, atol=1e-7)
    affine.W = device.asarray(2 * W)  # replaced, not only changed in place
    value = float(y.forward())
    x1 = asnumpy(x.value) @ (2 * W) + b
    assert value == pytest.approx(float(((x1 @ (2 * W) + b) ** 2).sum()))


def test_arrays_and_numbers_on_either_side_make_constants():
    x = Input("x", np.array([1.0, 2.0]))
    y = np.array([3.0, 4.0]) * x + np.float64(1) - 2
    np.testing.assert_array_equal(y.forward(), [2.0, 7.0])
    z = np.ones((1, 2)) @ (x * np.ones((2, 2)))
    np.testing.assert_array_equal(z.forward(), [[2.0, 4.0]])
    assert [v.name for v in Graph(y).values if isinstance(v, Constant)] == [None, "1", "2"]


def test_a_layer_applied_to_arrays_runs_at_once():
    np.testing.assert_array_equal(Relu()(np.array([-1.0, 2.0])), [0.0, 2.0])
    assert MulLayer()(3, 4) == 12


def test_names_are_unique():
    x = Input("MulLayer1", 2.0)
    y = 1 + x * x * 1
    y.name = "y"
    z = y * 1
    z.name = "y"
    names = list(Graph(z).names.values())
    assert sorted(names) == sorted({"1", "MulLayer1", "MulLayer2", "MulLayer3", "1 (1)", "y", "1 (2)", "y (1)"})


class TestErrors:
    def test_an_input_without_a_value(self):
        x = Input("x")
        with pytest.raises(RuntimeError, match="input 'x' has no value; pass it to forward"):
            (x * 2).forward()

    def test_an_input_that_does_not_exist(self):
        with pytest.raises(ValueError, match="no input is called 'z'; there are x, y"):
            (Input("x", 1) * Input("y", 2)).forward(z=3)

    def test_two_inputs_of_one_name(self):
        with pytest.raises(ValueError, match="two inputs are called 'x'"):
            (Input("x", 1) * Input("x", 2)).forward()

    def test_an_input_without_a_name(self):
        for name in ("", None, 3):
            with pytest.raises(ValueError, match="an Input needs a name"):
                Input(name)

    def test_shapes_that_conflict_name_the_node(self):
        x, y = Input("x", np.ones((2, 3))), Input("y", np.ones(4))
        with pytest.raises(
            ValueError, match=r"MulLayer1 of \(x, y\): MulLayer expected x and y of shapes that broadcast"
        ):
            (x * y + 1).forward()
        affine = Affine.from_sizes(4, 2)
        with pytest.raises(ValueError, match=r"Affine1 of \(x\): Affine expected x of shape \(N, 4\)"):
            Relu()(affine(x)).forward()
        with pytest.raises(ValueError, match=r"MatMulLayer1 of \(x, x\): .*got \(2, 3\) and \(2, 3\)"):
            (x @ x).forward()

    def test_a_cycle_names_a_node(self):
        x = Input("x", 1.0)
        y = x + 1
        z = y * 2
        y.name = "y"
        y.inputs = (z, x)
        with pytest.raises(ValueError, match=r"computed from itself: the graph has a cycle through"):
            z.forward()

    def test_a_wrong_number_of_values(self):
        with pytest.raises(ValueError, match="Affine takes 1 values, got 2"):
            Affine.from_sizes(2, 2)(Input("x"), Input("y"))

    def test_before_the_passes(self):
        x = Input("x", 1.0)
        y = x * 2
        with pytest.raises(RuntimeError, match="MulLayer has no value yet; run forward"):
            y.backward()
        y.forward()
        with pytest.raises(RuntimeError, match="x has no gradient yet; run backward"):
            _ = x.grad

    def test_a_dout_of_another_shape(self):
        y = Input("x", np.ones(3)) * 2
        y.forward()
        with pytest.raises(ValueError, match=r"the output has shape \(3,\); pass backward a dout of that shape"):
            y.backward()
        with pytest.raises(ValueError, match=r"backward expected dout of the output's shape \(3,\), got \(2,\)"):
            y.backward(np.ones(2))


@pytest.mark.parametrize("base", [0.0, 2.0, np.array([0.0, -1.0, 2.0]), np.array([1, 2, 3])])
def test_a_power_of_zero_is_constant(base):
    x = Input("x", base)
    power = x**0
    assert np.all(power.forward() == 1)
    with np.errstate(all="raise"):
        power.backward(np.ones(np.shape(base)) if np.shape(base) else None)
    assert np.all(x.grad == 0)

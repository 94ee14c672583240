"""Computational graphs: built by writing the computation, run forward and backward, and trained as networks."""

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpnet import asnumpy, functions
from xpnet.gradient import gradient_check, numerical_gradient
from xpnet.graph import Constant, Graph, Input
from xpnet.layers import Affine, BatchNormalization, Layer, MulLayer, Relu, Sigmoid, SoftmaxWithLoss
from xpnet.nets import GraphNetwork, Sequential, TwoLayerNet
from xpnet.optimizers import SGD
from xpnet.training import Trainer


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


# No composition of six grows or bends fast: central differences of its results are good to 1e-6.
OPERATIONS = [
    lambda a, b: a + b,
    lambda a, b: a - b,
    lambda a, b: a * b / (a * a + b * b + 1),
    lambda a, b: a / (b * b + 1.5),
    lambda a, b: (a * a + 1) ** (0.5 / (b * b + 1)),
    lambda a, b: (-0.3 * a * a - b * b / (a * a + 1)).exp(),
    lambda a, b: (a * a + b * b + 1.0).log(),
    lambda a, b: a - b.mean(axis=0),
    lambda a, b: -a - 1 + b.sum() / 6,
    lambda a, b: 2 ** (a / (a * a + 1)) + 1 / (b * b + 1) - (1 - a),
    lambda a, b: Sigmoid()(a) + b,
]


PROGRAMS = st.lists(st.tuples(st.sampled_from(OPERATIONS), st.integers(0), st.integers(0)), min_size=1, max_size=6)


def run_program(program, values):
    """Append the results of operations on any earlier values."""
    for operation, i, j in program:
        values.append(operation(values[i % len(values)], values[j % len(values)]))
    return values


@given(PROGRAMS)
def test_gradients_of_any_graph_are_those_of_central_differences(program):
    """Values are used any number of times; their gradients are added."""
    rng = np.random.default_rng(0)
    x, y = Input("x", rng.uniform(0.5, 1, (2, 3))), Input("y", rng.uniform(0.5, 1, (2, 3)))
    values = run_program(program, [x, y])
    loss = (values[-1] * 0.01).mean() + (x * y).sum()
    loss.forward()
    loss.backward()
    for value in (x, y):
        gradient = value.grad.copy()
        expected = numerical_gradient(lambda _: loss.forward(), value.value, 1e-5)
        np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-8)


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
@given(program=PROGRAMS, order=st.randoms(use_true_random=False))
def test_a_copy_of_any_graph_computes_the_same_and_is_its_own(made_by, program, order):
    rng = np.random.default_rng(0)
    values = run_program(program, [Input(name, rng.uniform(0.5, 1, (2, 3))) for name in "xy"])
    places = list(range(len(values)))
    order.shuffle(places)
    moved = made_by([values[place] for place in places])
    made = [moved[places.index(place)] for place in range(len(values))]
    assert [one.inputs for one in made[:2]] == [(), ()]
    known = set(made)
    for mine, its in zip(made, values, strict=True):
        together = [(a in known, b in values) for a, b in zip(mine.inputs, its.inputs, strict=True)]
        assert all(a == b for a, b in together)
        assert mine is not its
        assert mine.layer is not its.layer or its.layer is None
    with np.errstate(over="ignore", invalid="ignore"):  # powers of powers, the same in both
        for output in (values[-1], made[-1]):
            output.forward()
            output.backward(np.ones(np.shape(output.value)))
    for mine, its in zip(made, values, strict=True):
        assert mine.has_grad == its.has_grad
        if its.has_grad:
            np.testing.assert_array_equal(mine.grad, its.grad)


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


def affine(n, m, seed=0):
    return Affine.from_sizes(n, m, std=0.5, rng=seed, dtype="float64")


def residual_net(device="cpu", dtype=None):
    x, t = Input("x"), Input("t")
    h = Relu()(affine(6, 5, 1)(x))
    h = h + Relu()(affine(5, 5, 2)(h)) * 0.5
    return GraphNetwork(SoftmaxWithLoss()(affine(5, 3, 3)(h), t), device=device, dtype=dtype)


def batch(device, rng, n=4):
    return device.asarray(rng.standard_normal((n, 6))), device.asarray(rng.integers(0, 3, n))


class TestNetwork:
    def test_a_straight_line_gives_the_bits_of_the_two_layer_net(self, device, rng):
        net = TwoLayerNet(6, 5, 3, device=device, seed=0)
        x, t = Input("x"), Input("t")
        value = x
        for layer in copy.deepcopy(list(net.layers.values())):
            layer.place = None
            value = layer(value)
        graph = GraphNetwork(SoftmaxWithLoss()(value, t), device=device)
        assert list(graph.layers) == list(net.layers)
        x, t = batch(device, rng)
        for ours, theirs in ((graph.predict(x), net.predict(x)), (graph.gradient(x, t).flat, net.gradient(x, t).flat)):
            np.testing.assert_array_equal(asnumpy(ours), asnumpy(theirs))
        indices = device.asarray(rng.integers(0, 4, (5, 2)))
        losses = [n.compile(SGD(0.1), 2).run(x, t, indices) for n in (graph, net)]
        np.testing.assert_array_equal(asnumpy(losses[0]), asnumpy(losses[1]))
        np.testing.assert_array_equal(asnumpy(graph.params.flat), asnumpy(net.params.flat))

    @pytest.mark.parametrize("method", ["batched", "loop", "directional"])
    def test_a_residual_network_passes_the_gradient_check(self, device, rng, method):
        report = gradient_check(residual_net(device), *batch(device, rng), method=method)
        assert report.ok
        assert list(report.parameters) == ["W1", "b1", "W2", "b2", "W3", "b3"]

    def test_shared_weights_pass_the_gradient_check(self, device, rng):
        x, t = Input("x"), Input("t")
        shared, relu = affine(6, 6), Relu()
        h = relu(shared(relu(shared(x))))
        net = GraphNetwork(SoftmaxWithLoss()(affine(6, 3)(h), t), device=device)
        assert list(net.layers) == ["Affine1", "Relu1", "Affine2"]
        assert net.params.size == 6 * 6 + 6 + 6 * 3 + 3
        x, t = batch(device, rng)
        assert gradient_check(net, x, t).ok
        moved = net.copy().to(dtype="float32")
        before = asnumpy(moved.predict(x))
        moved.params["W1"] *= 2.0  # of both uses
        assert np.abs(asnumpy(moved.predict(x)) - before).max() > 1e-3
        indices = device.asarray(rng.integers(0, 4, (5, 2)))
        plain = net.copy()
        for index in indices:
            _, grads = plain.loss_and_gradient(x[index], t[index])
            SGD(0.1).update(plain.params, grads)
        net.compile(SGD(0.1), 2).run(x, t, indices)
        np.testing.assert_allclose(asnumpy(net.params.flat), asnumpy(plain.params.flat), rtol=1e-12)

    @given(
        tried=st.lists(st.sampled_from(["first", "norm", "last", "loss"]), max_size=6),
        twice=st.booleans(),
        kept=st.booleans(),
    )
    def test_applications_outside_the_network_change_nothing(self, tried, twice, kept):
        """A notebook cell that is run again applies its layers again."""

        def network(tried):
            layers = {
                "first": affine(6, 6, 1),
                "norm": BatchNormalization(np.ones(6), np.zeros(6)),
                "last": affine(6, 3),
            }
            loss, x, t = SoftmaxWithLoss(), Input("x"), Input("t")
            tries = [loss(x, t) if name == "loss" else layers[name](x) for name in tried]
            first, norm, last = layers.values()
            h = norm(first(x))
            h = norm(first(h)) if twice else h
            return GraphNetwork(loss(last(h), t)), tries if kept else None

        rng = np.random.default_rng(0)
        x, t = rng.standard_normal((8, 6)), rng.integers(0, 3, 8)
        (fresh, _), (again, _) = network([]), network(tried)
        for net in (fresh, again):
            net.compile(SGD(0.1), 4).run(x, t, np.arange(8).reshape(2, 4))
        np.testing.assert_array_equal(again.gradient(x, t).flat, fresh.gradient(x, t).flat)
        np.testing.assert_array_equal(again.predict(x), fresh.predict(x))

    def test_a_layer_used_twice_keeps_one_set_of_buffers(self, device, rng, tmp_path):
        """Also when the network is moved, copied, saved or loaded."""

        def network():
            x, t, norm = Input("x"), Input("t"), BatchNormalization(np.ones(6), np.zeros(6))
            return GraphNetwork(SoftmaxWithLoss()(affine(6, 3)(norm(Relu()(norm(x)))), t), dtype="float64")

        net, x, t = network(), rng.standard_normal((8, 6)), rng.integers(0, 3, 8)
        moved = network().to(device, "float32").to(dtype="float64").copy()
        for _ in range(3):
            net.loss_and_gradient(x, t)
            moved.loss_and_gradient(device.asarray(x), device.asarray(t))
        np.testing.assert_allclose(asnumpy(moved.predict(device.asarray(x))), net.predict(x), rtol=1e-4, atol=1e-6)
        loaded = network().to("cpu", "float64")
        net.save_params(tmp_path / "params.npz")
        loaded.load_params(tmp_path / "params.npz")
        np.testing.assert_array_equal(loaded.predict(x), net.predict(x))

    def test_training_reaches_what_a_row_of_layers_cannot_express(self, device, rng):
        x = rng.standard_normal((300, 6))
        t = (x[:, 0] * x[:, 1] > 0).astype(int)
        value, labels = Input("x"), Input("t")
        a, b = affine(6, 8, 1)(value), affine(6, 8, 2)(value)
        net = GraphNetwork(SoftmaxWithLoss()(affine(8, 2, 3)(a * b), labels), device=device)
        trainer = Trainer(net, x, t, x, t, steps=400, verbose=False, optimizer_param={"lr": 0.1}, seed=0)
        trainer.train()
        assert trainer.test_acc_list[-1] > 0.95

    def test_the_gradient_of_the_input_is_not_computed(self, rng):
        x, t = Input("x"), Input("t")
        layer = affine(6, 3)
        layer.backward = None  # not called: only its parameters' gradients are
        net = GraphNetwork(SoftmaxWithLoss()(layer(x * 2), t))
        net.gradient(rng.standard_normal((2, 6)), [0, 1])

    def test_constants_follow_the_network(self, device, rng):
        x, t = Input("x"), Input("t")
        net = GraphNetwork(SoftmaxWithLoss()(affine(6, 3)(x * rng.standard_normal(6)), t)).to(device, "float32")
        x, t = batch(device, rng)
        assert net.predict(x).dtype == net.gradient(x, t).dtype == "float32"

    def test_what_is_no_network_is_refused(self):
        x, t, other = Input("x"), Input("t"), Input("other")
        loss = SoftmaxWithLoss()
        with pytest.raises(ValueError, match="loss must be a loss layer applied to graph values"):
            GraphNetwork(Relu()(x))
        with pytest.raises(ValueError, match="loss must be a loss layer"):
            GraphNetwork(loss)
        with pytest.raises(ValueError, match="the labels of SoftmaxWithLoss must be an Input"):
            GraphNetwork(loss(x, Relu()(t)))
        with pytest.raises(ValueError, match="one Input besides the labels, found 'x', 'other'"):
            GraphNetwork(SoftmaxWithLoss()(x + other, t))
        with pytest.raises(ValueError, match="one Input besides the labels, found 't'"):
            GraphNetwork(SoftmaxWithLoss()(Relu()(t), t))

    def test_a_layer_of_another_network_is_refused(self):
        layer = affine(6, 3)
        Sequential([layer])
        with pytest.raises(ValueError, match="belongs to a network already"):
            GraphNetwork(SoftmaxWithLoss()(layer(Input("x")), Input("t")))


@pytest.mark.parametrize("base", [0.0, 2.0, np.array([0.0, -1.0, 2.0]), np.array([1, 2, 3])])
def test_a_power_of_zero_is_constant(base):
    x = Input("x", base)
    power = x**0
    assert np.all(power.forward() == 1)
    with np.errstate(all="raise"):
        power.backward(np.ones(np.shape(base)) if np.shape(base) else None)
    assert np.all(x.grad == 0)

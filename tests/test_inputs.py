"""One reading of data: networks, steps and trainers take the same things, and read them the same way."""

import array
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpnet.device import as_array
from xpnet.graph import Input
from xpnet.layers import Affine, IdentityWithLoss, Relu, SoftmaxWithLoss
from xpnet.nets import GraphNetwork, Sequential, TwoLayerNet
from xpnet.optimizers import SGD
from xpnet.training import Trainer

N, D, C = 12, 4, 3


def two_layer_net():
    return TwoLayerNet(D, 5, C, "he", seed=0)


def graph_net():
    x, t = Input("x"), Input("t")
    h = Relu()(Affine.from_sizes(D, 5, std="he", rng=0)(x))
    return GraphNetwork(SoftmaxWithLoss()(Affine.from_sizes(5, C, std="he", rng=1)(h), t))


def everything(make, x, t, backend="numpy"):
    """What all ways in make of these data: scores, losses, accuracies, gradients, trained parameters."""
    net, stepped, trained = make(), make(), make()
    losses = stepped.compile(SGD(0.1), 6, backend=backend).run(x, t, np.arange(12).reshape(2, 6))
    trainer = Trainer(trained, x, t, x, t, epochs=2, mini_batch_size=6, verbose=False, seed=0, backend=backend)
    history = trainer.train()
    return [
        net.predict(x),
        net.loss(x, t),
        net.accuracy(x, t),
        net.gradient(x, t).flat,
        losses,
        stepped.params.flat,
        trained.params.flat,
        history.losses,
        trainer.test_acc_list,
    ]


def pandas_table(x):
    return pytest.importorskip("pandas").DataFrame(x)


def mixed_table(x):
    """Columns of several dtypes, which NumPy reads as objects."""
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame({i: x[:, i] if i else x[:, i].astype(object) for i in range(x.shape[1])})


def torch_tensor(x):
    return pytest.importorskip("torch").from_numpy(np.array(x))


FORMS = {
    "list": lambda x: x.tolist(),
    "list of rows": list,
    "Fortran order": np.asfortranarray,
    "strided": lambda x: np.repeat(x, 2, axis=0)[::2],
    "read-only": lambda x: np.broadcast_to(x, x.shape),
    "big-endian": lambda x: x.astype(x.dtype.newbyteorder(">")),
    "objects": lambda x: x.astype(object),
    "masked array, nothing masked": np.ma.masked_array,
    "memoryview": lambda x: memoryview(np.ascontiguousarray(x)),
    "table": pandas_table,
    "mixed table": mixed_table,
    "torch": torch_tensor,
}


@pytest.mark.parametrize("make", [two_layer_net, graph_net])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", ["float64", "float32", "int64", "uint8"])
@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_every_form_of_the_same_numbers_gives_the_same_results(make, form, dtype, backend, rng):
    if backend == "numba":
        pytest.importorskip("numba")
    if dtype == "uint8" and form in {"list", "objects", "mixed table"}:
        pytest.skip("Python's integers are no pixels")
    x = rng.integers(0, 256, (N, D)).astype(dtype) if dtype[0] != "f" else rng.standard_normal((N, D)).astype(dtype)
    t = rng.integers(0, C, N)
    given_t = list(t) if form == "list of rows" else FORMS[form](t[:, None] if "table" in form else t)
    expected, found = everything(make, x, t, backend), everything(make, FORMS[form](x), given_t, backend)
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


@given(
    st.sampled_from("?bhilqBHILQefdg"),
    st.sampled_from("<>="),
    st.sampled_from(["C", "F"]),
    st.lists(st.integers(0, 100), min_size=N * D, max_size=N * D),
)
def test_every_dtype_byte_order_and_layout_is_read_by_value(code, order, layout, values):
    x = np.array(values).reshape(N, D).astype(np.dtype(code).newbyteorder(order), order=layout)
    read = as_array("x", x)
    assert read.dtype.isnative
    assert read.dtype.kind == x.dtype.kind
    np.testing.assert_array_equal(read, x)
    for net in (two_layer_net(), graph_net()):
        pixels = 255.0 if x.dtype == "uint8" else 1.0
        np.testing.assert_allclose(net.predict(x), net.predict(x.astype("float64") / pixels), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("loss", [SoftmaxWithLoss(), IdentityWithLoss()])
def test_labels_with_a_last_axis_of_one(rng, loss):
    """As in the book's ch07/gradient_check.py, and as a table's column comes."""
    x, t = rng.standard_normal((N, D)), rng.integers(0, C, N)
    if not loss.classifies:
        t = t.astype(float)
    outputs = C if loss.classifies else 1

    def make():
        return Sequential.mlp([D, 5, outputs], loss=type(loss)(), seed=0)

    def results(t):
        net = make()
        step = net.compile(SGD(0.1), 6)
        losses = step.run(x, t, np.arange(12).reshape(2, 6))
        accuracy = net.accuracy(x, t) if loss.classifies else 0.0
        return [losses, net.params.flat, accuracy, net.loss(x, t), net.gradient(x, t).flat]

    for a, b in zip(results(t), results(t[:, None]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def sparse(x):
    return pytest.importorskip("scipy.sparse").csr_matrix(x)


def with_gradient(x):
    return torch_tensor(x).requires_grad_()


REFUSED = {
    "sparse": (sparse, TypeError, r"x must be a dense array, got a sparse csr_matrix; see x.toarray\(\)"),
    "complex": (lambda x: x * 1j, TypeError, "x must hold real numbers, got dtype complex128"),
    "dates": (lambda x: x.astype("datetime64[s]"), TypeError, "x must hold real numbers, got dtype datetime64"),
    "strings": (lambda x: x.astype(str), ValueError, r"x must hold numbers, got strings .*numpy.unique\(x, return_inv"),
    "one string": (lambda x: [*x[1:].tolist(), ["a"] * D], ValueError, "x must hold numbers, got strings such as"),
    "none": (lambda x: [[None] * D] * N, TypeError, "x cannot be read as an array of numbers from list"),
    "ragged": (
        lambda x: [[1.0], *x.tolist()],
        ValueError,
        "x cannot be read as an array of numbers from list: .*inho",
    ),
    "masked": (lambda x: np.ma.masked_less(x, 0), ValueError, r"x has masked values; see x.filled\(value\)"),
    "a dict": (lambda x: {"x": x}, TypeError, "x cannot be read as an array of numbers from dict"),
    "records": (lambda x: np.zeros(N, "f4,f4"), TypeError, "x must hold real numbers, got dtype"),
    "torch with gradient": (with_gradient, TypeError, r"from Tensor: .*detach\(\)"),
}


@pytest.mark.parametrize("form", sorted(set(FORMS) - {"mixed table"}))
@pytest.mark.parametrize("dtype", ["float64", "int64", "uint8"])
def test_graphs_read_arrays_as_networks_do_but_no_pixels(form, dtype):
    x = np.arange(200, 200 + 4).reshape(2, 2).astype(dtype)
    v = Input("x", FORMS[form](x))
    y = (v + v * FORMS[form](x)).sum()
    y.forward()
    y.backward()
    assert y.value == (x.astype(float) * (1 + x.astype(float))).sum()  # bytes would overflow
    np.testing.assert_array_equal(v.grad, 1 + x.astype(float))


@pytest.mark.parametrize("value", [3, 2.5, True, np.float32(1.5), np.uint8(200), np.array(4)])
def test_graphs_keep_numbers(value):
    y = Input("x", value) * 2
    y.forward()
    assert y.value == 2 * float(value)


@pytest.mark.parametrize("what", sorted(set(REFUSED) - {"none"}))
def test_graphs_refuse_what_networks_refuse(what, rng):
    form, kind, message = REFUSED[what]
    x = form(rng.standard_normal((N, D)))
    for name, way in {"input 'x'": lambda: Input("x", x), "a constant": lambda: Input("x") + x}.items():
        with pytest.raises(kind, match=re.sub(r"\bx\b", name, message)):
            way()


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_array_of_real_numbers_is_refused_by_name(what, rng):
    form, kind, message = REFUSED[what]
    x, t, indices = form(rng.standard_normal((N, D))), rng.integers(0, C, N), np.zeros((1, 2), int)
    net = two_layer_net()
    ways = [
        lambda: net.predict(x),
        lambda: net.loss(x, t),
        lambda: net.accuracy(x, t),
        lambda: net.gradient(x, t),
        lambda: net.compile(SGD(), 2).run(x, t, indices),
    ]
    for way in ways:
        with pytest.raises(kind, match=message):
            way()
    with pytest.raises(kind, match=re.sub(r"\bx\b", "x_train", message)):
        Trainer(net, x, t, x, t)


def test_string_labels_come_with_a_hint_that_works():
    t = np.array(["dog", "cat", "dog"])
    with pytest.raises(ValueError, match=r"t must hold numbers, got strings such as .*'dog'.*numpy.unique\(t, ret"):
        two_layer_net().loss(np.zeros((3, D)), t)
    two_layer_net().loss(np.zeros((3, D)), np.unique(t, return_inverse=True)[1])


@pytest.mark.parametrize("ways", ["accuracy", "run", "Trainer"])
def test_a_single_number_is_no_set_of_samples(ways):
    net, x, t = two_layer_net(), np.zeros((3, D)), np.zeros(3, int)
    call = {
        "accuracy": net.accuracy,
        "run": lambda x, t: net.compile(SGD(), 2).run(x, t, [[0, 1]]),
        "Trainer": lambda x, t: Trainer(net, x, t, x, t),
    }[ways]
    for arguments in ((x, 1), (2.0, t)):
        with pytest.raises(ValueError, match="must hold an entry per sample, got a single number"):
            call(*arguments)


@pytest.mark.parametrize("kind", ["uint8", "uint16", "int8", "uint64", ">i4", "list", "array"])
def test_indices_of_every_kind_of_integer(kind, rng):
    x, t, indices = rng.standard_normal((N, D)), rng.integers(0, C, N), np.arange(12).reshape(2, 6)
    given_indices = {"list": indices.tolist(), "array": [array.array("i", row) for row in indices]}.get(kind)
    given_indices = indices.astype(kind) if given_indices is None else given_indices
    expected, found = (two_layer_net().compile(SGD(), 6).run(x, t, i) for i in (indices, given_indices))
    np.testing.assert_array_equal(expected, found)


def test_a_network_of_another_byte_order_computes_in_the_machines(rng):
    x, t = rng.standard_normal((N, D)).astype("float32"), rng.integers(0, C, N)
    plain, swapped = two_layer_net(), TwoLayerNet(D, 5, C, "he", seed=0, dtype=">f4")
    assert swapped.dtype.isnative
    for net in (plain, swapped):
        net.compile(SGD(0.1), 6).run(x, t, np.arange(12).reshape(2, 6))
    np.testing.assert_array_equal(plain.params.flat, swapped.params.flat)


def test_a_feature_without_its_axis_gets_a_hint_that_works():
    net = Sequential.mlp([1, 4, 1], loss=IdentityWithLoss(), seed=0)
    with pytest.raises(ValueError, match=r"samples of one feature need its axis: x\[:, None\]"):
        net.predict(np.zeros(20))
    net.predict(np.zeros(20)[:, None])

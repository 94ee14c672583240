import copy
import pickle
import re
import tracemalloc

import numpy as np
import pytest

from xpnet import Device, DeviceError, asnumpy, get_device
from xpnet.functions import one_hot, softmax
from xpnet.gradient import gradient_check
from xpnet.layers import Affine, Layer, Relu, Sigmoid, SoftmaxWithLoss
from xpnet.nets import Sequential, TwoLayerNet


@pytest.fixture(params=["relu", "sigmoid"])
def net(request, device):
    return TwoLayerNet(6, 5, 3, 0.5, activation=request.param, device=device, dtype="float64", seed=1)


@pytest.fixture
def batch(device, rng):
    return device.asarray(rng.standard_normal((4, 6))), device.asarray(rng.integers(0, 3, 4))


def deep(depth, device="cpu", dtype="float64", activation=Relu):
    rng = np.random.default_rng(2)
    layers = [Affine.from_sizes(6, 8, std="he", rng=rng, dtype=dtype)]
    for _ in range(depth - 2):
        layers += [activation(), Affine.from_sizes(8, 8, std="he", rng=rng, dtype=dtype)]
    return Sequential([*layers, activation(), Affine.from_sizes(8, 3, std="he", rng=rng, dtype=dtype)], device=device)


class TestTwoLayerNet:
    def test_has_the_names_of_the_book(self, net):
        assert list(net.params) == ["W1", "b1", "W2", "b2"]
        assert [net.params[k].shape for k in net.params] == [(6, 5), (5,), (5, 3), (3,)]
        activation = next(name for name in net.layers if not name.startswith("Affine"))
        assert list(net.layers) == ["Affine1", activation, "Affine2"]
        assert activation in {"Relu1", "Sigmoid1"}
        assert net.lastLayer is net.last_layer
        assert isinstance(net.last_layer, SoftmaxWithLoss)

    def test_defaults_are_those_of_the_contract(self):
        net = TwoLayerNet(784, 50, 10)
        assert net.device == Device("cpu")
        assert net.dtype == "float32"
        assert "Relu1" in net.layers
        assert float(net.params["W1"].std()) == pytest.approx(0.01, rel=0.05)
        assert not net.params["b1"].any()

    def test_the_same_seed_gives_the_same_network_on_every_device(self, device):
        here, there = TwoLayerNet(6, 5, 3, seed=4), TwoLayerNet(6, 5, 3, seed=4, device=device)
        np.testing.assert_array_equal(asnumpy(there.params.flat)[:30], here.params.flat[:30])
        assert not np.array_equal(TwoLayerNet(6, 5, 3, seed=5).params["W1"], here.params["W1"])

    def test_a_training_loop_as_in_the_book(self, net, batch):
        x, t = batch
        before = float(net.loss(x, t))
        for _ in range(20):
            grads = net.gradient(x, t)
            for key in ("W1", "b1", "W2", "b2"):
                net.params[key] -= 0.5 * grads[key]
        assert float(net.loss(x, t)) < before
        assert net.layers["Affine1"].W is net.params["W1"]

    def test_its_layers_run_by_hand_as_in_the_book(self, net, batch):
        x, t = batch
        grads = net.gradient(x, t)
        before = {name: asnumpy(g).copy() for name, g in grads.items()}
        net.loss(x, t)
        dout = net.lastLayer.backward(1)
        for layer in reversed(list(net.layers.values())):
            dout = layer.backward(dout)
        assert dout.shape == x.shape
        np.testing.assert_array_equal(asnumpy(net.layers["Affine1"].dW), before["W1"])
        net.loss(x * 2.0, t)  # ... and what gradient returned earlier is nobody's scratch space
        net.layers["Affine2"].backward(net.lastLayer.backward())
        for name, value in before.items():
            np.testing.assert_array_equal(asnumpy(grads[name]), value)

    def test_bad_arguments_are_refused_by_name(self):
        for name in ("input_size", "hidden_size", "output_size"):
            sizes = {"input_size": 3, "hidden_size": 3, "output_size": 3, name: 0}
            with pytest.raises(ValueError, match=f"{name} must be a positive integer, got 0"):
                TwoLayerNet(**sizes)
        with pytest.raises(ValueError, match=r"activation must be one of 'relu', .*'gelu', got 'step'"):
            TwoLayerNet(3, 3, 3, activation="step")
        with pytest.raises(ValueError, match="device must be"):
            TwoLayerNet(3, 3, 3, device="gpu")


def test_predict_returns_scores(net, batch):
    x, _ = batch
    W1, b1, W2, b2 = (asnumpy(p) for p in net.params.values())
    z = asnumpy(x) @ W1 + b1
    hidden = np.maximum(z, 0) if "Relu1" in net.layers else 1 / (1 + np.exp(-z))
    np.testing.assert_allclose(asnumpy(net.predict(x)), hidden @ W2 + b2, rtol=1e-12)


def test_loss_is_the_mean_cross_entropy_of_the_softmax(net, batch):
    x, t = batch
    y = asnumpy(softmax(net.predict(x)))
    expected = -np.log(y[np.arange(4), asnumpy(t)]).mean()
    assert float(net.loss(x, t)) == pytest.approx(expected, rel=1e-12)
    assert float(net.loss(x, one_hot(t, 3))) == pytest.approx(expected, rel=1e-12)
    assert getattr(net.loss(x, t), "shape", ()) == ()


def test_accuracy_counts_hits_whatever_the_labels_form(net, device, rng):
    x = device.asarray(rng.standard_normal((2500, 6)))  # several evaluation batches
    t = device.asarray(rng.integers(0, 3, 2500))
    expected = (asnumpy(net.predict(x)).argmax(axis=1) == asnumpy(t)).mean()
    assert net.accuracy(x, t) == pytest.approx(expected, rel=1e-12)
    assert net.accuracy(x, one_hot(t, 3)) == pytest.approx(expected, rel=1e-12)
    assert isinstance(net.accuracy(x, t), float)
    assert np.isnan(net.accuracy(x[:0], t[:0]))
    with pytest.raises(ValueError, match="x and t must be equally many, got 2 and 3"):
        net.accuracy(x[:2], t[:3])


def test_both_gradient_methods_agree(net, batch):
    analytic, numerical = net.gradient(*batch), net.numerical_gradient(*batch)
    for name in net.params:
        np.testing.assert_allclose(asnumpy(analytic[name]), asnumpy(numerical[name]), atol=1e-8)


@pytest.mark.parametrize("depth", [5, 10, 20])
@pytest.mark.parametrize("activation", [Relu, Sigmoid])
def test_a_deep_stack_has_the_right_gradients(depth, activation, rng):
    net = deep(depth, activation=activation)
    assert len(net.params) == 2 * depth
    assert list(net.layers)[-1] == f"Affine{depth}"
    assert gradient_check(net, rng.standard_normal((2, 6)), np.array([0, 2])).ok


def test_gradients_go_to_the_vector_that_is_given(net, batch):
    out = net.params.zeros_like()
    grads = net.gradient(*batch, out=out)
    assert grads is out
    fresh = net.gradient(*batch)
    np.testing.assert_array_equal(asnumpy(fresh.flat), asnumpy(out.flat))
    loss, again = net.loss_and_gradient(*batch)
    assert float(loss) == float(net.loss(*batch))
    np.testing.assert_array_equal(asnumpy(again.flat), asnumpy(out.flat))
    with pytest.raises(ValueError, match="out must have the layout of params"):
        net.gradient(*batch, out=TwoLayerNet(2, 2, 2).params)


def test_nobody_computes_the_gradient_of_the_input(device, rng):
    class First(Affine):
        def backward(self, dout):
            raise AssertionError("the first layer's backward, input gradient and all, was called")

    class Front(Relu):
        def backward(self, dout):
            raise AssertionError("a layer before the first parameters was asked for a gradient")

    layers = [Front(), First.from_sizes(4, 5, std=1.0, rng=0), Relu(), Affine.from_sizes(5, 3, std=1.0, rng=1)]
    net = Sequential(layers, dtype="float64", device=device)
    x, t = device.asarray(rng.random((3, 4)) + 0.1), device.asarray([0, 1, 2])
    assert gradient_check(net, x, t).ok


def test_gaps_between_parameters_stay_zero(net, batch):
    grads = net.gradient(*batch)
    total = sum(float(abs(g).sum()) for g in grads.values())
    assert float(abs(grads.flat).sum()) == pytest.approx(total, rel=1e-12)


def test_a_layer_of_the_users_own_works_with_or_without_out(device, rng):
    class Scale(Layer):
        """y = s * x, written as the book would, without `out`."""

        parameter_names = ("s",)
        saved = ("x",)

        def __init__(self, s):
            self.s = s

        def forward(self, x, train=True):
            self.x = x
            return self.s * x

        def backward(self, dout):
            self.ds = (dout * self.x).sum(axis=0)
            return dout * self.s

    layers = [Scale(np.full(6, 0.5)), Affine.from_sizes(6, 3, std=0.5, rng=rng, dtype="float64")]
    net = Sequential(layers, device=device)
    assert list(net.params) == ["s1", "W1", "b1"]
    x, t = device.asarray(rng.standard_normal((3, 6))), device.asarray([0, 1, 2])
    report = gradient_check(net, x, t)
    assert report.ok, str(report)
    out = net.params.zeros_like()
    net.gradient(x, t, out=out)
    assert float(abs(out["s1"]).sum()) > 0


def test_networks_without_parameters_or_with_leading_activations_work(device, rng):
    x, t = device.asarray(rng.standard_normal((3, 4))), device.asarray([0, 1, 2])
    net = Sequential([Relu()], device=device)
    assert net.predict(x.astype("float32")).shape == (3, 4)
    assert net.gradient(x.astype("float32"), t).size == 0
    net = Sequential([Relu(), Affine.from_sizes(4, 3, std=1.0, rng=0, dtype="float64")], device=device)
    assert gradient_check(net, x, t).ok


def test_float32_in_gives_float32_out_on_every_path(device, rng):
    net = TwoLayerNet(6, 5, 3, device=device, seed=1)
    host = rng.random((4, 6))
    for x in (
        device.asarray(host),
        device.asarray(host, "float32"),
        device.asarray(host > 0.5),
        device.asarray(host, int),
    ):
        t = device.asarray([0, 1, 2, 0])
        loss, grads = net.loss_and_gradient(x, t)
        assert net.predict(x).dtype == loss.dtype == grads.flat.dtype == "float32"
        for dtype in ("float32", "float64", "int64"):
            loss, grads = net.loss_and_gradient(x, one_hot(t, 3, dtype))
            assert loss.dtype == net.last_layer.backward().dtype == grads.flat.dtype == "float32"
    assert net.numerical_gradient(x, t).dtype == "float32"
    with pytest.raises(TypeError, match="x must hold real numbers, got dtype complex128"):
        net.predict(device.asarray(host.astype(complex)))


def test_to_moves_a_network_in_place(device, net, batch):
    x, t = batch
    expected = {name: asnumpy(g) for name, g in net.gradient(x, t).items()}
    assert net.to("cpu") is net
    assert net.device == Device("cpu")
    assert net.layers["Affine1"].W is net.params["W1"]
    with pytest.raises(RuntimeError, match=r"call Affine1.forward first"):
        net.layers["Affine1"].backward(np.zeros((4, 5)))
    here = net.gradient(asnumpy(x), asnumpy(t))
    for name, value in expected.items():
        np.testing.assert_allclose(here[name], value, rtol=1e-12, atol=1e-15)
    net.to(device, "float32")
    assert get_device(net.gradient(x, t).flat) == device
    assert net.params.flat.dtype == "float32"


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net)), lambda net: net.copy()]
)
def test_copies_are_networks_of_their_own(net, batch, duplicate):
    if net.device.name != "cpu" and "pickle" in duplicate.__code__.co_names:
        net.to("cpu").to(Device("cuda"))  # what pickle must carry is on the device
    x, t = batch
    net.gradient(x, t)
    twin = duplicate(net)
    before = float(net.loss(x, t))
    twin.params.flat *= 0.0
    assert float(net.loss(x, t)) == before
    assert float(twin.loss(x, t)) == pytest.approx(np.log(3))
    assert float(abs(twin.gradient(x, t)["b2"]).sum()) > 0


def test_save_and_load(net, batch, tmp_path):
    file = tmp_path / "params.npz"
    net.save_params(file)
    expected = asnumpy(net.predict(batch[0]))
    net.params.flat *= 0.0
    net.load_params(file)
    np.testing.assert_array_equal(asnumpy(net.predict(batch[0])), expected)
    assert [f.name for f in tmp_path.iterdir()] == ["params.npz"]


def test_loading_what_does_not_fit_changes_nothing(net, tmp_path):
    before = asnumpy(net.params.flat).copy()
    file = tmp_path / "params.npz"
    TwoLayerNet(6, 4, 3).save_params(file)
    with pytest.raises(ValueError, match=r"holds parameters .*\(6, 4\).*this network has"):
        net.load_params(file)
    for content in (b"", b"nonsense", file.read_bytes()[:300]):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"params.npz is not a complete .npz file"):
            net.load_params(file)
    with pytest.raises(FileNotFoundError):
        net.load_params(tmp_path / "none.npz")
    np.testing.assert_array_equal(asnumpy(net.params.flat), before)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1 + 2j, 3j, 0], "holds complex128 as 'b2', this network has float32"),
        (["1.5", "nan", "0"], "holds <U3 as 'b2'"),
        (np.array(["2020-01-01"] * 3, "M8[D]"), "as 'b2', this network has float32"),
        ([True, False, True], "holds bool as 'b2'"),
        ([np.nan, 1, 2], "holds values in 'b2' that are not finite in float32"),
        ([1e300, 1, 2], "holds values in 'b2' that are not finite in float32"),
        (np.array([None, 1, 2]), "not a complete .npz file"),
    ],
)
def test_parameters_are_finite_real_numbers_or_nothing_is_loaded(device, tmp_path, values, message):
    net = TwoLayerNet(6, 4, 3, device=device, seed=0)
    before = net.params.asnumpy()
    file = tmp_path / "params.npz"
    np.savez(file, **{name: array + 1 for name, array in before.items()} | {"b2": np.asarray(values)})
    with pytest.raises(ValueError, match=re.escape(message)):
        net.load_params(file)
    for name, array in before.items():
        np.testing.assert_array_equal(asnumpy(net.params[name]), array)


def test_parameters_in_another_precision_are_converted(tmp_path):
    net, file = TwoLayerNet(6, 4, 3, seed=0), tmp_path / "params.npz"
    np.savez(file, **{n: np.full(array.shape, 3, "int64") for n, array in net.params.items()})
    net.load_params(file)
    assert net.params["b2"].tolist() == [3.0, 3.0, 3.0]


def test_what_does_not_fit_is_refused_before_memory_is_allocated(tmp_path):
    """Zeros take a thousandth of their size in a compressed file."""
    net, file = TwoLayerNet(6, 4, 3, seed=0), tmp_path / "params.npz"
    np.savez_compressed(file, **net.params.asnumpy() | {"b2": np.zeros(20_000_000)})
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="holds parameters"):
            net.load_params(file)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_failed_save_leaves_the_old_file(net, tmp_path, monkeypatch):
    file = tmp_path / "params.npz"
    file.write_bytes(b"old")

    def disk_full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", disk_full)
    with pytest.raises(OSError, match="No space left"):
        net.save_params(file)
    assert file.read_bytes() == b"old"
    assert [f.name for f in tmp_path.iterdir()] == ["params.npz"]


def test_arguments_on_the_wrong_device_are_refused_by_name(cuda):
    net, other = TwoLayerNet(6, 5, 3, device=cuda), TwoLayerNet(6, 5, 3)
    x, t = np.zeros((2, 6), "float32"), np.array([0, 1])
    with pytest.raises(DeviceError, match=r"is on cuda:0, but x is on the host; move it with net.device.asarray\(x\)"):
        net.predict(x)
    with pytest.raises(DeviceError, match="but t is on the host"):
        net.loss(net.device.asarray(x), t)
    with pytest.raises(DeviceError, match="is on cpu, but x is on cuda:0"):
        other.predict(net.device.asarray(x))
    with pytest.raises(DeviceError, match="but x is on the host"):
        gradient_check(net, x, net.device.asarray(t))


def test_networks_on_the_host_take_lists():
    net = TwoLayerNet(2, 3, 2, seed=0)
    assert net.predict([[1.0, 2.0]]).shape == (1, 2)
    assert np.isfinite(net.loss([[1.0, 2.0]], [1]))
    assert net.accuracy([[1.0, 2.0]], [1]) in {0.0, 1.0}


def test_an_evaluation_launches_no_more_for_more_samples_on_a_cuda_device(cuda, rng, counted):
    net, launched = TwoLayerNet(12, 8, 3, device=cuda, seed=0), []
    for n in (10, 5000):
        x, t = cuda.asarray(rng.standard_normal((n, 12), "float32")), cuda.asarray(rng.integers(0, 3, n))
        with counted() as work:
            net.evaluate(x, t)
        launched.append(work["kernels"] + work["products"])
    assert launched[0] == launched[1]

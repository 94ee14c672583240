"""Dropout and normalization in networks: masks, running averages, what is saved, and gradient checks."""

import numpy as np
import pytest

from xpnet import asnumpy
from xpnet.gradient import gradient_check
from xpnet.layers import Affine, BatchNormalization, Convolution, Dropout, LayerNorm, Normalize, Relu
from xpnet.nets import MultiLayerNet, MultiLayerNetExtend, Sequential
from xpnet.optimizers import SGD


def extended(device, dtype="float64", **settings):
    settings = {"use_dropout": True, "dropout_ration": 0.3, "use_batchnorm": True, **settings}
    return MultiLayerNetExtend(5, [7, 6], 3, device=device, dtype=dtype, seed=0, **settings)


def batch(device, rng, n=8, dtype="float64"):
    return device.asarray(rng.standard_normal((n, 5)).astype(dtype)), device.asarray(rng.integers(0, 3, n))


class TestDropout:
    def masks(self, device, calls=3, **settings):
        layer, x = Dropout(**settings), device.asarray(np.ones((40, 50), "float32"))
        return [asnumpy(layer.forward(x, True)) for _ in range(calls)]

    def test_a_seed_gives_the_same_masks_on_every_device(self, device):
        from xpnet import Device

        for ours, its in zip(self.masks(device, seed=7), self.masks(Device("cpu"), seed=7), strict=True):
            np.testing.assert_array_equal(ours, its)

    def test_each_call_draws_another_and_each_seed_too(self, device):
        masks = [*self.masks(device, seed=7), *self.masks(device, seed=8)]
        # Two independent masks agree at half of the elements: 1000 of 2000, with a standard deviation of 22.
        agreements = [(a == b).sum() for i, a in enumerate(masks) for b in masks[:i]]
        assert all(abs(agreement - 1000) < 130 for agreement in agreements)

    @pytest.mark.parametrize("ratio", [0.0, 0.1, 0.5, 0.9])
    def test_the_share_and_the_mean_are_right(self, device, ratio):
        y = np.concatenate(self.masks(device, calls=20, dropout_ratio=ratio, seed=1))
        spread = np.sqrt(ratio * (1 - ratio) / y.size)
        assert abs((y == 0).mean() - ratio) <= 5 * spread
        np.testing.assert_allclose(np.unique(y[y != 0]), 1 / (1 - ratio), rtol=1e-6)
        book = np.concatenate(self.masks(device, dropout_ratio=ratio, scale_at_test=True, seed=1))
        assert set(np.unique(book)) <= {0.0, 1.0}

    def test_no_place_is_favored(self, device):
        y = np.stack(self.masks(device, calls=200, seed=2)) != 0
        for axis in ((0, 1), (0, 2)):  # by column, by row
            n = y.size // y.mean(axis=axis).size
            assert abs(y.mean(axis=axis) - 0.5).max() < 5 * 0.5 / np.sqrt(n)

    def test_prediction_changes_nothing_but_the_books_scale(self, device, rng):
        x = device.asarray(rng.standard_normal((3, 4)))
        assert Dropout().forward(x, False) is x
        np.testing.assert_allclose(asnumpy(Dropout(0.2, scale_at_test=True).forward(x, False)), 0.8 * asnumpy(x))

    @pytest.mark.parametrize("ratio", [-0.1, 1.0, np.nan])
    def test_a_ratio_that_leaves_nothing_is_refused(self, ratio):
        with pytest.raises(ValueError, match=r"dropout_ratio must be in \[0, 1\)"):
            Dropout(ratio)

    def test_training_steps_draw_new_masks_and_the_same_seed_the_same_ones(self, device, rng):
        x, t = batch(device, rng, 60)
        indices = device.asarray(rng.integers(0, 60, (6, 8)))
        losses = [asnumpy(extended(device).compile(SGD(0.0), 8, "numpy").run(x, t, i)) for i in (indices, indices)]
        np.testing.assert_array_equal(*losses)
        same = device.asarray(np.tile(np.arange(8), (5, 1)))
        losses = asnumpy(extended(device, use_batchnorm=False).compile(SGD(0.0), 8).run(x, t, same))
        assert len(set(losses.tolist())) == 5


class TestBatchNormalization:
    def test_training_output_has_mean_beta_and_deviation_gamma(self, device, rng):
        gamma, beta = np.array([2.0, 0.5]), np.array([-1.0, 3.0])
        layer = BatchNormalization(device.asarray(gamma), device.asarray(beta), eps=0)
        y = asnumpy(layer.forward(device.asarray(rng.standard_normal((50, 2)) * 9 + 4)))
        np.testing.assert_allclose(y.mean(axis=0), beta, rtol=1e-12)
        np.testing.assert_allclose(y.std(axis=0), gamma, rtol=1e-12)

    def test_the_books_variant_normalizes_each_value_of_an_image(self, device, rng):
        x = device.asarray(rng.standard_normal((6, 3, 2, 2)))
        ones, zeros = device.asarray(np.ones(12)), device.asarray(np.zeros(12))
        per_value = BatchNormalization(ones, zeros).forward(x)
        assert per_value.shape == x.shape
        flat = BatchNormalization(ones, zeros).forward(x.reshape(6, 12))
        np.testing.assert_array_equal(asnumpy(per_value).reshape(6, 12), asnumpy(flat))

    def test_predictions_use_the_running_averages_and_leave_them(self, device, rng):
        net = extended(device)
        x, t = batch(device, rng)
        net.compile(SGD(0.1), 8).run(x, t, device.asarray(np.tile(np.arange(8), (4, 1))))
        averages = {name: asnumpy(buffer).copy() for name, buffer in net.buffers().items()}
        assert not np.allclose(averages["BatchNormalization1.running_mean"], 0)
        alone = [asnumpy(net.predict(x[i : i + 1])) for i in range(8)]
        np.testing.assert_allclose(np.concatenate(alone), asnumpy(net.predict(x)), rtol=1e-9)
        for name, buffer in net.buffers().items():
            np.testing.assert_array_equal(asnumpy(buffer), averages[name])

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: BatchNormalization(np.ones(3), np.ones(2)), r"of one shape \(D,\), got \(3,\) and \(2,\)"),
            (lambda: BatchNormalization(np.ones(3), np.ones(3), 1.5), r"momentum must lie in \[0, 1\], got 1.5"),
            (
                lambda: BatchNormalization(np.ones(3), np.ones(3), running_var=np.ones(2)),
                "running_var must have gamma's",
            ),
            (
                lambda: BatchNormalization(np.ones(3), np.ones(3)).forward(np.ones((2, 4))),
                r"expected x of shape \(N, 3\)",
            ),
            (lambda: LayerNorm(np.ones(3), np.ones(2)), r"of one shape \(\.\.\., D\)"),
            (
                lambda: LayerNorm(np.ones(3), np.ones(3)).forward(np.ones((2, 4))),
                r"expected x of shape \(N, \.\.\., 3\)",
            ),
        ],
    )
    def test_what_does_not_fit_is_named(self, make, message):
        with pytest.raises(ValueError, match=message):
            make()


class TestNetworks:
    @pytest.mark.parametrize("method", ["batched", "loop", "directional"])
    def test_gradients_are_right_with_everything_at_once(self, device, rng, method):
        net = extended(device, weight_decay_lambda=0.1)
        buffers = {name: asnumpy(buffer).copy() for name, buffer in net.buffers().items()}
        x, t = batch(device, rng)
        report = gradient_check(net, x, t, method=method)
        assert report.ok, str(report)
        for name, buffer in net.buffers().items():
            np.testing.assert_array_equal(asnumpy(buffer), buffers[name])

    def test_the_report_says_that_mixed_samples_need_the_loop(self, device, rng):
        checks = gradient_check(extended(device), *batch(device, rng)).parameters.values()
        assert any("one by one" in check.note or "loop" in check.note for check in checks), [c.note for c in checks]

    def test_weight_decay_is_in_the_loss_the_gradient_and_the_training_step(self, device, rng):
        x, t = batch(device, rng)
        plain, decaying = (
            MultiLayerNet(5, [4], 3, "tanh", 0.5, lam, device=device, dtype="float64", seed=1) for lam in (0, 0.3)
        )
        squares = sum((asnumpy(plain.params[name]) ** 2).sum() for name in ("W1", "W2"))
        assert float(decaying.loss(x, t)) == pytest.approx(float(plain.loss(x, t)) + 0.15 * squares, rel=1e-12)
        ours, its = decaying.gradient(x, t), plain.gradient(x, t)
        for name in ours:
            extra = 0.3 * asnumpy(plain.params[name]) if name.startswith("W") else 0.0
            np.testing.assert_allclose(asnumpy(ours[name]), asnumpy(its[name]) + extra, rtol=1e-10, atol=1e-14)
        expected = asnumpy(decaying.params.flat) - 0.1 * asnumpy(ours.flat)
        losses = decaying.compile(SGD(0.1), 8).run(x, t, device.asarray(np.arange(8)[None]))
        assert float(losses[0]) == pytest.approx(float(plain.loss(x, t)) + 0.15 * squares, rel=1e-9)
        np.testing.assert_allclose(asnumpy(decaying.params.flat), expected, rtol=1e-9, atol=1e-14)

    def test_names_are_the_books(self):
        net = extended("cpu")
        assert list(net.params) == ["W1", "b1", "gamma1", "beta1", "W2", "b2", "gamma2", "beta2", "W3", "b3"]
        assert "Dropout2" in net.layers
        assert list(MultiLayerNet(5, [4, 4], 3).params) == ["W1", "b1", "W2", "b2", "W3", "b3"]

    def test_without_extras_it_is_the_multi_layer_net(self, device):
        ours = MultiLayerNetExtend(5, [7], 3, device=device, seed=4)
        np.testing.assert_array_equal(
            asnumpy(ours.params.flat), asnumpy(MultiLayerNet(5, [7], 3, device=device, seed=4).params.flat)
        )

    def test_buffers_are_saved_and_loaded_and_moved(self, device, rng, tmp_path):
        net = extended(device)
        x, t = batch(device, rng)
        net.compile(SGD(0.1), 8).run(x, t, device.asarray(np.tile(np.arange(8), (3, 1))))
        net.save_params(tmp_path / "net.npz")
        other = extended("cpu", dtype="float32")
        other.load_params(tmp_path / "net.npz")
        np.testing.assert_allclose(
            other.predict(asnumpy(x).astype("float32")), asnumpy(net.predict(x)), rtol=1e-4, atol=1e-5
        )
        assert other.buffers()["BatchNormalization1.running_var"].dtype == "float32"
        with pytest.raises(ValueError, match="holds parameters"):
            extended("cpu", use_batchnorm=False).load_params(tmp_path / "net.npz")

    def test_a_copy_goes_its_own_way(self, device, rng):
        net = extended(device)
        x, t = batch(device, rng)
        before = {name: asnumpy(buffer).copy() for name, buffer in net.buffers().items()}
        net.copy().compile(SGD(0.1), 8).run(x, t, device.asarray(np.arange(8)[None]))
        for name, buffer in net.buffers().items():
            np.testing.assert_array_equal(asnumpy(buffer), before[name])

    def test_a_negative_decay_is_refused(self):
        with pytest.raises(ValueError, match="weight_decay_lambda must be finite and not negative, got -1"):
            MultiLayerNet(2, [2], 2, weight_decay_lambda=-1)

    def test_layers_of_a_sequential_are_moved_with_it(self, device, rng):
        norm = BatchNormalization(np.ones(4), np.zeros(4))
        Sequential(
            [Affine.from_sizes(5, 4, dtype="float64"), norm, Relu(), Affine.from_sizes(4, 3, dtype="float64")],
            device=device,
        )
        assert device.holds(norm.running_mean)


def test_given_averages_are_left_alone(device, rng):
    ones, mean, var = (device.asarray(values) for values in (np.ones(3), np.zeros(3), np.ones(3)))
    layer = BatchNormalization(ones, 0.0 * ones, running_mean=mean, running_var=var)
    layer.forward(device.asarray(rng.random((8, 3))), train=True)
    assert asnumpy(mean).tolist() == [0.0] * 3
    assert asnumpy(var).tolist() == [1.0] * 3
    assert asnumpy(layer.running_mean).min() > 0


def test_backward_refuses_a_dout_of_another_shape_with_as_many_values(device, rng):
    layer = BatchNormalization(device.asarray(np.ones(12)), device.asarray(np.zeros(12)))
    layer.forward(device.asarray(rng.random((8, 3, 2, 2))))
    with pytest.raises(ValueError, match=r"expected dout of its output's shape \(8, 3, 2, 2\), got \(8, 12\)"):
        layer.backward(device.asarray(rng.random((8, 12))))


class TestNormalize:
    """Preprocessing in front of a network."""

    @pytest.mark.parametrize("shape", [(9000, 4), (50, 3, 5, 4), (40, 6, 2)])
    def test_data_get_mean_0_and_deviation_1(self, device, rng, shape):
        x = device.asarray(rng.standard_normal(shape) * 7 + 100)
        layer = Normalize.from_data(x)
        y = asnumpy(layer.forward(x)).reshape(len(x), *((shape[1], -1) if len(shape) == 4 else (-1, 1)))
        np.testing.assert_allclose(y.mean(axis=(0, 2)), 0.0, atol=1e-12)
        np.testing.assert_allclose(y.std(axis=(0, 2)), 1.0, rtol=1e-12)

    def test_a_feature_that_never_changes_keeps_its_unit(self):
        layer = Normalize.from_data(np.array([[0.1, 1.0], [0.1, 3.0], [0.1, 5.0]], "float32"))
        assert layer.std[0] == 1.0
        np.testing.assert_allclose(layer.forward(np.array([[0.6, 3.0]], "float32")), [[0.5, 0.0]], atol=1e-7)

    def test_pixels_are_measured_as_a_network_reads_them(self, device, rng):
        pixels = device.asarray(rng.integers(0, 256, (40, 1, 6, 5), dtype="uint8"))
        net = Sequential([Normalize.from_data(pixels), Affine.from_sizes(30, 2, rng=0)], device=device)
        inputs = asnumpy(net.layers["Normalize1"].forward(pixels.astype("float32") / 255.0))
        assert abs(inputs.mean()) < 1e-5
        assert abs(inputs.std() - 1.0) < 1e-5
        scores = inputs.reshape(40, -1) @ asnumpy(net.params["W1"]) + asnumpy(net.params["b1"])
        np.testing.assert_allclose(asnumpy(net.predict(pixels)), scores, rtol=1e-4, atol=1e-5)

    def test_it_is_saved_and_trained_behind_but_never_learned(self, device, rng, tmp_path):
        x, t = device.asarray(100 + 9 * rng.standard_normal((60, 2, 4, 4))), device.asarray(rng.integers(0, 3, 60))

        def build(normalize):
            layers = [normalize, Convolution.from_sizes(2, 3, 3, rng=0), Relu(), Affine.from_sizes(12, 3, rng=1)]
            return Sequential(layers, input_shape=(2, 4, 4), device=device)

        net, other = build(Normalize.from_data(x)), build(Normalize(np.zeros(2), np.ones(2)))
        mean = asnumpy(net.buffers()["Normalize1.mean"]).copy()
        losses = asnumpy(net.compile(SGD(0.1), 20).run(x, t, device.asarray(rng.integers(0, 60, (40, 20)))))
        assert losses[-5:].mean() < losses[:5].mean()
        np.testing.assert_array_equal(asnumpy(net.buffers()["Normalize1.mean"]), mean)
        net.save_params(tmp_path / "net.npz")
        other.load_params(tmp_path / "net.npz")
        np.testing.assert_array_equal(asnumpy(other.predict(x)), asnumpy(net.predict(x)))
        assert gradient_check(net.to(dtype="float64"), x[:4], t[:4]).ok

    def test_steps_in_float16_train_behind_it(self, device, rng):
        x, t = (100 + 9 * rng.standard_normal((60, 8))).astype("float32"), rng.integers(0, 3, 60)
        x, t = device.asarray(x), device.asarray(t)
        layer, half = Normalize.from_data(x), x.astype("float16")
        assert layer.forward(half).dtype == layer.backward(half).dtype == "float16"
        net = Sequential([layer, Affine.from_sizes(8, 3, rng=0)], device=device)
        step = net.compile(SGD(0.1), 20, precision="float16")
        losses = asnumpy(step.run(x, t, device.asarray(np.tile(np.arange(20), (60, 1)))))
        assert losses[-1] < 0.9 * losses[0]

    def test_what_does_not_fit_is_refused(self):
        for mean, std in ((np.zeros(3), np.ones(2)), (np.zeros((2, 2)), np.ones((2, 2))), (np.zeros(0), np.zeros(0))):
            with pytest.raises(ValueError, match=r"mean and std of one shape \(D,\), got"):
                Normalize(mean, std)
        for std in (0.0, -1.0, np.nan):
            with pytest.raises(ValueError, match="std must be positive"):
                Normalize(0.0, std)
        for x, message in ((np.zeros((0, 3)), r"got \(0, 3\)"), (np.full((2, 3), np.inf), "x must be finite")):
            with pytest.raises(ValueError, match=message):
                Normalize.from_data(x)
        with pytest.raises(ValueError, match=r"does not fit Normalize1: .* x of shape \(N, 3\).* got \(N, 5\)"):
            Sequential([Normalize(np.zeros(3), np.ones(3))], input_shape=(5,))

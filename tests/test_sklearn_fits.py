"""Fits of the estimators: data and their weights, going on, and what scikit-learn's perceptrons do not have."""

import pytest

pytest.importorskip("sklearn", reason="the extra xpnet[sklearn] is not installed")

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.base import clone
from sklearn.datasets import load_digits, make_multilabel_classification
from test_sklearn import perceptron, quiet, regression_net

from xpnet.layers import SigmoidWithLoss
from xpnet.nets import MultiLayerNetExtend, Sequential
from xpnet.sklearn import MLPClassifier, MLPRegressor, NetClassifier, NetRegressor
from xpnet.training import EarlyStopping


@quiet
class TestData:
    @pytest.mark.parametrize("cls", [MLPClassifier, MLPRegressor])
    def test_float32_stays_float32(self, cls, cancer):
        X, y = cancer
        for dtype in ("float32", "float64"):
            model = cls(max_iter=2).fit(X.astype(dtype), y)
            assert {a.dtype.name for a in (*model.coefs_, *model.intercepts_)} == {dtype}
            predicted = model.predict_proba(X) if cls is MLPClassifier else model.predict(X)
            assert predicted.dtype == dtype

    def test_pixels_are_numbers(self):
        X, y = load_digits(return_X_y=True)
        found = [MLPClassifier(max_iter=3, random_state=0).fit(X.astype(d), y) for d in ("uint8", "float64")]
        np.testing.assert_array_equal(found[0].predict_proba(X.astype("uint8")), found[1].predict_proba(X))

    @pytest.mark.parametrize("solver", ["adam", "lbfgs"])
    @pytest.mark.parametrize("layout", ["csr", "csc"])
    def test_sparse_samples(self, solver, layout, digits):
        X, y = digits
        sparse = csr_matrix(X).asformat(layout)
        model = MLPClassifier(solver=solver, max_iter=15, random_state=0).fit(sparse, y)
        np.testing.assert_allclose(model.predict_proba(sparse), model.predict_proba(X))
        assert model.score(sparse, y) > 0.9
        if solver == "lbfgs":
            dense = clone(model).fit(X, y)
            np.testing.assert_allclose(dense.predict_proba(X), model.predict_proba(X))

    def test_labels_are_of_any_type(self, cancer):
        X, y = cancer
        names = np.array(["malignant", "benign"], dtype=object)[y]
        model = MLPClassifier(max_iter=20, random_state=0).fit(X, names)
        assert model.classes_.tolist() == ["benign", "malignant"]
        assert np.mean(model.predict(X) == names) > 0.95

    def test_several_labels_per_sample(self):
        X, y = make_multilabel_classification(random_state=0)
        model = MLPClassifier(solver="lbfgs", random_state=0).fit(X, y)
        assert model.predict(X).shape == y.shape
        assert model.score(X, y) > 0.95

    def test_several_targets(self, diabetes):
        X, y = diabetes
        Y = np.c_[y, X[:, 0] - X[:, 1]]
        model = MLPRegressor(solver="lbfgs", random_state=0).fit(X, Y)
        assert model.predict(X).shape == Y.shape
        assert model.score(X, Y) > 0.7


@quiet
class TestWeights:
    @pytest.mark.parametrize("cls", [MLPClassifier, MLPRegressor])
    def test_a_sample_of_weight_0_is_absent(self, cls, cancer):
        X, y = cancer
        kept = np.arange(len(y)) % 3 > 0
        model = cls(max_iter=5, random_state=0)
        without = clone(model).fit(X[kept], y[kept]).predict(X)
        np.testing.assert_array_equal(model.fit(X, y, kept.astype(float)).predict(X), without)

    def test_the_scale_of_weights_changes_only_the_penalty(self, cancer):
        X, y = cancer
        fits = [
            MLPClassifier(max_iter=5, alpha=alpha, random_state=0).fit(X, y, np.full(len(y), weight))
            for alpha, weight in ((1.0, 1.0), (7.0, 7.0))
        ]
        np.testing.assert_allclose(*(fit.predict_proba(X) for fit in fits), atol=1e-6)

    def test_weights_of_classes_are_weights_of_samples(self, cancer):
        X, y = cancer
        found = MLPClassifier(max_iter=5, random_state=0, class_weight={0: 5.0, 1: 0.5}).fit(X, y)
        wanted = MLPClassifier(max_iter=5, random_state=0).fit(X, y, np.where(y == 0, 5.0, 0.5))
        np.testing.assert_array_equal(found.predict_proba(X), wanted.predict_proba(X))
        balanced = MLPClassifier(max_iter=5, class_weight="balanced", random_state=0).fit(X, y)
        assert balanced.score(X, y) > 0.8


@quiet
class TestGoingOn:
    def test_warm_start_keeps_the_state_of_adam(self, digits):
        X, y = digits
        settings = {"shuffle": False, "random_state": 0}
        whole = MLPClassifier(max_iter=6, **settings).fit(X, y)
        parts = MLPClassifier(max_iter=3, warm_start=True, **settings).fit(X, y).fit(X, y)
        np.testing.assert_array_equal(parts.predict_proba(X), whole.predict_proba(X))
        assert len(parts.loss_curve_) == 6
        assert parts.t_ == whole.t_ == 6 * len(y)

    def test_partial_fit_does_one_pass(self, digits):
        X, y = digits
        whole = MLPClassifier(max_iter=4, shuffle=False, random_state=0).fit(X, y)
        parts = MLPClassifier(shuffle=False, random_state=0)
        for _ in range(4):
            parts.partial_fit(X, y, classes=range(10))
        np.testing.assert_array_equal(parts.predict_proba(X), whole.predict_proba(X))

    def test_partial_fit_sees_some_of_the_classes(self, digits):
        X, y = digits
        model = MLPClassifier(random_state=0)
        with pytest.raises(ValueError, match="classes must be passed on the first call"):
            model.partial_fit(X, y)
        model.partial_fit(X[y < 5], y[y < 5], classes=np.arange(10))
        assert model.predict_proba(X).shape == (len(y), 10)
        with pytest.raises(ValueError, match=r"labels \[10\]"):
            model.partial_fit(X[:2], [10, 3])
        with pytest.raises(ValueError, match="the first call had"):
            model.partial_fit(X, y, classes=np.arange(11))
        assert not hasattr(MLPClassifier(solver="lbfgs"), "partial_fit")

    @pytest.mark.parametrize("cls", [NetClassifier, NetRegressor])
    def test_partial_fits_of_a_net_are_passes(self, cls, digits):
        X, y = digits
        model = cls(perceptron if cls is NetClassifier else regression_net, epochs=1, random_state=0)
        whole = clone(model).fit(X, y)
        classes = {"classes": range(10)} if cls is NetClassifier else {}
        model.partial_fit(X, y, **classes)
        np.testing.assert_array_equal(model.predict(X), whole.predict(X))
        before = model.score(X, y)
        for _ in range(9):
            model.partial_fit(X, y)
        assert model.score(X, y) > before
        assert model.optimizer_.steps == 10 * 18
        with pytest.raises(ValueError, match="features"):
            model.partial_fit(X[:, 1:], y)

    def test_a_net_is_told_its_classes_once(self, digits):
        X, y = digits
        model = NetClassifier(perceptron, random_state=0)
        with pytest.raises(ValueError, match="classes must be passed on the first call"):
            model.partial_fit(X, y)
        assert model.partial_fit(X[y < 5], y[y < 5], classes=np.arange(10)).predict_proba(X).shape == (len(y), 10)

    def test_other_layers_do_not_go_on(self, cancer):
        model = MLPClassifier((5,), max_iter=2, warm_start=True).fit(*cancer)
        with pytest.raises(ValueError, match="other layers"):
            model.set_params(hidden_layer_sizes=(6,)).fit(*cancer)


@quiet
class TestBeyond:
    @pytest.mark.parametrize("solver", ["adam", "lbfgs"])
    def test_a_device_changes_rounding_only(self, solver, device, cancer):
        X, y = cancer
        weight = 1.0 + np.arange(len(y)) % 2
        settings = {"solver": solver, "max_iter": 5, "random_state": 0}
        found, wanted = (
            MLPClassifier(device=d, **settings).fit(X, y, weight).predict_proba(X) for d in (device, "cpu")
        )
        assert type(found) is np.ndarray
        np.testing.assert_allclose(found, wanted, atol=1e-6)

    def test_validation_data_have_curves(self, cancer):
        X, y = cancer
        model = MLPClassifier(max_iter=8, validation_data=(X[400:], y[400:]), random_state=0).fit(X[:400], y[:400])
        assert len(model.validation_loss_curve_) == len(model.validation_scores_) == len(model.loss_curve_) == 8
        assert model.validation_scores_[-1] == pytest.approx(model.score(X[400:], y[400:]))
        assert model.validation_loss_curve_[-1] < model.validation_loss_curve_[0]

    def test_early_stopping_keeps_the_best_parameters(self, cancer):
        X, y = cancer
        model = MLPClassifier(early_stopping=True, n_iter_no_change=3, validation_data=(X[400:], y[400:]))
        model.set_params(random_state=0, learning_rate_init=0.01).fit(X[:400], y[:400])
        assert model.n_iter_ < model.max_iter
        assert model.score(X[400:], y[400:]) == model.best_validation_score_ == max(model.validation_scores_)

    def test_dropout_and_further_activations(self, digits):
        X, y = digits
        model = MLPClassifier((50, 50), ("gelu", "tanh"), max_iter=30, dropout=0.2, random_state=0).fit(X, y)
        names = ["Affine1", "Gelu1", "Dropout1", "Affine2", "Tanh1", "Dropout2", "Affine3"]
        assert list(model.net_.layers) == names
        assert model.score(X, y) > 0.95
        with pytest.raises(ValueError, match="dropout needs"):
            MLPClassifier(solver="lbfgs", dropout=0.5).fit(X, y)

    @pytest.mark.parametrize("cls", [MLPClassifier, MLPRegressor])
    def test_batch_normalization(self, cls, digits):
        X, y = digits
        model = cls(hidden_layer_sizes=(30, 20), batch_normalization=True, learning_rate_init=0.01, max_iter=30)
        model.set_params(random_state=0).fit(X, y)
        names = ["Affine1", "BatchNormalization1", "Relu1", "Affine2", "BatchNormalization2", "Relu2", "Affine3"]
        assert list(model.net_.layers) == names
        assert [len(b) for b in model.intercepts_] == [30, 20, len(model.coefs_[-1][0])]
        assert model.score(X, y) > (0.98 if cls is MLPClassifier else 0.8)
        with pytest.raises(ValueError, match="batch_normalization averages over the minibatches"):
            model.set_params(solver="lbfgs").fit(X, y)

    def test_rates_fall(self, cancer):
        model = MLPClassifier(solver="sgd", learning_rate="invscaling", power_t=0.5, max_iter=3).fit(*cancer)
        assert model.optimizer_.current_lr == pytest.approx(0.001 / (model.t_ + 1) ** 0.5)
        model = MLPClassifier(solver="sgd", learning_rate="adaptive", tol=10.0, n_iter_no_change=1).fit(*cancer)
        assert model.optimizer_.current_lr < 1e-6

    def test_a_net_is_copied_at_fit(self, digits):
        X, y = digits
        net = MultiLayerNetExtend(64, [30], 10, use_batchnorm=True, seed=0)
        before = net.params.flat.copy()
        model = NetClassifier(net, epochs=10, random_state=0).fit(X, y)
        np.testing.assert_array_equal(net.params.flat, before)
        assert model.score(X, y) > 0.9
        again = clone(model).fit(X, y)
        np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
        assert len(model.history_.evaluations) == 10

    def test_a_net_takes_images_weights_and_callbacks(self, digits):
        from xpnet.layers import Affine, Convolution, Flatten, Relu

        X, y = digits
        layers = [
            Convolution.from_sizes(1, 4, 3, rng=0),
            Relu(),
            Flatten(),
            Affine.from_sizes(4 * 6 * 6, 10, rng=0),
        ]
        model = NetClassifier(
            Sequential(layers, input_shape=(1, 8, 8)),
            epochs=30,
            validation_data=(X[1500:].reshape(-1, 1, 8, 8), y[1500:]),
            callbacks=[EarlyStopping(patience=1)],
            class_weight="balanced",
            random_state=0,
        )
        model.fit(X[:1500].reshape(-1, 1, 8, 8), y[:1500], np.ones(1500))
        assert model.score(X[1500:].reshape(-1, 1, 8, 8), y[1500:]) > 0.85
        assert "validation_loss" in model.history_.evaluations[-1].metrics

    def test_a_net_of_one_output_is_binary(self, cancer):
        X, y = cancer
        model = NetClassifier(lambda n, c: Sequential.mlp([n, 10, 1], loss=SigmoidWithLoss(), seed=0), random_state=0)
        assert model.fit(X, np.array(["a", "b"])[y]).predict_proba(X).shape == (len(y), 2)
        assert model.score(X, np.array(["a", "b"])[y]) > 0.9

    def test_a_net_that_does_not_fit_is_refused(self, digits, diabetes):
        with pytest.raises(ValueError, match="10 classes"):
            NetClassifier(Sequential.mlp([64, 5, 4])).fit(*digits)
        with pytest.raises(TypeError, match="SoftmaxWithLoss"):
            NetClassifier(regression_net).fit(*digits)
        with pytest.raises(TypeError, match="IdentityWithLoss"):
            NetRegressor(perceptron).fit(*diabetes)

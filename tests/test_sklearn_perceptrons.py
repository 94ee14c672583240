"""The estimators of xpnet.sklearn beside scikit-learn's own perceptrons: settings, predictions and scores."""

import inspect
import itertools

import pytest

pytest.importorskip("sklearn", reason="the extra xpnet[sklearn] is not installed")

import numpy as np
from sklearn import neural_network
from sklearn.datasets import make_multilabel_classification
from sklearn.model_selection import train_test_split
from test_sklearn import quiet

from xpnet.sklearn import MLPClassifier, MLPRegressor

# Of scikit-learn's own L-BFGS before 1.8, with a new SciPy.
pytestmark = pytest.mark.filterwarnings("ignore:scipy.optimize. The `disp` and `iprint`:DeprecationWarning")
PAIRS = [(MLPClassifier, neural_network.MLPClassifier), (MLPRegressor, neural_network.MLPRegressor)]


# The order of the minibatches is the only thing that differs, and Adam's epsilon.
SETTINGS = {
    "lbfgs": ({"solver": "lbfgs"}, 1e-10),
    "sgd": ({"solver": "sgd", "shuffle": False, "learning_rate_init": 0.05}, 1e-10),
    "momentum": ({"solver": "sgd", "shuffle": False, "nesterovs_momentum": False, "alpha": 1.0}, 1e-10),
    "adam": ({"shuffle": False}, 5e-3),
    "tanh": ({"shuffle": False, "solver": "sgd", "activation": "tanh", "hidden_layer_sizes": (20, 10)}, 1e-10),
    "logistic": ({"solver": "lbfgs", "activation": "logistic"}, 1e-10),
    "identity": ({"solver": "lbfgs", "activation": "identity", "hidden_layer_sizes": 5}, 1e-10),
    "stop": ({"shuffle": False, "solver": "sgd", "tol": 0.05, "n_iter_no_change": 1, "max_iter": 50}, 1e-10),
    "early": ({"shuffle": False, "solver": "sgd", "early_stopping": True, "n_iter_no_change": 2}, 1e-10),
}


class TestLikeScikitLearn:
    @pytest.mark.parametrize(("ours", "theirs"), PAIRS)
    def test_the_parameters_have_its_names_order_and_defaults(self, ours, theirs):
        found, wanted = (list(inspect.signature(cls).parameters.values()) for cls in (ours, theirs))
        names = [p.name for p in wanted]
        if "loss" not in names:  # before 1.7
            found = [p for p in found if p.name != "loss"]
        assert [(p.name, p.default, p.kind) for p in found[: len(names)]] == [
            (p.name, p.default, p.kind) for p in wanted
        ]

    @quiet
    @pytest.mark.parametrize(
        ("name", "data"),
        [
            *itertools.product(SETTINGS, ["cancer", "digits", "diabetes", "labels"]),
            # For several targets its loss is their mean, its gradient that of their sum. So L-BFGS goes another way.
            *itertools.product(["sgd", "momentum", "adam", "tanh"], ["targets"]),
        ],
    )
    def test_the_same_seed_gives_its_predictions(self, name, data, request):
        settings, tolerance = SETTINGS[name]
        if data == "labels":
            X, y = make_multilabel_classification(random_state=0)
        else:
            X, y = request.getfixturevalue("diabetes" if data == "targets" else data)
            y = np.c_[y, X[:, :2]] if data == "targets" else y
        ours, theirs = PAIRS[data in ("diabetes", "targets")]
        settings = {"max_iter": 5, "random_state": 0} | settings
        ours, theirs = ours(**settings).fit(X, y), theirs(**settings).fit(X, y)
        method = "predict_proba" if hasattr(theirs, "predict_proba") else "predict"
        np.testing.assert_allclose(getattr(ours, method)(X), getattr(theirs, method)(X), atol=tolerance)
        for attribute in ("n_iter_", "n_layers_", "n_outputs_", "out_activation_", "t_"):
            assert getattr(ours, attribute) == getattr(theirs, attribute), attribute
        assert [array.shape for array in ours.coefs_] == [array.shape for array in theirs.coefs_]
        if settings.get("solver") != "lbfgs":
            if data != "targets":
                np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=max(tolerance, 1e-7))
            assert (ours.validation_scores_ is None) == (theirs.validation_scores_ is None)
            if theirs.validation_scores_ is not None:
                np.testing.assert_allclose(ours.validation_scores_, theirs.validation_scores_, rtol=1e-7)

    @quiet
    @pytest.mark.skipif("loss" not in inspect.signature(neural_network.MLPRegressor).parameters, reason="before 1.7")
    @pytest.mark.parametrize("name", ["lbfgs", "sgd", "momentum", "adam", "tanh", "early"])
    @pytest.mark.parametrize("targets", [1, 2])
    def test_counts_are_predicted_as_there(self, name, targets, diabetes):
        X, _ = diabetes
        y = np.random.default_rng(0).poisson(np.exp(0.3 * X[:, :targets])).squeeze()
        settings, tolerance = SETTINGS[name]
        ours, theirs = (
            cls(**({"loss": "poisson", "max_iter": 5, "random_state": 0} | settings)).fit(X, y) for cls in PAIRS[1]
        )
        np.testing.assert_allclose(ours.predict(X), theirs.predict(X), atol=max(tolerance, 1e-8))
        assert (ours.out_activation_, ours.n_iter_) == (theirs.out_activation_, theirs.n_iter_)
        if name == "lbfgs":
            assert ours.loss_ == pytest.approx(theirs.loss_)
        else:
            np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=max(tolerance, 1e-7))

    def test_negative_counts_are_refused(self, diabetes):
        with pytest.raises(ValueError, match="'poisson' needs targets y of at least 0"):
            MLPRegressor("poisson").fit(*diabetes)

    @quiet
    @pytest.mark.skipif(
        "sample_weight" not in inspect.signature(neural_network.MLPClassifier.fit).parameters, reason="before 1.7"
    )
    def test_weights_count_as_there(self, cancer):
        X, y = cancer
        weight = np.random.default_rng(0).uniform(0.5, 2.0, len(y))
        found, wanted = (
            cls(random_state=0, solver="lbfgs", alpha=5.0, max_iter=20).fit(X, y, weight).predict_proba(X)
            for cls in PAIRS[0]
        )
        np.testing.assert_allclose(found, wanted, atol=1e-8)

    @quiet
    @pytest.mark.parametrize("data", ["cancer", "digits", "diabetes"])
    def test_scores_are_in_the_range_of_its(self, data, request):
        X, y = request.getfixturevalue(data)
        X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
        scores = [
            [cls(max_iter=40, random_state=seed).fit(X_train, y_train).score(X_test, y_test) for seed in range(3)]
            for cls in PAIRS[data == "diabetes"]
        ]
        ours, theirs = map(np.mean, scores)
        assert abs(ours - theirs) < (0.05 if data == "diabetes" else 0.015)

"""The estimators of xpnet.sklearn: scikit-learn's own checks, its tools around them, and its own perceptrons beside."""

import inspect
import itertools
import os
import pickle
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

pytest.importorskip("sklearn", reason="the extra xpnet[sklearn] is not installed")

import numpy as np
from joblib import cpu_count, parallel_config
from scipy.sparse import csr_matrix
from sklearn import config_context, neural_network
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import (
    load_breast_cancer,
    load_diabetes,
    load_digits,
    load_iris,
    make_multilabel_classification,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_html_repr
from sklearn.utils.estimator_checks import parametrize_with_checks

from xpnet.layers import IdentityWithLoss, SigmoidWithLoss
from xpnet.nets import MultiLayerNetExtend, Sequential
from xpnet.sklearn import MLPClassifier, MLPRegressor, NetClassifier, NetRegressor
from xpnet.training import EarlyStopping

# Programs, because SciPy reads SCIPY_ARRAY_API when it is imported.
ON_THE_GPU = """
import cupy
import numpy as np
import sklearn
from sklearn.datasets import load_digits
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_array
from xpnet.layers import IdentityWithLoss
from xpnet.nets import Sequential
from xpnet.sklearn import MLPClassifier, MLPRegressor, NetClassifier, NetRegressor

sklearn.set_config(array_api_dispatch=True)
X, y = (array[:300] for array in load_digits(return_X_y=True))
there = cupy.asarray(X)
"""
STAYS = """
settings = {"max_iter": 3, "random_state": 0, "hidden_layer_sizes": (20,)}
for more in {}, {"early_stopping": True}, {"shuffle": False}, {"solver": "lbfgs"}:
    found, wanted = (
        make_pipeline(StandardScaler(), MLPClassifier(**settings, **more, device=device)).fit(x, y).predict_proba(x)
        for device, x in (("cuda", there), ("cpu", X))
    )
    assert type(found) is cupy.ndarray, type(found)
    np.testing.assert_allclose(cupy.asnumpy(found), wanted, atol=1e-6)
    assert type(wanted) is np.ndarray

def fit(model, y, *weight):
    model.set_params(random_state=0)
    return model.fit(there, y, *weight).predict(there)

several = np.c_[y > 3, y > 5].astype(int)
net = Sequential.mlp([64, 20, 10], device="cuda")
regression = Sequential.mlp([64, 20, 1], loss=IdentityWithLoss(), device="cuda")
for found in (
    fit(MLPClassifier((20,), max_iter=2, device="cuda"), y, np.arange(300) % 2),
    fit(MLPClassifier((20,), max_iter=2, device="cuda"), cupy.asarray(y), cupy.arange(300) % 2),
    fit(MLPClassifier((20,), max_iter=2, device="cuda"), several),
    fit(MLPRegressor(hidden_layer_sizes=(20,), max_iter=2, device="cuda"), cupy.asarray(y)),
    fit(MLPRegressor("poisson", (20,), max_iter=2, device="cuda"), y),
    fit(NetClassifier(net, epochs=2), y),
    fit(NetRegressor(regression, epochs=2), y),
):
    assert type(found) is cupy.ndarray and len(found) == 300, found
assert type(fit(MLPClassifier((20,), max_iter=2, device="cuda"), y.astype(str))) is np.ndarray

def error(call):
    try:
        call()
    except (TypeError, ValueError) as error:
        return str(error)

assert "use device='cuda:0'" in error(lambda: fit(MLPClassifier((20,), max_iter=2), y))
sklearn.set_config(array_api_dispatch=False)
assert "array_api_dispatch=True" in error(lambda: fit(MLPClassifier((20,), max_iter=2, device="cuda"), y))
"""
TRANSFERS = """
from xpnet.testing.cuda_stand_in import counts

def copies(call):
    before = counts()
    call()
    after = counts()
    return [after[name] - before[name] for name in ("copies_to_host", "copies_to_device")]

checked, _ = copies(lambda: check_array(there))  # one number: whether all values are finite
model = MLPClassifier((20,), max_iter=3, random_state=0, device="cuda").fit(there, y)
assert copies(lambda: model.predict_proba(there)) == [checked, 0]
to_host, to_device = copies(lambda: model.fit(there, y))
from_host = copies(lambda: model.fit(X, y))
# Samples on the host are copied to the device; those on it go nowhere: the losses, and the labels, are copied.
assert to_host <= from_host[0] + checked and to_device < from_host[1], (to_host, to_device, from_host)
"""

DOCUMENT = Path(__file__).parent.parent / "docs/sklearn.md"
# Of scikit-learn's own L-BFGS before 1.8, with a new SciPy.
pytestmark = pytest.mark.filterwarnings("ignore:scipy.optimize. The `disp` and `iprint`:DeprecationWarning")
quiet = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
PAIRS = [(MLPClassifier, neural_network.MLPClassifier), (MLPRegressor, neural_network.MLPRegressor)]


class Named:
    """A function that prints as its name, without an address: it is part of the checks' names."""

    def __init__(self, function):
        self.function = function

    def __call__(self, *arguments):
        return self.function(*arguments)

    def __repr__(self):
        return self.function.__name__

    def __eq__(self, other):
        return isinstance(other, Named) and self.function is other.function

    def __hash__(self):
        return hash(self.function)


def build_classifier(features, classes):
    return Sequential.mlp([features, 20, classes], dtype="float64", seed=0)


def build_regression(features, targets):
    return Sequential.mlp([features, 20, targets], loss=IdentityWithLoss(), dtype="float64", seed=0)


perceptron, regression_net = Named(build_classifier), Named(build_regression)


def blas_threads(model, X, y):
    from xpnet.blas import blas

    with blas as threads:
        return float(threads)


@quiet
@parametrize_with_checks(
    [
        MLPClassifier(max_iter=100),
        MLPRegressor(max_iter=100),
        MLPClassifier((20,), max_iter=30, solver="lbfgs"),
        MLPRegressor(hidden_layer_sizes=(20,), max_iter=30, solver="lbfgs"),
        NetClassifier(perceptron, epochs=50, optimizer_param={"lr": 0.01}),
        NetRegressor(regression_net, epochs=50, optimizer_param={"lr": 0.01}),
    ]
)
def test_scikit_learns_checks(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def cancer():
    X, y = load_breast_cancer(return_X_y=True)
    return StandardScaler().fit_transform(X), y


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return X / 16.0, y


@pytest.fixture(scope="module")
def diabetes():
    X, y = load_diabetes(return_X_y=True)
    return StandardScaler().fit_transform(X), (y - y.mean()) / y.std()


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


class TestTools:
    @pytest.mark.slow
    def test_the_document_runs(self, capsys):
        names = {}
        for block in re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL):
            exec(block, names)
        found = re.findall(r"0\.9\d+", capsys.readouterr().out)
        assert names["search"].best_score_ > 0.9
        assert len(found) >= 2

    @quiet
    @pytest.mark.parametrize("jobs", [1, 2])
    def test_grid_search_in_a_pipeline(self, jobs):
        X, y = load_breast_cancer(return_X_y=True)
        pipeline = make_pipeline(StandardScaler(), MLPClassifier(max_iter=50, random_state=0))
        grid = {"mlpclassifier__alpha": [1e-4, 1.0], "mlpclassifier__hidden_layer_sizes": [(5,), (10, 5)]}
        search = GridSearchCV(pipeline, grid, cv=2, n_jobs=jobs, error_score="raise").fit(X, y)
        assert search.best_score_ > 0.9
        assert search.predict_proba(X).shape == (len(y), 2)

    @quiet
    def test_processes_of_joblib_share_the_cores(self, digits):
        pytest.importorskip("numba", reason="the extra xpnet[numba] is not installed")
        search = GridSearchCV(
            MLPClassifier((10,), alpha=0.0, max_iter=2),  # steps by two threads
            {"tol": [1e-4, 1e-3]},
            cv=2,
            n_jobs=2,
            scoring=blas_threads,
            refit=False,
        )
        assert max(search.fit(*digits).cv_results_["mean_test_score"]) <= max(cpu_count() // 2, 1)

    @quiet
    def test_passes_over_a_small_set_start_no_threads(self, monkeypatch):
        X, y = load_iris(return_X_y=True)
        started, start = [], threading.Thread.start
        monkeypatch.setattr(threading.Thread, "start", lambda thread: (started.append(thread), start(thread)))
        MLPClassifier(max_iter=3, random_state=0).fit(X, y)
        assert not started

    @quiet
    def test_cross_validation_and_calibration(self, cancer):
        X, y = cancer
        model = MLPClassifier(max_iter=20, random_state=0)
        assert cross_val_score(model, X, y, cv=3).min() > 0.9
        assert CalibratedClassifierCV(model, cv=2).fit(X, y).score(X, y) > 0.9

    @quiet
    def test_a_pickle_and_a_clone(self, cancer):
        X, y = cancer
        model = MLPClassifier(max_iter=5, random_state=0).fit(X, y)
        again = pickle.loads(pickle.dumps(model))
        np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
        np.testing.assert_array_equal(clone(model).fit(X, y).predict_proba(X), model.predict_proba(X))
        again.partial_fit(X, y)
        model.partial_fit(X, y)
        np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))

    @quiet
    def test_names_of_features(self, cancer):
        pandas = pytest.importorskip("pandas")
        X, y = cancer
        table = pandas.DataFrame(X, columns=[f"f{i}" for i in range(X.shape[1])])
        model = MLPClassifier(max_iter=2).fit(table, y)
        assert model.feature_names_in_.tolist() == list(table.columns)
        with pytest.raises(ValueError, match="feature names"):
            model.predict(table[table.columns[::-1]])

    @quiet
    @pytest.mark.parametrize("cls", [MLPClassifier, NetClassifier])
    def test_weights_are_routed(self, cls, cancer):
        X, y = cancer
        weight = np.where(y == 0, 100.0, 0.1)
        model = {
            MLPClassifier: MLPClassifier(max_iter=5, random_state=0),
            NetClassifier: NetClassifier(perceptron, epochs=5, random_state=0),
        }[cls]
        directly = clone(model).fit(X, y, weight).predict_proba(X)
        with config_context(enable_metadata_routing=True):
            model.set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
            pipeline = make_pipeline("passthrough", model).fit(X, y, sample_weight=weight)
            np.testing.assert_array_equal(pipeline.predict_proba(X), directly)
            settings = {"max_iter": [5]} if cls is MLPClassifier else {"epochs": [5]}
            search = GridSearchCV(model, settings, cv=2).fit(X, y, sample_weight=weight)
            np.testing.assert_array_equal(search.predict_proba(X), directly)

    @quiet
    def test_the_html_of_an_estimator_has_its_parameters(self, cancer):
        model = MLPClassifier((7,), dropout=0.125, max_iter=2).fit(*cancer)
        html = estimator_html_repr(make_pipeline(StandardScaler(), model))
        assert "MLPClassifier" in html
        assert "0.125" in html
        assert repr(model) == "MLPClassifier(dropout=0.125, hidden_layer_sizes=(7,), max_iter=2)"

    @quiet
    @pytest.mark.parametrize("cls", [MLPClassifier, MLPRegressor])
    def test_threads_of_joblib_compute_what_one_thread_does(self, cls, digits):
        grid = {"alpha": [0.0, 1e-3], "hidden_layer_sizes": [(10,), (20,)]}
        found, wanted = [], []
        for backend, scores in ("threading", found), ("sequential", wanted):
            search = GridSearchCV(cls(max_iter=3, random_state=0), grid, cv=2, n_jobs=2, error_score="raise")
            with parallel_config(backend):
                search.fit(*digits)
            scores.extend(search.cv_results_["mean_test_score"])
        np.testing.assert_allclose(found, wanted, rtol=1e-6)

    def test_importing_xpnet_leaves_scikit_learn_alone(self):
        code = "import sys, xpnet, xpnet.training; sys.exit('sklearn' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

    def test_a_fit_that_converges_warns_of_nothing(self, cancer):
        MLPClassifier(tol=0.01, n_iter_no_change=2, random_state=0).fit(*cancer)
        with pytest.warns(ConvergenceWarning, match="max_iter=2"):
            MLPClassifier(max_iter=2).fit(*cancer)


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


@quiet
class TestArraysOfAGPU:
    def run(self, program):
        pytest.importorskip("sklearn", minversion="1.8")
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", ON_THE_GPU + program],
            env=os.environ | {"SCIPY_ARRAY_API": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def test_arrays_stay_where_they_are(self, cuda):
        self.run(STAYS)

    def test_samples_never_visit_the_host(self, counted):
        self.run(TRANSFERS)


class Recorder:
    """A callback of scikit-learn's that keeps what it is told, and stops after some passes."""

    def __init__(self, passes=None):
        self.passes, self.heard, self.scores = passes, [], []

    def setup(self, estimator, context):
        self.heard.append("setup")

    def teardown(self, estimator, context):
        self.heard.append("teardown")

    def on_fit_task_begin(self, estimator, context):
        self.heard.append(f"{context.task_name} begins")

    def on_fit_task_end(self, estimator, context, *, X, y, fitted_estimator):
        self.heard.append(f"{context.task_name} ends")
        if context.task_name == "pass" and fitted_estimator is not None:
            self.scores.append((fitted_estimator, fitted_estimator.score(X, y)))
        return len(self.scores) == self.passes


MODELS = {
    "adam": lambda passes: MLPClassifier(max_iter=passes, random_state=0),
    "lbfgs": lambda passes: MLPClassifier(max_iter=passes, random_state=0, solver="lbfgs"),
    "net": lambda passes: NetClassifier(perceptron, epochs=passes, random_state=0),
}


@quiet
class TestCallbacks:
    @pytest.fixture(autouse=True)
    def _are_there(self):
        pytest.importorskip("sklearn.callback", reason="scikit-learn before 1.9 has no callbacks")

    @pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
    def test_a_callback_hears_of_each_pass(self, make, cancer):
        X, y = cancer
        recorder = Recorder()
        model = make(3).set_callbacks(recorder).fit(X, y)
        passes = ["pass begins", "pass ends"] * 3
        assert recorder.heard == ["setup", "fit begins", *passes, "fit ends", "teardown"]
        # What it was given is the model as it was after each pass, even now.
        for passes, (early, score) in enumerate(recorder.scores, start=1):
            assert early.score(X, y) == score == make(passes).fit(X, y).score(X, y)
        np.testing.assert_array_equal(recorder.scores[-1][0].predict_proba(X), model.predict_proba(X))
        pickle.dumps(model.set_callbacks())

    @pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
    def test_a_callback_stops_the_fit(self, make, cancer):
        X, y = cancer
        model = make(50).set_callbacks(Recorder(2)).fit(X, y)
        np.testing.assert_array_equal(model.predict_proba(X), make(2).fit(X, y).predict_proba(X))

    def test_passes_that_end_early_end(self, cancer):
        recorder = Recorder()
        model = MLPClassifier((2,), solver="lbfgs", tol=1e-2, random_state=0).set_callbacks(recorder).fit(*cancer)
        assert len(recorder.scores) == model.n_iter_ < 200
        assert recorder.heard.count("pass begins") == recorder.heard.count("pass ends")

    def test_a_callback_is_torn_down_after_an_error(self, cancer):
        X, y = cancer
        recorder = Recorder()
        with pytest.raises(FloatingPointError):
            MLPRegressor(solver="sgd", learning_rate_init=1e9).set_callbacks(recorder).fit(X, 1e3 * y)
        assert recorder.heard[-1] == "teardown"

    def test_scores_of_a_search_are_monitored(self, cancer):
        from sklearn.callback import ScoringMonitor

        monitor = ScoringMonitor(scoring="accuracy")
        model = MLPClassifier(max_iter=4, random_state=0).set_callbacks(monitor)
        GridSearchCV(model, {"alpha": [1e-4, 1.0]}, cv=2).fit(*cancer)
        rows = [row for log in monitor.get_logs(select="all") for row in log.data if row["task_name"] == "pass"]
        assert len(rows) == 4 * (2 * 2 + 1)  # passes of each setting on each fold, and of the best on all samples

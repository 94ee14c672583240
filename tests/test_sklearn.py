"""The estimators of xpnet.sklearn: scikit-learn's own checks, and its tools around them."""

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
from sklearn import config_context
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_html_repr
from sklearn.utils.estimator_checks import parametrize_with_checks

from xpnet.layers import IdentityWithLoss
from xpnet.nets import Sequential
from xpnet.sklearn import MLPClassifier, MLPRegressor, NetClassifier, NetRegressor

DOCUMENT = Path(__file__).parent.parent / "docs/sklearn.md"
quiet = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


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

"""scikit-learn's own callbacks, of the estimators."""

import pickle

import pytest

pytest.importorskip("sklearn", reason="the extra xpnet[sklearn] is not installed")

import numpy as np
from sklearn.model_selection import GridSearchCV
from test_sklearn import perceptron, quiet

from xpnet.sklearn import MLPClassifier, MLPRegressor, NetClassifier


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

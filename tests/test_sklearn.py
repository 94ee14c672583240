"""The estimators of xpnet.sklearn: scikit-learn's own checks, its tools around them, and its own perceptrons beside."""


# ruff: noqa: E402

import pytest

sklearn = pytest.importorskip("sklearn", reason="the extra xpnet[sklearn] is not installed")

from sklearn.utils.estimator_checks import parametrize_with_checks

from xpnet.sklearn import MLPClassifier, MLPRegressor

quiet = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@quiet
@parametrize_with_checks(
    [
        MLPClassifier(max_iter=100),
        MLPRegressor(max_iter=100),
        MLPClassifier(max_iter=100, solver="lbfgs"),
        MLPRegressor(max_iter=100, solver="lbfgs"),
    ],
)
def test_scikit_learns_checks(estimator, check):
    check(estimator)

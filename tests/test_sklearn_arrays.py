"""The estimators on arrays of a GPU, by scikit-learn's array API."""

import os
import subprocess
import sys

import pytest
from test_sklearn import quiet

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

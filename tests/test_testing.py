"""The kit for layers, losses and update rules of one's own: what its reports say, and its pytest plugin."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest

from xpnet.layers import Affine, Embedding, Layer, Loss, Relu
from xpnet.optimizers import SGD, Optimizer
from xpnet.testing import check_layer, check_loss, check_optimizer
from xpnet.testing.layer import LAYER_CHECKS

X = np.random.default_rng(0).standard_normal((5, 3))


class Cube(Layer):
    """y = x^3."""

    saved = ("x",)

    def forward(self, x, train=True):
        self.x = x
        return x**3

    def backward(self, dout):
        return dout * 3.0 * self.x**2


class WrongCube(Cube):
    def backward(self, dout):
        return dout * 2.0 * self.x**2


class Random(Cube):
    def forward(self, x, train=True):
        self.x = x
        return x + np.random.default_rng().random(x.shape)


class Broken(Cube):
    def forward(self, x, train=True):
        raise LookupError("no table")


def failures(report):
    return {check.name for check in report.failed}


def test_a_right_layer_passes():
    report = check_layer(Cube(), X, raises=False)
    assert failures(report) == {"integers"}  # an integer's cube stays one, and overflows
    assert list(report.checks) == list(LAYER_CHECKS)


def test_a_wrong_derivative_is_named_with_its_place_and_what_to_do():
    with pytest.raises(AssertionError) as caught:
        check_layer(WrongCube(), X, checks=["gradient", "dtypes", "single sample"])
    lines = str(caught.value).splitlines()
    assert lines[0] == "WrongCube fails 2 of 3 checks:"
    i, j = np.unravel_index(np.argmax(np.abs(X)), X.shape)
    assert lines[1].startswith(f"  gradient: dx[{i}, {j}] is ")
    dout = np.random.default_rng(0).standard_normal(X.shape)[i, j]
    assert float(re.search(r"expected (.*?) ", lines[1])[1]) == pytest.approx(3 * dout * X[i, j] ** 2)
    assert "15 of 15 values differ" in lines[1]
    assert "compare backward with the formula" in lines[1]


def test_random_numbers_that_are_not_fixed_are_named():
    found = {check.name: check.reason for check in check_layer(Random(), X, raises=False).failed}
    assert "obey fixed_buffers" in found["repeatable"]


def test_an_error_in_the_layer_is_a_failed_check_that_names_its_place():
    report = check_layer(Broken(), X, checks=["gradient"], raises=False)
    reason = report.checks["gradient"].reason
    assert "LookupError: no table" in reason
    assert "in forward" in reason
    with pytest.raises(AssertionError) as caught:
        report.raise_for_failures()
    assert isinstance(caught.value.__cause__, LookupError)


def test_the_layer_itself_is_left_as_it_was():
    layer = Affine.from_sizes(3, 2, rng=0)
    before = {name: vars(layer)[name] for name in vars(layer)}
    values = layer.W.copy()
    check_layer(layer, X)
    assert vars(layer) == before
    np.testing.assert_array_equal(layer.W, values)


def test_coordinates_at_a_kink_are_left_out():
    x = X.copy()
    x[0, 0] = 0.0
    assert check_layer(Relu(), x, checks=["gradient"]).ok


def test_ids_are_not_differentiated():
    assert check_layer(Embedding(np.ones((4, 2))), np.array([0, 3, 1])).ok


class AbsoluteError(Loss):
    classifies = False
    saved = ("slope",)

    def forward(self, x, t):
        self.slope = np.sign(x - t) / max(x.size, 1)
        return abs(x - t).sum() / max(x.size, 1)

    def backward(self, dout=1.0):
        return self.slope


def test_a_loss_must_multiply_its_gradient_by_dout():
    report = check_loss(AbsoluteError(), X, X + 1.0, raises=False)
    assert {"gradient", "scalar"} <= failures(report)
    assert report.checks["weights"].outcome == "not applicable"


class Forgetful(Optimizer):
    """Counts its updates where no checkpoint and no graph sees it."""

    def rule(self, p, g, state, coefficients, scratch):
        self.seen = getattr(self, "seen", 0) + 1
        g *= 0.5
        p -= coefficients[0] * g / self.seen


def test_a_rule_with_hidden_state_that_changes_gradients_is_found():
    found = failures(check_optimizer(Forgetful(), raises=False))
    assert {"only parameters", "resume", "dicts"} <= found


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: check_layer(Cube, X), TypeError, "layer must be an xpnet.layers.Layer, got type"),
        (lambda: check_layer(Cube()), ValueError, "expected the inputs of forward"),
        (lambda: check_layer(Cube(), 1.0), ValueError, "needs a batch axis"),
        (lambda: check_layer(Cube(), X, checks=["speed"]), ValueError, "checks must be among 'gradient', .*'speed'"),
        (lambda: check_loss(Cube(), X, X), TypeError, "loss must be an xpnet.layers.Loss, got Cube"),
        (lambda: check_optimizer(SGD), TypeError, "optimizer must be an xpnet.optimizers.Optimizer, got type"),
    ],
)
def test_what_cannot_be_checked_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_an_optimizer_must_be_new():
    optimizer, params = SGD(), {"w": np.ones(2)}
    optimizer.update(params, params)
    with pytest.raises(ValueError, match="must be new, got one after 1 updates"):
        check_optimizer(optimizer)


PROJECT = """
def test_doubles(xp_device):
    x = xp_device.asarray([1.0, 2.0])
    assert xp_device.asnumpy(x + x).tolist() == [2.0, 4.0]

def test_waits_once(cuda_device, cuda_stand_in):
    x = cuda_device.asarray([1.0, 2.0])
    with cuda_stand_in() as work:
        x.get()
    assert work["copies_to_host"] == 1
"""


def run_project(folder):
    (folder / "test_project.py").write_text(PROJECT)
    options = ["-q", "-p", "xpnet.testing.plugin", "-p", "no:cacheprovider", "--rootdir", str(folder), str(folder)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", "pytest", *options]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False).stdout


def test_the_plugin_gives_another_project_its_devices(tmp_path):
    out = run_project(tmp_path)
    assert "failed" not in out
    assert "error" not in out
    assert "passed" in out


def test_the_plugin_runs_cupy_code_on_the_stand_in(tmp_path, counted):
    assert "3 passed" in run_project(tmp_path)


class Stalls(Cube):
    """Reads a value from the device in forward, and takes arrays from anywhere."""

    def forward(self, x, train=True):
        self.x = x
        return x**3 + 0.0 * float(x.sum())


class SlowSGD(Optimizer):
    def rule(self, p, g, state, coefficients, scratch):
        if float(abs(g).max()) >= 0:
            p -= coefficients[0] * g


def test_what_stalls_a_device_is_named(cuda, counted):
    report = check_layer(Stalls(), X, device=cuda, checks=["no wait", "capture", "mixed devices"], raises=False)
    assert failures(report) == {"no wait", "capture", "mixed devices"}
    assert "avoid float(x)" in report.checks["no wait"].reason
    assert failures(check_optimizer(SlowSGD(), device=cuda, raises=False)) == {"no wait", "capture"}

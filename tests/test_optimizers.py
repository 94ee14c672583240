import numpy as np
import pytest

from xpnet import ParameterVector, asnumpy
from xpnet.optimizers import SGD, Optimizer, get_optimizer


@pytest.fixture
def params(device, rng):
    params = ParameterVector({"W1": (3, 2), "b1": (2,)}, "float32", device)
    params.update({name: rng.standard_normal(view.shape) for name, view in params.items()})
    return params


@pytest.fixture
def grads(params, rng):
    grads = params.zeros_like()
    grads.update({name: rng.standard_normal(view.shape) for name, view in params.items()})
    return grads


def test_sgd_goes_down_the_gradient_in_place(params, grads):
    expected = {name: asnumpy(params[name]) - 0.1 * asnumpy(grads[name]) for name in params}
    before = asnumpy(grads.flat).copy()
    view = params["W1"]
    SGD(lr=0.1).update(params, grads)
    assert params["W1"] is view
    assert params.flat.dtype == "float32"
    for name, value in expected.items():
        np.testing.assert_allclose(asnumpy(params[name]), value, rtol=1e-6)
    np.testing.assert_array_equal(asnumpy(grads.flat), before)


def test_plain_dicts_are_updated_as_in_the_book(params, grads):
    plain = {name: value.copy() for name, value in params.items()}
    for name in ("flat", "dict"):
        SGD(0.1).update(*((params, grads) if name == "flat" else (plain, dict(grads))))
    for name, value in plain.items():
        np.testing.assert_array_equal(asnumpy(value), asnumpy(params[name]))


def test_gradients_that_do_not_fit_are_refused(params, grads):
    with pytest.raises(KeyError, match="no gradient for b1; grads has W1"):
        SGD().update(params, {"W1": grads["W1"]})
    with pytest.raises(ValueError, match=r"'W1' has shape \(3, 2\), its gradient \(2,\)"):
        SGD().update({"W1": params["W1"]}, {"W1": grads["b1"]})


@pytest.mark.parametrize("lr", [-0.1, float("nan"), float("inf")])
def test_impossible_learning_rates_are_refused(lr):
    with pytest.raises(ValueError, match="lr must be finite and not negative"):
        SGD(lr)


def test_optimizers_by_name():
    assert SGD().lr == 0.01
    assert get_optimizer("SGD", lr=0.5).lr == 0.5
    rule = SGD()
    assert get_optimizer(rule) is rule
    assert rule.state == {}
    with pytest.raises(ValueError, match=r"optimizer must be one of 'sgd', got 'agd'"):
        get_optimizer("agd")
    with pytest.raises(ValueError, match=r"optimizer 'sgd': .*'momentun'"):
        get_optimizer("sgd", momentun=0.9)
    with pytest.raises(ValueError, match="set them on the optimizer itself"):
        get_optimizer(rule, lr=0.1)
    with pytest.raises(NotImplementedError, match="Optimizer must define update"):
        Optimizer().update({}, {})

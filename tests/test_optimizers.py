import copy
import pickle
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpnet import Device, DeviceError, ParameterVector, asnumpy
from xpnet.optimizers import (
    SGD,
    AdaGrad,
    Adam,
    AdamW,
    CosineAnnealing,
    Lion,
    Momentum,
    Nesterov,
    OneCycle,
    Optimizer,
    RMSprop,
    StepLR,
    Warmup,
    base,
    get_optimizer,
    get_schedule,
)
from xpnet.testing import check_optimizer
from xpnet.testing.optimizer import OPTIMIZER_CHECKS

RULES = (SGD, Momentum, Nesterov, AdaGrad, RMSprop, Adam, AdamW, Lion)
SHAPES = {"W1": (3, 2), "b1": (2,), "W2": (70,)}


@pytest.fixture
def params(device, rng):
    return vector(device, rng)


@pytest.fixture
def grads(device, rng):
    return vector(device, rng)


def vector(device, rng, dtype="float32"):
    made = ParameterVector(SHAPES, dtype, device)
    made.update({name: rng.standard_normal(shape) for name, shape in SHAPES.items()})
    return made


def assert_equal(ours, theirs, rtol=0.0):
    assert list(ours) == list(theirs)
    for name, value in ours.items():
        np.testing.assert_allclose(asnumpy(value), asnumpy(theirs[name]), rtol=rtol, err_msg=name)


def test_sgd_goes_down_the_gradient_in_place(params, grads):
    expected = {name: asnumpy(params[name]) - 0.1 * asnumpy(grads[name]) for name in params}
    view = params["W1"]
    SGD(lr=0.1).update(params, grads)
    assert params["W1"] is view
    assert_equal(params, expected, rtol=1e-6)


class BooksNesterov:
    """Section 6.1 of the book, on its own v."""

    def __init__(self, lr=0.01, momentum=0.9):
        self.lr, self.momentum, self.v = lr, momentum, 0.0

    def step(self, p, g):
        p = p + self.momentum**2 * self.v - (1 + self.momentum) * self.lr * g
        self.v = self.momentum * self.v - self.lr * g
        return p


class BooksMomentum(BooksNesterov):
    def step(self, p, g):
        self.v = self.momentum * self.v - self.lr * g
        return p + self.v


class BooksAdaGrad:
    def __init__(self, lr=0.01):
        self.lr, self.h = lr, 0.0

    def step(self, p, g):
        self.h = self.h + g * g
        return p - self.lr * g / (np.sqrt(self.h) + 1e-7)


class BooksRMSprop:
    def __init__(self, lr=0.01, decay_rate=0.99):
        self.lr, self.decay_rate, self.h = lr, decay_rate, 0.0

    def step(self, p, g):
        self.h = self.decay_rate * self.h + (1 - self.decay_rate) * g * g
        return p - self.lr * g / (np.sqrt(self.h) + 1e-7)


class PapersLion:
    """Algorithm 2 of its paper."""

    def __init__(self, lr=1e-4, beta1=0.9, beta2=0.99, weight_decay=0.0):
        self.lr, self.beta1, self.beta2, self.weight_decay, self.m = lr, beta1, beta2, weight_decay, 0.0

    def step(self, p, g):
        c = self.beta1 * self.m + (1 - self.beta1) * g
        self.m = self.beta2 * self.m + (1 - self.beta2) * g
        return p - self.lr * (np.sign(c) + self.weight_decay * p)


ratios = st.floats(0.05, 0.999)
rates = st.floats(1e-4, 1.0)


@pytest.mark.parametrize(
    ("rule", "formula", "settings"),
    [
        (Momentum, BooksMomentum, {"momentum": ratios}),
        (Nesterov, BooksNesterov, {"momentum": ratios}),
        (lambda lr: AdaGrad(lr, eps=1e-7), BooksAdaGrad, {}),
        (lambda lr, decay_rate: RMSprop(lr, decay_rate, eps=1e-7), BooksRMSprop, {"decay_rate": ratios}),
        (Lion, PapersLion, {"beta1": ratios, "beta2": ratios, "weight_decay": st.floats(0.0, 1.0)}),
    ],
    ids=["momentum", "nesterov", "adagrad", "rmsprop", "lion"],
)
@given(draw=st.data())
def test_rules_are_those_of_the_book_and_the_paper(rule, formula, settings, draw):
    chosen = draw.draw(st.fixed_dictionaries({"lr": rates, **settings}))
    rng = np.random.default_rng(draw.draw(st.integers(0, 2**32)))
    ours, theirs = rule(**chosen), formula(**chosen)
    params = {"x": rng.standard_normal(20)}
    expected = params["x"].copy()
    for _ in range(10):
        g = rng.standard_normal(20)
        expected = theirs.step(expected, g)
        ours.update(params, {"x": g})
    np.testing.assert_allclose(params["x"], expected, rtol=1e-11, atol=1e-11)


def every_setting(rule):
    """Optimizers of this rule, with and without what happens to gradients before."""
    return [
        rule,
        lambda: rule(lr=lambda step: 0.1 / (1 + step), weight_decay=0.1, clip_norm=0.5),
        lambda: rule(weight_decay=0.1, clip_value=0.2),
    ]


@pytest.mark.parametrize("check", OPTIMIZER_CHECKS)
@pytest.mark.parametrize("rule", RULES)
def test_every_rule(rule, check, device):
    for make in every_setting(rule):
        outcome = check_optimizer(make(), device=device, checks=[check]).checks[check]
    if outcome.outcome == "not applicable":
        pytest.skip(outcome.reason)


@pytest.mark.parametrize("rule", RULES)
class TestEveryRule:
    def test_blocks_of_any_size_give_the_same_numbers(self, rng, rule, monkeypatch):
        for make in every_setting(rule):
            start, grads = vector(Device("cpu"), rng), vector(Device("cpu"), rng)
            found = []
            for block in (8, 4 * 60, 2**19):  # two numbers, a size that leaves a rest, and all
                monkeypatch.setattr(base, "BLOCK", block)
                params, optimizer = copy.deepcopy(start), make()
                for _ in range(3):
                    optimizer.update(params, grads)
                found.append(params.flat)
            np.testing.assert_array_equal(found[0], found[2])
            np.testing.assert_array_equal(found[1], found[2])

    def test_an_update_of_a_network_allocates_nothing(self, rule):
        for make in every_setting(rule):
            params = ParameterVector({"W": (300, 1000)})
            grads, optimizer = params.zeros_like(), make()
            optimizer.update(params, grads)
            tracemalloc.start()
            try:
                optimizer.update(params, grads)
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert peak < 10_000  # of 1.2 million bytes


@pytest.mark.parametrize("rule", [SGD, Adam])
def test_another_network_needs_another_optimizer(device, rng, rule):
    optimizer = rule()
    params = vector(device, rng)
    optimizer.update(params, params.zeros_like())
    for other in (ParameterVector({"W1": (2, 2)}, device=device), params.zeros_like()):  # the second one would fit
        with pytest.raises(ValueError, match="updates another network already; each network needs an optimizer of its"):
            optimizer.update(other, other.zeros_like())
        copy.deepcopy(optimizer).claim(other)  # a copy may have another owner
    assert optimizer.steps == 1
    moved = params.to(dtype="float64")  # still the same network
    optimizer.update(moved, moved.zeros_like())
    assert optimizer.steps == 2


def test_state_of_other_parameters_is_refused(device, rng):
    optimizer, params = Adam(), vector(device, rng)
    optimizer.state = {"m": {"W1": np.zeros((2, 2))}, "v": {"W1": np.zeros((2, 2))}}
    with pytest.raises(ValueError, match=r"state 'm' is of parameters {'W1': \(2, 2\)}, got .*'W2'.*; each network"):
        optimizer.update(params, params.zeros_like())


def test_gradients_that_do_not_fit_are_refused_before_anything_changes(params, grads):
    before = asnumpy(params.flat).copy()
    for optimizer in (SGD(), Adam(clip_norm=1.0)):
        with pytest.raises(KeyError, match="no gradient for W2, b1; grads has W1"):
            optimizer.update(params, {"W1": grads["W1"]})
        with pytest.raises(ValueError, match=r"'b1' has shape \(2,\), its gradient \(3, 2\)"):
            optimizer.update({name: params[name] for name in ("W1", "b1")}, {"W1": grads["W1"], "b1": grads["W1"]})
        assert optimizer.steps == 0
    np.testing.assert_array_equal(asnumpy(params.flat), before)


def test_gradients_on_another_device_are_refused(rng, cuda):
    params = vector(cuda, rng)
    with pytest.raises(DeviceError, match=r"params\['W1'\] is on cuda:0 .*, grads\['W1'\] is on the host"):
        SGD().update(params, params.asnumpy())


@pytest.mark.parametrize(
    ("x", "found"), [(-7.0, "float"), (np.float64(-7.0), "float64 of float64"), (np.zeros(2, int), "ndarray of int64")]
)
def test_what_cannot_be_changed_in_place_is_refused(x, found):
    with pytest.raises(TypeError, match=rf"params\['x'\] is changed in place, so it must be .*, got {found}$"):
        SGD().update({"x": x}, {"x": x})


def test_a_point_on_the_plane_finds_the_valley_of_the_books_picture(device):
    """Section 6.1.7: f(x, y) = x**2 / 20 + y**2, from (-7, 2)."""
    for name, lr in (("sgd", 0.95), ("momentum", 0.1), ("adagrad", 1.5), ("adam", 0.3)):
        optimizer = get_optimizer(name, lr=lr)
        params = {"x": device.asarray(np.array(-7.0)), "y": device.asarray(np.array(2.0))}
        for _ in range(80):
            optimizer.update(params, {"x": params["x"] / 10.0, "y": 2.0 * params["y"]})
        assert abs(float(params["x"])) < 0.5, name
        assert abs(float(params["y"])) < 0.1, name


class TestClipping:
    def test_the_norm_is_that_of_all_gradients_together(self, device, rng):
        params, grads = vector(device, rng, "float64"), vector(device, rng, "float64")
        norm = float(np.linalg.norm(asnumpy(grads.flat)))
        for limit, expected in ((0.5 * norm, 0.5 * norm), (2.0 * norm, norm)):
            before = asnumpy(params.flat).copy()
            SGD(lr=1.0, clip_norm=limit).update(params, grads)
            assert np.linalg.norm(asnumpy(params.flat) - before) == pytest.approx(expected, rel=1e-6)

    def test_half_precision_has_a_norm_beyond_its_range(self, device):
        params = ParameterVector({"W": (10_000,)}, "float16", device)
        grads = params.zeros_like()
        grads["W"] = np.full(10_000, 1000.0)
        SGD(lr=1.0, clip_norm=100.0).update(params, grads)
        np.testing.assert_allclose(asnumpy(params["W"]), -1.0, rtol=1e-3)
        assert params.flat.dtype == "float16"

    def test_weight_decay_is_not_clipped(self, device):
        params = ParameterVector({"W": (1,)}, "float64", device)
        grads = params.zeros_like()
        params["W"], grads["W"] = [100.0], [7.0]
        SGD(lr=1.0, weight_decay=0.1, clip_value=2.0).update(params, grads)
        np.testing.assert_allclose(asnumpy(params["W"]), 100.0 - 10.0 - 2.0)


class TestSchedules:
    def test_an_optimizer_follows_its_schedule(self, device):
        params = {"x": device.asarray(np.zeros(1))}
        one = {"x": device.asarray(np.ones(1))}
        optimizer = SGD(lr=StepLR(1.0, 2, gamma=0.5))
        seen = []
        for _ in range(5):
            seen.append(optimizer.current_lr)
            optimizer.update(params, one)
        assert seen == [1.0, 1.0, 0.5, 0.5, 0.25]
        assert float(params["x"][0]) == -3.25
        optimizer.lr = 2.0
        assert optimizer.current_lr == 2.0

    @given(step=st.integers(0, 2000), total=st.integers(1, 1000), lr=rates)
    def test_rates_stay_between_their_bounds_for_ever(self, step, total, lr):
        rate = CosineAnnealing(lr, total, eta_min=0.1 * lr)(step)
        assert 0.1 * lr * (1 - 1e-9) <= rate <= lr
        assert CosineAnnealing(lr, total, eta_min=0.1 * lr)(0) == lr
        assert step < total or rate == 0.1 * lr
        rate = OneCycle(lr, total)(step)
        assert lr / 25e4 * (1 - 1e-9) <= rate <= lr * (1 + 1e-9)
        assert step < total or rate == pytest.approx(lr / 25e4)
        assert lr / 3 * (1 - 1e-9) <= Warmup(lr, total)(step) <= lr * (1 + 1e-9)

    def test_a_warm_up_leads_to_the_start_of_what_follows(self):
        after = CosineAnnealing(0.3, 50)
        lr = Warmup(after, 10, start_factor=0.0)
        assert [lr(step) for step in (0, 5, 10, 60)] == [0.0, 0.15, 0.3, after(50)]
        assert [lr(10 + step) for step in range(60)] == [after(step) for step in range(60)]
        assert Warmup(lambda step: 1.0 / (1 + step), 4, start_factor=0.5)(5) == 0.5

    def test_schedules_by_name_span_the_run(self):
        assert get_schedule("constant", 0.5, 90) == 0.5
        assert [get_schedule("step", 1.0, 90)(step) for step in (0, 29, 30, 60, 89)] == pytest.approx(
            [1.0, 1.0, 0.1, 0.01, 0.01]
        )
        assert get_schedule("cosine", 0.5, 90) == CosineAnnealing(0.5, 90)
        assert get_schedule("one-cycle", 0.5, 90) == OneCycle(0.5, 90)
        with pytest.raises(ValueError, match=r"schedule must be one of 'constant', 'step', .*, got 'cosin'"):
            get_schedule("cosin", 0.5, 90)

    def test_schedules_are_values(self):
        schedule = Warmup(StepLR(0.1, 5), 3)
        assert repr(schedule).startswith("Warmup(lr=StepLR(lr=0.1, step_size=5, gamma=0.1), total_iters=3")
        assert pickle.loads(pickle.dumps(schedule)) == schedule

    def test_a_rate_that_is_none_is_an_error_that_names_the_step(self, device):
        params = {"x": device.asarray(np.zeros(1))}
        optimizer = SGD(lr=lambda step: 1.0 - step)
        optimizer.update(params, params)
        optimizer.update(params, params)
        with pytest.raises(ValueError, match="lr at step 2 must be finite and not negative"):
            optimizer.update(params, params)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SGD(-0.1), "lr must be finite and not negative, got -0.1"),
        (lambda: SGD(float("nan")), "lr must be finite and not negative, got nan"),
        (lambda: Adam("fast"), "lr must be finite and not negative, got fast"),
        (lambda: SGD(momentum=1.0), r"momentum must be in \[0, 1\), got 1.0"),
        (lambda: SGD(nesterov=True), "nesterov needs a momentum above 0"),
        (lambda: Nesterov(momentum=0.0), "nesterov needs a momentum above 0"),
        (lambda: SGD(weight_decay=-1), "weight_decay must be finite and not negative, got -1"),
        (lambda: AdaGrad(eps=0), "eps must be finite and positive, got 0"),
        (lambda: RMSprop(decay_rate=1.5), r"decay_rate must be in \[0, 1\), got 1.5"),
        (lambda: Adam(beta1=1), r"beta1 must be in \[0, 1\), got 1"),
        (lambda: Lion(beta2=-0.1), r"beta2 must be in \[0, 1\), got -0.1"),
        (lambda: SGD(clip_norm=0), "clip_norm must be finite and positive, got 0"),
        (lambda: SGD(clip_value=float("inf")), "clip_value must be finite and positive, got inf"),
        (lambda: SGD(clip_norm=1, clip_value=2), "by norm or by value: got clip_norm=1 and clip_value=2"),
        (lambda: StepLR(0.1, 0), "step_size must be a positive integer, got 0"),
        (lambda: CosineAnnealing(0.1, 1.5), "T_max must be a positive integer, got 1.5"),
        (lambda: OneCycle(-1, 10), "max_lr must be finite and not negative, got -1"),
        (lambda: OneCycle(1, 10, pct_start=1.0), r"pct_start must be in \[0, 1\), got 1.0"),
        (lambda: Warmup(lambda step: -1.0, 5), "lr at step 0 must be finite and not negative, got -1.0"),
    ],
)
def test_settings_out_of_their_range_are_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_optimizers_by_name():
    for rule in RULES:
        assert type(get_optimizer(rule.__name__.upper())) is rule
    assert (SGD().lr, Adam().lr, Lion().lr) == (0.01, 0.001, 0.0001)
    assert get_optimizer("SGD", lr=0.5).lr == 0.5
    assert get_optimizer("nesterov", lr=0.5, momentum=0.7).momentum == 0.7
    rule = SGD()
    assert get_optimizer(rule) is rule
    assert rule.state == {}
    with pytest.raises(ValueError, match=r"optimizer must be one of 'sgd', 'momentum', .*, 'lion', got 'agd'"):
        get_optimizer("agd")
    with pytest.raises(ValueError, match="optimizer 'adam' has no 'momentum'; its settings are lr, beta1, beta2, eps,"):
        get_optimizer("adam", momentum=0.9)
    with pytest.raises(ValueError, match="set them on the optimizer itself"):
        get_optimizer(rule, lr=0.1)


def test_a_rule_of_ones_own_is_a_few_lines(device, rng):
    class SignSGD(Optimizer):
        def rule(self, p, g, state, coefficients, scratch):
            p -= coefficients[0] * device.xp.sign(g)

    params, grads = vector(device, rng), vector(device, rng)
    before = asnumpy(params.flat).copy()
    SignSGD(0.5).update(params, grads)
    np.testing.assert_allclose(asnumpy(params.flat), before - 0.5 * np.sign(asnumpy(grads.flat)), rtol=1e-6)
    with pytest.raises(NotImplementedError, match="Optimizer must define rule"):
        Optimizer().update(params, grads)


@pytest.mark.parametrize("rule", [Adam, AdaGrad, RMSprop])
def test_a_gradient_of_zero_moves_nothing_in_float16(rule, device):
    p = {"w": device.asarray([1.0, 2.0], "float16")}
    optimizer = rule(0.01)
    for _ in range(3):
        optimizer.update(p, {"w": device.asarray([0.0, 0.0], "float16")})
    assert asnumpy(p["w"]).tolist() == [1.0, 2.0]

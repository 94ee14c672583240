"""Update rules, schedules and clipping against PyTorch's, in float64 over some tens of steps."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xpnet import Device, ParameterVector, asnumpy
from xpnet.optimizers import SGD, AdaGrad, Adam, AdamW, CosineAnnealing, OneCycle, RMSprop, StepLR, Warmup

torch = pytest.importorskip("torch", reason="PyTorch, the oracle extra, is not installed")
schedulers = torch.optim.lr_scheduler

STEPS = 40
SHAPES = {"W1": (5, 4), "b1": (4,), "W2": (70, 2)}
NAMES = {"decay_rate": "alpha"}
"""PyTorch's names for settings that the book calls otherwise."""

ratios = st.floats(0.0, 0.999)
lasting = st.floats(0.9, 0.999)
"""How much is kept of squares: of few, a divisor comes close to 0, and rounding grows from step to step."""
common = {"lr": st.floats(1e-4, 0.5), "weight_decay": st.floats(0.0, 0.5)}
RULES = {
    "sgd": (SGD, torch.optim.SGD, common),
    "momentum": (SGD, torch.optim.SGD, {**common, "momentum": ratios}),
    "nesterov": (SGD, torch.optim.SGD, {**common, "momentum": st.floats(0.1, 0.999), "nesterov": st.just(True)}),
    "adagrad": (AdaGrad, torch.optim.Adagrad, {**common, "eps": st.floats(1e-10, 0.1)}),
    "rmsprop": (RMSprop, torch.optim.RMSprop, {**common, "eps": st.floats(1e-10, 0.1), "decay_rate": lasting}),
    "adam": (Adam, torch.optim.Adam, {**common, "eps": st.floats(1e-10, 0.1), "beta1": ratios, "beta2": lasting}),
    "adamw": (AdamW, torch.optim.AdamW, {**common, "eps": st.floats(1e-10, 0.1), "beta1": ratios, "beta2": lasting}),
}


def as_in_pytorch(chosen):
    renamed = {NAMES.get(name, name): value for name, value in chosen.items()}
    if "beta1" in renamed:
        renamed["betas"] = (renamed.pop("beta1"), renamed.pop("beta2"))
    return renamed


def compare_steps(device, seed, ours, theirs, clip=None, scheduler=None):
    """Take the same steps down random gradients and compare where they lead.

    `theirs` makes PyTorch's optimizer of parameters, `scheduler` a schedule of that; `clip` cuts their gradients.
    """
    rng = np.random.default_rng(seed)
    params = ParameterVector(SHAPES, "float64", device)
    params.update({name: rng.standard_normal(shape) for name, shape in SHAPES.items()})
    grads = params.zeros_like()
    twins = {name: torch.nn.Parameter(torch.tensor(value)) for name, value in params.asnumpy().items()}
    reference = theirs(list(twins.values()))
    schedule = scheduler(reference) if scheduler else None
    for _ in range(STEPS):
        scale = rng.choice([1e-3, 1.0, 10.0])
        grads.update({name: scale * rng.standard_normal(shape) for name, shape in SHAPES.items()})
        for name, gradient in grads.asnumpy().items():
            twins[name].grad = torch.tensor(gradient)
        if clip:
            clip(list(twins.values()))
        reference.step()
        if schedule:
            schedule.step()
        ours.update(params, grads)
    for name, twin in twins.items():
        expected = twin.detach().numpy()
        np.testing.assert_allclose(asnumpy(params[name]), expected, rtol=1e-12, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize("name", RULES)
@settings(max_examples=30)
@given(draw=st.data())
def test_rules_of_any_settings(name, draw):
    ours, theirs, ranges = RULES[name]
    chosen = draw.draw(st.fixed_dictionaries(ranges))
    seed = draw.draw(st.integers(0, 2**32))
    compare_steps(Device("cpu"), seed, ours(**chosen), lambda p: theirs(p, **as_in_pytorch(chosen)))


@pytest.mark.parametrize(("ours", "theirs"), [r[:2] for r in RULES.values() if r[0] is not SGD])
def test_rules_by_default(device, ours, theirs):
    compare_steps(device, 0, ours(), theirs)


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_with_momentum(device, nesterov):
    chosen = {"lr": 0.1, "momentum": 0.9, "nesterov": nesterov, "weight_decay": 0.01}
    compare_steps(device, 0, SGD(**chosen), lambda p: torch.optim.SGD(p, **chosen))


@pytest.mark.parametrize("limit", [1e-3, 1.0, 1e3])
def test_gradients_clipped_by_norm(device, limit):
    compare_steps(
        device,
        0,
        Adam(clip_norm=limit, weight_decay=0.1),
        lambda p: torch.optim.Adam(p, weight_decay=0.1),
        clip=lambda p: torch.nn.utils.clip_grad_norm_(p, limit),
    )


@pytest.mark.parametrize("limit", [1e-3, 1.0, 1e3])
def test_gradients_clipped_by_value(device, limit):
    compare_steps(
        device,
        0,
        SGD(0.1, momentum=0.9, clip_value=limit),
        lambda p: torch.optim.SGD(p, 0.1, momentum=0.9),
        clip=lambda p: torch.nn.utils.clip_grad_value_(p, limit),
    )


def warmed_up(optimizer):
    first = schedulers.LinearLR(optimizer, 0.1, total_iters=7)
    return schedulers.SequentialLR(optimizer, [first, schedulers.CosineAnnealingLR(optimizer, STEPS)], [7])


@pytest.mark.parametrize(
    ("lr", "scheduler"),
    [
        (StepLR(0.3, 7), lambda o: schedulers.StepLR(o, 7)),
        (StepLR(0.3, 1, gamma=0.9), lambda o: schedulers.StepLR(o, 1, gamma=0.9)),
        (CosineAnnealing(0.3, STEPS), lambda o: schedulers.CosineAnnealingLR(o, STEPS)),
        (CosineAnnealing(0.3, 60, eta_min=0.1), lambda o: schedulers.CosineAnnealingLR(o, 60, eta_min=0.1)),
        (Warmup(0.3, 9), lambda o: schedulers.LinearLR(o, total_iters=9)),
        (Warmup(CosineAnnealing(0.3, STEPS), 7, start_factor=0.1), warmed_up),
        (lambda step: 0.3 * 0.9**step, lambda o: schedulers.ExponentialLR(o, 0.9)),
    ],
)
def test_schedules(device, lr, scheduler):
    compare_steps(device, 0, SGD(lr, momentum=0.9), lambda p: torch.optim.SGD(p, 0.3, momentum=0.9), None, scheduler)


@given(total=st.integers(4, 300), pct_start=st.floats(0.3, 0.9), div=st.floats(2.0, 50.0), last=st.floats(10.0, 1e5))
def test_one_cycle(total, pct_start, div, last):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.1)
    theirs = schedulers.OneCycleLR(
        optimizer, 0.4, total, pct_start=pct_start, div_factor=div, final_div_factor=last, cycle_momentum=False
    )
    expected = []
    for _ in range(total):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if len(expected) < total:
            theirs.step()
    ours = OneCycle(0.4, total, pct_start, div, last)
    np.testing.assert_allclose([ours(step) for step in range(total)], expected, rtol=1e-12)

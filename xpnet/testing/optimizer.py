"""Checks of an update rule: what it changes, its state, copies, devices."""

from __future__ import annotations

import copy
import gc
import pickle
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from xpnet.device import Device, DeviceError, asnumpy
from xpnet.optimizers import Optimizer
from xpnet.parameters import ParameterVector
from xpnet.testing.comparison import expect_equal, expect_no_wait, has_a_home, require_cuda
from xpnet.testing.report import Fault, Report, run_checks
from xpnet.typing import DTypeLike

__all__ = ["OPTIMIZER_CHECKS", "check_optimizer"]

SHAPES = {"W1": (3, 2), "b1": (2,), "W2": (70,)}
UPDATES = 3


def check_optimizer(
    optimizer: Optimizer,
    *,
    device: Device | str = "cpu",
    checks: Iterable[str] | None = None,
    raises: bool = True,
) -> Report:
    """Check an update rule: a new optimizer with the settings to be tested.

    Parameters
    ----------
    optimizer : Optimizer
        An optimizer before its first update. The checks work on copies.
    device, checks, raises
        As in `check_layer`; the names of the checks are those of ``OPTIMIZER_CHECKS``.

    Returns
    -------
    Report
        The outcome of each check.

    Raises
    ------
    AssertionError
        If a check failed. The text lists these checks, what was found and what to do.

    Examples
    --------
    >>> from xpnet.optimizers import Adam
    >>> check_optimizer(Adam(clip_norm=1.0)).ok
    True
    """
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer must be an xpnet.optimizers.Optimizer, got {type(optimizer).__name__}")
    if optimizer.steps:
        raise ValueError(f"optimizer must be new, got one after {optimizer.steps} updates")
    subject = _Subject(optimizer, Device(device))
    return run_checks(subject, type(optimizer).__name__, OPTIMIZER_CHECKS, checks, raises)


class _Subject:
    """An optimizer, with parameters and gradients to update."""

    def __init__(self, optimizer: Optimizer, device: Device) -> None:
        self.original, self.device = optimizer, device

    def new(self) -> Optimizer:
        return copy.deepcopy(self.original)

    def vector(self, seed: int, dtype: DTypeLike = "float64") -> ParameterVector:
        rng = np.random.default_rng(seed)
        made = ParameterVector(SHAPES, dtype, self.device)
        made.update({name: rng.standard_normal(shape) for name, shape in SHAPES.items()})
        return made

    def gradients(self, dtype: DTypeLike = "float64") -> list[ParameterVector]:
        return [self.vector(seed, dtype) for seed in range(1, UPDATES + 1)]

    def updated(self, dtype: DTypeLike = "float64") -> ParameterVector:
        params, optimizer = self.vector(0, dtype), self.new()
        for g in self.gradients(dtype):
            optimizer.update(params, g)
        return params


def _only_parameters(subject: _Subject) -> None:
    """An update changes the parameters in place, and neither the gradients nor the gaps between parameters."""
    params, optimizer = subject.vector(0), subject.new()
    views, before = dict(params), asnumpy(params.flat).copy()
    for g in subject.gradients():
        kept = {"grads": asnumpy(g.flat).copy()}
        optimizer.update(params, g)
        expect_equal({"grads": g.flat}, kept, "the rule changed its argument g; write to scratch.")
    if not all(params[name] is view for name, view in views.items()):
        raise Fault("The parameters are other arrays; change p in place: p -= step.")
    changed = asnumpy(params.flat) != before
    filled = subject.vector(0).zeros_like()
    for name in filled:
        filled[name][...] = 1.0
    outside = asnumpy(filled.flat) == 0.0
    if changed[outside].any():
        raise Fault("The gaps between parameters changed; a rule of zeros must leave zeros.")
    if not changed.any():
        raise Fault("No parameter changed; change p in place: p -= step.")


def _dtypes(subject: _Subject) -> None:
    """Parameters and state keep the dtype: float16, float32 or float64."""
    for dtype in ("float16", "float32", "float64"):
        params, optimizer = subject.vector(0, dtype), subject.new()
        for g in subject.gradients(dtype):
            optimizer.update(params, g)
        for quantity, arrays in optimizer.state.items():
            for name, array in arrays.items():
                if array.dtype != dtype or not subject.device.holds(array):
                    raise Fault(f"State {quantity!r} of {name} is {array.dtype}, not {dtype}; change it in place.")
        if not np.isfinite(asnumpy(params.flat)).all():
            raise Fault(f"Parameters in {dtype} are no longer finite; keep intermediate results in range.")


def _state(subject: _Subject) -> None:
    """State has the names of ``state_names`` and the shapes of the parameters, and updates are counted."""
    params, optimizer = subject.vector(0), subject.new()
    for g in subject.gradients():
        optimizer.update(params, g)
    if optimizer.steps != UPDATES:
        raise Fault(f"steps is {optimizer.steps} after {UPDATES} updates; leave it to Optimizer.update.")
    if tuple(optimizer.state) != tuple(optimizer.state_names):
        raise Fault(f"state has {tuple(optimizer.state)}, state_names {tuple(optimizer.state_names)}.")
    for quantity, arrays in optimizer.state.items():
        shapes = {name: array.shape for name, array in arrays.items()}
        if shapes != SHAPES:
            raise Fault(f"State {quantity!r} has shapes {shapes}, expected {SHAPES}; keep those of the parameters.")


def _dicts(subject: _Subject) -> None:
    """Dicts of arrays are updated as one vector is: the rule is elementwise."""
    vector = subject.vector(0)
    for params in (
        {name: value.copy() for name, value in vector.items()},
        vector,
    ):  # the vector with dicts of gradients
        optimizer = subject.new()
        for g in subject.gradients():
            optimizer.update(params, dict(g))
        advice = "the rule must treat each element by itself."
        expect_equal(dict(params), dict(subject.updated()), advice, 1e-12, 1e-14)


def _strides(subject: _Subject) -> None:
    """Arrays that are not contiguous are updated in place, and what lies between stays."""
    rng = np.random.default_rng(0)
    whole = rng.standard_normal((4, 6))
    array = subject.device.asarray(whole.copy())
    apart, compact = {"W": array.T[::3, ::2]}, {"W": subject.device.asarray(whole.T[::3, ::2].copy())}
    one, other = subject.new(), subject.new()
    for _ in range(UPDATES):
        g = {"W": subject.device.asarray(rng.standard_normal((2, 2)))}
        one.update(apart, g)
        other.update(compact, g)
    expect_equal(apart, compact, "change p in place, whatever its strides.", 1e-12, 1e-14)
    expect_equal({"between": array[1::2]}, {"between": whole[1::2]}, "change nothing but p.")


def _resume(subject: _Subject) -> None:
    """A run goes on from saved steps and state, and from a copy or a pickle, to the last bit."""
    params, optimizer = subject.vector(0), subject.new()
    first, *later = subject.gradients()
    optimizer.update(params, first)
    saved: dict[str, Mapping[str, Any]] = {}
    for quantity, arrays in optimizer.state.items():
        saved[quantity] = {name: asnumpy(array).copy() for name, array in arrays.items()}
    resumed = subject.new()
    resumed.steps, resumed.state = optimizer.steps, saved
    twins = [(copy.deepcopy(params), resumed), copy.deepcopy((params, optimizer))]
    if not callable(optimizer.lr) and has_a_home(type(optimizer)):
        twins.append(pickle.loads(pickle.dumps((params, optimizer))))
    for g in later:
        optimizer.update(params, g)
        for vector, twin in twins:
            twin.update(vector, g)
    for vector, _ in twins:
        expect_equal(dict(vector), dict(params), "keep all that lasts in the quantities of state_names.")


def _graph_numbers(subject: _Subject) -> None:
    """What changes from update to update is in ``coefficients``: a CUDA graph repeats everything else."""
    params, optimizer = subject.vector(0), subject.new()
    for ahead, g in enumerate(subject.gradients()):
        optimizer.apply(params, g, [subject.device.asarray(np.asarray(n)) for n in optimizer.numbers(ahead)])
    advice = "compute what depends on the number of the update in coefficients(lr, t), not in rule."
    expect_equal(dict(params), dict(subject.updated()), advice, 1e-12, 1e-14)


def _moves(subject: _Subject) -> None:
    """State follows the parameters to another dtype and device."""
    first, *later = subject.gradients("float32")
    params, optimizer = subject.vector(0, "float32").to(Device("cpu")), subject.new()
    stayed, twin = copy.deepcopy(params), subject.new()
    optimizer.update(params, first.to(Device("cpu")))
    twin.update(stayed, first.to(Device("cpu")))
    params = params.to(subject.device, "float64")
    for g in later:
        optimizer.update(params, g.to(subject.device, "float64"))
        twin.update(stayed, g.to(Device("cpu")))
    expect_equal(dict(params), dict(stayed), "keep state in the quantities of state_names.", 1e-4, 1e-6)


def _empty(subject: _Subject) -> None:
    """A network without parameters is updated, too."""
    both: list[Mapping[str, Any]] = [ParameterVector({"W": (0, 3)}, device=subject.device), {}]
    for params in both:
        subject.new().update(params, params)


def _mixed_devices(subject: _Subject) -> None:
    """Gradients on another device are refused."""
    require_cuda(subject.device)
    params = subject.vector(0)
    try:
        subject.new().update(params, params.asnumpy())
    except DeviceError:
        return
    raise Fault("Gradients on the host were taken; leave update to Optimizer.")


def _no_wait(subject: _Subject) -> None:
    """An update neither waits for the device nor copies between it and the host."""
    params, grads, optimizer = subject.vector(0), subject.vector(1), subject.new()
    expect_no_wait(lambda: optimizer.update(params, grads), subject.device)


def _capture(subject: _Subject) -> None:
    """An update can be captured as a CUDA graph, which computes the same when it is launched."""
    require_cuda(subject.device)
    params, start, g, optimizer = subject.vector(0), subject.vector(0), subject.vector(1), subject.new()
    expected = subject.vector(0)
    subject.new().update(expected, g)
    numbers = [subject.device.asarray(np.asarray(number)) for number in optimizer.numbers(0)]
    stream = subject.device.xp.cuda.Stream(non_blocking=True)
    subject.device.synchronize()
    with stream:
        optimizer.apply(params, g, numbers)  # compiles, and leaves memory in the stream's pool
        for array in (array for quantity in optimizer.state.values() for array in quantity.values()):
            array[...] = 0.0
        params.flat[...] = start.flat
        gc.collect()  # what is garbage cannot be freed in a capture
        stream.synchronize()
        stream.begin_capture()
        try:
            optimizer.apply(params, g, numbers)
        finally:
            graph = stream.end_capture()
        graph.launch(stream)
        stream.synchronize()
    expect_equal(dict(params), dict(expected), "compute on the device, in place.", 1e-12, 1e-14)


OPTIMIZER_CHECKS: Mapping[str, Callable[[Any], None]] = {
    "only parameters": _only_parameters,
    "dtypes": _dtypes,
    "state": _state,
    "dicts": _dicts,
    "not contiguous": _strides,
    "resume": _resume,
    "coefficients": _graph_numbers,
    "moves": _moves,
    "empty": _empty,
    "mixed devices": _mixed_devices,
    "no wait": _no_wait,
    "capture": _capture,
}
"""Checks of `check_optimizer` by name."""

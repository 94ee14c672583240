"""Checks of a layer: gradients, dtypes, batches, copies, devices."""

from __future__ import annotations

import copy
import gc
import inspect
import pickle
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from xpnet.device import Device, DeviceError, asnumpy
from xpnet.gradient.numerical import central_differences
from xpnet.layers import Layer
from xpnet.testing.comparison import expect_equal, expect_no_wait, expect_shape, has_a_home, require_cuda, strided
from xpnet.testing.report import Fault, NotApplicableError, Report, run_checks
from xpnet.testing.trial import Subject, Trial
from xpnet.typing import Array

__all__ = ["LAYER_CHECKS", "check_layer"]

STEP = 1e-5
"""Half the step of central differences, near the best one for float64."""

ROUNDING = 1e-12
"""Relative tolerance of results that are computed in another order."""

NO_ARGUMENTS: Mapping[str, Any] = MappingProxyType({})


def check_layer(
    layer: Layer,
    *inputs: Any,
    arguments: Mapping[str, Any] = NO_ARGUMENTS,
    device: Device | str = "cpu",
    rtol: float = 1e-6,
    atol: float = 1e-8,
    checks: Iterable[str] | None = None,
    raises: bool = True,
) -> Report:
    """Check a layer: its derivative, and what networks and training steps rely on (docs/testing.md has the list).

    Parameters
    ----------
    layer : Layer
        The layer. The checks work on copies, in float64 if not said otherwise.
    *inputs : arrays
        Inputs of forward, all differentiated. Samples are axis 0 of the first. In the others, and in `arguments`, they
        are the first axis of the same length. So choose a number of samples that no other axis has. A layer with
        ``takes_ids`` gets integers.
    arguments : mapping of str to array, optional
        Further arguments of forward, not differentiated: ``{"padding": mask}``.
    device : Device or str, default "cpu"
        Device of the checks. Some need a CUDA device (`xpnet.testing.cuda_stand_in` is one).
    rtol, atol : float
        Tolerances between backward and numerical derivatives.
    checks : iterable of str, optional
        Names of the checks to run (``LAYER_CHECKS``), by default all.
    raises : bool, default True
        Whether a failed check raises an error. Otherwise look at the report.

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
    >>> from xpnet.layers import Tanh
    >>> check_layer(Tanh(), [[0.5, -1.0], [2.0, 0.0], [1.0, 3.0]]).ok
    True
    """
    subject = Subject(layer, inputs, arguments, device, rtol, atol)
    return run_checks(subject, subject.name, LAYER_CHECKS, checks, raises)


def _compare_gradients(subject: Subject, trial: Trial) -> None:
    y = trial.forward()
    dout = trial.dout(y)
    gradients = trial.backward(copy.deepcopy(dout)) | trial.gradients()

    def loss(_: Array) -> Array:
        return (trial.forward() * dout).sum()

    for name, x in trial.points().items():
        expect_shape(name, gradients[name], x.shape, "a gradient has the shape of what it belongs to.")
        expected, at_kink = central_differences(loss, x, STEP, trial.patterns)
        found = trial.device.xp.where(at_kink, expected, gradients[name])
        advice = "compare backward with the formula of the derivative."
        expect_equal({name: found}, {name: expected}, advice, subject.rtol, subject.atol)


def _gradient(subject: Subject) -> None:
    """Backward is the derivative of forward, for each input and parameter."""
    _compare_gradients(subject, subject.trial())


def _single(subject: Subject) -> None:
    """A batch of one sample has the right gradients."""
    _compare_gradients(subject, subject.trial(samples=1))


def _prediction(subject: Subject) -> None:
    """Backward is also the derivative of forward(train=False)."""
    if "train" not in inspect.signature(type(subject.original).forward).parameters:
        raise NotApplicableError("forward has no parameter train.")
    trial = subject.trial()
    y = asnumpy(trial.forward())
    trial.arguments["train"] = False
    if np.array_equal(asnumpy(trial.forward()), y):
        raise NotApplicableError("forward(train=False) computes the same.")
    _compare_gradients(subject, trial)


def _empty(subject: Subject) -> None:
    """A batch of no samples has empty gradients, and zeros for the parameters."""
    trial = subject.trial(samples=0)
    gradients = trial.backward(trial.dout(trial.forward()))
    for name, x in trial.points().items():
        if name in gradients:
            expect_shape(name, gradients[name], x.shape, "use shapes of x, not constants.")
    zeros = {name: np.zeros(trial.points()[name].shape) for name in trial.gradients()}
    expect_equal(trial.gradients(), zeros, "a sum over no samples is 0.")


def _parameters_only(subject: Subject) -> None:
    """backward_parameters leaves the gradients that backward leaves."""
    trial = subject.trial()
    dout = trial.dout(trial.forward())
    trial.backward(dout)
    expected = {name: asnumpy(x).copy() for name, x in trial.gradients().items()}
    trial.forward()
    trial.layer.backward_parameters(dout)
    expect_equal(trial.gradients(), expected, "compute them as backward does.", ROUNDING, ROUNDING)


def _into_given_arrays(subject: Subject) -> None:
    """Gradients that are written to ``self.out`` are those of a layer that works alone."""
    trial = subject.trial()
    expected = trial.results()
    for part in trial.layer.modules().values():
        if part.parameter_names:
            arrays = {
                f"d{name}": trial.device.xp.full_like(getattr(part, name), np.nan) for name in part.parameter_names
            }
            part.out = arrays
    expect_equal(trial.results(), expected, "overwrite the arrays in self.out, do not add to them.", ROUNDING, ROUNDING)


def _dtypes(subject: Subject) -> None:
    """Results have the dtype of parameters and inputs: float16, float32 or float64."""
    for dtype in ("float16", "float32", "float64"):
        for name, x in subject.trial(dtype).results().items():
            if x.dtype != dtype:
                raise Fault(
                    f"{name} is {x.dtype} for arguments in {dtype}; multiply arrays by Python floats, not by NumPy "
                    "scalars, and create arrays with the dtype of x."
                )


def _integers(subject: Subject) -> None:
    """Whole numbers and booleans are computed in float64."""
    if len(subject.inputs) != 1 or subject.original.takes_ids:
        raise NotApplicableError("It is for layers with one input that is no id.")
    for dtype in ("int64", "int8", "uint8", "bool"):
        trial, twin = subject.trial(), subject.trial()
        values = np.abs(subject.inputs[0]).clip(0, 1) * 60 + 1  # they fit, and have logarithms
        whole = trial.device.asarray(values).astype(dtype)
        trial.inputs, twin.inputs = [whole], [whole.astype("float64")]
        advice = f"x is {dtype} here; convert it first: x = functions.as_floating(x)."
        y, expected = trial.forward(), twin.forward()
        expect_equal({"y": y}, {"y": expected}, advice, ROUNDING)
        if y.dtype.kind == "f":
            dout = trial.dout(expected)
            expect_equal(trial.backward(dout), twin.backward(dout), advice, ROUNDING, ROUNDING)


def _strides(subject: Subject) -> None:
    """Arrays that are not contiguous give the same results."""
    trial = subject.trial()
    y = trial.forward()
    dout = trial.dout(y)
    expected = {"y": y} | trial.backward(dout)
    apart = subject.trial()
    apart.inputs = [strided(x, subject.device) for x in apart.inputs]
    apart.arguments = {name: strided(x, subject.device) for name, x in apart.arguments.items()}
    found = {"y": apart.forward()} | apart.backward(strided(dout, subject.device))
    expect_equal(found, expected, "use shapes and axes, not the memory layout.", ROUNDING, ROUNDING)


def _arguments(subject: Subject) -> None:
    """Neither pass changes its arguments, the parameters, or with ``fixed_buffers`` the buffers."""
    trial = subject.trial()
    watched = {f"input {i}": x for i, x in enumerate(trial.inputs)}
    watched |= trial.arguments | trial.layer.parameters() | trial.layer.buffers()
    watched = {name: x for name, x in watched.items() if hasattr(x, "dtype")}
    before = {name: asnumpy(x).copy() for name, x in watched.items()}
    y = trial.forward()
    expect_equal(watched, before, "forward changed it; compute a new array.")
    dout = trial.dout(y)
    dout_before = {"dout": np.copy(asnumpy(dout))}
    trial.backward(dout)
    expect_equal(watched | {"dout": dout}, before | dout_before, "backward changed it; compute a new array.")


def _results_kept(subject: Subject) -> None:
    """No later call overwrites a result."""
    trial = subject.trial()
    results = trial.results()
    before = {name: asnumpy(x).copy() for name, x in results.items()}
    if not subject.original.takes_ids:
        trial.inputs = [x * 2.0 for x in trial.inputs]
    y = trial.forward()
    for dx in trial.backward(trial.dout(y) * 3.0).values():
        dx *= 0.0
    expect_equal(results, before, "a later call changed it; return a new array each time.")


def _repeatable(subject: Subject) -> None:
    """The same call gives the same result, even after the caller changed an earlier one."""
    trial = subject.trial()
    first = {"y": asnumpy(trial.forward()).copy()}
    y = trial.forward()
    expect_equal({"y": y}, first, "obey fixed_buffers: random numbers and buffers then stay as they are.")
    gradients = trial.backward(trial.dout(y))
    before = {name: asnumpy(x).copy() for name, x in (gradients | trial.gradients()).items()}
    for dx in gradients.values():
        dx *= 0.0
    again = trial.backward(trial.dout(y)) | trial.gradients()
    expect_equal(again, before, "backward returned a saved array or changed one; return a new array.")


def _order(subject: Subject) -> None:
    """Backward before forward, or after ``forget``, is an error that says so."""
    trial, ready = subject.trial(), subject.trial()
    dout = trial.dout(ready.forward())
    for _ in range(2):
        try:
            trial.layer.backward(dout)
        except RuntimeError as error:
            if "call" not in str(error):
                raise
        else:
            raise Fault("There was no error; name in `saved` what forward keeps for backward.")
        trial.forward()
        trial.layer.forget()


def _saved(subject: Subject) -> None:
    """Forward sets the attributes in ``saved``, and no other."""
    trial = subject.trial()
    before = set(vars(trial.layer))
    trial.forward()
    found, declared = set(vars(trial.layer)) - before, set(trial.layer.saved)
    if found != declared:
        raise Fault(f"forward set {sorted(found)}, saved has {sorted(declared)}; declare what backward needs there.")


def _threads(subject: Subject) -> None:
    """Forward computes from its arguments and local names, so that threads may predict at the same time."""
    trial = subject.trial()
    expected = {"y": asnumpy(trial.forward()).copy()}
    layer = trial.layer
    names, kind = layer.saved, type(layer)

    running: list[bool] = []

    class Watched(kind):  # type: ignore[misc, valid-type]
        def forward(self, *args: Any, **kwargs: Any) -> Array:
            running.append(True)
            try:
                return super().forward(*args, **kwargs)
            finally:
                running.clear()

        def __getattribute__(self, name: str) -> Any:
            if name in names and running:
                raise Fault(f"forward reads self.{name}; use a local name, and save it at the end.")
            return super().__getattribute__(name)

    layer.__class__ = Watched
    expect_equal({"y": trial.forward()}, expected, "forward depends on what it saved.")


def _copies(subject: Subject) -> None:
    """A copy, and one from a pickle, compute the same."""
    trial = subject.trial()
    expected = {"y": trial.forward()}
    advice = "keep all state in attributes that can be copied."
    twin = copy.copy(trial)
    twin.layer = copy.deepcopy(trial.layer)
    expect_equal({"y": twin.forward()}, expected, advice)
    if has_a_home(type(trial.layer)):
        twin.layer = pickle.loads(pickle.dumps(trial.layer))
        expect_equal({"y": twin.forward()}, expected, advice)


def _mixed_devices(subject: Subject) -> None:
    """Arrays of two devices are refused by a DeviceError that names the argument."""
    require_cuda(subject.device)
    trial = subject.trial()
    advice = "call get_array_module(x=x, W=self.W) first."
    on_host = copy.copy(trial)
    on_host.inputs = [asnumpy(trial.inputs[0]), *trial.inputs[1:]]
    if trial.layer.parameters() or trial.arguments or len(trial.inputs) > 1:
        _expect_refusal(on_host.forward, "is on the host", f"forward took x from the host; {advice}")
    y = trial.forward()
    if y.shape and any(hasattr(getattr(trial.layer, name), "dtype") for name in trial.layer.saved):
        dout = np.ones(y.shape)
        _expect_refusal(lambda: trial.backward(dout), "dout is on the host", f"backward took dout from it; {advice}")


def _expect_refusal(call: Callable[[], object], words: str, fault: str) -> None:
    try:
        call()
    except DeviceError as error:
        if words not in str(error):
            raise
    else:
        raise Fault(fault)


def _no_wait(subject: Subject) -> None:
    """Neither pass waits for the device or copies between it and the host."""
    trial = subject.trial()
    require_cuda(subject.device)
    dout = trial.dout(trial.forward())

    def both() -> None:
        trial.forward()
        trial.layer.backward(dout)

    expect_no_wait(both, subject.device)


def _capture(subject: Subject) -> None:
    """Both passes can be captured as a CUDA graph, which computes the same when it is launched."""
    require_cuda(subject.device)
    xp = subject.device.xp
    trial = subject.trial()
    expected = {name: asnumpy(x).copy() for name, x in trial.results().items()}
    stream = xp.cuda.Stream(non_blocking=True)
    with stream:
        dout = trial.dout(trial.forward())
        for _ in range(2):  # compiles, and leaves memory in the stream's pool
            results = {"y": trial.forward()} | trial.backward(dout) | trial.gradients()
        del results
        gc.collect()  # what is garbage cannot be freed in a capture
        stream.synchronize()
        stream.begin_capture()
        try:
            captured = {"y": trial.forward()} | trial.backward(dout) | trial.gradients()
        finally:
            graph = stream.end_capture()
        graph.launch(stream)
        stream.synchronize()
    expect_equal(captured, expected, "keep what changes from call to call in an array on the device.", ROUNDING)


LAYER_CHECKS: Mapping[str, Callable[[Subject], None]] = {
    "gradient": _gradient,
    "single sample": _single,
    "prediction": _prediction,
    "empty batch": _empty,
    "backward_parameters": _parameters_only,
    "given arrays": _into_given_arrays,
    "dtypes": _dtypes,
    "integers": _integers,
    "not contiguous": _strides,
    "arguments unchanged": _arguments,
    "results kept": _results_kept,
    "repeatable": _repeatable,
    "backward before forward": _order,
    "saved": _saved,
    "threads": _threads,
    "copies": _copies,
    "mixed devices": _mixed_devices,
    "no wait": _no_wait,
    "capture": _capture,
}
"""Checks of `check_layer` by name."""

"""Comparison of arrays, with messages that name the worst element."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

import numpy as np

from xpnet.device import Device, asnumpy
from xpnet.testing.cuda_stand_in import counting, counts
from xpnet.testing.report import Fault, NotApplicableError
from xpnet.typing import Array

__all__ = ["expect_equal", "expect_no_wait", "expect_shape", "has_a_home", "require_cuda", "strided"]


def expect_shape(name: str, found: Array, shape: tuple[int, ...], advice: str) -> None:
    """Raise a Fault if `found` has another shape."""
    got = getattr(found, "shape", None)
    if got != shape:
        raise Fault(f"{name} has shape {got}, expected {shape}; {advice}")


def expect_equal(
    found: Mapping[str, Array], expected: Mapping[str, Array], advice: str, rtol: float = 0.0, atol: float = 0.0
) -> None:
    """Raise a Fault that names the element with the largest difference, if arrays of the same name differ."""
    for name, value in expected.items():
        a, b = asnumpy(found[name]), asnumpy(value)
        expect_shape(name, a, b.shape, advice)
        wrong = ~np.isclose(a, b, rtol=rtol, atol=atol, equal_nan=True)
        if wrong.any():
            with np.errstate(invalid="ignore", over="ignore"):
                distance = np.where(wrong, np.nan_to_num(abs(a.astype("float64") - b), nan=np.inf), -1.0)
            index = tuple(int(i) for i in np.unravel_index(int(distance.argmax()), a.shape))
            place = f"{name}[{', '.join(map(str, index))}]" if index else name
            raise Fault(
                f"{place} is {a[index]:.9g}, expected {b[index]:.9g} ({int(wrong.sum())} of {a.size} values differ); "
                f"{advice}"
            )


def strided(x: Array, device: Device) -> Array:
    """Return an array with the values of `x` that is not contiguous."""
    if not getattr(x, "shape", ()):
        return x
    wide = device.xp.zeros((*x.shape[:-1], 2 * x.shape[-1]), x.dtype)
    wide[..., ::2] = x
    return wide[..., ::2]


def has_a_home(cls: type) -> bool:
    """Whether pickle finds a class by its module and name; not one that is defined within a function."""
    return getattr(sys.modules.get(cls.__module__), cls.__qualname__, None) is cls


def require_cuda(device: Device) -> None:
    """Raise NotApplicableError if `device` is the CPU."""
    if device.name == "cpu":
        raise NotApplicableError("It needs device='cuda': a GPU, or xpnet.testing.cuda_stand_in.")


def expect_no_wait(work: Callable[[], object], device: Device) -> None:
    """Raise a Fault if `work` synchronizes with the device, or copies from the host or to it."""
    require_cuda(device)
    try:
        counts()
    except RuntimeError:
        raise NotApplicableError("Only xpnet.testing.cuda_stand_in counts transfers.") from None
    work()  # compiles
    with counting() as done:
        work()
    waits = {kind: done[kind] for kind in ("synchronizations", "copies_to_host", "copies_to_device") if done[kind]}
    if waits:
        found = ", ".join(f"{number} {kind.replace('_', ' ')}" for kind, number in waits.items())
        raise Fault(f"Found {found}; avoid float(x), bool(x), x.item(), boolean masks, and arrays made from lists.")

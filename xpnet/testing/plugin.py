"""Fixtures for pytest: devices, and the work that the CUDA stand-in counts. pytest finds them by the entry point."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from xpnet.device import Device, DeviceError
from xpnet.testing.cuda_stand_in import counting, counts

__all__ = ["cuda_device", "cuda_stand_in", "xp_device"]


@pytest.fixture
def cuda_device() -> Device:
    """The first CUDA device: a GPU, or CuPy on the stand-in. The test is skipped without one."""
    try:
        return Device("cuda")
    except DeviceError as error:
        pytest.skip(f"no CUDA device: {error}")


@pytest.fixture(params=["cpu", "cuda"])
def xp_device(request: pytest.FixtureRequest) -> Device:
    """The CPU, then the first CUDA device: a test runs on both. ``xp_device.xp`` is NumPy or CuPy."""
    return Device("cpu") if request.param == "cpu" else request.getfixturevalue("cuda_device")


@pytest.fixture
def cuda_stand_in() -> Callable[[], AbstractContextManager[Counter[str]]]:
    """CuPy without a GPU, and a context that counts work: ``with cuda_stand_in() as work: ...``.

    The test is skipped unless pytest runs in the stand-in's environment (`xpnet.testing.cuda_stand_in`).
    """
    try:
        counts()
    except RuntimeError as error:
        pytest.skip(str(error))
    return counting

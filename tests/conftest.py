"""Devices for the tests: every test that touches arrays runs on each that is there."""

from __future__ import annotations

import os
import sys

import fake_cupy
import numpy as np
import pytest
from hypothesis import settings

from xpnet import Device, DeviceError

# No deadline: these machines may be busy. In CI the same examples each time, so that a change is judged by itself.
settings.register_profile("xpnet", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("xpnet")


def pytest_generate_tests(metafunc):
    if "device" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("--device")
        metafunc.parametrize("device", [chosen] if chosen else ["cpu", "fake", "cuda"], indirect=True)


@pytest.fixture
def device(request):
    """A device: the CPU, the fake in CuPy's place, or the real first GPU."""
    if request.param == "fake":
        request.getfixturevalue("cupy")
        return Device("cuda")
    try:
        return Device(request.param)
    except DeviceError as error:
        if request.config.getoption("--device"):
            pytest.fail(str(error))
        pytest.skip(f"no CUDA device for the tests on cuda: {error}")


@pytest.fixture
def cupy(monkeypatch):
    """The fake, in the place of CuPy."""
    module = fake_cupy.create()
    monkeypatch.setitem(sys.modules, "cupy", module)
    return module


@pytest.fixture
def rng():
    return np.random.default_rng(20261123)

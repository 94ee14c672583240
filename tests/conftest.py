"""Devices for the tests: every test that touches arrays runs on each that is there.

`--device cuda` (or `cpu`, `fake`) runs on that one only and fails where it is missing; `--no-skips` makes every
skipped test a failure, for the jobs that promise to run them all.
"""

from __future__ import annotations

import sys
from collections import Counter

import fake_cupy
import numpy as np
import pytest

from xpnet import Device, DeviceError

DEVICES = ("cpu", "fake", "cuda")


def pytest_addoption(parser):
    parser.addoption("--device", choices=DEVICES, help="run device tests on this device only, and require it")
    parser.addoption("--no-skips", action="store_true", help="a skipped test is a failure")


def pytest_generate_tests(metafunc):
    if "device" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("--device")
        metafunc.parametrize("device", [chosen] if chosen else DEVICES, indirect=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and item.config.getoption("--no-skips"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which --no-skips forbids: {report.longrepr[-1]}"
    return report


def pytest_terminal_summary(terminalreporter):
    """Say what was not run, and why: a line per reason."""
    reasons = Counter(
        report.longrepr[-1].removeprefix("Skipped: ") for report in terminalreporter.getreports("skipped")
    )
    for reason, count in reasons.items():
        terminalreporter.write_line(f"not run: {count} tests: {reason}")


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

"""Devices and options that the tests and the benchmarks share.

Whatever asks for `device` runs on each that is there: the CPU and a CUDA device. Without a GPU, CuPy on the stand-in
(`xpnet.testing.cuda_stand_in`) is a CUDA device too.

`--device cuda` (or `cpu`) runs on that device only and fails where it is missing; with `-k cuda`, tests that use no
CUDA device are left out. A line at the end says for each reason how many tests were skipped.
"""

from __future__ import annotations

from collections import Counter

import pytest

from xpnet import Device, DeviceError


def pytest_addoption(parser):
    parser.addoption("--device", help="run on this device only (cpu, cuda), and require it")


def pytest_generate_tests(metafunc):
    if "device" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("--device")
        metafunc.parametrize("device", [chosen] if chosen else ["cpu", "cuda"], indirect=True)
    elif "cuda" in metafunc.fixturenames:
        metafunc.parametrize("cuda", ["cuda"], indirect=True)  # the word is then in the test's name


@pytest.fixture
def device(request):
    """A device: the CPU or the first CUDA device."""
    return Device("cpu") if request.param == "cpu" else request.getfixturevalue("cuda")


@pytest.fixture
def cuda(request):
    """The first CUDA device: a GPU, or CuPy on the stand-in."""
    chosen = request.config.getoption("--device")
    if chosen == "cpu":
        pytest.skip("not for --device cpu")
    try:
        return Device("cuda")
    except DeviceError as error:
        if chosen:
            pytest.fail(str(error))
        pytest.skip(f"no CUDA device: {error}")


def pytest_terminal_summary(terminalreporter):
    """Say what was not run, and why: a line per reason."""
    reasons = Counter(
        report.longrepr[-1].removeprefix("Skipped: ") for report in terminalreporter.getreports("skipped")
    )
    for reason, count in reasons.items():
        terminalreporter.write_line(f"not run: {count} tests: {reason}")

"""Devices and options that the tests and the benchmarks share.

Whatever asks for `device` runs on each that is there: the CPU, a CUDA device, and for the tests the fake.

`--device cuda` (or `cpu`, or for the tests `fake`) runs on that device only and fails where it is missing;
`--no-skips` makes every skipped test a failure, for the jobs that promise to run them all.
"""

from __future__ import annotations

from collections import Counter

import pytest

from xpnet import Device, DeviceError


def pytest_addoption(parser):
    parser.addoption("--device", help="run on this device only (cpu, fake, cuda), and require it")
    parser.addoption("--no-skips", action="store_true", help="a skipped test is a failure")


def pytest_generate_tests(metafunc):
    if "device" in metafunc.fixturenames:
        is_test = metafunc.config.rootpath / "tests" in metafunc.definition.path.parents
        chosen = metafunc.config.getoption("--device")
        names = [chosen] if chosen else ["cpu", "fake", "cuda"] if is_test else ["cpu", "cuda"]
        metafunc.parametrize("device", names, indirect=True)


@pytest.fixture
def device(request):
    """A device: the CPU, the real first GPU, or the fake in CuPy's place."""
    if request.param == "fake":
        request.getfixturevalue("cupy")  # from here on, the fake is CuPy
        return Device("cuda")
    try:
        return Device(request.param)
    except DeviceError as error:
        if request.config.getoption("--device"):
            pytest.fail(str(error))
        pytest.skip(f"no CUDA device: {error}")


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

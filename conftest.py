"""Options that the tests and the benchmarks share.

`--device cuda` (or `cpu`, or for the tests `fake`) runs on that device only and fails where it is missing;
`--no-skips` makes every skipped test a failure, for the jobs that promise to run them all.
"""

from __future__ import annotations

from collections import Counter

import pytest


def pytest_addoption(parser):
    parser.addoption("--device", help="run on this device only (cpu, fake, cuda), and require it")
    parser.addoption("--no-skips", action="store_true", help="a skipped test is a failure")


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

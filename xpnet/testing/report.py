"""Reports of checks: what passed, what failed and why, what does not apply."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, TypeVar

__all__ = ["Check", "Fault", "NotApplicableError", "Report", "run_checks"]

S = TypeVar("S")


class Fault(AssertionError):  # noqa: N818 - a finding of a check, not a fault of the library
    """What a check found: the observation, then what to do."""


class NotApplicableError(Exception):
    """Why a check does not apply."""


@dataclass(frozen=True)
class Check:
    """Outcome of one check.

    Attributes
    ----------
    name : str
        The check: ``"gradient"``.
    rule : str
        What the check demands, in one sentence.
    outcome : {"passed", "failed", "not applicable"}
    reason : str
        What was found and what to do, or why the check does not apply. Empty for a check that passed.
    error : Exception, optional
        The exception of a failed check, with its traceback.
    """

    name: str
    rule: str
    outcome: Literal["passed", "failed", "not applicable"] = "passed"
    reason: str = ""
    error: Exception | None = None

    def __str__(self) -> str:
        told = {"passed": "passed", "failed": f"{self.reason} The rule: {self.rule}"}
        return f"{self.name}: {told.get(self.outcome, f'not applicable. {self.reason}')}"


@dataclass(frozen=True)
class Report:
    """Outcomes of all checks of one layer, loss or update rule. ``str(report)`` has a line per check.

    Attributes
    ----------
    subject : str
        Name of the class.
    checks : dict of str to Check
        The checks by name, in the order in which they ran.
    """

    subject: str
    checks: dict[str, Check]

    @property
    def ok(self) -> bool:
        """Whether no check failed."""
        return not self.failed

    @property
    def failed(self) -> list[Check]:
        """The checks that failed."""
        return [check for check in self.checks.values() if check.outcome == "failed"]

    def __str__(self) -> str:
        return "\n".join([self.subject, *(f"  {check}" for check in self.checks.values())])

    def raise_for_failures(self) -> None:
        """Raise an error that lists the failed checks.

        Raises
        ------
        AssertionError
            If a check failed. Its cause is the exception of the first.
        """
        if self.failed:
            head = f"{self.subject} fails {len(self.failed)} of {len(self.checks)} checks:"
            raise AssertionError("\n".join([head, *(f"  {check}" for check in self.failed)])) from self.failed[0].error


class _Recorder:
    """Context that turns what a check raises into its outcome: the code under test may raise anything."""

    def __init__(self, name: str, rule: str) -> None:
        self.check = Check(name, rule)

    def __enter__(self) -> _Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        name, rule = self.check.name, self.check.rule
        if isinstance(error, NotApplicableError):
            self.check = Check(name, rule, "not applicable", str(error))
        elif isinstance(error, Fault):
            self.check = Check(name, rule, "failed", str(error), error)
        elif isinstance(error, Exception):
            place = traceback.extract_tb(trace)[-1]
            where = f"{place.filename}:{place.lineno}, in {place.name}"
            self.check = Check(name, rule, "failed", f"{type(error).__name__}: {error} ({where})", error)
        return error is None or isinstance(error, Exception)


def run_checks(
    subject: S, name: str, available: Mapping[str, Callable[[S], Any]], chosen: Iterable[str] | None, raises: bool
) -> Report:
    """Run checks by name, all by default, and report.

    Raises
    ------
    AssertionError
        With `raises`, if a check failed.
    ValueError
        If there is no check of a name in `chosen`.
    """
    names = list(available if chosen is None else chosen)
    if unknown := [key for key in names if key not in available]:
        raise ValueError(f"checks must be among {', '.join(map(repr, available))}, got {unknown[0]!r}")
    outcomes = {}
    for key in names:
        rule = (available[key].__doc__ or "").partition("\n")[0]
        with _Recorder(key, rule) as recorder:
            available[key](subject)
        outcomes[key] = recorder.check
    report = Report(name, outcomes)
    if raises:
        report.raise_for_failures()
    return report

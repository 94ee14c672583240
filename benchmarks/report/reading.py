"""Measurements from the JSON files that `pytest benchmarks --benchmark-json=FILE` writes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

__all__ = ["KINDS", "REMEDY", "Measurement", "Place", "Times", "Unreadable", "read"]

KINDS = ("step", "gradient", "growth", "layer", "time to accuracy")

ROLES = ("xpnet", "peer", "limit")

REMEDY = "measure again with python -m pytest benchmarks --benchmark-json=FILE"

SHORTEST, LONGEST = 1e-12, 3e7
"""Seconds that nothing here takes: a processor's cycle takes 1e-10, a year has 3e7."""

FACTS = {
    "kind": str,
    "party": str,
    "role": str,
    "work": str,
    "device": str,
    "environment": dict,
}
"""What the report reads of a benchmark's extra_info, and of which type."""


class Unreadable(ValueError):  # noqa: N818 - said of a file
    """Files in which there is not what is needed; the message says why, and what to do."""


@dataclass(frozen=True)
class Times:
    """Seconds of one call or step, over all rounds."""

    median: float
    q1: float
    q3: float


@dataclass(frozen=True)
class Place:
    """Where something was measured: a device of one file.

    Attributes
    ----------
    name : str
        The device, as in "cpu"; with the file's name where several files have that device.
    device, file : str
        The device and the file alone.
    machine : str
        The processor or GPU.
    """

    name: str
    device: str
    file: str
    machine: str = field(compare=False)


@dataclass(frozen=True)
class Measurement:
    """One benchmark of one party; the names are those of the JSON."""

    kind: str
    group: str
    party: str
    role: str
    work: str
    times: Times
    place: Place


def read(files: Iterable[Path]) -> list[Measurement]:
    """Return the measurements of all files, in their order.

    Raises
    ------
    Unreadable
        If a file is missing, is not JSON, or is not a result of these benchmarks.
    """
    files = list(dict.fromkeys(files))
    unique = len({file.name for file in files}) == len(files)
    found = [m for file in files for m in _read_file(file, file.name if unique else str(file))]
    places = {m.place for m in found}
    shared = {device for device, count in Counter(place.device for place in places).items() if count > 1}
    names = {p: replace(p, name=f"{p.device} ({p.file})" if p.device in shared else p.device) for p in places}
    return [replace(m, place=names[m.place]) for m in found]


def _read_file(file: Path, label: str) -> list[Measurement]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise Unreadable(f"{file}: {error.strerror or error}; name a file that exists, or {REMEDY}") from error
    except (ValueError, RecursionError) as error:  # of JSON or of UTF-8; brackets in brackets
        raise Unreadable(f"{file}: not JSON ({error}); {REMEDY}") from error
    benchmarks = content.get("benchmarks") if isinstance(content, dict) else None
    if not isinstance(benchmarks, list):
        raise Unreadable(f"{file}: not written by pytest-benchmark, it has no list of benchmarks; {REMEDY}")
    if not benchmarks:
        raise Unreadable(f"{file}: its list of benchmarks is empty; {REMEDY} and see that not all are skipped")
    return [_measurement(file, label, benchmark) for benchmark in benchmarks]


def _measurement(file: Path, label: str, benchmark: Any) -> Measurement:
    """Return what a benchmark measured, once its record has been found complete."""
    name = benchmark.get("name", "without a name") if isinstance(benchmark, dict) else "that is no record"

    def demand(condition: bool, expectation: str) -> None:
        if not condition:
            raise Unreadable(f"{file}: benchmark {name!r} {expectation}; {REMEDY}")

    demand(isinstance(benchmark, dict), "should be a record")
    info, stats = benchmark.get("extra_info"), benchmark.get("stats")
    demand(isinstance(stats, dict), "has no stats")
    demand(isinstance(info, dict), "has no extra_info")
    group = benchmark.get("group")
    demand(isinstance(group, str) and group.isprintable(), f"should have printable text as its group, got {group!r}")
    for key, expected in FACTS.items():
        demand(isinstance(info.get(key), expected), f"should have {key} in its extra_info, of type {expected.__name__}")
    for key in ("party", "role", "work", "device"):
        demand(info[key].isprintable(), f"should have printable text as its {key}, got {info[key]!r}")
    demand(info["kind"] in KINDS, f"should be of kind {', '.join(KINDS)}, got {info['kind']!r}")
    demand(info["role"] in ROLES, f"should have role {', '.join(ROLES)}, got {info['role']!r}")
    for key in ("median", "q1", "q3"):
        demand(_is_duration(stats.get(key)), f"should have a positive {key} in its stats, got {stats.get(key)!r}")
    q1, median, q3 = (stats[key] for key in ("q1", "median", "q3"))
    demand(q1 <= median <= q3, f"should have quartiles in order, got {q1}, {median} and {q3}")
    device, machine = info["device"], _machine(info["environment"])
    demand(machine.isprintable(), f"should have printable text as its machine, got {machine!r}")
    return Measurement(
        group=group,
        times=Times(median, q1, q3),
        place=Place(device, device, label, machine or device),
        **{key: info[key] for key in ("kind", "party", "role", "work")},
    )


def _is_duration(value: Any) -> bool:
    """Tell whether a value may be seconds: a number between those of a clock's tick and of a year."""
    return isinstance(value, int | float) and not isinstance(value, bool) and SHORTEST < value < LONGEST


def _machine(environment: dict[str, Any]) -> str:
    """Return the GPU's or the processor's name; nothing where it is not known."""
    cuda = environment.get("cuda")
    gpu = cuda.get("gpu") if isinstance(cuda, dict) else None
    return str(gpu or environment.get("processor") or "")

"""Measurements from the JSON files that `pytest benchmarks --benchmark-json=FILE` writes."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

__all__ = ["KINDS", "REMEDY", "Measurement", "Place", "Times", "Unreadable", "read"]

KINDS = ("step", "gradient", "growth", "layer", "time to accuracy")

ROLES = ("xpnet", "peer", "limit")

REMEDY = "measure again with python -m pytest benchmarks --benchmark-json=FILE"

FACTS = {
    "kind": str,
    "party": str,
    "role": str,
    "work": str,
    "network": str,
    "parameters": int,
    "batch": int,
    "dtype": str,
    "device": str,
    "environment": dict,
}
"""What a benchmark's extra_info holds in any case, and of which type."""


class Unreadable(Exception):  # noqa: N818 - said of a file
    """Files in which there is not what is needed; the message says why, and what to do."""


@dataclass(frozen=True)
class Times:
    """Seconds of one call or step, over all rounds."""

    median: float
    q1: float
    q3: float
    min: float
    max: float
    rounds: int


@dataclass(frozen=True)
class Place:
    """Where and when something was measured: a device of one file.

    Attributes
    ----------
    name : str
        The device, as in "cpu"; with the file's name where several files have that device.
    device, file : str
        The device and the file alone.
    facts : mapping of str to str
        Versions, processor and so on, for people to read.
    """

    name: str
    device: str
    file: str
    facts: Mapping[str, str] = field(compare=False)

    @property
    def machine(self) -> str:
        """The processor or GPU."""
        return self.facts.get("cuda: gpu") or self.facts.get("processor") or self.name


@dataclass(frozen=True)
class Measurement:
    """One benchmark of one party; the names are those of the JSON."""

    kind: str
    group: str
    party: str
    role: str
    work: str
    network: str
    parameters: int
    batch: int
    dtype: str
    layer: str
    direction: str
    steps: float | None
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
    except ValueError as error:  # of JSON or of UTF-8
        raise Unreadable(f"{file}: not JSON ({error}); {REMEDY}") from error
    benchmarks = content.get("benchmarks") if isinstance(content, dict) else None
    if not isinstance(benchmarks, list):
        raise Unreadable(f"{file}: not written by pytest-benchmark, it has no list of benchmarks; {REMEDY}")
    if not benchmarks:
        raise Unreadable(f"{file}: its list of benchmarks is empty; {REMEDY} and see that not all are skipped")
    return [_measurement(file, label, content, benchmark) for benchmark in benchmarks]


def _measurement(file: Path, label: str, content: dict[str, Any], benchmark: Any) -> Measurement:
    """Return what a benchmark measured, once its record has been found complete."""
    name = benchmark.get("name", "without a name") if isinstance(benchmark, dict) else "that is no record"

    def demand(condition: bool, expectation: str) -> None:
        if not condition:
            raise Unreadable(f"{file}: benchmark {name!r} {expectation}; {REMEDY}")

    demand(isinstance(benchmark, dict), "should be a record")
    info, stats = benchmark.get("extra_info"), benchmark.get("stats")
    demand(isinstance(stats, dict), "has no stats")
    demand(isinstance(info, dict), "has no extra_info")
    demand(isinstance(benchmark.get("group"), str), "has no group")
    for key, expected in FACTS.items():
        demand(isinstance(info.get(key), expected), f"should have {key} in its extra_info, of type {expected.__name__}")
    for key in ("party", "role", "work", "network", "dtype", "device", "layer", "pass"):
        demand(str(info.get(key, "")).isprintable(), f"should have printable text as its {key}, got {info.get(key)!r}")
    demand(info["kind"] in KINDS, f"should be of kind {', '.join(KINDS)}, got {info['kind']!r}")
    demand(info["role"] in ROLES, f"should have role {', '.join(ROLES)}, got {info['role']!r}")
    demand(info["parameters"] > 0, f"should have a positive number of parameters, got {info['parameters']}")
    demand(info["kind"] != "layer" or {"layer", "pass"} <= info.keys(), "should name its layer and pass")
    demand(info.get("steps") is None or _is_positive(info["steps"]), "should have a positive number of steps")
    for key in ("median", "q1", "q3", "min", "max", "rounds"):
        demand(_is_positive(stats.get(key)), f"should have a positive {key} in its stats, got {stats.get(key)!r}")
    return Measurement(
        group=benchmark["group"],
        layer=str(info.get("layer", "")),
        direction=str(info.get("pass", "")),
        steps=info.get("steps"),
        times=Times(**{key: stats[key] for key in Times.__dataclass_fields__}),
        place=Place(info["device"], info["device"], label, _facts(content, info["environment"])),
        **{key: info[key] for key in ("kind", "party", "role", "work", "network", "parameters", "batch", "dtype")},
    )


def _is_positive(value: Any) -> bool:
    return isinstance(value, int | float) and 0 < value < math.inf


def _facts(content: dict[str, Any], environment: dict[str, Any]) -> dict[str, str]:
    """Return the environment as one level of texts, and of which code and when the figures are."""
    facts = dict(_flatten(environment))
    commit, moment = content.get("commit_info"), content.get("datetime")
    if isinstance(commit, dict) and commit.get("id"):
        facts["commit"] = str(commit["id"])[:10] + (", with changes not committed" if commit.get("dirty") else "")
    if moment:
        facts["measured"] = f"{str(moment)[:16].replace('T', ' ')} UTC"
    return facts


def _flatten(facts: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for key, value in facts.items():
        name = prefix + key.replace("_", " ")
        if isinstance(value, dict):
            yield from _flatten(value, f"{name}: ")
        elif key.endswith("_bytes"):
            yield name.removesuffix(" bytes"), f"{value / 2**30:.0f} GiB"
        elif value is not None:
            yield name, ", ".join(map(str, value)) if isinstance(value, list) else str(value)

"""What may be compared with what: the measurements of a group, of a family of networks, of two devices."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from report.reading import KINDS, Measurement, Place
from report.units import format_ratio, format_seconds

__all__ = [
    "Comparison",
    "DevicePairs",
    "Growth",
    "LayerPasses",
    "capitalise",
    "compare",
    "compare_devices",
    "grow",
    "list_layers",
    "ratio",
]

T = TypeVar("T")


@dataclass(frozen=True)
class Comparison:
    """Measurements of the same work at the same place, taken in turns: their ratios mean something.

    Attributes
    ----------
    measurements : tuple of Measurement
        The fastest first.
    """

    measurements: tuple[Measurement, ...]

    @property
    def kind(self) -> str:
        """See `KINDS`."""
        return self.measurements[0].kind

    @property
    def work(self) -> str:
        """What was done."""
        return self.measurements[0].work

    @property
    def place(self) -> Place:
        """Where."""
        return self.measurements[0].place

    @property
    def title(self) -> str:
        """The work and the place."""
        return f"{self.work} on {self.place.name}"

    @property
    def reference(self) -> Measurement | None:
        """What the others are set against: xpnet without extras, or where it has several ways, the fastest of them."""
        plain = next((m for m in self.measurements if m.party == "xpnet"), None)
        return plain or self._first("xpnet")

    @property
    def limit(self) -> Measurement | None:
        """The bare matrix products."""
        return self._first("limit")

    @property
    def bases(self) -> dict[str, Measurement]:
        """What the others are divided by, with a short name: the reference and the limit, as far as there are any."""
        found = {self.reference.party: self.reference} if self.reference else {}
        return found | ({"limit": self.limit} if self.limit else {})

    @property
    def xpnet_first(self) -> list[Measurement]:
        """The measurements with xpnet's before the others."""
        return sorted(self.measurements, key=lambda m: m.role != "xpnet")

    @property
    def has_opponents(self) -> bool:
        """Whether there is anybody but xpnet."""
        return any(m.role != "xpnet" for m in self.measurements)

    def finding(self) -> str:
        """Say in a sentence or two what came out."""
        best = self.reference or self.measurements[0]
        parts = [f"{capitalise(best.party)} takes {format_seconds(best.times.median)}"]
        if self.limit and self.limit is not best:
            parts[0] += f", {format_ratio(ratio(best, self.limit))} times as long as the {self.limit.party}"
        others = [m for m in self.measurements if m is not best and m is not self.limit]
        for m in dict.fromkeys((*others[:1], *others[-1:])):  # the nearest and the farthest
            how = f"takes {format_ratio(ratio(m, best))} times as long as {best.party}"
            parts.append(f"{m.party} {how if len(parts) == 1 else format_ratio(ratio(m, best)) + ' times'}")
        return "; ".join(parts) + "."

    def _first(self, role: str) -> Measurement | None:
        return next((m for m in self.measurements if m.role == role), None)


@dataclass(frozen=True)
class Growth:
    """One gradient by several methods, on networks of several sizes.

    Attributes
    ----------
    comparisons : tuple of Comparison
        One for each size, the smallest first.
    """

    comparisons: tuple[Comparison, ...]

    @property
    def place(self) -> Place:
        """Where it was measured."""
        return self.comparisons[0].place

    @property
    def title(self) -> str:
        """What is the same for all, and the place."""
        first = self.comparisons[0].measurements[0]
        works = {comparison.work for comparison in self.comparisons}
        work = first.work if len(works) == 1 else f"batch {first.batch}, {first.dtype}"
        return f"{work} on {self.place.name}"

    @property
    def methods(self) -> dict[str, list[Measurement]]:
        """The measurements of each method, smallest network first."""
        found: dict[str, list[Measurement]] = {}
        for comparison in self.comparisons:
            for measurement in comparison.measurements:
                found.setdefault(measurement.party, []).append(measurement)
        return found


@dataclass(frozen=True)
class LayerPasses:
    """Forward and backward passes of several layers at one place.

    Attributes
    ----------
    comparisons : tuple of Comparison
        One for each layer and direction.
    """

    comparisons: tuple[Comparison, ...]

    @property
    def title(self) -> str:
        """The work and the place."""
        return self.comparisons[0].title


@dataclass(frozen=True)
class DevicePairs:
    """What was measured on a CPU and on a GPU, of one kind and work.

    Attributes
    ----------
    pairs : tuple of pairs of Measurement
        On the CPU, on the GPU.
    """

    pairs: tuple[tuple[Measurement, Measurement], ...]

    @property
    def kind(self) -> str:
        """See `KINDS`."""
        return self.pairs[0][0].kind

    @property
    def title(self) -> str:
        """The work."""
        return self.pairs[0][0].work

    @property
    def lines(self) -> dict[str, list[Measurement]]:
        """The measurements of each method on each device, smallest network first."""
        found: dict[str, list[Measurement]] = {}
        for m in itertools.chain(*sorted(self.pairs, key=lambda pair: pair[0].parameters)):
            found.setdefault(f"{m.party}, {m.place.device}", []).append(m)
        return found

    @property
    def places(self) -> tuple[Place, Place]:
        """The CPU and the GPU."""
        return self.pairs[0][0].place, self.pairs[0][1].place


def capitalise(text: str) -> str:
    """Return text that can begin a sentence; xpnet's name stays as it is."""
    return text if text.startswith("xpnet") else text[:1].upper() + text[1:]


def ratio(measurement: Measurement, to: Measurement) -> float:
    """Return how many times as long one takes as the other."""
    return measurement.times.median / to.times.median


def compare(measurements: Iterable[Measurement], kind: str) -> list[Comparison]:
    """Return the comparisons of a kind, in the order in which they were measured."""
    groups = _group((m for m in measurements if m.kind == kind), lambda m: (m.place, m.group))
    return [_comparison(group) for group in groups]


def grow(measurements: Iterable[Measurement]) -> list[Growth]:
    """Return the growth with the number of parameters, for each place and work."""
    families = _group((m for m in measurements if m.kind == "growth"), lambda m: (m.place, m.batch, m.dtype))
    return [Growth(tuple(sorted(map(_comparison, _group(f, lambda m: m.network)), key=_parameters))) for f in families]


def list_layers(measurements: Iterable[Measurement]) -> list[LayerPasses]:
    """Return the layers' passes, for each place and work."""
    works = _group((m for m in measurements if m.kind == "layer"), lambda m: (m.place, m.group, m.work))
    return [LayerPasses(tuple(map(_comparison, _group(work, lambda m: (m.layer, m.direction))))) for work in works]


def compare_devices(measurements: Iterable[Measurement]) -> list[DevicePairs]:
    """Return what was measured on a CPU and on a GPU, for each two places, kind and work."""
    measurements = list(measurements)
    places = list(dict.fromkeys(m.place for m in measurements))
    found = []
    for cpu in (p for p in places if p.device == "cpu"):
        for gpu in (p for p in places if p.device != "cpu"):
            twins = {_key(m): m for m in measurements if m.place == gpu}
            pairs = [(m, twins[_key(m)]) for m in measurements if m.place == cpu and _key(m) in twins]
            pairs.sort(key=lambda pair: KINDS.index(pair[0].kind))
            found += [DevicePairs(tuple(p)) for p in _group(pairs, lambda pair: (pair[0].kind, pair[0].work))]
    return found


def _key(m: Measurement) -> tuple[str, ...]:
    return m.kind, m.work, m.party, m.network, m.layer, m.direction


def _comparison(measurements: Iterable[Measurement]) -> Comparison:
    return Comparison(tuple(sorted(measurements, key=lambda m: m.times.median)))


def _parameters(comparison: Comparison) -> int:
    return comparison.measurements[0].parameters


def _group(items: Iterable[T], key: Callable[[T], Hashable]) -> list[list[T]]:
    """Return the items that have a key in common, keys in order of appearance."""
    groups: dict[Hashable, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return list(groups.values())

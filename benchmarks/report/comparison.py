"""What may be compared with what: the measurements of a group, at one place."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from report.reading import Measurement, Place

__all__ = ["Comparison", "compare", "ratio"]


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

    def _first(self, role: str) -> Measurement | None:
        return next((m for m in self.measurements if m.role == role), None)


def compare(measurements: Iterable[Measurement], kind: str) -> list[Comparison]:
    """Return the comparisons of a kind, in the order in which they were measured."""
    groups: dict[tuple[Place, str], list[Measurement]] = {}
    for m in measurements:
        if m.kind == kind:
            groups.setdefault((m.place, m.group), []).append(m)
    return [Comparison(tuple(sorted(group, key=lambda m: m.times.median))) for group in groups.values()]


def ratio(measurement: Measurement, to: Measurement) -> float:
    """Return how many times as long one takes as the other."""
    return measurement.times.median / to.times.median

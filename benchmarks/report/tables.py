"""The tables of the page: every figure as people read it, and exactly."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from report.comparison import Comparison, DevicePairs, Growth, LayerPasses, ratio
from report.reading import Measurement, Place
from report.units import format_count, format_ratio, format_seconds, format_span

__all__ = [
    "Cell",
    "Duration",
    "Row",
    "Table",
    "describe_twin",
    "tabulate_comparison",
    "tabulate_growth",
    "tabulate_layers",
    "tabulate_pairs",
    "tabulate_places",
]

NOTHING = "-"


@dataclass(frozen=True)
class Duration:
    """A text that stands for so many seconds."""

    text: str
    seconds: float


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes
    ----------
    text : str
        What it says.
    duration : Duration, optional
        What it says instead, and exactly how long that is.
    ends : tuple of Duration, optional
        The same for a span of time.
    note : str
        Below it, in small print.
    is_number : bool
        Belongs to the right of its column.
    """

    text: str = ""
    duration: Duration | None = None
    ends: tuple[Duration, Duration] | None = None
    note: str = ""
    is_number: bool = True


@dataclass(frozen=True)
class Row:
    """A row of a table: its name, its other cells, and what stands out in it ("reference", "limit" or nothing)."""

    name: str
    cells: tuple[Cell, ...]
    look: str = ""


@dataclass(frozen=True)
class Table:
    """A table with a caption, the names of its columns, and rows."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[Row, ...]


def tabulate_comparison(comparison: Comparison) -> Table:
    """Return all figures of a comparison, the fastest party first."""
    bases = comparison.bases
    with_steps = any(m.steps is not None for m in comparison.measurements)
    rows = [
        Row(
            m.party,
            (_median(m), *(_ratio(m, base) for base in bases.values()), *_spread(m), *_steps(m, with_steps)),
            _look(m, comparison),
        )
        for m in comparison.measurements
    ]
    header = (
        "party",
        "median",
        *(f"÷\N{NO-BREAK SPACE}{name}" for name in bases),
        *SPREAD,
        *(["steps"] if with_steps else []),
    )
    return Table(comparison.title, header, tuple(rows))


def tabulate_growth(growth: Growth) -> Table:
    """Return a row for each network and a column for each method."""
    rows = []
    for comparison in growth.comparisons:
        by_method = {m.party: m for m in comparison.measurements}
        first, reference = comparison.measurements[0], comparison.reference
        cells = [_growth_cell(by_method.get(method), reference) for method in growth.methods]
        rows.append(Row(first.network, (Cell(format_count(first.parameters)), *cells)))
    caption = f"{growth.title}: medians, and how many times as long as xpnet's fastest"
    return Table(caption, ("network", "parameters", *growth.methods), tuple(rows))


def tabulate_layers(layers: LayerPasses) -> Table:
    """Return a row for each layer, direction and party."""
    several = any(len(comparison.measurements) > 1 for comparison in layers.comparisons)
    rows = [
        Row(
            m.layer,
            (
                Cell(m.direction, is_number=False),
                *([Cell(m.party, is_number=False)] if several else []),
                _median(m),
                *([_ratio(m, comparison.reference)] if several else []),
                *_spread(m),
            ),
            _look(m, comparison) if several else "",
        )
        for comparison in layers.comparisons
        for m in comparison.xpnet_first
    ]
    header = (
        "layer",
        "pass",
        *(["party"] if several else []),
        "median",
        *(["÷\N{NO-BREAK SPACE}xpnet"] if several else []),
        *SPREAD,
    )
    return Table(layers.title, header, tuple(rows))


def tabulate_pairs(pairs: DevicePairs) -> Table:
    """Return the medians on the CPU and on the GPU, and their ratio."""
    cpu, gpu = pairs.places
    rows = [Row(describe_twin(a), (_median(a), _median(b), _ratio(a, b))) for a, b in pairs.pairs]
    return Table(pairs.title, ("party", cpu.name, gpu.name, f"{cpu.device} ÷ {gpu.device}"), tuple(rows))


def tabulate_places(places: Sequence[Place]) -> Table:
    """Return the facts of each place, a column for each."""
    names = dict.fromkeys(name for place in places for name in place.facts if name != "device")
    rows = [
        Row(name, tuple(Cell(place.facts.get(name, NOTHING), is_number=False) for place in places)) for name in names
    ]
    files = Row("file", tuple(Cell(place.file, is_number=False) for place in places))
    return Table("Machines, versions and settings", ("fact", *(place.device for place in places)), (*rows, files))


def describe_twin(measurement: Measurement) -> str:
    """Return what tells a measurement from the others of its kind and work."""
    if measurement.kind == "layer":
        return f"{measurement.layer} {measurement.direction}"
    if measurement.kind == "growth":
        return f"{measurement.party}, {measurement.network}"
    return measurement.party


SPREAD = ("q1 to q3", "min to max", "rounds")


def _median(m: Measurement | None, note: str = "") -> Cell:
    if m is None:
        return Cell(NOTHING)
    return Cell(duration=Duration(format_seconds(m.times.median), m.times.median), note=note)


def _look(m: Measurement, comparison: Comparison) -> str:
    return "reference" if m is comparison.reference else "limit" if m is comparison.limit else ""


def _growth_cell(m: Measurement | None, reference: Measurement | None) -> Cell:
    if m is None or reference is None or m is reference:
        return _median(m)
    return _median(m, f"{format_ratio(ratio(m, reference))} times")


def _spread(m: Measurement) -> Iterable[Cell]:
    times = m.times
    return _span(times.q1, times.q3), _span(times.min, times.max), Cell(format_count(times.rounds))


def _span(low: float, high: float) -> Cell:
    first, _, last = format_span(low, high).partition(" to ")
    return Cell(ends=(Duration(first, low), Duration(last, high)))


def _ratio(m: Measurement, to: Measurement | None) -> Cell:
    return Cell(NOTHING if to is None else "1" if m is to else format_ratio(ratio(m, to)))


def _steps(m: Measurement, wanted: bool) -> Iterable[Cell]:
    return [Cell(NOTHING if m.steps is None else format_count(m.steps))] if wanted else []

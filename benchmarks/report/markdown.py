"""The tables for the README."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from report.comparison import Comparison, compare, ratio
from report.reading import Measurement
from report.units import format_ratio, format_seconds, format_span

__all__ = ["render_markdown"]

TITLES = {"gradient": "Gradient", "step": "Training step", "time to accuracy": "Time to 97% test accuracy"}


def render_markdown(measurements: Sequence[Measurement]) -> str:
    """Return a table for each comparison of gradients, training steps and times to accuracy."""
    comparisons = [comparison for kind in TITLES for comparison in compare(measurements, kind)]
    return "\n".join(line for comparison in comparisons for line in _tabulate(comparison))


def _tabulate(comparison: Comparison) -> Iterable[str]:
    bases = comparison.bases
    columns = ["median (q1 to q3)", *(f"÷ {_escape(name)}" for name in bases)]
    place = comparison.place
    title = f"{TITLES[comparison.kind]}: {comparison.title}"
    yield f"**{_escape(title)}** ({_escape(place.machine)})"
    yield ""
    yield _join("party", *columns)
    yield _join("---", *["---:"] * len(columns))
    for m in comparison.measurements:
        name = f"**{_escape(m.party)}**" if m is comparison.reference else _escape(m.party)
        name += " (limit)" if m is comparison.limit else ""
        times = f"{format_seconds(m.times.median)} ({format_span(m.times.q1, m.times.q3)})"
        yield _join(name, times, *("1" if m is base else format_ratio(ratio(m, base)) for base in bases.values()))
    yield ""


def _join(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _escape(text: str) -> str:
    """Return text that Markdown shows as it is."""
    return re.sub(r"([\\`*_|<>\[\]])", r"\\\1", text).replace("&", "&amp;")

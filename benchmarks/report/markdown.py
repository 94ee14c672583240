"""The tables for the README."""

from __future__ import annotations

import re
from collections.abc import Sequence

from report.comparison import Comparison, compare, ratio
from report.reading import Measurement, Unreadable
from report.units import format_ratio, format_seconds, format_span

__all__ = ["fill_tables", "render_markdown"]

TITLES = {"gradient": "Gradient", "step": "Training step", "time to accuracy": "Time to 97% test accuracy"}


MARKED = re.compile(r"(?P<start><!-- table: (?P<title>.*?) -->\n).*?(?P<end><!-- end of table -->)", re.DOTALL)
"""A place for a table: two comments, the first of which says which."""


def render_markdown(measurements: Sequence[Measurement]) -> str:
    """Return a table for each comparison of gradients, training steps and times to accuracy."""
    comparisons = _comparisons(measurements)
    return "\n".join(
        f"**{_escape(title)}** ({_escape(comparison.place.machine)})\n\n{_tabulate(comparison)}"
        for title, comparison in comparisons.items()
    )


def fill_tables(text: str, measurements: Sequence[Measurement]) -> str:
    """Return Markdown with the newest figures in the tables that are marked in it.

    Raises
    ------
    Unreadable
        If a marked table is not among what was measured.
    """
    comparisons = _comparisons(measurements)

    def fill(place: re.Match[str]) -> str:
        if place["title"] not in comparisons:
            raise Unreadable(f"no results for the table {place['title']!r}; there are {', '.join(comparisons)}")
        return place["start"] + _tabulate(comparisons[place["title"]]) + place["end"]

    return MARKED.sub(fill, text)


def _comparisons(measurements: Sequence[Measurement]) -> dict[str, Comparison]:
    return {f"{TITLES[kind]}: {c.title}": c for kind in TITLES for c in compare(measurements, kind)}


def _tabulate(comparison: Comparison) -> str:
    bases = comparison.bases
    columns = ["median (q1 to q3)", *(f"÷ {_escape(name)}" for name in bases)]
    rows = [_join("party", *columns), _join("---", *["---:"] * len(columns))]
    for m in comparison.measurements:
        name = f"**{_escape(m.party)}**" if m is comparison.reference else _escape(m.party)
        name += " (limit)" if m is comparison.limit else ""
        times = f"{format_seconds(m.times.median)} ({format_span(m.times.q1, m.times.q3)})"
        rows.append(
            _join(name, times, *("1" if m is base else format_ratio(ratio(m, base)) for base in bases.values()))
        )
    return "".join(rows)


def _join(*cells: str) -> str:
    return f"| {' | '.join(cells)} |\n"


def _escape(text: str) -> str:
    """Return text that Markdown shows as it is."""
    return re.sub(r"([\\`*_|<>\[\]])", r"\\\1", text).replace("&", "&amp;")

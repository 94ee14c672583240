"""The page: sections for what was measured, each comparison with its finding, its chart and its table."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import jinja2
from markupsafe import Markup
from matplotlib.figure import Figure

from report.bars import Bar, draw_bars, has_log_scale, is_cut
from report.comparison import (
    Comparison,
    DevicePairs,
    Growth,
    LayerPasses,
    capitalise,
    compare,
    compare_devices,
    grow,
    list_layers,
    ratio,
)
from report.drawing import drawing
from report.lines import draw_lines
from report.reading import Measurement
from report.svg import THEME, inline_svg
from report.tables import (
    Table,
    describe_twin,
    tabulate_comparison,
    tabulate_growth,
    tabulate_layers,
    tabulate_pairs,
    tabulate_places,
)
from report.units import format_ratio, format_seconds

__all__ = ["HEADINGS", "comparison_bars", "render_page"]

HEADINGS = {
    "step": "Training step",
    "gradient": "Gradient: numerical against backpropagation",
    "growth": "Cost of a gradient against number of parameters",
    "layer": "Layers",
    "time to accuracy": "Time to 97% test accuracy",
    "devices": "CPU against GPU",
}

INTRODUCTIONS = {
    "step": "A step gathers a minibatch, computes the loss and its gradient, and updates the parameters. The limit is "
    "the step's matrix products and nothing else.",
    "gradient": "The same gradient of the loss by all methods. A numerical one takes two losses for each parameter, "
    "one at either side of its value.",
    "growth": "The same comparison on networks of several sizes.",
    "layer": "One call of a layer's forward or backward method.",
    "time to accuracy": "From the cold start of the training loop, compilation included, until the network is right "
    "about 97% of the test set. Each round has another seed.",
    "devices": "The same work by the same party on both devices. A ratio above 1 means that the GPU is faster.",
}

LINES_LEGEND = (
    "Points are medians, vertical strokes run from the first to the third quartile. Both axes are logarithmic."
)


@dataclass(frozen=True)
class Panel:
    """One comparison on the page: its title, what came out, a chart in two layouts, how to read it, a table."""

    title: str
    finding: str
    charts: tuple[Markup, ...]
    legend: str
    table: Table


@dataclass(frozen=True)
class Section:
    """A heading of the page and the panels below it."""

    kind: str
    panels: tuple[Panel, ...]

    @property
    def anchor(self) -> str:
        """What links lead to."""
        return anchor(self.kind)

    @property
    def heading(self) -> str:
        """See `HEADINGS`."""
        return HEADINGS[self.kind]

    @property
    def introduction(self) -> str:
        """See `INTRODUCTIONS`."""
        return INTRODUCTIONS[self.kind]


def anchor(kind: str) -> str:
    """Return the id of a kind's section."""
    return kind.replace(" ", "-")


class Charts:
    """The charts of a page, each drawn for a wide and for a narrow window, with ids that no other has."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def draw(self, paint: Callable[..., Figure], title: str, description: str) -> tuple[Markup, Markup]:
        """Return both layouts of a chart; `paint` takes the palette, and whether it is narrow."""
        number = next(self._numbers)
        with drawing():
            return tuple(
                inline_svg(paint(THEME, narrow=narrow), f"chart-{number}-{layout}", title, description, layout)
                for layout, narrow in (("wide", False), ("narrow", True))
            )


def render_page(measurements: Sequence[Measurement]) -> str:
    """Return the page's HTML."""
    charts = Charts()
    panels = {
        "step": [_comparison_panel(c, charts) for c in compare(measurements, "step")],
        "gradient": [_comparison_panel(c, charts) for c in compare(measurements, "gradient")],
        "growth": [_growth_panel(g, charts) for g in grow(measurements)],
        "layer": [_layer_panel(layers, charts) for layers in list_layers(measurements)],
        "time to accuracy": [_comparison_panel(c, charts) for c in compare(measurements, "time to accuracy")],
        "devices": [_device_panel(pairs, charts) for pairs in compare_devices(measurements)],
    }
    places = list(dict.fromkeys(m.place for m in measurements))
    loader = jinja2.PackageLoader("report", "")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html.j2").render(
        sections=[Section(kind, tuple(found)) for kind, found in panels.items() if found],
        summary=list(summarise(measurements)),
        machines=list(dict.fromkeys(f"{place.device}: {place.machine}" for place in places)),
        places=tabulate_places(places),
    )


def summarise(measurements: Sequence[Measurement]) -> Iterable[tuple[str, str, str]]:
    """Return what matters most, and where it is: for each place, the first comparison of a kind that has opponents."""
    for kind in ("step", "gradient", "time to accuracy"):
        seen = set()
        for comparison in compare(measurements, kind):
            if comparison.has_opponents and comparison.place not in seen:
                seen.add(comparison.place)
                yield HEADINGS[kind], anchor(kind), f"{comparison.title}: {comparison.finding()}"


def comparison_bars(comparison: Comparison) -> list[Bar]:
    """Return the bars of a comparison, with ratios to its limit or else to xpnet's as notes."""
    base = comparison.limit or comparison.reference
    return [
        Bar(m.party, m.times, m.role, _note(m, base), strong=m is comparison.reference) for m in comparison.measurements
    ]


def _note(m: Measurement, base: Measurement | None) -> str:
    return "" if base is None else "1" if m is base else format_ratio(ratio(m, base))


def _comparison_panel(comparison: Comparison, charts: Charts) -> Panel:
    bars, base = comparison_bars(comparison), comparison.limit or comparison.reference
    note = "" if base is None else "÷ limit" if base is comparison.limit else f"÷ {base.party}"
    title = f"{HEADINGS[comparison.kind]}: {comparison.title}"
    drawn = charts.draw(
        lambda palette, narrow: draw_bars(bars, palette, narrow=narrow, note=note), title, _listed(bars)
    )
    limit = f" Dashed line: the limit, {comparison.limit.party}." if comparison.limit else ""
    return Panel(
        comparison.title, comparison.finding(), drawn, _explain_bars(bars) + limit, tabulate_comparison(comparison)
    )


def _growth_panel(growth: Growth, charts: Charts) -> Panel:
    title = f"{HEADINGS['growth']}: {growth.title}"
    finding = " ".join(_describe_growth(growth))
    drawn = charts.draw(lambda palette, narrow: draw_lines(growth.methods, palette, narrow=narrow), title, finding)
    return Panel(growth.title, finding, drawn, LINES_LEGEND, tabulate_growth(growth))


def _describe_growth(growth: Growth) -> Iterable[str]:
    """Say how much longer the largest network takes than the smallest, a sentence for each ratio of sizes."""
    sentences: dict[str, list[str]] = {}
    for method, (first, *_, last) in ((name, found) for name, found in growth.methods.items() if len(found) > 1):
        claim = f"{method} takes {format_ratio(ratio(last, first))} times as long"
        sentences.setdefault(format_ratio(last.parameters / first.parameters), []).append(claim)
    for sizes, claims in sentences.items():
        yield f"With {sizes} times as many parameters {' and '.join(claims)}."


def _layer_panel(layers: LayerPasses, charts: Charts) -> Panel:
    bars = []
    for comparison in layers.comparisons:
        for position, m in enumerate(comparison.xpnet_first):
            label = m.party if position else f"{m.layer} {m.direction}"
            bars.append(Bar(label, m.times, m.role, follows=position > 0 or m.direction == "backward"))
    slowest = max(
        (m for c in layers.comparisons for m in c.measurements if m.role == "xpnet"), key=_median, default=None
    )
    finding = (
        f"The longest pass of xpnet's is {slowest.layer} {slowest.direction}, {format_seconds(_median(slowest))}."
        if slowest
        else ""
    )
    title = f"Layers: {layers.title}"
    drawn = charts.draw(lambda palette, narrow: draw_bars(bars, palette, narrow=narrow), title, _listed(bars))
    return Panel(layers.title, finding, drawn, _explain_bars(bars), tabulate_layers(layers))


def _device_panel(pairs: DevicePairs, charts: Charts) -> Panel:
    cpu, gpu = pairs.places
    title = f"{HEADINGS[pairs.kind].partition(':')[0]}: {pairs.title}"
    ours = next((pair for pair in pairs.pairs if pair[0].role == "xpnet"), pairs.pairs[0])
    finding = (
        f"{capitalise(describe_twin(ours[0]))}: {format_seconds(_median(ours[0]))} on {cpu.machine}, "
        f"{format_seconds(_median(ours[1]))} on {gpu.machine}."
    )
    if pairs.kind == "growth":
        drawn = charts.draw(
            lambda palette, narrow: draw_lines(pairs.lines, palette, narrow=narrow, in_pairs=True), title, finding
        )
        legend = f"{LINES_LEGEND} Solid: {cpu.name}; dashed: {gpu.name}."
        return Panel(title, finding, drawn, legend, tabulate_pairs(pairs))
    bars = []
    for a, b in pairs.pairs:
        bars.append(Bar(f"{describe_twin(a)}, {cpu.device}", a.times, "peer"))
        bars.append(Bar(gpu.device, b.times, "xpnet", format_ratio(ratio(a, b)), follows=True))
    note = f"{cpu.device} ÷ {gpu.device}"
    drawn = charts.draw(
        lambda palette, narrow: draw_bars(bars, palette, narrow=narrow, note=note), title, _listed(bars)
    )
    legend = f"{_explain_bars(bars)} Grey: {cpu.name}; blue: {gpu.name}."
    return Panel(title, finding, drawn, legend, tabulate_pairs(pairs))


def _explain_bars(bars: Sequence[Bar]) -> str:
    marks = "Dots are medians, on a log axis" if has_log_scale(bars) else "Bars are medians"
    cut = " An arrow: the quartile is further out, see the table." if any(is_cut(bar, bars) for bar in bars) else ""
    return f"{marks}; whiskers run from the first to the third quartile. Further left is faster.{cut}"


def _listed(bars: Iterable[Bar]) -> str:
    return "; ".join(f"{bar.label} {format_seconds(bar.times.median)}" for bar in bars)


def _median(m: Measurement) -> float:
    return m.times.median

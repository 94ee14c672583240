"""The page of the benchmark report in a browser."""

import pytest
from benchmark_results import ON_CPU, ON_GPU, of_kind, write_report

units = pytest.importorskip("report.units", reason="Jinja2 or Matplotlib is not installed")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder with the page, the Markdown and the picture of all results."""
    return write_report(tmp_path_factory.mktemp("report"))


@pytest.fixture
def shown(browser, written):
    """Open the page in a window of a width and a theme; nothing but the file may be asked for, nothing complain."""
    contexts, troubles = [], []

    def show(width, scheme="light"):
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme))
        page = contexts[-1].new_page()
        page.on("console", lambda message: troubles.append(message.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("request", lambda request: request.url.startswith("file://") or troubles.append(request.url))
        page.goto((written / "page.html").as_uri())
        return page

    yield show
    for context in contexts:
        context.close()
    assert troubles == []


@pytest.mark.parametrize("width", [360, 1600])
def test_the_page_fits_the_window_and_shows_one_layout_of_each_chart(shown, width):
    page = shown(width)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    wide, narrow = (page.locator(f".chart.{layout}").filter(visible=True).count() for layout in ("wide", "narrow"))
    assert page.locator("figure").count() == max(wide, narrow)
    assert min(wide, narrow) == 0
    assert (wide > 0) == (width == 1600)


@pytest.mark.parametrize("width", [360, 1600])
def test_no_text_of_a_chart_is_cut_off_or_covers_another(shown, width):
    page = shown(width)
    found = page.evaluate("""() => [...document.querySelectorAll("svg.chart")].flatMap(svg => {
        const edge = svg.getBoundingClientRect();
        const boxes = [...svg.querySelectorAll("text")].map(t => [t.textContent, t.getBoundingClientRect()]);
        const cut = boxes.filter(([, b]) => b.left < edge.left - 1 || b.right > edge.right + 1);
        const covered = boxes.filter(([, a], i) => boxes.slice(i + 1).some(([, b]) =>
            a.left < b.right && b.left < a.right && a.top + 3 < b.bottom - 3 && b.top + 3 < a.bottom - 3));
        return [...cut, ...covered].map(([text]) => text);
    })""")
    assert found == []


def test_the_browser_shows_the_figures_of_the_json(shown):
    page = shown(1600)
    rows = page.locator("#step tbody tr").evaluate_all(
        "rows => rows.map(row => [row.cells[0].innerText, row.cells[1].dataset.seconds])"
    )
    steps = of_kind("step", ON_CPU + ON_GPU)
    assert sorted((name, float(s)) for name, s in rows) == sorted(
        (b["extra_info"]["party"], b["stats"]["median"]) for b in steps
    )
    charts = page.locator("#step .chart.wide text").all_text_contents()
    assert {units.format_seconds(b["stats"]["median"]) for b in steps} <= set(charts)


def test_dark_and_light_differ(shown):
    colours = [
        shown(1600, scheme).evaluate(
            """() => [document.documentElement, ...document.querySelectorAll(".chart.wide text, .chart.wide path")]
                     .map(e => getComputedStyle(e)).map(s => `${s.backgroundColor} ${s.fill} ${s.stroke}`)"""
        )
        for scheme in ("light", "dark")
    ]
    light, dark = (set(found) for found in colours)
    assert colours[0][0] != colours[1][0]
    assert light & dark <= {"rgba(0, 0, 0, 0) none none"}

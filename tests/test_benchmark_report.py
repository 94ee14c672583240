import html
import itertools
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from benchmark_results import (
    CPU_STEPS,
    ON_CPU,
    ON_GPU,
    SCRIPT,
    STEP_WORK,
    load_script,
    measured,
    of_kind,
    write_report,
    write_result,
)

pytest.importorskip("jinja2", reason="Jinja2 is not installed")
pytest.importorskip("matplotlib", reason="Matplotlib is not installed")

ROOT = Path(__file__).parent.parent


@pytest.fixture
def result(tmp_path):
    """Write benchmarks into a file of their own; return the file."""
    numbers = itertools.count(1)
    return lambda benchmarks: write_result(tmp_path / f"result_{next(numbers)}.json", benchmarks)


@pytest.fixture
def report(tmp_path, capsys, monkeypatch):
    """Run the script; return its exit status, standard output and standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        status = load_script().main([str(a) for a in arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder with the page, the Markdown and the picture of all results."""
    return write_report(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def page(written):
    return Page((written / "page.html").read_text())


class Page(HTMLParser):
    """The sections of a page, and in each the rows of its tables: cells as (text, seconds by data-seconds)."""

    def __init__(self, text):
        super().__init__()
        self.sections, self.ids, self.links, self.open = {}, [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids += [attrs["id"]] if "id" in attrs else []
        self.links += [attrs[name] for name in ("href", "src", "xlink:href") if name in attrs]
        if tag == "section":
            self.rows = self.sections.setdefault(attrs["id"], [])
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append(["", []])
            self.open.append(tag)
        if "data-seconds" in attrs:
            self.rows[-1][-1][1].append(float(attrs["data-seconds"]))

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.open.pop()

    def handle_data(self, data):
        if self.open:
            self.rows[-1][-1][0] += data

    def seconds(self, section):
        """All durations of a section's tables, row by row."""
        return [[s for _, seconds in row for s in seconds] for row in self.sections[section] if any(c[1] for c in row)]


def statistics_of(benchmark):
    return [benchmark["stats"][key] for key in ("median", "q1", "q3", "min", "max")]


@pytest.mark.parametrize("kind", ["step", "gradient", "layer", "time to accuracy"])
def test_every_figure_of_the_page_is_that_of_the_json(page, kind):
    wanted = [statistics_of(b) for b in of_kind(kind, ON_CPU + ON_GPU)]
    assert sorted(page.seconds(kind.replace(" ", "-"))) == sorted(wanted)


def test_growth_shows_every_median(page):
    found = itertools.chain(*page.seconds("growth"))
    assert sorted(found) == sorted(b["stats"]["median"] for b in of_kind("growth", ON_CPU + ON_GPU))


def test_cpu_and_gpu_stand_beside_each_other_when_work_and_party_are_the_same(page):
    def medians(benchmarks):
        keys = ("kind", "party", "network", "layer", "pass")
        return {tuple(map(b["extra_info"].get, keys)): b["stats"]["median"] for b in benchmarks}

    a, b = medians(ON_CPU), medians(ON_GPU)
    assert sorted(page.seconds("devices")) == sorted([a[key], b[key]] for key in a.keys() & b.keys())
    assert ["xpnet", "163 µs", "31.2 µs", "5.22"] in [[text for text, _ in row] for row in page.sections["devices"]]


def test_a_row_tells_party_median_ratios_and_spread(page):
    rows = [[text for text, _ in row] for row in page.sections["step"]]
    assert rows[0] == ["party", "median", "÷\xa0xpnet", "÷\xa0limit", "q1 to q3", "min to max", "rounds"]
    assert rows[1][:4] == ["matrix products alone", "111 µs", "0.68", "1"]
    assert rows[2] == ["xpnet", "163 µs", "1", "1.47", "161 to 166 µs", "158 to 183 µs", "500"]
    assert rows[3][:4] == ["JAX scanned", "190 µs", "1.17", "1.71"]
    assert [row[0] for row in rows[1 : len(CPU_STEPS) + 1]] == sorted(CPU_STEPS, key=CPU_STEPS.get)


def test_the_page_names_the_machines(page):
    rows = [[text for text, _ in row] for row in page.sections["places"]]
    assert ["processor", "AMD EPYC", "AMD EPYC"] in rows
    assert ["cuda: gpu", "-", "NVIDIA H100 80GB HBM3"] in rows
    assert ["cuda: memory", "-", "79 GiB"] in rows
    assert ["commit", *["0123456789, with changes not committed"] * 2] in rows
    assert ["file", "cpu.json", "gpu.json"] in rows


def test_ids_are_unique_and_links_stay_in_the_page(page, written):
    text = (written / "page.html").read_text()
    assert len(page.ids) == len(set(page.ids))
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)
    assert set(re.findall(r"url\(#([^)]+)\)", text)) <= set(page.ids)
    assert set(re.findall(r'labelledby="(.*?)"', text))
    assert all(name in page.ids for names in re.findall(r'labelledby="(.*?)"', text) for name in names.split())


def test_the_markdown_shows_the_medians_of_the_json(written):
    text = (written / "table.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ") and line[2:7] not in ("party", "--- |")]
    kinds = ("gradient", "step", "time to accuracy")
    assert len(rows) == sum(len(of_kind(kind, ON_CPU + ON_GPU)) for kind in kinds)
    assert "**Training step: 784-50-10, batch 100, float32 on cuda:0** (NVIDIA H100 80GB HBM3)" in text
    assert "| **xpnet** | 163 µs (161 to 166 µs) | 1 | 1.47 |" in rows
    assert "| matrix products alone (limit) | 111 µs (109 to 113 µs) | 0.68 | 1 |" in rows
    assert "| numerical, the book's loop | 2.31 s (2.28 to 2.36 s) | 25,600 |" in rows


def test_marked_tables_are_brought_up_to_date_and_the_rest_is_kept(report, result, tmp_path):
    document = tmp_path / "README.md"
    title = f"Training step: {STEP_WORK} on cpu"
    start, end = f"# Speed\n\n<!-- table: {title} -->\n", "<!-- end of table -->\nmore, and <!-- a comment -->\n"
    document.write_text(f"{start}old\n{end}")
    results = result([measured("step", "xpnet", 2e-4), measured("step", "PyTorch eager", 4e-4)])
    assert report(results, "--out", "page.html", "--fill", document)[0] == 0
    filled = document.read_text()
    assert filled.startswith(f"{start}| party |")
    assert filled.endswith(end)
    assert "| PyTorch eager | 400 µs" in filled
    assert "old" not in filled
    assert report(results, "--out", "page.html", "--fill", document)[0] == 0
    assert document.read_text() == filled


def test_a_marked_table_that_was_not_measured_is_an_error_and_nothing_is_written(report, result, tmp_path):
    document = tmp_path / "README.md"
    document.write_text("<!-- table: Gradient: of nothing -->\n<!-- end of table -->\n")
    status, _, err = report(result([measured("step", "xpnet", 2e-4)]), "--out", "page.html", "--fill", document)
    assert status == 1
    assert err.startswith(
        "benchmark_report: error: no results for the table 'Gradient: of nothing'; there are Training"
    )
    assert not (tmp_path / "page.html").exists()
    assert document.read_text().startswith("<!-- table: Gradient: of nothing -->\n<!--")


def test_the_tables_of_the_readme_are_those_of_the_committed_results(report, tmp_path):
    document = tmp_path / "README.md"
    document.write_text((ROOT / "README.md").read_text())
    assert report(ROOT / "benchmarks/results/cpu.json", "--out", "page.html", "--fill", document)[0] == 0
    assert document.read_text() == (ROOT / "README.md").read_text()


@pytest.mark.parametrize(
    "name", ['<b>bold</b> & "quoted"', "a|b `c` *d* [e]", "$x_1$", "\N{SNOWMAN} λ 漢字", "x" * 300]
)
def test_an_odd_name_is_shown_as_it_is(report, result, tmp_path, name):
    odd = measured("step", name, 1e-3)
    layers = [measured("layer", "xpnet", 1e-5, layer=name, **{"pass": "forward"})]
    status, out, err = report(result([measured("step", "xpnet", 2e-4), odd, *layers]), "--out", "page.html")
    assert (status, err) == (0, "written: page.html\n")
    text = (tmp_path / "page.html").read_text()
    assert name in [row[0][0] for row in Page(text).sections["step"]]
    assert "<b>" not in text
    if len(name) < 40:  # a longer one is cut in the charts
        assert f">{html.escape(name, quote=False)}</text>" in text
    (row,) = [line for line in out.splitlines() if "1.00 ms" in line]
    assert html.unescape(re.sub(r"\\(.)", r"\1", row)).startswith(f"| {name} | 1.00 ms (")


def test_sections_without_data_are_left_out(report, result, tmp_path):
    report(result(of_kind("layer", ON_CPU)), "--out", "page.html")
    page = Page((tmp_path / "page.html").read_text())
    assert list(page.sections) == ["layer", "places"]


def test_a_comparison_without_xpnet_or_limit_has_no_ratio_to_them(report, result, tmp_path):
    _, out, _ = report(result([measured("step", "PyTorch eager", 1e-3)]), "--out", "page.html")
    assert "| party | median (q1 to q3) |\n" in out
    assert Page((tmp_path / "page.html").read_text()).seconds("step")


def test_two_files_of_one_device_are_told_apart(report, result, tmp_path):
    files = [result([measured("step", "xpnet", seconds)]) for seconds in (1e-4, 2e-4)]
    _, out, _ = report(*files, "--out", "page.html")
    assert [line for line in out.splitlines() if line.startswith("**")] == [
        rf"**Training step: {STEP_WORK} on cpu (result\_{number}.json)** (AMD EPYC)" for number in (1, 2)
    ]
    assert [row[0] for row in Page((tmp_path / "page.html").read_text()).seconds("step")] == [1e-4, 2e-4]


def test_the_picture_is_drawn_on_request(report, result, written, tmp_path):
    assert (written / "heart.png").read_bytes().startswith(b"\x89PNG")
    assert report(result(of_kind("step", ON_CPU)), "--picture", "heart.svg")[0] == 0
    assert "<svg" in (tmp_path / "heart.svg").read_text()


def without(key, **changes):
    """A benchmark's record that lacks an entry of its extra_info, or has another there."""
    benchmark = measured("step", "xpnet", 1e-4)
    del benchmark["extra_info"][key]
    benchmark["extra_info"] |= changes
    return json.dumps({"benchmarks": [benchmark]})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file or directory; name a file that exists, or measure again"),
        ("no JSON", "not JSON (Expecting value"),
        ("[]", "not written by pytest-benchmark, it has no list of benchmarks; measure again"),
        ('{"benchmark": "full run"}', "not written by pytest-benchmark, it has no list of benchmarks; measure again"),
        ('{"benchmarks": []}', "its list of benchmarks is empty; measure again"),
        ('{"benchmarks": [{"name": "a", "stats": {}}]}', "benchmark 'a' has no extra_info; measure again"),
        ('{"benchmarks": ["a"]}', "benchmark 'that is no record' should be a record"),
        (without("party"), "benchmark 'xpnet' should have party in its extra_info, of type str; measure again"),
        (
            without("kind", kind="speed"),
            "should be of kind step, gradient, growth, layer, time to accuracy, got 'speed'",
        ),
        (without("role", role="judge"), "should have role xpnet, peer, limit, got 'judge'"),
        (without("party", party="a\x00b"), "should have printable text as its party, got 'a\\x00b'"),
        (
            json.dumps({"benchmarks": [measured("step", "a", float("nan"))]}),
            "should have a positive median in its stats",
        ),
    ],
)
def test_an_error_is_one_line_that_names_the_file(report, tmp_path, content, message):
    file = tmp_path / "bad.json"
    if content is not None:
        file.write_text(content)
    before = set(tmp_path.iterdir())
    status, out, err = report(file, "--markdown", "table.md", "--picture", "heart.png")
    assert (status, out) == (1, "")
    assert err.startswith(f"benchmark_report: error: {file}: ")
    assert message in err
    assert "python -m pytest benchmarks --benchmark-json=FILE" in err
    assert err.count("\n") == 1
    assert set(tmp_path.iterdir()) == before


def test_a_picture_of_nothing_is_an_error_and_nothing_is_written(report, result, tmp_path):
    file = result(of_kind("layer", ON_CPU))
    status, _, err = report(file, "--out", "page.html", "--picture", "heart.png")
    assert status == 1
    assert "the picture needs a training step or a gradient" in err
    assert list(tmp_path.iterdir()) == [file]


def test_a_picture_of_another_format_is_refused(report, result, capsys):
    with pytest.raises(SystemExit, match="2"):
        report(result(ON_CPU), "--picture", "heart.jpg")
    assert "--picture must end in .png or .svg, got heart.jpg" in capsys.readouterr().err


def test_the_script_runs_from_the_command_line(result, tmp_path):
    command = [sys.executable, SCRIPT, result(of_kind("step", ON_CPU)), "--out", "page.html"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "written: page.html\n")
    assert "| **xpnet** | 163 µs" in done.stdout
    assert (tmp_path / "page.html").exists()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (4.2e-10, "0.42 ns"),
        (9.994e-4, "999 µs"),
        (9.996e-4, "1.00 ms"),
        (0.0625, "62.5 ms"),
        (12.345, "12.3 s"),
        (4321.0, "4,320 s"),
    ],
)
def test_seconds_have_three_digits_and_a_unit(seconds, text):
    from report.units import format_seconds

    assert format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("ratio", "text"), [(1 / 15, "0.067"), (0.996, "1.00"), (1.36, "1.36"), (99.96, "100"), (25_611, "25,600")]
)
def test_ratios_have_about_three_digits(ratio, text):
    from report.units import format_ratio

    assert format_ratio(ratio) == text


def contrast(one, other):
    """Contrast ratio of two colours, by the formula of WCAG 2."""

    def luminance(colour):
        channels = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_the_colours_of_both_themes_have_enough_contrast(theme):
    css = (ROOT / "benchmarks" / "report" / "page.css").read_text()
    colours = dict(re.findall(r"--([\w-]+): (#\w{6});", re.findall(r":root \{(.*?)\}", css, re.DOTALL)[theme]))
    for background in ("paper", "shade"):
        assert all(contrast(colours[name], colours[background]) >= 4.5 for name in ("ink", "muted", "link"))
    marks = [name for name in colours if name in ("xpnet", "peer", "limit") or name.startswith("line")]
    assert len(marks) == 7
    assert all(contrast(colours[name], colours["paper"]) >= 3 for name in marks)

import html
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from benchmark_results import (
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
    """A folder with the Markdown and the picture of all results."""
    return write_report(tmp_path_factory.mktemp("report"))


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
    assert report(results, "--fill", document)[0] == 0
    filled = document.read_text()
    assert filled.startswith(f"{start}| party |")
    assert filled.endswith(end)
    assert "| PyTorch eager | 400 µs" in filled
    assert "old" not in filled
    assert report(results, "--fill", document)[0] == 0
    assert document.read_text() == filled


def test_a_marked_table_that_was_not_measured_is_an_error_and_nothing_is_written(report, result, tmp_path):
    document = tmp_path / "README.md"
    document.write_text("<!-- table: Gradient: of nothing -->\n<!-- end of table -->\n")
    results = result([measured("step", "xpnet", 2e-4)])
    status, _, err = report(results, "--markdown", "table.md", "--fill", document)
    assert status == 1
    assert err.startswith(
        "benchmark_report: error: no results for the table 'Gradient: of nothing'; there are Training"
    )
    assert not (tmp_path / "table.md").exists()
    assert document.read_text().startswith("<!-- table: Gradient: of nothing -->\n<!--")


def test_the_tables_of_the_readme_are_those_of_the_committed_results(report, tmp_path):
    document = tmp_path / "README.md"
    document.write_text((ROOT / "README.md").read_text())
    assert report(ROOT / "benchmarks/results/cpu.json", "--fill", document)[0] == 0
    assert document.read_text() == (ROOT / "README.md").read_text()


@pytest.mark.parametrize(
    "name", ['<b>bold</b> & "quoted"', "a|b `c` *d* [e]", "$x_1$", "\N{SNOWMAN} λ 漢字", "x" * 300]
)
def test_an_odd_name_is_shown_as_it_is(report, result, tmp_path, name):
    benchmarks = [measured("step", "xpnet", 2e-4), measured("step", name, 1e-3)]
    status, out, err = report(result(benchmarks), "--picture", "heart.svg")
    assert (status, err) == (0, "written: heart.svg\n")
    (row,) = [line for line in out.splitlines() if "1.00 ms" in line]
    assert html.unescape(re.sub(r"\\(.)", r"\1", row)).startswith(f"| {name} | 1.00 ms (")
    if len(name) < 40:  # a longer one is cut in the picture
        assert name in texts_of(tmp_path / "heart.svg")


def test_a_comparison_without_xpnet_or_limit_has_no_ratio_to_them(report, result):
    _, out, _ = report(result([measured("step", "PyTorch eager", 1e-3)]))
    assert "| party | median (q1 to q3) |\n" in out


def test_two_files_of_one_device_are_told_apart(report, result, tmp_path):
    files = [result([measured("step", "xpnet", t), measured("step", "the book", 1e-3)]) for t in (1e-4, 2e-4)]
    _, out, _ = report(*files, "--picture", "heart.svg")
    names = [f"cpu (result_{number}.json)" for number in (1, 2)]
    tables = [text.splitlines() for text in out.split("\n**")]
    assert [table[0].removeprefix("**").replace("\\", "") for table in tables] == [
        f"Training step: {STEP_WORK} on {name}** (AMD EPYC)" for name in names
    ]
    for table, median in zip(tables, ("100 µs", "200 µs"), strict=True):
        assert [row for row in table if row.startswith(f"| **xpnet** | {median} (")]
    assert [text for text in texts_of(tmp_path / "heart.svg") if STEP_WORK in text] == [
        f"{STEP_WORK}; {name}" for name in names
    ]


def test_files_of_the_same_name_are_told_apart_by_their_folders(report, tmp_path):
    files = []
    for folder, seconds in (("before", 1e-4), ("after", 2e-4)):
        (tmp_path / folder).mkdir()
        files.append(write_result(tmp_path / folder / "cpu.json", [measured("step", "xpnet", seconds)]))
    _, out, _ = report(*(file.relative_to(tmp_path) for file in files))
    assert [line for line in out.splitlines() if line.startswith("**")] == [
        f"**Training step: {STEP_WORK} on cpu ({folder}/cpu.json)** (AMD EPYC)" for folder in ("before", "after")
    ]


def test_the_picture_is_drawn_on_request(report, result, written, tmp_path):
    assert (written / "heart.png").read_bytes().startswith(b"\x89PNG")
    assert report(result(of_kind("step", ON_CPU)), "--picture", "heart.svg")[0] == 0
    assert "<svg" in (tmp_path / "heart.svg").read_text()


def texts_of(picture):
    """The texts of a picture: each is drawn as paths, below a comment that says it."""
    comments = re.findall("<!-- (.*?) -->", picture.read_text(encoding="utf-8"), re.DOTALL)
    return [html.unescape(comment) for comment in comments]


def without(key, **changes):
    """A benchmark's record that lacks an entry of its extra_info, or has another there."""
    benchmark = measured("step", "xpnet", 1e-4)
    del benchmark["extra_info"][key]
    benchmark["extra_info"] |= changes
    return json.dumps({"benchmarks": [benchmark]})


def stats(**changes):
    """A result with one benchmark, whose times are changed."""
    benchmark = measured("step", "a", 1.0)
    return json.dumps({"benchmarks": [benchmark | {"stats": benchmark["stats"] | changes}]})


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
        ("[" * 100_000, "not JSON ("),
        (stats(median=True), "should have a positive median in its stats, got True"),
        (stats(q1="1"), "should have a positive q1 in its stats, got '1'"),
        (stats(q1=-1.0), "should have a positive q1 in its stats, got -1.0"),
        (stats(q3=10**400), "should have a positive q3 in its stats, got 1000"),
        (stats(q1=2.0), "should have quartiles in order, got 2.0, 1.0 and "),
        (json.dumps({"benchmarks": [measured("step", "a", 1.0) | {"group": "\ud800"}]}), "printable text as its group"),
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
    status, _, err = report(file, "--markdown", "table.md", "--picture", "heart.png")
    assert status == 1
    assert "the picture needs a training step or a gradient" in err
    assert list(tmp_path.iterdir()) == [file]


def test_a_picture_of_another_format_is_refused(report, result, capsys):
    with pytest.raises(SystemExit, match="2"):
        report(result(ON_CPU), "--picture", "heart.jpg")
    assert "--picture must end in .png or .svg, got heart.jpg" in capsys.readouterr().err


def test_the_script_runs_from_the_command_line(result, tmp_path):
    command = [sys.executable, SCRIPT, result(of_kind("step", ON_CPU)), "--markdown", "table.md"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "written: table.md\n")
    assert "| **xpnet** | 163 µs" in (tmp_path / "table.md").read_text()


def test_tables_are_printed_where_no_file_is_named_for_them(report, result):
    status, out, err = report(result(of_kind("step", ON_CPU)))
    assert (status, err) == (0, "")
    assert "| **xpnet** | 163 µs" in out


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
    """Contrast ratio of two colors, by the formula of WCAG 2."""

    def luminance(color):
        channels = (int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_the_colors_of_the_picture_have_enough_contrast():
    from report import drawing

    assert all(contrast(color, drawing.PAPER) >= 4.5 for color in (drawing.INK, drawing.MUTED))
    assert all(contrast(color, drawing.PAPER) >= 3 for color in drawing.BARS.values())

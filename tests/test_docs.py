"""What the documents show must run."""

import doctest
import importlib
import inspect
import itertools
import pkgutil
import re
import shlex
import shutil
import sys
import types
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import xpnet
from xpnet.gradient import gradient_check
from xpnet.layers import Affine, registry
from xpnet.nets import Sequential
from xpnet.optimizers import OPTIMIZERS

ROOT = Path(__file__).parent.parent
WITHOUT = ("__main__", "kernels.cuda", "kernels.cublaslt")  # the latter two import CuPy
MODULES = [m.name for m in pkgutil.walk_packages(xpnet.__path__, "xpnet.") if not m.name.endswith(WITHOUT)]
MODULES = [name for name in MODULES if not name.startswith("xpnet.cli")]
if find_spec("sklearn") is None:
    MODULES = [name for name in MODULES if not name.startswith("xpnet.sklearn")]


PAGES = sorted(page.relative_to(ROOT).as_posix() for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")))

NEEDS = {
    "docs/coming_from_pytorch.md": ("torch",),
    "docs/data.md": ("PIL",),
    "docs/deploy.md": ("safetensors",),
    "docs/interchange.md": ("onnx", "onnxruntime", "torch"),
    "docs/own_layer.md": ("safetensors",),
    "README.md": ("safetensors",),
}
"""What the programs of a page import besides NumPy."""

NOT_RUN = {
    "README.md": ["ONNX Runtime reads the file of a run"],
    "docs/gpu.md": ["a CUDA device"],
    "docs/parallel.md": ["several processes; tests/parallel_program.py is such a script"],
    "docs/sklearn.md": ["a CUDA device; tests/test_sklearn_arrays.py runs it on the stand-in"],
}
"""Why blocks are marked as `py`, not as `python`."""


def blocks(document, language):
    fenced = re.findall(r"^```([^\n]*)\n(.*?)^```", (ROOT / document).read_text(), re.DOTALL | re.MULTILINE)
    return [block for marked, block in fenced if marked == language]


WITH_PROGRAMS = [page for page in PAGES if blocks(page, "python")]


def small_data(**shapes):
    rng = np.random.default_rng(0)
    return {name: rng.random(shape, dtype="float32") for name, shape in shapes.items()}


def names_before(page, number):
    """Return what the text around a block assumes."""
    if page == "README.md" and number == 1:
        return small_data(W=(4, 3), b=(3,), x=(2, 4)) | {"t": np.array([0, 2])}
    if page == "README.md" and number >= 3:  # in place of MNIST, which the first block has trained on
        labels = dict.fromkeys(("t_train", "t_test", "t_valid"), np.arange(100) % 3)
        samples = small_data(x_train=(100, 6), x_test=(100, 6), x_valid=(100, 6))
        return samples | labels | {"net": xpnet.nets.TwoLayerNet(6, 4, 3, seed=0)}
    return {}


@pytest.fixture
def run_page(tmp_path, monkeypatch, capsys):
    """Run the programs of a page in order; return their names, and what each printed."""

    def run(page):
        for package in NEEDS.get(page, ()):
            pytest.importorskip(package, reason=f"{package} is not installed")
        monkeypatch.chdir(tmp_path)
        shutil.copy(ROOT / "docs/images/seven.png", tmp_path)
        monkeypatch.setattr(registry, "ACTIVATIONS", dict(registry.ACTIVATIONS))
        monkeypatch.setattr(xpnet.initializers, "GAINS", dict(xpnet.initializers.GAINS))
        if "onnx" in NEEDS.get(page, ()):
            from xpnet.interop.onnx import builder

            monkeypatch.setattr(builder, "CONVERTERS", dict(builder.CONVERTERS))
        names, printed = {"__name__": "page"}, []
        monkeypatch.setitem(sys.modules, "page", types.ModuleType("page"))  # of the classes, for pickles
        for number, block in enumerate(blocks(page, "python")):
            names |= names_before(page, number)
            exec(block, names)
            vars(sys.modules["page"]).update(names)
            printed.append(capsys.readouterr().out)
        return names, printed

    return run


@pytest.mark.parametrize(
    "page",
    # The README has a test of its own. tests/test_sklearn.py runs its page, also on the oldest scikit-learn.
    [page for page in WITH_PROGRAMS if page not in ("README.md", "docs/sklearn.md")],
)
def test_the_programs_of_a_page_run(run_page, page):
    names, printed = run_page(page)
    if page == "docs/sequences.md":
        assert "\nAlice" in printed[0]
    if page == "docs/data.md":
        assert names["x"].shape == (1, 1, 28, 28)
    if page == "docs/testing.md":
        names["test_scale"]()
        assert "gradient: dx[" in printed[1]


@pytest.mark.slow
def test_the_programs_of_the_readme_run(run_page):
    names, (trained, _, price, scheduled, _) = run_page("README.md")
    lines = trained.splitlines()
    assert lines[0].startswith("parameter")
    assert float(lines[-1]) > 0.965
    assert names["dx"].shape == (2, 4)
    assert names["affine"].dW.shape == (4, 3)
    assert [float(number) for number in price.split()] == pytest.approx([220, 2.2, 110, 200])
    assert scheduled.count("\n") == 17
    assert names["trainer"].current_iter == len(names["trainer"].history.losses) > 0


def test_each_block_that_does_not_run_has_its_reason():
    assert {page: len(blocks(page, "py")) for page in PAGES if blocks(page, "py")} == {
        page: len(reasons) for page, reasons in NOT_RUN.items()
    }
    unmarked = {page: "".join(blocks(page, "")) for page in PAGES}
    assert [page for page, text in unmarked.items() if re.search(r"^(import|from) \w", text, re.MULTILINE)] == []


def commands_of(page):
    lines = "".join(blocks(page, "sh")).replace("\\\n", " ").splitlines()
    for words in (shlex.split(line, comments=True) for line in lines):
        for place, word in enumerate(words):
            if word == "xpnet" and words[place - 1] != "install":  # of pip
                yield tuple(itertools.takewhile(lambda word: word != "&&", words[place + 1 :]))


@pytest.mark.parametrize(
    "arguments", sorted({arguments for page in PAGES for arguments in commands_of(page)}), ids=" ".join
)
def test_the_options_of_a_command_are_valid(arguments):
    typer = pytest.importorskip("typer", reason="the extra xpnet[cli] is not installed")
    from xpnet.cli import app

    commands = typer.main.get_command(app).commands
    commands[arguments[0]].make_context(arguments[0], list(arguments[1:]))  # parses, and runs nothing


def test_the_books_names_are_here_with_their_arguments_in_order():
    modules = [getattr(xpnet, name) for name in ("layers", "nets", "optimizers", "training", "functions", "datasets")]
    places = [*modules, xpnet.gradient, xpnet.training.Trainer, Sequential, xpnet.optimizers.Optimizer]
    text = (ROOT / "docs/coming_from_book.md").read_text()
    of_the_book = "".join(line.split("|")[1] for line in text.splitlines() if line.startswith("| `"))
    found = re.findall(r"`(\w+)(?:\(([\w, ]+)\))?`", of_the_book)
    assert len(found) >= 30
    for name, arguments in found:
        thing = next((getattr(place, name) for place in places if hasattr(place, name)), None)
        assert thing is not None, name
        if arguments:
            parameters = [p for p in inspect.signature(thing).parameters if p != "self"]
            assert parameters[: arguments.count(",") + 1] == arguments.split(", "), name


def test_cards_of_the_first_page_lead_to_what_a_stranger_looks_for():
    cards = re.findall(r"grid-item-card\} .*\n:link: (\S+)", (ROOT / "docs/index.md").read_text())
    wanted = {
        "own_layer": "# A layer of your own",
        "deploy": "## Resume",
        "gpu": "# Use a GPU",
        "sklearn": "# Coming from scikit-learn",
    }
    assert wanted.keys() <= set(cards)
    for page, heading in wanted.items():
        assert heading in (ROOT / f"docs/{page}.md").read_text().splitlines()


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_there_are_examples_to_run():
    found = doctest.DocTestFinder()
    assert sum(bool(t.examples) for name in MODULES for t in found.find(importlib.import_module(name))) >= 5


def test_the_picture_of_the_readme_is_the_one_that_its_command_draws():
    from xpnet.examples import build

    assert build("apple-orange", xpnet.Device("cpu")).to_svg() == (ROOT / "docs/images/apple_orange.svg").read_text()


def test_the_layer_of_its_page_is_right_on_each_device(run_page, device, rng):
    names, _ = run_page("docs/own_layer.md")
    layers = [names["Scale"](rng.random(4)), Affine.from_sizes(4, 3, std=0.5, rng=rng, dtype="float64")]
    net = Sequential(layers, device=device)
    assert gradient_check(net, device.asarray(rng.random((2, 4))), device.asarray([0, 2])).ok


def test_the_activation_of_its_page_is_right_on_each_device(run_page, device, rng):
    run_page("docs/own_layer.md")
    net = Sequential.mlp([4, 5, 3], "steep", dtype="float64", device=device, seed=0)
    assert list(net.layers) == ["Affine1", "Steep1", "Affine2"]
    assert gradient_check(net, device.asarray(rng.random((2, 4))), device.asarray([0, 2])).ok


def test_the_update_rule_of_its_page_is_right_on_each_device(run_page, device):
    names, _ = run_page("docs/own_optimizer.md")
    optimizer, params = names["Accumulate"](lr=0.5), {"x": device.asarray([1.0, 2.0])}
    for g in ([2.0, 0.0], [4.0, 2.0]):
        optimizer.update(params, {"x": device.asarray(g)})
    np.testing.assert_allclose(xpnet.asnumpy(params["x"]), [1.0 - 1.0 - 1.5, 2.0 - 0.5])


def test_the_interchange_page_shares_memory_and_converts_its_layer(run_page, tmp_path):
    names, _ = run_page("docs/interchange.md")
    names["export"](Sequential([names["Scale"](np.arange(3.0))]), tmp_path / "m.onnx", input_shape=(3,))
    assert names["W"].data_ptr() == names["net"].params["W1"].ctypes.data


def test_the_stand_ins_example_of_the_testing_page_runs(run_page, cuda, counted):
    names, _ = run_page("docs/testing.md")
    names["test_the_sum_waits_for_nothing"](cuda, counted)


@pytest.mark.parametrize("document", PAGES)
def test_links_lead_somewhere(document):
    links = re.findall(r"\]\((?!http)([^)#]+)", (ROOT / document).read_text())
    assert [link for link in links if not ((ROOT / document).parent / link).exists()] == []


def test_every_layer_has_its_row_and_the_row_is_right():
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in (ROOT / "docs/layers.md").read_text().splitlines()
    ]
    rows = {re.match(r"`(\w+)", row[0])[1]: row for row in rows if row and row[0].startswith("`")}
    layers = {name: getattr(xpnet.layers, name) for name in xpnet.layers.__all__ if name not in ("Layer", "Loss")}
    assert rows.keys() == layers.keys()
    assert {name: re.findall(r"`(\w+)`", row[3]) for name, row in rows.items()} == {
        name: list(layer.saved) for name, layer in layers.items()
    }
    assert {name for name, row in rows.items() if "B" in row[4]} == {
        name for name, layer in layers.items() if layer.samplewise
    }


def test_every_update_rule_has_its_row_and_the_row_is_right():
    text = (ROOT / "docs/optimizers.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| `")]
    assert {re.match(r"`(\w+)", row[0])[1].lower() for row in rows} == OPTIMIZERS.keys()
    for call, _, remembered, _ in rows:
        rule = eval(call.strip("`"), {cls.__name__: cls for cls in OPTIMIZERS.values()} | {"m": 0.9})
        assert re.findall(r"`(\w+)`", remembered) == list(rule.state_names), call


def test_every_promise_of_security_has_its_test():
    promised = re.findall(r"`(test_\w+\.py)`: ((?:`test_\w+`(?:, )?)+)", (ROOT / "SECURITY.md").read_text())
    assert len(promised) >= 9
    for file, names in promised:
        tests = (ROOT / "tests" / file).read_text(encoding="utf-8")
        assert [name for name in re.findall(r"`(\w+)`", names) if f"def {name}(" not in tests] == []


def test_the_citation_and_the_changelog_have_the_version():
    assert f"\nversion: {xpnet.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    versions = re.findall(r"^## \[(\S+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[0] == xpnet.__version__


def test_every_dependency_is_justified():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {*project["dependencies"], *(d for extra in project["optional-dependencies"].values() for d in extra)}
    names = {re.split(r"[<>=\[]", d)[0] for d in wanted}
    table = (ROOT / "docs/dependencies.md").read_text()
    assert [name for name in sorted(names) if not re.search(rf"^\| {name}\b", table, re.MULTILINE)] == []

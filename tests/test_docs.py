"""What the documents show must run."""

import doctest
import importlib
import pkgutil
import re
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import xpnet
from xpnet.gradient import gradient_check
from xpnet.layers import Affine, registry
from xpnet.layers.base import Formula
from xpnet.nets import Sequential
from xpnet.optimizers import OPTIMIZERS

ROOT = Path(__file__).parent.parent
WITHOUT = ("__main__", "kernels.cuda", "kernels.cublaslt")  # the latter two import CuPy
MODULES = [m.name for m in pkgutil.walk_packages(xpnet.__path__, "xpnet.") if not m.name.endswith(WITHOUT)]
MODULES = [name for name in MODULES if not name.startswith("xpnet.cli")]
if find_spec("sklearn") is None:
    MODULES = [name for name in MODULES if not name.startswith("xpnet.sklearn")]


def python_blocks(document):
    return re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_there_are_examples_to_run():
    found = doctest.DocTestFinder()
    assert sum(bool(t.examples) for name in MODULES for t in found.find(importlib.import_module(name))) >= 5


@pytest.mark.slow
def test_the_readme_trains_a_network(capsys):
    exec(python_blocks("README.md")[0], {})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("parameter")
    assert float(lines[-1]) > 0.965


def test_the_readme_runs_layers_by_hand(rng):
    names = {"W": rng.random((4, 3)), "b": rng.random(3), "x": rng.random((2, 4)), "t": np.array([0, 2])}
    exec(python_blocks("README.md")[1], names)
    assert names["dx"].shape == (2, 4)
    assert names["affine"].dW.shape == (4, 3)


def test_the_readme_differentiates_a_price(capsys):
    exec(python_blocks("README.md")[2], {})
    assert [float(number) for number in capsys.readouterr().out.split()] == pytest.approx([220, 2.2, 110, 200])


def test_the_picture_of_the_readme_is_the_one_that_its_command_draws():
    from xpnet.examples import build

    assert build("apple-orange", xpnet.Device("cpu")).to_svg() == (ROOT / "docs/images/apple_orange.svg").read_text()


def test_the_readme_sets_a_rule_a_schedule_and_clipping(rng, capsys):
    x, t = rng.random((100, 6), dtype="float32"), rng.integers(0, 3, 100)
    names = {"Trainer": xpnet.training.Trainer, "net": xpnet.nets.TwoLayerNet(6, 4, 3, seed=0)}
    exec(python_blocks("README.md")[3], names | dict.fromkeys(("x_train", "x_test"), x) | {"t_train": t, "t_test": t})
    assert capsys.readouterr().out.count("\n") == 17


def test_the_readme_stops_early_and_writes_a_checkpoint(rng, tmp_path, monkeypatch):
    pytest.importorskip("safetensors", reason="the extra xpnet[cli] is not installed")
    monkeypatch.chdir(tmp_path)
    x, t = rng.random((100, 6), dtype="float32"), rng.integers(0, 3, 100)
    names = {"net": xpnet.nets.TwoLayerNet(6, 4, 3, seed=0), "x_train": x, "t_train": t, "x_valid": x, "t_valid": t}
    exec(python_blocks("README.md")[4], names)
    trainer = names["trainer"]
    assert trainer.current_iter == len(trainer.history.losses) > 0


def test_the_layer_of_the_architecture_page_is_right(device, rng):
    names = {"Layer": xpnet.layers.Layer, "get_array_module": xpnet.get_array_module}
    exec(python_blocks("docs/architecture.md")[0], names)
    layers = [names["Scale"](rng.random(4)), Affine.from_sizes(4, 3, std=0.5, rng=rng, dtype="float64")]
    net = Sequential(layers, device=device)
    assert gradient_check(net, device.asarray(rng.random((2, 4))), device.asarray([0, 2])).ok


def test_the_activation_of_the_architecture_page_is_right(device, rng, monkeypatch):
    monkeypatch.setattr(registry, "ACTIVATIONS", dict(registry.ACTIVATIONS))
    monkeypatch.setattr(xpnet.initializers, "GAINS", dict(xpnet.initializers.GAINS))
    names = {"Layer": xpnet.layers.Layer, "Formula": Formula, "functions": xpnet.functions}
    exec(python_blocks("docs/architecture.md")[1], names | {"activation": registry.activation})
    net = Sequential.mlp([4, 5, 3], "steep", dtype="float64", device=device, seed=0)
    assert list(net.layers) == ["Affine1", "Steep1", "Affine2"]
    assert gradient_check(net, device.asarray(rng.random((2, 4))), device.asarray([0, 2])).ok


def test_the_update_rule_of_the_architecture_page_is_right(device):
    names = {"Optimizer": xpnet.optimizers.Optimizer, "get_array_module": xpnet.get_array_module}
    exec(python_blocks("docs/architecture.md")[2], names)
    optimizer, params = names["Accumulate"](lr=0.5), {"x": device.asarray([1.0, 2.0])}
    for g in ([2.0, 0.0], [4.0, 2.0]):
        optimizer.update(params, {"x": device.asarray(g)})
    np.testing.assert_allclose(xpnet.asnumpy(params["x"]), [1.0 - 1.0 - 1.5, 2.0 - 0.5])


def test_the_page_of_sequences_generates_a_text(capsys):
    exec(python_blocks("docs/sequences.md")[0], {})
    assert "\nAlice" in capsys.readouterr().out


def test_the_interchange_page_runs(tmp_path, monkeypatch):
    for package in ("onnx", "onnxruntime", "torch"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    from xpnet.interop.onnx import builder, export

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(builder, "CONVERTERS", dict(builder.CONVERTERS))
    names = {}
    for block in python_blocks("docs/interchange.md"):
        exec(block, names)
    export(Sequential([names["Scale"](np.arange(3.0))]), tmp_path / "m.onnx", input_shape=(3,))
    assert names["W"].data_ptr() == names["net"].params["W1"].ctypes.data


def test_the_testing_page_runs(capsys):
    names = {}
    for block in python_blocks("docs/testing.md"):
        exec(block, names)
    names["test_scale"]()
    assert "gradient: dx[" in capsys.readouterr().out


def test_the_stand_ins_example_of_the_testing_page_runs(cuda, counted):
    names = {}
    exec(python_blocks("docs/testing.md")[-1], names)
    names["test_the_sum_waits_for_nothing"](cuda, counted)


@pytest.mark.parametrize(
    "document",
    [
        "README.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "CHANGELOG.md",
        "docs/architecture.md",
        "docs/dependencies.md",
        "docs/interchange.md",
        "docs/layers.md",
        "docs/optimizers.md",
        "docs/parallel.md",
        "docs/sequences.md",
        "docs/testing.md",
        "docs/threads.md",
    ],
)
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

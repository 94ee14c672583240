"""What the command line says of itself: the page without a command, help with its examples, completion in the shell."""

import os
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("typer", reason="the command line's extra, xpnet[cli], is not installed")

from xpnet.cli.examples import EXAMPLES
from xpnet.datasets.images import write_images
from xpnet.layers.registry import ACTIVATIONS
from xpnet.optimizers import OPTIMIZERS
from xpnet.training.recipes import RECIPES

SHORTENED = {"train": "--steps 3 --data data", "gradcheck": "--samples 1 --data data", "evaluate": "--data data"}
"""What makes the examples of a command quick."""


@pytest.fixture
def trained(xp, data, tmp_path):
    """Folder of a run in runs/, relative to the current directory."""
    assert xp("train", "--steps", 3, "--data", data)[0] == 0
    (folder,) = (tmp_path / "runs").iterdir()
    return folder.relative_to(tmp_path)


def completing(line, shell="bash"):
    """Return the environment in which a shell asks for completions of the last word of a command line."""
    asked = {
        "bash": {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))},
        "zsh": {"_TYPER_COMPLETE_ARGS": line},
    }[shell]
    return asked | {"_XPNET_COMPLETE": f"complete_{shell}"}


@pytest.fixture
def complete(xp, monkeypatch):
    """Complete the last word of a command line as a shell does; return what it is told, without help texts."""

    def call(line, shell="bash"):
        with monkeypatch.context() as context:
            for name, value in completing(line, shell).items():
                context.setenv(name, value)
            status, out, err = xp()
        assert (status, err) == (0, "")
        return re.findall(r'^(?:.*\(\()?"([^"]*)"', out, re.M) if shell == "zsh" else out.split()

    return call


def test_without_a_command_a_page_leads_on(xp, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    status, out, err = xp()
    assert (status, err) == (0, "")
    assert re.findall("^  xpnet [a-z-]+( [a-z-]+)?", out, re.M)
    assert [line.split("  ")[1] for line in out.splitlines() if line.startswith("  ")] == [
        "xpnet train",
        "xpnet graph apple",
        "xpnet gradcheck",
        "xpnet --help",
        "xpnet train --help",
    ]


@pytest.mark.parametrize("columns", [40, 80])
def test_the_page_fits_a_screen_and_names_the_last_run(xp, trained, tmp_path, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    older = tmp_path / "runs" / "20200101-000000-mlp"
    older.mkdir()
    (older / "settings.json").write_text("damaged")
    status, out, err = xp()
    assert (status, err) == (0, "")
    assert re.search(r"test\s+accuracy\s+0\.\d{4}", out)
    assert f"\n  xpnet predict {trained} digit.png\n" in out
    assert "\x1b" not in out
    assert len(out.splitlines()) <= 24
    assert all(len(line) <= columns for line in out.splitlines() if not line.startswith("  xpnet predict"))


def test_the_page_names_no_run_that_cannot_be_used(xp, trained, tmp_path):
    (tmp_path / trained / "model.safetensors").unlink()
    assert "last run" not in xp()[1]
    (tmp_path / trained / "settings.json").write_bytes(b"\xff")
    status, out, err = xp()
    assert (status, err) == (0, "")
    assert "last run" not in out


def test_the_page_generates_by_a_language_model(xp, tmp_path):
    assert xp("train", "--net", "char-lstm", "--hidden-size", 4, "--batch-size", 2, "--steps", 2)[0] == 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert f"  xpnet generate runs/{folder.name}\n" in xp()[1]


def test_help_lists_the_commands(xp):
    status, out, err = xp("--help")
    assert (status, err) == (0, "")
    assert [name for name in EXAMPLES if re.search(rf"^  {name} ", out, re.M)] == list(EXAMPLES)


@pytest.mark.parametrize("command", EXAMPLES)
def test_the_examples_of_the_help_work(xp, trained, digit, command):
    _, out, _ = xp(command, "--help")
    examples = out.partition("\n  Examples:\n")[2].splitlines()
    assert 2 <= len(examples) <= 3
    if command == "report" or any("--plot" in line for line in examples):
        pytest.importorskip("matplotlib", reason="the extra xpnet[plot] is not installed")
    if command == "export":
        pytest.importorskip("onnx", reason="the extra xpnet[onnx] is not installed")
    if command == "generate":
        xp("train", "--net", "char-lstm", "--hidden-size", 4, "--batch-size", 2, "--steps", 2, "--out", "texts")
        (trained,) = digit.parent.glob("texts/*")
    for line in examples:
        line = line.replace("RUN", str(trained))
        shell = subprocess.run(["sh", "-c", f"printf '%s\\n' {line}"], capture_output=True, text=True, check=True)
        name, *words = shell.stdout.splitlines()
        extra = [] if "--resume" in words or command not in SHORTENED else shlex.split(SHORTENED[command])
        status, _, err = xp(*words, *extra)
        assert (name, status, err) == ("xpnet", 0, ""), line


@pytest.fixture
def digit(tmp_path):
    pytest.importorskip("PIL", reason="the extra xpnet[images] is not installed")
    write_images(tmp_path / "digit.png", np.zeros((1, 1, 28, 28), "uint8"))
    return tmp_path / "digit.png"


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_commands_and_values_are_completed(complete, shell):
    assert complete("xpnet gr", shell) == ["gradcheck", "graph"]
    assert complete("xpnet train --net ", shell) == list(RECIPES)
    assert complete("xpnet train --optimizer ad", shell) == [name for name in OPTIMIZERS if name.startswith("ad")]
    assert complete("xpnet train --activation ", shell) == list(ACTIVATIONS)
    assert complete("xpnet info --device c", shell) == ["cpu", "cuda"]
    assert complete("xpnet train --data f", shell) == ["fashion-mnist"]
    assert complete("xpnet train --weight-init-std h", shell) == ["he"]
    assert complete("xpnet graph a", shell) == ["apple", "apple-orange"]
    assert complete("xpnet train --check", shell) == ["--checkpoint-seconds", "--checkpoint-steps"]


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_runs_are_completed(complete, tmp_path, shell):
    for name in ("runs/b", "runs/a", "elsewhere/c", "runs/none"):
        (tmp_path / name).mkdir(parents=True)
        if name != "runs/none":
            (tmp_path / name / "settings.json").touch()
    for command in (
        "predict",
        "evaluate",
        "report",
        "export",
        "generate",
        "runs",
        "runs elsewhere/c",
        "train --resume",
    ):
        assert complete(f"xpnet {command} ", shell) == ["runs/a", "runs/b"]
    assert complete("xpnet report runs/b", shell) == ["runs/b"]
    assert complete("xpnet report else", shell) == []  # the shell's own completion of folders
    assert complete("xpnet report elsewhere/", shell) == ["elsewhere/c"]


def test_a_completion_imports_little():
    command = [sys.executable, "-X", "importtime", "-m", "xpnet"]
    environment = os.environ | completing("xpnet train --net ")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == list(RECIPES)
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "xpnet.cli.train" in loaded
    assert len([name for name in loaded if name.startswith("xpnet")]) < 70
    assert not loaded & {
        "xpnet.nets",
        "xpnet.training",
        "xpnet.datasets",
        "xpnet.gradient",
        "xpnet.graph",
    }
    assert not loaded & {"scipy", "numba", "matplotlib", "onnx", "sklearn", "PIL", "cupy", "torch"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_completion_is_shown_for_each_shell(xp, shell, monkeypatch):
    import shellingham

    monkeypatch.setattr(shellingham, "detect_shell", lambda: (shell, f"/bin/{shell}"))
    status, out, err = xp("--show-completion")
    assert (status, err) == (0, "")
    assert "_XPNET_COMPLETE" in out


def test_completion_of_an_unknown_shell_is_an_error(xp, monkeypatch):
    import shellingham

    monkeypatch.setattr(shellingham, "detect_shell", lambda: ("tcsh", "/bin/tcsh"))
    status, _, err = xp("--show-completion")
    assert status == 1
    assert err.count("\n") == 1

"""The scripts run as a reader would run them, and print what the book says."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = ROOT / "scripts"
CHAPTER = sorted((ROOT / "docs" / "chapter").glob("*.py"))[:-2]  # the last two train: `make docs` runs them


def run(name, *arguments, folder=None):
    command = [sys.executable, SCRIPTS / name, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr
    return [line.split() for line in done.stdout.splitlines()]


def test_buy_apple(tmp_path):
    lines = run("buy_apple.py", folder=tmp_path)
    assert lines == [["price", "220"], ["dapple", "2.2"], ["dapple_num", "110"], ["dtax", "200"]]
    assert "apple_num" in (tmp_path / "buy_apple.html").read_text("utf-8")


def test_buy_apple_orange(tmp_path):
    assert run("buy_apple_orange.py", folder=tmp_path) == [
        ["price", "715"],
        ["dapple_num", "110"],
        ["dapple", "2.2"],
        ["dorange", "3.3"],
        ["dorange_num", "165"],
        ["dtax", "650"],
    ]
    assert "orange_num" in (tmp_path / "buy_apple_orange.html").read_text("utf-8")


@pytest.mark.slow
def test_gradient_check(tmp_path):
    pytest.importorskip("matplotlib", reason="Matplotlib is not installed")
    differences = {key.rstrip(":"): float(value) for key, value in run("gradient_check.py", folder=tmp_path)}
    assert list(differences) == ["W1", "b1", "W2", "b2"]
    for name, bound in {"W1": 4e-10, "b1": 3e-9, "W2": 6e-9, "b2": 1.4e-7}.items():
        assert differences[name] < bound
    assert (tmp_path / "gradient_check.png").read_bytes().startswith(b"\x89PNG")


def test_train_mnist():
    lines = run("train_mnist.py", "--iters", "700")
    assert [line[1] for line in lines] == ["600", "700"]
    assert float(lines[-1][-1]) > 0.88


@pytest.mark.slow
def test_digits_grid_search():
    pytest.importorskip("sklearn", reason="the extra xpnet[sklearn] is not installed")
    lines = run("digits_grid_search.py", "--passes", "10")
    assert {line[0] for line in lines} == {"hidden_layer_sizes", "learning_rate_init", "dropout", "test"}
    assert float(lines[-1][-1]) > 0.9


def test_residual_network(tmp_path):
    lines = run("residual_network.py", folder=tmp_path)
    checked = [line for line in lines if line and line[0] in {"W1", "b1", "W2", "b2", "W3", "b3"}]
    assert [line[-1] for line in checked] == ["ok"] * 6
    assert float(lines[-1][-2]) > 0.95  # test accuracy
    page = (tmp_path / "residual_network.html").read_text()
    assert page.lower().startswith("<!doctype html>")
    assert "SoftmaxWithLoss" in page


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arguments", "picture", "lines"),
    [
        ("compare_optimizers.py", ("--steps", "20"), "optimizers.png", 7),
        ("compare_weight_init.py", ("--steps", "20"), "weight_init.png", 4),
        ("batch_normalization.py", ("--epochs", "2"), "batch_normalization.png", None),
        ("overfitting.py", ("--epochs", "2"), "overfitting.png", 3),
        ("train_convnet.py", ("--steps", "3"), "filters.png", None),
    ],
)
def test_experiments_draw_their_picture(tmp_path, name, arguments, picture, lines):
    pytest.importorskip("matplotlib", reason="Matplotlib is not installed")
    printed = run(name, *arguments, folder=tmp_path)
    assert lines is None or len(printed) == lines
    assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")


def test_attention_weights_are_drawn_for_each_head(tmp_path):
    pytest.importorskip("matplotlib", reason="Matplotlib is not installed")
    pytest.importorskip("typer", reason="the extra xpnet[cli] is not installed")
    train = ["train", "--net", "gpt", "--hidden-size", "8", "--batch-size", "2", "--steps", "2"]
    subprocess.run([sys.executable, "-m", "xpnet", *train], check=True, capture_output=True, cwd=tmp_path)
    (folder,) = (tmp_path / "runs").iterdir()
    (line,) = run("attention_weights.py", folder, "the sea", "--block", "2", folder=tmp_path)
    assert line == ["attention_weights.svg", "written:", "block", "2,", "4", "heads"]
    picture = (tmp_path / "attention_weights.svg").read_text()
    assert all(f"head {number}" in picture for number in (1, 2, 3, 4))


def test_a_script_asked_for_a_missing_device_says_what_is_missing():
    command = [sys.executable, SCRIPTS / "train_mnist.py", "--device", "gpu"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "device" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("page", CHAPTER, ids=[page.stem for page in CHAPTER])
def test_the_numbers_of_the_chapter_are_the_books(page, tmp_path):
    run(page, folder=tmp_path)  # each page asserts its numbers
    assert list(tmp_path.glob("*.html"))

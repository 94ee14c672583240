import importlib.util
import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("typer", reason="the command line's extra, xpnet[cli], is not installed")

import xpnet
from xpnet.training import run_settings

COMMAND = [sys.executable, "-m", "xpnet"]


def device_argument(device):
    return "cuda" if device.name != "cpu" else "cpu"


def test_gradcheck_checks_networks_for_images(xp, data):
    status, out, _ = xp("gradcheck", "--net", "lenet5", "--method", "directional", "--data", data)
    assert status == 0
    assert out.startswith("61,706 parameters, 3 images, on cpu")


@pytest.mark.parametrize("method", ["batched", "loop", "directional"])
def test_gradcheck_prints_differences_seconds_and_speedup(xp, device, method):
    arguments = ("--hidden-size", 2, "--samples", 2, "--method", method, "--device", device_argument(device))
    status, out, err = xp("gradcheck", *arguments)
    assert (status, err) == (0, "")
    assert out.startswith(f"1,600 parameters, 2 images, on {device}\n")
    assert [line.split()[0] for line in out.splitlines() if line.endswith(" ok")] == ["W1", "b1", "W2", "b2"]
    assert re.search(rf"numerical, {method} +[\d.]+ s", out)
    assert re.search(r"backpropagation +[\d.]+ s +[\d,]+ times faster", out)


def test_gradcheck_takes_no_more_images_than_there_are(xp, data):
    message = "xpnet: error: --samples must be at most 200, the number of images, got 201\n"
    assert xp("gradcheck", "--samples", 201, "--data", data) == (1, "", message)


def test_gradcheck_fails_for_a_wrong_gradient(xp, monkeypatch):
    backward = xpnet.layers.Relu.backward
    monkeypatch.setattr(xpnet.layers.Relu, "backward", lambda self, dout: 1.01 * backward(self, dout))
    status, out, _ = xp("gradcheck", "--hidden-size", 2)
    assert status == 1
    assert "WRONG" in out


@pytest.mark.parametrize("example", ["apple", "apple-orange", "sigmoid", "softmax", "two-layer", "lstm"])
def test_graph_writes_a_page_or_a_picture(xp, tmp_path, device, example):
    status, out, err = xp("graph", example, "--device", device_argument(device))
    assert (status, err) == (0, "")
    assert re.fullmatch(rf"{example}\.html written: \w+ = [\d.]+, with derivatives\n", out)
    assert (tmp_path / f"{example}.html").read_text().startswith("<!DOCTYPE html>")
    assert xp("graph", example, "--out", "a.svg", "--device", device_argument(device))[0] == 0
    assert (tmp_path / "a.svg").read_text().startswith("<svg ")


def test_info_shows_devices_versions_blas_and_extras(xp, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    status, out, _ = xp("info")
    assert status == 0
    assert f"numpy   {np.__version__}" in out
    assert re.search(r"blas +\S+ \S+, \d+ threads on \d+ cores", out)
    assert "cuda  not available: CuPy is not installed; install it with pip install 'cupy-cuda13x[ctk]" in out
    assert "--device auto computes on cpu" in out
    assert re.search(r"cli +installed +the xpnet command", out)


def test_info_shows_gpus(xp, cupy):
    status, out, err = xp("info")
    assert (status, err) == (0, "")
    gpu = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
    assert re.search(rf"cuda:0 +{re.escape(gpu)}, \d+ GiB, CuPy {re.escape(cupy.__version__)}\n", out)
    assert "--device auto computes on cuda:0" in out


def test_auto_says_what_it_chose(xp, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    status, out, _ = xp("train", "--device", "auto", "--steps", 1)
    assert status == 0
    assert out.startswith("computing on cpu (auto: CuPy is not installed;")


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ("train --steps 0", 2, "Invalid value for '--steps'"),
        ("train --steps many", 2, "Invalid value for '--steps'"),
        ("train --activation step", 2, "Invalid value for '--activation'"),
        ("train --learning-rate 1", 2, "No such option"),
        ("tarin", 2, "No such command 'tarin'"),
        ("train --optimizer sdg", 2, "Invalid value for '--optimizer'"),
        ("train --optimizer adam --momentum 0.9", 1, "optimizer 'adam' has no 'momentum'; its settings are lr, beta1,"),
        ("train --momentum 1", 1, "momentum must be in [0, 1), got 1.0"),
        ("train --schedule cosin", 2, "Invalid value for '--schedule'"),
        ("train --lr -1", 1, "lr must be finite and not negative, got -1.0"),
        ("train --weight-init-std heh", 1, "std must be a number, 'he' ('relu'), 'xavier' ('sigmoid')"),
        ("train --device gpu", 1, "device must be 'auto', 'cpu', 'cuda' or 'cuda:N', got 'gpu'"),
        ("train --data nowhere", 1, "nowhere: no such file or folder, and no data set of that name"),
        ("train --out file", 1, "file"),
        ("train --batch-size 1000000000000", 1, "batch_size must fit in the memory of "),
        ("train --batch-size 1000000000000 --microbatch 10", 1, "batch_size must fit in the memory of "),
        ("train --net char-lstm --batch-size 1000000000000", 1, "mini_batch_size must fit in the memory of "),
        ("train --net char-lstm --sampling in-order --batch-size 1000000000000", 1, "batch_size must fit in the mem"),
        ("train --hidden-size 2147483648", 1, "got (784, 2147483648), which takes 12,544.0 GiB; lower the sizes of"),
        ("train --net gpt --hidden-size 2147483648", 1, "shape of the weights must fit in the memory of "),
        *(
            (f"train --{option} 100000000000000000000", 1, "must be at most 9,223,372,036,854,775,807, the largest in")
            for option in ("batch-size", "hidden-size", "microbatch", "steps", "threads")
        ),
        ("gradcheck --method directional --directions 39761", 1, "the number of directions, must be at most 39,760"),
        ("graph pear", 2, "Invalid value for"),
        ("graph", 2, "Missing argument"),
        (
            "graph apple --out apple.png",
            1,
            "--out must end in .svg, for a picture, or .html, for a page, got 'apple.png'",
        ),
        ("graph apple --out nowhere/apple.svg", 1, "No such file or directory"),
        ("graph apple --device cuda", 1, "CuPy is not installed"),
        ("gradcheck --device cuda:9", 1, "CuPy is not installed"),
        ("info --device cuda", 1, "CuPy is not installed"),
    ],
)
def test_errors_are_one_line_and_a_status(xp, tmp_path, monkeypatch, arguments, status, message):
    monkeypatch.setitem(sys.modules, "cupy", None)
    (tmp_path / "file").write_text("in the way")
    found, _, err = xp(*arguments.split())
    assert found == status
    assert err.startswith("xpnet: error: ")
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_no_memory_is_one_line(xp, monkeypatch):
    def full(*_args, **_kwargs):
        raise MemoryError("Unable to allocate 40 GiB")

    monkeypatch.setattr(run_settings, "load_dataset", full)
    assert xp("train") == (1, "", "xpnet: error: out of memory: Unable to allocate 40 GiB\n")


def test_divergence_is_one_line_and_keeps_the_run(xp, tmp_path):
    status, out, err = xp("train", "--steps", 50, "--lr", 1e9)
    assert status == 1
    assert err.startswith("xpnet: error: training diverged: the loss is nan at step")
    assert err.count("\n") == 1
    assert "no accuracy was measured yet after 50 steps" in out
    (report,) = (tmp_path / "runs").glob("*/run.json")
    assert json.loads(report.read_text())["steps"] == 50


def test_a_full_disk_is_one_line_and_leaves_no_half_file(xp, tmp_path, monkeypatch):
    def disk_full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", disk_full)
    status, _, err = xp("train", "--steps", 5)
    assert status == 1
    assert err == "xpnet: error: No space left on device: runs\n"
    assert list((tmp_path / "runs").iterdir()) == []


def test_an_unexpected_error_is_one_line_with_its_place(xp, monkeypatch):
    def broken(*_args, **_kwargs):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(run_settings, "load_dataset", broken)
    status, _, err = xp("train")
    assert status == 1
    assert re.fullmatch(r"xpnet: error: unexpected ZeroDivisionError at \S+:\d+: a bug; please report this\n", err)


def test_version(xp):
    assert xp("--version") == (0, f"xpnet {xpnet.__version__}\n", "")


def test_ctrl_c_before_the_training_is_one_line(xp, monkeypatch):
    def interrupted(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(run_settings, "load_dataset", interrupted)
    assert xp("train") == (130, "", "xpnet: error: interrupted\n")


def wait_for(stream, text):
    """Read a program's output until `text` has come."""
    seen = b""
    while text not in seen:
        chunk = os.read(stream, 4096)
        assert chunk, f"the program ended before it printed {text!r}: {seen!r}"
        seen += chunk
    return seen


def test_ctrl_c_ends_cleanly_and_saves_what_was_learned(tmp_path):
    program = subprocess.Popen(
        [*COMMAND, "train", "--steps", "1000000"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with program:
        wait_for(program.stdout.fileno(), b"   1.00 ")
        program.send_signal(signal.SIGINT)
        out, err = program.communicate()
    assert program.returncode == 130
    assert err == b"xpnet: error: interrupted\n"
    assert b"written to runs/" in out
    (report,) = (tmp_path / "runs").glob("*/run.json")
    facts = json.loads(report.read_text())
    assert not facts["complete"]
    assert 600 <= facts["steps"] < 1_000_000
    losses = json.loads(report.with_name("history.json").read_text())["losses"]
    assert len(losses) == facts["steps"]


def test_a_terminal_gets_a_progress_bar(tmp_path):
    parent, child = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"}
    with subprocess.Popen(
        [*COMMAND, "train", "--steps", "3000"], cwd=tmp_path, stdout=child, stderr=child, env=environment
    ) as program:
        os.close(child)
        seen = wait_for(parent, b"written to")
        os.close(parent)
    assert program.returncode == 0
    assert re.search(rb"loss 0\.\d{4}", seen)
    assert b"steps/s" in seen
    assert b"/3000" in seen


def test_a_reader_of_a_text_that_goes_away_is_no_error():
    pipeline = " ".join([*COMMAND, "info", "|", "head", "-1"])
    done = subprocess.run(["sh", "-c", pipeline], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.startswith("xpnet ")


@pytest.mark.parametrize(
    ("raised", "message"),
    [
        (
            "ModuleNotFoundError(\"No module named 'rich'\", name='rich')",
            "rich is not installed; install it with pip install 'xpnet[cli]'",
        ),
        (
            "AttributeError('no attribute _ARRAY_API')",
            "rich.progress is installed but cannot be imported (AttributeError: no attribute _ARRAY_API); "
            "repair it with pip install --force-reinstall 'xpnet[cli]'",
        ),
    ],
)
def test_without_a_working_cli_extra_the_command_says_what_to_install(tmp_path, raised, message):
    (tmp_path / "rich.py").write_text(f"raise {raised}")
    path = os.pathsep.join([str(tmp_path), str(Path(xpnet.__file__).parents[1])])
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run([*COMMAND, "info"], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, f"xpnet: error: {message}\n")


def test_a_matplotlib_that_cannot_be_imported_is_named_before_the_training(xp, tmp_path, monkeypatch):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "matplotlib.py").write_text("raise RuntimeError('built for another NumPy')")
    monkeypatch.syspath_prepend(tmp_path / "broken")
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    status, _, err = xp("train", "--plot", "--steps", 5)
    assert status == 1
    assert err == (
        "xpnet: error: matplotlib.figure is installed but cannot be imported (RuntimeError: built for another NumPy); "
        "repair it with pip install --force-reinstall 'xpnet[plot]'\n"
    )
    assert not (tmp_path / "runs").exists()


def test_the_installed_command_is_the_module():
    command = Path(sys.executable).with_name("xpnet")
    if not command.exists():
        pytest.skip("xpnet is not installed, only on the path")
    done = subprocess.run([command, "--help"], capture_output=True, text=True, check=True)
    assert "gradcheck" in done.stdout


def test_a_backend_that_is_not_installed_is_named_with_its_extra(xp, tmp_path, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *args: None if name == "numba" else find_spec(name))
    status, _, err = xp("train", "--backend", "numba", "--steps", 5)
    assert (status, err) == (
        1,
        "xpnet: error: the backend 'numba' needs Numba; install it with pip install 'xpnet[numba]'\n",
    )
    assert not (tmp_path / "runs").exists()

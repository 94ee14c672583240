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


def test_train_learns_mnist_and_leaves_a_run_folder(xp, tmp_path, device):
    status, out, err = xp("train", "--steps", 700, "--device", device_argument(device))
    assert (status, err) == (0, "")
    lines = [line for line in out.splitlines() if line]  # rich before 15 ends its progress with an empty one
    assert [line.split()[:2] for line in lines[1:4]] == [["epoch", "step"], ["1.00", "600"], ["1.17", "700"]]
    accuracy = float(re.match(r"test accuracy (\S+), train accuracy \S+ after 700 steps in", lines[4])[1])
    assert accuracy > 0.88
    assert "\x1b" not in out
    assert "\r" not in out
    (folder,) = (tmp_path / "runs").iterdir()
    assert lines[5].startswith(f"written to {folder.relative_to(tmp_path)}/: model.safetensors, history.json")
    report = json.loads((folder / "run.json").read_text())
    by = ", by Numba" if report["backend"] == "numba" else ""
    assert lines[0] == f"784-50-10 network, 39,760 parameters, float32 on {device}{by}"
    assert report["settings"]["lr"] == 0.1
    assert report["settings"]["seed"] == 0
    assert report["settings"]["device"] == device.name
    assert report["test_accuracy"] == pytest.approx(accuracy, abs=1e-4)
    net = xpnet.load(folder / "model.safetensors")
    (_, _), (x, t) = xpnet.datasets.load_mnist()
    assert net.accuracy(x, t) == pytest.approx(accuracy, abs=1e-3)


def test_train_takes_every_setting(xp, tmp_path):
    arguments = (
        "train --steps 30 --batch-size 20 --lr 0.5 --hidden-size 7 --activation sigmoid --weight-init-std xavier"
    )
    rule = "--optimizer nesterov --momentum 0.8 --weight-decay 0.001 --schedule one-cycle"
    others = ("--dtype", "float64", "--seed", 3, "--out", "elsewhere")
    status, out, _ = xp(*arguments.split(), *rule.split(), *others)
    assert status == 0
    assert "784-7-10 network, 5,575 parameters, float64 on cpu" in out
    (folder,) = (tmp_path / "elsewhere").iterdir()
    assert json.loads((folder / "run.json").read_text())["settings"] == {
        "activation": "sigmoid",
        "backend": None,
        "batch_size": 20,
        "sampling": "random",
        "threads": None,
        "microbatch": None,
        "data": None,
        "device": "cpu",
        "dtype": "float64",
        "hidden_size": 7,
        "label": None,
        "lr": 0.5,
        "momentum": 0.8,
        "net": "two-layer",
        "optimizer": "nesterov",
        "precision": "float32",
        "schedule": "one-cycle",
        "seed": 3,
        "steps": 30,
        "weight_decay": 0.001,
        "weight_init_std": "xavier",
    }


@pytest.mark.parametrize(
    ("net", "title", "settings"),
    [
        ("simple-convnet", "SimpleConvNet, 433,890 parameters", {"hidden_size": 100, "weight_init_std": "he"}),
        ("deep-convnet", "DeepConvNet, 123,552 parameters", {}),
        ("lenet5", "LeNet5, 61,706 parameters", {"weight_init_std": "he"}),
        ("mlp", "784-100-100-10 network, 89,610 parameters", {"hidden_size_list": [100, 100], "activation": "relu"}),
    ],
)
def test_train_has_other_networks(xp, tmp_path, data, net, title, settings):
    status, out, err = xp("train", "--net", net, "--steps", 3, "--data", data)
    assert (status, err) == (0, "")
    assert out.splitlines()[0].removesuffix(", by Numba") == f"{title}, float32 on cpu"
    (report,) = (tmp_path / "runs").glob(f"*-{net}/run.json")
    expected = {"optimizer": "adam", "lr": 0.001, "schedule": "cosine", "steps": 3} | settings
    assert json.loads(report.read_text())["settings"].items() >= expected.items()


@pytest.mark.parametrize("net", ["char-lstm", "gpt"])
def test_a_language_model_is_trained_evaluated_and_generates(xp, tmp_path, net):
    text = tmp_path / "text"
    text.write_bytes(b"the sea and \xff the sun " * 300)
    command = ("train", "--net", net, "--hidden-size", 8, "--batch-size", 4, "--steps", 30, "--data", text)
    status, out, err = xp(*command)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[1].split() == re.findall(r"\w+", "epoch step loss train ppl train acc test ppl test acc seconds")
    assert lines[3].startswith("  > ")
    (folder,) = (tmp_path / "runs").iterdir()
    result = json.loads((folder / "run.json").read_text())
    assert result["test_perplexity"] == pytest.approx(np.exp(result["test_loss"]))
    status, out, _ = xp("evaluate", folder, "--data", text)
    assert re.fullmatch(rf"loss \S+, perplexity \S+, accuracy \S+ on the 10 test samples of {text}\n", out)
    assert status == 0

    arguments = ("generate", folder, "--prompt", "the s", "--length", 90, "--top-k", 5, "--temperature", 0.8)
    status, out, err = xp(*arguments)
    assert (status, err, out[:5]) == (0, "", "the s")
    assert xp(*arguments)[1] == out
    assert xp(*arguments, "--seed", 1)[1] != out
    status, _, err = xp("generate", folder, "--length", 2**63)
    assert (status, err.count("\n")) == (1, 1)
    assert "length must be at most 9,223,372,036,854,775,807" in err
    status, _, err = xp("predict", folder, text)
    assert (status, err) == (
        1,
        f"xpnet: error: {folder} is a run of a language model, which has no classes; see xpnet generate\n",
    )
    if importlib.util.find_spec("onnx") is not None:
        file = tmp_path / "net.onnx"
        status, out, _ = xp("export", folder, "--onnx", file)
        assert (status, out) == (0, f"{file} written: input x (N, T), outputs scores and probabilities\n")
    assert xp("train", "--resume", folder)[0] == 0


def test_generate_needs_a_run_of_a_language_model(xp, tmp_path, data):
    assert xp("train", "--data", data, "--steps", 2)[0] == 0
    (folder,) = (tmp_path / "runs").iterdir()
    status, _, err = xp("generate", folder)
    assert status == 1
    assert "is a run of two-layer, which generates no text; train with --net char-lstm or gpt" in err


def test_a_report_of_a_text_says_what_it_leaves_out(xp, tmp_path):
    pytest.importorskip("matplotlib", reason="the extra xpnet[plot] is not installed")
    xp("train", "--net", "char-lstm", "--hidden-size", 4, "--batch-size", 2, "--steps", 2)
    (folder,) = (tmp_path / "runs").iterdir()
    assert xp("report", folder)[0] == 0
    assert "a language model predicts the next byte of a text" in (folder / "report.html").read_text()


def test_train_says_which_settings_a_network_has(xp):
    status, out, err = xp("train", "--net", "lenet5", "--hidden-size", 50, "--activation", "relu")
    assert (status, out) == (1, "")
    assert err == "xpnet: error: LeNet5 has no activation or hidden_size; it takes weight_init_std\n"


def test_train_in_tf32_takes_a_gpu(xp, data, cuda):
    status, out, err = xp("train", "--steps", 3, "--precision", "tf32", "--data", data)
    assert (status, err) == (1, "xpnet: error: precision 'tf32' is for float32 on a CUDA device, got float32 on cpu\n")
    status, out, err = xp("train", "--steps", 8, "--precision", "tf32", "--data", data, "--device", "cuda", "--profile")
    assert (status, err) == (0, "")
    assert "float32 on cuda:0" in out
    assert "a whole step of 100 samples on cuda:0" in out


def test_gradcheck_checks_networks_for_images(xp, data):
    status, out, _ = xp("gradcheck", "--net", "lenet5", "--method", "directional", "--data", data)
    assert status == 0
    assert out.startswith("61,706 parameters, 3 images, on cpu")


def test_train_shows_where_the_time_goes_when_asked(xp, tmp_path):
    status, out, _ = xp("train", "--steps", 20, "--profile")
    assert status == 0
    lines = out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("µs a step"))
    parts = [line.split()[0] for line in lines[start + 2 : start + 8]]
    assert parts == ["gather", "Affine1", "Relu1", "Affine2", "loss", "update"]
    assert "a whole step of 100 samples on cpu" in lines[-1]


@pytest.mark.parametrize(
    ("optimizer", "lr", "momentum", "weight_decay"),
    [("sgd", 0.1, 0.0, 0.0), ("momentum", 0.01, 0.9, 0.0), ("adamw", 0.001, None, 0.01), ("lion", 0.0001, None, 0.0)],
)
def test_train_takes_each_rules_own_settings_by_default(xp, tmp_path, data, optimizer, lr, momentum, weight_decay):
    assert xp("train", "--optimizer", optimizer, "--steps", 20, "--data", data)[0] == 0
    (report,) = (tmp_path / "runs").glob("*/run.json")
    settings = json.loads(report.read_text())["settings"]
    assert settings["optimizer"] == optimizer
    assert (settings["lr"], settings["momentum"], settings["weight_decay"]) == (lr, momentum, weight_decay)


def test_train_draws_learning_curves_when_asked(xp, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib", reason="Matplotlib is not installed")
    assert xp("train", "--steps", 20, "--plot")[0] == 0
    (picture,) = (tmp_path / "runs").glob("*/learning_curves.png")
    assert picture.read_bytes().startswith(b"\x89PNG")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    status, out, err = xp("train", "--plot")
    assert (status, out) == (1, "")
    assert err == "xpnet: error: matplotlib is not installed; install it with pip install 'xpnet[plot]'\n"


@pytest.mark.slow
def test_the_default_run_reaches_the_accuracy_of_the_book(xp, tmp_path):
    assert xp("train")[0] == 0
    (report,) = (tmp_path / "runs").glob("*/run.json")
    facts = json.loads(report.read_text())
    assert facts["steps"] == 10_000
    assert facts["test_accuracy"] >= 0.965


def test_the_same_seed_gives_the_same_parameters(xp, tmp_path, data):
    for out, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert xp("train", "--steps", 20, "--data", data, "--out", out, "--seed", seed)[0] == 0
    runs = (next((tmp_path / out).glob("*/model.safetensors")) for out in "abc")
    a, b, c = (xpnet.load(file).params["W1"] for file in runs)
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)


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

"""Runs from the command line: what `xpnet train` takes and leaves, and `xpnet generate` from a run."""

import importlib.util
import json
import re
import sys

import numpy as np
import pytest
from test_cli import device_argument

import xpnet


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

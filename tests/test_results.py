"""What a run has learned, from the command line: predict, evaluate, runs."""

import json
import shutil

import numpy as np
import pytest

pytest.importorskip("typer", reason="the command line's extra, xpnet[cli], is not installed")
pytest.importorskip("PIL", reason="the extra xpnet[images] is not installed")

from PIL import Image

import xpnet
from xpnet.cli import run
from xpnet.datasets import load_mnist
from xpnet.datasets.images import write_images


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folder of a run on MNIST that knows its digits."""
    root = tmp_path_factory.mktemp("runs")
    assert run(["train", "--steps", "2000", "--out", str(root)]) == 0
    (folder,) = root.iterdir()
    return folder


@pytest.fixture(scope="module")
def digits():
    return load_mnist(normalize=False, flatten=False)[1]


def predictions(xp, *arguments):
    status, out, err = xp("predict", *arguments, "--json")
    assert (status, err) == (0, "")
    return json.loads(out)


def test_pictures_of_any_size_and_ground(xp, trained, digits, tmp_path):
    x, t = digits
    right = 0
    for i in range(20):
        dark_on_light = 255 - x[i, 0].repeat(5, axis=0).repeat(5, axis=1)
        page = np.full((300, 260, 3), 250, "uint8")
        page[100:240, 30:170] = np.minimum(dark_on_light, 250)[..., None]
        Image.fromarray(page).save(tmp_path / "drawn.png")
        (found,) = predictions(xp, trained, "drawn.png")
        right += found["label"] == str(t[i])
    assert right >= 18


def test_files_of_samples_agree_with_the_network(xp, trained, digits, tmp_path):
    x = digits[0][:5].reshape(5, -1)
    np.save(tmp_path / "bytes.npy", x)
    np.save(tmp_path / "images.npy", (x / 255.0).reshape(5, 28, 28))
    np.savetxt(tmp_path / "rows.csv", x / 255.0, delimiter=",")
    net = xpnet.load(trained / "model.safetensors")
    scores = net.predict(x)
    expected = xpnet.functions.softmax(scores)
    for file in ("bytes.npy", "images.npy", "rows.csv"):
        found = predictions(xp, trained, file, "--top-k", 10)
        assert [entry["index"] for entry in found] == [0, 1, 2, 3, 4]
        assert [entry["label"] for entry in found] == [str(k) for k in scores.argmax(axis=1)]
        for entry, row in zip(found, expected, strict=True):
            by_label = {top["label"]: top["probability"] for top in entry["top"]}
            np.testing.assert_allclose([by_label[str(k)] for k in range(10)], row, atol=1e-5)


def test_a_line_per_sample(xp, trained, digits, tmp_path):
    np.save(tmp_path / "two.npy", digits[0][:2])
    np.save(tmp_path / "one.npy", digits[0][:1])
    status, out, _ = xp("predict", trained, "two.npy", "one.npy", "--top-k", 2)
    lines = out.splitlines()
    assert status == 0
    assert [line.partition(":")[0] for line in lines] == ["two.npy[0]", "two.npy[1]", "one.npy"]
    assert [line.count(",") for line in lines] == [1, 1, 1]


def test_the_picture_shows_what_the_network_sees(xp, trained, digits, tmp_path):
    np.save(tmp_path / "some.npy", digits[0][:18])
    assert xp("predict", trained, "some.npy", "--picture", "seen.png")[0] == 0
    seen = np.asarray(Image.open(tmp_path / "seen.png"))
    assert seen.shape == (5 * (2 * 29 - 1), 5 * (16 * 29 - 1))  # 16 pictures in a row, a line between them
    np.testing.assert_array_equal(seen[: 28 * 5 : 5, : 28 * 5 : 5], digits[0][0, 0])
    np.testing.assert_array_equal(seen[29 * 5 :: 5, 29 * 5 : 57 * 5 : 5], digits[0][17, 0])


def test_color_pictures_in_a_file(tmp_path):
    x = np.random.default_rng(0).integers(0, 255, (2, 3, 4, 5), dtype="uint8")
    write_images(tmp_path / "x.png", x, height=4)
    seen = np.asarray(Image.open(tmp_path / "x.png"))
    np.testing.assert_array_equal(seen[:, :5], x[0].transpose(1, 2, 0))
    np.testing.assert_array_equal(seen[:, 6:], x[1].transpose(1, 2, 0))


def test_evaluate(xp, trained, digits, tmp_path):
    status, out, _ = xp("evaluate", trained)
    accuracy = json.loads((trained / "run.json").read_text())["test_accuracy"]
    assert status == 0
    assert f"accuracy {accuracy:.4f} on the 10,000 test samples of mnist" in out
    x, t = digits
    np.savez(tmp_path / "some.npz", x=x[:50], t=t[:50])
    net = xpnet.load(trained / "model.safetensors")
    accuracy = net.accuracy(x[:50].reshape(50, -1), t[:50])
    assert (
        f"accuracy {accuracy:.4f} on the 50 training samples of some.npz"
        in xp("evaluate", trained, "--data", "some.npz")[1]
    )
    np.savez(tmp_path / "other.npz", x=x[:50], t=t[:50] + 3)
    status, out, err = xp("evaluate", trained, "--data", "other.npz")
    assert (status, out) == (1, "")
    assert "is none of the 10 classes" in err


def test_export_for_onnx_runtime(xp, trained, digits, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    status, out, err = xp("export", trained, "--onnx", "digits.onnx")
    assert (status, err) == (0, "")
    assert out == "digits.onnx written: input x (N, 784), outputs scores and probabilities\n"
    x = digits[0][:50].reshape(50, -1)
    session = runtime.InferenceSession(tmp_path / "digits.onnx")
    (scores,) = session.run(["scores"], {"x": x.astype("float32") / 255})
    np.testing.assert_allclose(scores, xpnet.load(trained / "model.safetensors").predict(x), atol=1e-5)
    assert json.loads(session.get_modelmeta().custom_metadata_map["class_names"]) == [str(k) for k in range(10)]


def test_report(xp, trained, tmp_path):
    pytest.importorskip("matplotlib")
    shutil.copytree(trained, tmp_path / "run")
    assert xp("report", "run") == (0, "run/report.html written\n", "")
    assert (tmp_path / "run" / "report.html").read_text().startswith("<!DOCTYPE html>")
    status, out, err = xp("report", "nowhere")
    assert (status, out, err.count("\n")) == (1, "", 1)


def test_runs_are_listed_and_compared(xp, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "runs" / "a")
    shutil.copytree(trained, tmp_path / "runs" / "b")
    (tmp_path / "runs" / "b" / "run.json").unlink()
    (tmp_path / "runs" / "other").mkdir()
    status, out, _ = xp("runs")
    lines = out.splitlines()
    assert status == 0
    assert lines[0].split()[:2] == ["run", "network"]
    assert lines[2].split()[:5] == ["a", "two-layer", "sgd", "0.1", "2,000"]
    assert lines[2].endswith("complete")
    assert lines[3].endswith("not ended, or killed")
    assert len(lines) == 4
    settings = json.loads((tmp_path / "runs/b/settings.json").read_text())
    (tmp_path / "runs/b/settings.json").write_text(json.dumps(settings | {"lr": 0.25}))
    status, out, _ = xp("runs", "runs/a", "runs/b")
    assert ["lr", "0.1", "0.25"] in [line.split() for line in out.splitlines()]
    assert "steps" not in out
    assert xp("runs", "--in", "nowhere") == (0, "no runs in nowhere; xpnet train starts one\n", "")


def test_what_goes_wrong_is_one_line(xp, trained, tmp_path):
    (tmp_path / "empty.png").write_bytes(b"")
    np.save(tmp_path / "small.npy", np.zeros((2, 5)))
    np.save(tmp_path / "nan.npy", np.full((2, 784), np.nan))
    np.save(tmp_path / "large.npy", np.full((2, 784), 1e300))
    cases = {
        ("predict", "nowhere", "a.png"): "nowhere",
        ("predict", trained, "a.png"): "a.png",
        ("predict", trained, "empty.png"): "empty.png: an empty file",
        ("predict", trained, "small.npy"): "small.npy has samples of the shape (5,), the network of",
        ("evaluate", trained, "--data", "nowhere"): "nowhere: no such file or folder",
        ("runs", "nowhere"): "nowhere",
        ("runs", "--in", "empty.png"): "--in must be a folder of runs, got 'empty.png'",
        ("train", "--resume", "nowhere"): "nowhere is no folder of a run (xpnet train): it has no settings",
        ("predict", trained, "nan.npy", "--json"): "nan.npy has values that are not finite in float32",
        ("predict", trained, "large.npy"): "large.npy has values that are not finite in float32",
        ("predict", trained, "small.npy", "--picture", "x.txt"): "--picture must end in .png, got 'x.txt'",
        ("evaluate", trained, "--data", ""): "no data set",
        ("train", "--data", ""): "no data set",
    }
    for arguments, message in cases.items():
        status, out, err = xp(*arguments)
        assert (status, out, err.count("\n")) == (1, "", 1), arguments
        assert message in err, arguments
    killed = tmp_path / "killed"
    shutil.copytree(trained, killed)
    (killed / "model.safetensors").unlink()
    assert "go on with xpnet train --resume killed" in xp("predict", "killed", "empty.png")[2]
    (killed / "run.json").write_text("[")
    assert "run.json is damaged" in xp("evaluate", "killed")[2]


def test_a_table_is_normalized_by_the_network_itself(xp, tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 300)
    x = rng.standard_normal((300, 4)) * [1, 10, 100, 0.1] + labels[:, None] * [2, 20, 200, 0.2] + 1000
    names = np.array(["ash", "birch", "cedar"])[labels]
    rows = [",".join([*map(repr, map(float, row)), name]) for row, name in zip(x, names, strict=True)]
    (tmp_path / "trees.csv").write_text("\n".join(["a,b,c,d,tree", *rows]))
    assert xp("train", "--data", "trees.csv", "--label", "tree", "--net", "mlp", "--steps", 300)[0] == 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert list(xpnet.load(folder / "model.safetensors").layers)[:2] == ["Normalize", "Affine1"]
    np.savetxt(tmp_path / "new.csv", x[:30], delimiter=",", fmt="%.9g")
    found = predictions(xp, folder, "new.csv")
    assert np.mean([entry["label"] == name for entry, name in zip(found, names, strict=False)]) > 0.9
    assert "on the 300 training samples of trees.csv" in xp("evaluate", folder)[1]
    status, _, err = xp("predict", folder, "new.csv", "--picture", "x.png")
    assert status == 1
    assert "--picture is for images" in err


def test_a_folder_of_pictures_from_training_to_prediction(xp, tmp_path):
    rng = np.random.default_rng(0)
    for name, level in (("dim", 60), ("bright", 200)):
        for part, number in (("train", 30), ("test", 5)):
            folder = tmp_path / "shades" / part / name
            folder.mkdir(parents=True)
            for i in range(number):
                Image.fromarray((level + rng.integers(-30, 30, (12, 12, 3))).astype("uint8")).save(folder / f"{i}.png")
    assert xp("train", "--data", "shades", "--net", "simple-convnet", "--steps", 30, "--batch-size", 20)[0] == 0
    (folder,) = (tmp_path / "runs").iterdir()
    found = predictions(xp, folder, "shades/test/dim/0.png", "shades/test/bright/0.png")
    assert [entry["label"] for entry in found] == ["dim", "bright"]


def test_a_damaged_run_hides_no_other(xp, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "runs" / "a")
    shutil.copytree(trained, tmp_path / "runs" / "b")
    (tmp_path / "runs" / "a" / "run.json").write_text("[")
    with pytest.warns(UserWarning, match="left out: runs/a/run.json is damaged"):
        status, out, _ = xp("runs")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines() if "two-layer" in line] == ["b"]


def test_weights_that_overflow_are_one_error_without_warnings(xp):
    status, _, err = xp("train", "--steps", 5, "--weight-init-std", 1e30)
    assert status == 1
    assert err.startswith("xpnet: error: training diverged")

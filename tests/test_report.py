"""Reports of runs: what the page says, from the run's files alone, and what it says if some are not there."""

import base64
import contextlib
import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="Matplotlib is not installed")
pytest.importorskip("safetensors", reason="safetensors is not installed")

from matplotlib.image import imread
from test_datasets import idx

import xpnet
from xpnet import Device
from xpnet.layers import Affine, IdentityWithLoss
from xpnet.nets import Sequential
from xpnet.report import write_report
from xpnet.report.page import page
from xpnet.report.predictions import Predictions, predict_test_set
from xpnet.training.run_folder import create_run_folder, save_run
from xpnet.training.run_settings import RunSettings
from xpnet.training.runs import Run

ALWAYS = ["Summary", "Timing", "Learning curves"]
OF_DATA = ["Confusion matrix", "Classes", "Most confidently wrong"]
LAST = ["Weights of the first layer", "Settings", "Environment"]
VOID = {"meta", "link", "img", "br"}


class Page(HTMLParser):
    """Sections of a page by their titles: texts, and rows of tables by their first cells."""

    def __init__(self, text):
        super().__init__()
        self.open, self.sections, self.images, self.pictures, self.ids = [], {}, [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        assert tag not in {"script", "iframe", "object"}
        self.ids += [attributes["id"]] if "id" in attributes else []
        if tag == "section":
            self.title, self.text, self.rows = "", "", {}
        if tag == "tr":
            self.row = []
        if tag in {"th", "td"}:
            self.row.append("")
        if tag == "img":
            self.images.append(attributes)
        if tag == "svg":
            self.pictures.append(attributes)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag == "tr":
            self.rows[self.row[0]] = self.row[1:]
        if tag == "section":
            self.sections[self.title] = self.text, self.rows

    def handle_data(self, data):
        if "h2" in self.open:
            self.title += data
        elif "section" in self.open:
            self.text += data
            if {"th", "td"} & {*self.open}:
                self.row[-1] += data

    def rows_of(self, title):
        return self.sections[title][1]

    def text_of(self, title):
        return " ".join(self.sections[title][0].split())


def read(folder):
    return Page(write_report(folder).read_text("utf-8"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The first images of MNIST."""
    folder = tmp_path_factory.mktemp("data")
    train, test = xpnet.datasets.load_mnist(normalize=False, flatten=False)
    for part, (x, t) in {"train": train, "t10k": test}.items():
        (folder / f"{part}-images-idx3-ubyte").write_bytes(idx(x[:200, 0]))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx(t[:200].astype("uint8")))
    return folder


def train(root, net, data, callbacks=(), **options):
    settings = RunSettings.of(net, data=str(data), **options)
    dataset = settings.load_data()
    trainer = settings.build_trainer(dataset, Device("cpu"), callbacks)
    folder = create_run_folder(root, settings)
    with contextlib.suppress(KeyboardInterrupt):
        trainer.train()
    save_run(folder, trainer, settings.described(), dataset)
    return folder


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """Return the folder of a run of this network. Tests leave it as it is."""
    folders = {}

    def call(net):
        if net not in folders:
            settings = {"hidden_size": 20} if net == "two-layer" else {}
            folders[net] = train(tmp_path_factory.mktemp("runs"), net, data, steps=8, batch_size=50, **settings)
        return folders[net]

    return call


@pytest.fixture
def folder(trained, tmp_path):
    """A run of two layers that a test may damage."""
    copy = tmp_path / "run"
    copy.mkdir()
    for file in {*trained("two-layer").iterdir()} - {trained("two-layer") / "report.html"}:
        (copy / file.name).write_bytes(file.read_bytes())
    return copy


def change(file, **entries):
    file.write_text(json.dumps({**json.loads(file.read_text()), **entries}))


@pytest.mark.parametrize(("net", "pictures"), [("two-layer", 20), ("simple-convnet", 30)])
def test_the_page_has_all_sections_and_its_pictures_decode(trained, net, pictures):
    report = read(trained(net))
    assert list(report.sections) == ALWAYS + OF_DATA + LAST
    assert not any("Left out" in text for text, _ in report.sections.values())
    assert len(report.pictures) == 3
    assert all(picture["role"] == "img" and picture["aria-label"] for picture in report.pictures)
    assert len(report.images) == 24 + pictures
    side = {"two-layer": 28, "simple-convnet": 5}[net]
    for number, image in enumerate(report.images):
        kind, content = image["src"].split(",")
        assert kind == "data:image/png;base64"
        shape = imread(io.BytesIO(base64.b64decode(content))).shape
        assert shape == ((28, 28, 4) if number < 24 else (side, side, 4))
        assert image["alt"].startswith("Test image") == (number < 24)
    assert len(report.ids) == len(set(report.ids))


def test_numbers_are_those_of_the_run(trained):
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    folder = trained("two-layer")
    report, run = read(folder), json.loads((folder / "run.json").read_text())
    _, (x, t) = xpnet.datasets.load_mnist(root=run["settings"]["data"], normalize=False)
    y = xpnet.load(folder / "model.safetensors").predict(x)
    predicted = y.argmax(axis=1)

    summary = report.rows_of("Summary")
    assert summary["Test accuracy"] == [f"{run['test_accuracy']:.4f}"]
    assert summary["Steps"] == ["8"]
    assert f"{(predicted == t).sum()} of 200 test images are right" in report.text_of("Confusion matrix")
    expected = metrics.precision_recall_fscore_support(t, predicted, zero_division=np.nan)
    for c, (*scores, images) in enumerate(zip(*expected, strict=True)):
        shown = ["\u2013" if np.isnan(score) else f"{score:.4f}" for score in scores]
        assert report.rows_of("Classes")[str(c)] == [*shown, str(images)]
    wrong = np.flatnonzero(predicted != t)
    probabilities = (np.exp(y) / np.exp(y).sum(axis=1, keepdims=True)).max(axis=1)
    surest = wrong[np.argmax(probabilities[wrong])]
    assert report.images[0]["alt"] == f"Test image {surest}"
    assert f"24 of {len(wrong)} wrong predictions" in report.text_of("Most confidently wrong")
    first = f"label {t[surest]} predicted {predicted[surest]} {probabilities[surest]:.2%}"
    assert first.replace(" ", "") in report.text_of("Most confidently wrong").replace(" ", "")
    assert report.rows_of("Settings")["batch_size"] == ["50"]
    assert report.rows_of("Environment")["numpy"] == [np.__version__]


def test_first_layer_weights_are_scaled_about_zero(trained):
    folder = trained("two-layer")
    W = xpnet.load(folder / "model.safetensors").params["W1"]
    content = read(folder).images[24]["src"].split(",")[1]
    opacity = imread(io.BytesIO(base64.b64decode(content)))[..., 3]
    np.testing.assert_allclose(opacity, np.abs(W[:, 0]).reshape(28, 28) / np.abs(W).max(), atol=0.003)


def test_the_same_run_gives_the_same_page(folder):
    assert write_report(folder).read_bytes() == write_report(folder).read_bytes()
    assert sorted(file.name for file in folder.iterdir()) == [
        "history.json", "model.safetensors", "report.html", "run.json", "settings.json",
    ]  # fmt: skip


def test_class_names_and_settings_may_be_any_text(trained):
    run = Run.read(trained("two-layer"))
    hostile = ("<script>alert(1)</script>", '"><img src=x>', "a & b", "$x_1$", "\u6570\u5b57", "\x00\x1b", "", "a\nb")
    run.result["settings"].update(data="</td><script>")
    text = page(run, replace(predict_test_set(run), classes=(*hostile, "8", "9")))
    report = Page(text)
    assert "\x00" not in text
    assert {"<script>alert(1)</script>", '"><img src=x>', "a & b"} <= {*report.rows_of("Classes")}
    assert report.rows_of("Settings")["data"] == ["</td><script>"]
    assert "$x_1$" in report.text_of("Confusion matrix")


def test_the_page_loads_nothing_from_elsewhere(trained):
    text = write_report(trained("simple-convnet")).read_text("utf-8")
    assert set(re.findall(r"https?://[^\s\"'<)]+", text)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert not re.search(r"url\((?!#)|@import|<script", text)
    assert all(source.startswith("data:") for source in re.findall(r"""(?:src|href)=["']([^"'#]+)""", text))


def test_a_confusion_matrix_of_many_classes_is_left_out_by_name(trained):
    run = Run.read(trained("two-layer"))
    names = tuple(f"class {i}" for i in range(51))
    rng = np.random.default_rng(0)
    images, labels = np.zeros((60, 1, 28, 28), "uint8"), rng.integers(0, 51, 60)
    report = Page(page(run, Predictions(images, labels, rng.random((60, 51)), names)))
    assert report.text_of("Confusion matrix") == "Left out: there are 51 classes; at most 50 are drawn."
    assert len(report.rows_of("Classes")) == 52
    some = Predictions(images, labels % 50, rng.random((60, 50)), names[:50])
    assert len(Page(page(run, some)).pictures) == 3


def test_predictions_that_are_all_right(trained):
    run = Run.read(trained("two-layer"))
    right = replace(predict_test_set(run), probabilities=np.eye(10)[predict_test_set(run).labels])
    assert Page(page(run, right)).text_of("Most confidently wrong") == "No test image is wrong."


def test_without_scikit_learn_the_table_says_what_to_install(trained, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    report = read(trained("two-layer"))
    assert "sklearn is not installed; install it with pip install 'xpnet[sklearn]'" in report.text_of("Classes")
    assert report.rows_of("Classes")["0"][:3] == ["\u2013"] * 3


def test_without_the_data_their_sections_say_why_they_are_left_out(folder):
    change(folder / "settings.json", data="/nowhere/<b>")
    report = read(folder)
    for title in OF_DATA:
        assert re.match(r"Left out: /nowhere/<b>: no such file or folder", report.text_of(title))
    assert report.text_of("Weights of the first layer").startswith("All 20 units.")
    assert len(report.pictures) == 2


def test_data_that_do_not_fit_are_left_out(folder, tmp_path):
    for part in ("train", "t10k"):
        (tmp_path / f"{part}-images-idx3-ubyte").write_bytes(idx(np.zeros((3, 5, 5), "uint8")))
        (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(idx(np.zeros(3, "uint8")))
    change(folder / "settings.json", data=str(tmp_path))
    assert re.search(r"5, 5.* takes \(1, 28, 28\)", read(folder).text_of("Classes"))


def test_a_regression_has_no_classes(trained):
    run = Run.read(trained("two-layer"))
    vars(run)["network"] = Sequential([Affine(np.zeros((784, 1)), np.zeros(1))], IdentityWithLoss())
    with pytest.raises(ValueError, match="IdentityWithLoss is the loss of a regression; there are no classes"):
        predict_test_set(run)
    assert Page(page(run, "a regression")).text_of("Classes") == "Left out: a regression"


def test_an_interrupted_run_says_so(data, tmp_path):
    def interrupt(_trainer):
        raise KeyboardInterrupt

    folder = train(tmp_path, "two-layer", data, [interrupt], steps=9, batch_size=50)
    text = write_report(folder).read_text("utf-8")
    assert "Not complete: 4 of 9 steps." in text


def test_a_run_without_an_evaluation(folder):
    change(folder / "history.json", evaluations={})
    report = read(folder)
    assert report.rows_of("Summary")["Result"] == ["not evaluated"]
    assert report.text_of("Timing").startswith("Left out")
    assert len(report.pictures) == 2


def test_a_run_that_diverged(folder):
    losses = json.loads((folder / "history.json").read_text())["losses"]
    change(folder / "history.json", losses=[*losses, None])
    assert len(read(folder).pictures) == 3


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "settings.json").unlink(), r"is no folder of a run \(xpnet train\): it has no settings"),
        (
            lambda f: (f / "model.safetensors").unlink(),
            r"has no model\.safetensors: the run has not ended; go on with",
        ),
        (lambda f: (f / "run.json").unlink(), r"has no run\.json: .*go on with xpnet train --resume"),
        (lambda f: (f / "run.json").write_text("{"), r"run\.json is damaged: "),
        (lambda f: (f / "run.json").write_text("[]"), r"run\.json is damaged: expected an object, got list"),
        (lambda f: change(f / "run.json", steps="many"), r"run\.json is damaged: invalid literal"),
        (
            lambda f: change(f / "settings.json", net="none"),
            r"settings\.json: there is no network 'none'",
        ),
        (lambda f: (f / "run.json").write_text("{}"), r"run\.json is damaged: 'settings'"),
        (lambda f: (f / "history.json").write_text("{}"), r"history\.json is damaged: 'evaluations'"),
        (lambda f: (f / "history.json").write_bytes(b"\xff"), r"history\.json is damaged: "),
        (lambda f: (f / "settings.json").write_text("{}"), r"settings\.json holds no settings of a run"),
        (lambda f: (f / "model.safetensors").write_text("no"), r"model\.safetensors is not a whole model"),
    ],
)
def test_what_is_missing_or_damaged_is_named(folder, damage, message):
    damage(folder)
    with pytest.raises(ValueError, match=message) as raised:
        write_report(folder)
    assert "\n" not in str(raised.value)
    assert not (folder / "report.html").exists()


def test_no_folder_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere is no folder of a run"):
        write_report(tmp_path / "nowhere")


def test_training_does_not_import_matplotlib(data, tmp_path):
    program = (
        "import sys; from xpnet.training.run_settings import RunSettings; from xpnet import Device; "
        "from xpnet.training.run_folder import save_run; from pathlib import Path; import xpnet.report; "
        f"s = RunSettings.of('two-layer', data={str(data)!r}, steps=2, backend='numpy'); "
        f"t = s.build_trainer(s.load_data(), Device('cpu'), []); t.train(); "
        f"save_run(Path({str(tmp_path)!r}), t, s.described()); "
        "assert not {'matplotlib', 'sklearn'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("net", ["two-layer", "simple-convnet"])
@pytest.mark.parametrize("width", [360, 1600])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_the_window_in_both_colors(browser, trained, net, width, scheme):
    file = write_report(trained(net))
    errors, requests = [], []
    tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    tab.on("console", lambda message: errors.append(message.text))
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.on("request", lambda request: requests.append(request.url))
    tab.goto(file.as_uri())
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    assert tab.evaluate("[...document.querySelectorAll('.table')].every((e) => e.scrollWidth <= e.clientWidth)")
    text, back = tab.evaluate(
        """() => [
            getComputedStyle(document.querySelector("svg text")).fill,
            getComputedStyle(document.querySelector("section")).backgroundColor,
        ].map((color) => color.match(/[0-9]+/g).map(Number).reduce((a, b) => a + b) / 3)"""
    )
    assert abs(text - back) > 150
    assert (text > back) == (scheme == "dark")
    assert tab.evaluate("[...document.images].every((image) => image.naturalWidth > 0)")
    tab.close()
    assert errors == []
    assert [url for url in requests if not url.startswith(("file://", "data:"))] == []

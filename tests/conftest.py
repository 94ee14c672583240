"""What the tests share: CUDA devices and their counters, random numbers, and how hypothesis looks for examples."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from xpnet import Device, kernels
from xpnet.datasets import load_mnist
from xpnet.testing.cuda_stand_in import counting, counts

os.environ.setdefault("CUDA_STAND_IN_DEVICES", "2")  # before CuPy is imported

if importlib.util.find_spec("hypothesis"):
    from hypothesis import settings

    # No deadline: these machines may be busy. The same examples each time, so that a change is judged by itself.
    # With --hypothesis-profile thorough, ten thousand others of each.
    settings.register_profile("xpnet", deadline=None, derandomize=True)
    settings.register_profile("thorough", deadline=None, max_examples=10_000)
    settings.load_profile("xpnet")
    collect_ignore = []
else:  # a machine with a GPU, perhaps, and no network: the other modules can be tested
    modules = sorted(Path(__file__).parent.glob("test_*.py"))
    collect_ignore = [path.name for path in modules if "hypothesis" in path.read_text(encoding="utf-8")]


def pytest_report_header():
    """Say what is left out for want of hypothesis."""
    return f"not run, without hypothesis: {', '.join(collect_ignore)}" if collect_ignore else None


@pytest.fixture
def cupy(cuda):
    """CuPy, where there is a CUDA device."""
    return cuda.xp


@pytest.fixture
def second(cupy):
    """The second CUDA device."""
    if cupy.cuda.runtime.getDeviceCount() < 2:
        pytest.skip("there is one CUDA device")
    return Device("cuda:1")


@pytest.fixture
def counted(cuda):
    """A context that counts what is done on CUDA devices: kernels, copies, synchronizations ... (see `counts`)."""
    try:
        counts()
    except RuntimeError:
        pytest.skip("only the CUDA stand-in counts")

    return counting


@pytest.fixture
def launched(cupy, monkeypatch):
    """The names of the kernels and products that ran."""
    names = []

    def multiplied(a, b, out, precision, bias=None, sums=None, row_sums=None):
        done = multiply(a, b, out, precision, bias, sums, row_sums)
        ends = {"bias": bias, "sums": sums, "row sums": row_sums} if done else {}
        names.append(" and ".join(["product", *(name for name, vector in ends.items() if vector is not None)]))
        return done

    backend = kernels.operations._for_cuda()
    launch, multiply = backend._launch, backend.cublaslt.multiply
    monkeypatch.setattr(
        backend, "_launch", lambda name, *args, **block: (names.append(name), launch(name, *args, **block))[1]
    )
    monkeypatch.setattr(backend.cublaslt, "multiply", multiplied)
    return names


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium, the one that is installed: Playwright's own would be a download."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium is installed")
    quiet = ["no-first-run", "disable-background-networking", "disable-component-update", "disable-sync"]
    flags = [f"--{flag}" for flag in ("no-sandbox", "disable-gpu", *quiet)]
    with playwright.sync_playwright() as session:
        running = session.chromium.launch(executable_path=program, args=flags)
        yield running
        running.close()


@pytest.fixture
def rng():
    return np.random.default_rng(20261123)


@pytest.fixture
def xp(capsys, tmp_path, monkeypatch):
    """Run a command line; return its exit status, standard output and standard error."""
    from xpnet.cli import run

    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        status = run([str(a) for a in arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


@pytest.fixture
def data(tmp_path):
    """The first images of MNIST, so that measuring accuracies takes no time."""
    from test_datasets import idx

    folder = tmp_path / "data"
    folder.mkdir()
    train, test = load_mnist(normalize=False, flatten=False)
    for part, (x, t) in {"train": train, "t10k": test}.items():
        (folder / f"{part}-images-idx3-ubyte").write_bytes(idx(x[:200, 0]))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx(t[:200].astype("uint8")))
    return folder


@pytest.fixture(scope="module")
def cancer():
    """Two classes of 569 samples, with scaled features."""
    from sklearn.datasets import load_breast_cancer
    from sklearn.preprocessing import StandardScaler

    X, y = load_breast_cancer(return_X_y=True)
    return StandardScaler().fit_transform(X), y


@pytest.fixture(scope="module")
def digits():
    """Ten classes of 1797 images, of 8 by 8 numbers up to 1."""
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    return X / 16.0, y


@pytest.fixture(scope="module")
def diabetes():
    """A regression of 442 samples, with scaled features and targets."""
    from sklearn.datasets import load_diabetes
    from sklearn.preprocessing import StandardScaler

    X, y = load_diabetes(return_X_y=True)
    return StandardScaler().fit_transform(X), (y - y.mean()) / y.std()

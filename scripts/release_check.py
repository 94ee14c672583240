"""Build the distributions, and check that they install and work in fresh environments.

    python scripts/release_check.py            # each Python that is found, the sdist, sizes, times
    python scripts/release_check.py --quick    # one Python, without the extras that take long to install
    python scripts/release_check.py --lowest   # the oldest versions that pyproject.toml allows

Each check prints a line. So does what was not tested, with its reason. Needs ``xpnet[release]``. uv
finds each Python on the PATH; with pyenv, PYENV_VERSION=3.11.7:3.12.1 puts several there.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
BUILD = ROOT / "build" / "release"
PYTHONS = ("3.11", "3.12", "3.13", "3.14", "3.13t", "3.14t")
BIN = "Scripts" if os.name == "nt" else "bin"

# Extras that are installed one after the other into one environment, each with what must then work, in a folder with
# digits.npz. "runs/*" is the run that the first training leaves.
TRAINING = """
import numpy as np
from xpnet.gradient import gradient_check
from xpnet.nets import TwoLayerNet
from xpnet.training import Trainer
rng = np.random.default_rng(0)
x = rng.random((400, 1, 8, 8), dtype=np.float32)
t = (x[:, 0, :, :4].sum((1, 2)) > x[:, 0, :, 4:].sum((1, 2))).astype(np.int64)
np.savez("digits.npz", x_train=x[:300], t_train=t[:300], x_test=x[300:], t_test=t[300:])
x = x.reshape(400, 64)
net = TwoLayerNet(64, 8, 2, seed=0)
Trainer(net, x, t, epochs=100, optimizer="adam", seed=0).train()
assert net.accuracy(x, t) > 0.9, net.accuracy(x, t)
assert gradient_check(net, x[:3], t[:3]).ok
"""
PICTURE = "from PIL import Image; Image.linear_gradient('L').resize((8, 8)).save('ramp.png')"
ESTIMATOR = """
import numpy as np
from xpnet.sklearn import MLPClassifier
data = np.load("digits.npz")
assert MLPClassifier(random_state=0, max_iter=20).fit(data["x_train"].reshape(300, 64), data["t_train"]).n_iter_ > 0
"""
EVENTS = "from xpnet.training import TensorBoard; TensorBoard('events')"
TRAIN = ("xpnet", "train", "--data", "digits.npz", "--steps", "30")
STAGES = {
    "": [("python", "-c", TRAINING)],
    "cli": [("xpnet", "info"), (*TRAIN, "--out", "runs"), ("xpnet", "evaluate", "runs/*"), ("xpnet", "gradcheck")],
    "numba": [(*TRAIN, "--backend", "numba", "--out", "compiled")],
    "plot": [(*TRAIN, "--plot", "--out", "drawn"), ("xpnet", "report", "runs/*")],
    "images": [("python", "-c", PICTURE), ("xpnet", "predict", "runs/*", "ramp.png")],
    "onnx": [
        ("xpnet", "export", "runs/*", "--onnx", "digits.onnx"),
        ("python", "-c", "import onnx; onnx.checker.check_model('digits.onnx', full_check=True)"),
    ],
    "sklearn": [("python", "-c", ESTIMATOR)],
    "tensorboard": [("python", "-c", EVENTS)],
    "data": [("python", "-c", "import pooch, requests, xpnet.datasets.remote")],
}
QUICK = ("", "cli", "images", "onnx")
LEFT_OUT = {
    "torch": "PyTorch takes gigabytes; the suite tests it",
    "mpi": "the suite tests it",
    "cuda12": "needs an NVIDIA driver",
    "cuda13": "needs an NVIDIA driver",
}

# What runs from the unpacked sdist, on the installed package: files that tests read, layers, gradients, saved models.
TESTS = ("docs", "device", "layer", "gradient", "models", "checkpoint", "cli")
# Besides these, with the oldest dependencies: what each dependency is for.
OF_DEPENDENCIES = ("kernels", "two_threads", "training", "results", "report", "onnx", "readers", "remote", "sklearn")


def run(*command: str | Path, folder: Path = BUILD) -> str:
    """Run a command, without the checkout on its path, and return what it prints."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment |= {"UV_PYTHON_DOWNLOADS": "never", "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.run(
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True
    ).stdout


def uv(*arguments: str | Path) -> str:
    """Run uv, and return what it prints."""
    return run(sys.executable, "-m", "uv", "--quiet", *arguments)


class Environment:
    """A fresh virtual environment in its own folder."""

    def __init__(self, name: str, python: str) -> None:
        self.folder = BUILD / name
        self.folder.mkdir()
        uv("venv", "--python", python, self.folder / "venv")
        self.bin = self.folder / "venv" / BIN

    def install(self, *requirements: str | Path) -> None:
        """Install requirements; bytecode is left out, so that sizes are those of what is installed."""
        uv("pip", "install", "--python", self.folder / "venv", *requirements)

    def run(self, program: str, *arguments: str) -> str:
        """Run a program of the environment in its folder; an argument with * stands for the file that it matches."""
        found = [str(next(self.folder.glob(word))) if word.endswith("/*") else word for word in arguments]
        return run(self.bin / program, *found, folder=self.folder)

    def size(self) -> float:
        """Size of the installed packages in MB."""
        packages = self.run("python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
        files = [file for file in Path(packages).rglob("*") if file.is_file() and file.suffix != ".pyc"]
        return sum(file.stat().st_size for file in files) / 1e6


def test(environment: Environment, folder: Path, *arguments: str) -> str:
    """Run pytest in an unpacked sdist, and return its last line."""
    options = ("-q", "-p", "no:cacheprovider")
    return run(environment.bin / "python", "-m", "pytest", *options, *arguments, folder=folder).splitlines()[-1]


def of_modules(unpacked: Path, *names: str) -> list[str]:
    """Arguments of pytest: all tests whose file's name begins so, those that take milliseconds, on two processes."""
    files = sorted({file for name in names for file in unpacked.glob(f"tests/test_{name}*.py")})
    return ["-n", "2", "-m", "not slow", *(str(file.relative_to(unpacked)) for file in files)]


def build() -> tuple[Path, Path]:
    """Build the sdist, and the wheel from it; return both after their checks."""
    shutil.rmtree(BUILD, ignore_errors=True)
    BUILD.mkdir(parents=True)
    dist = BUILD / "dist"
    run(sys.executable, "-m", "build", "--installer", "uv", "--outdir", dist, ROOT)
    (sdist,), (wheel,) = dist.glob("*.tar.gz"), dist.glob("*.whl")
    run(sys.executable, "-m", "twine", "check", "--strict", sdist, wheel)
    run(sys.executable, "-m", "check_wheel_contents", wheel)
    print(f"built and checked: {sdist.name}, {wheel.name}")
    return sdist, wheel


def check_python(python: str, wheel: Path, extras: Sequence[str], required: bool) -> dict[str, float]:
    """Install the wheel and its extras, one more at a time, and run what each is for; return the sizes in MB."""
    environment = Environment(f"python{python}", python)
    version = environment.run("python", "-c", "import sys; print(sys.version.split()[0])").strip()
    sizes, tested = {}, []
    for extra in extras:
        name = f"xpnet[{extra}]" if extra else "xpnet"
        try:
            environment.install(f"{wheel}[{extra}]" if extra else wheel)
        except subprocess.CalledProcessError as error:
            if required or not extra:
                raise
            print(f"not tested: Python {python}: {name}: {error.output.strip().splitlines()[0]}")
            continue
        sizes[extra] = environment.size()
        for command in STAGES[extra]:
            environment.run(*command)
        tested.append(extra or "core")
    print(f"tested: Python {version}: {', '.join(tested)}")
    if required:
        numpy, xpnet = (import_time(environment, module) for module in ("numpy", "xpnet"))
        print(f"imports: numpy {1000 * numpy:.0f} ms, xpnet {1000 * xpnet:.0f} ms with NumPy (fastest of 5)")
    return sizes


def import_time(environment: Environment, module: str) -> float:
    """Seconds that a fresh process takes to import a module: the fastest of five."""
    program = f"import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
    return min(float(environment.run("python", "-c", program)) for _ in range(5))


def unpack(sdist: Path, folder: Path) -> Path:
    """Unpack the sdist, and return the folder of its project."""
    shutil.unpack_archive(sdist, folder)
    (unpacked,) = folder.glob("xpnet-*")
    return unpacked


def check_sdist(sdist: Path) -> None:
    """Install from the sdist, collect all its tests, and run some of them from the unpacked sdist."""
    environment = Environment("sdist", sys.executable)
    unpacked = unpack(sdist, environment.folder)
    environment.install(f"{sdist}[cli,plot,test]")
    test(environment, unpacked, "--collect-only")
    print(f"tested: the sdist: {test(environment, unpacked, *of_modules(unpacked, *TESTS))}")


def check_lowest(sdist: Path, wheel: Path) -> None:
    """Test with the oldest version that pyproject.toml allows of each dependency, on the oldest Python."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    environment = Environment("lowest", project["requires-python"].removeprefix(">="))
    unpacked = unpack(sdist, environment.folder)
    extras = [word for extra in (*STAGES, "test") if extra for word in ("--extra", extra)]
    environment.install("--resolution", "lowest-direct", "--requirements", ROOT / "pyproject.toml", *extras)
    environment.install("--no-deps", wheel)
    print(uv("pip", "list", "--python", environment.folder / "venv"))
    # Old packages call what newer packages below them deprecate: matplotlib 3.9 and pyparsing 3.3.
    arguments = ("-W", "ignore::DeprecationWarning", *of_modules(unpacked, *TESTS, *OF_DEPENDENCIES))
    print(f"tested: the oldest dependencies: {test(environment, unpacked, *arguments)}")


def main() -> int:
    """Run the checks that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one Python, the extras that install quickly")
    parser.add_argument("--lowest", action="store_true", help="the oldest dependencies instead")
    chosen = parser.parse_args()
    start = time.perf_counter()
    try:
        sdist, wheel = build()
        if chosen.lowest:
            check_lowest(sdist, wheel)
        else:
            check(sdist, wheel, quick=chosen.quick)
    except subprocess.CalledProcessError as error:
        print(error.output, file=sys.stderr)
        print(
            f"release_check.py: error: status {error.returncode} of {shlex.join(map(str, error.cmd))}", file=sys.stderr
        )
        return 1
    print(f"release check: {time.perf_counter() - start:.0f} s")
    return 0


def check(sdist: Path, wheel: Path, *, quick: bool) -> None:
    """Check installations on each Python, or on this one, then the sdist; print what was left out."""
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    extras = [extra for extra in STAGES if not quick or extra in QUICK]
    sizes = check_python(own, wheel, extras, required=True)
    for python in PYTHONS:
        if python == own:
            continue
        if quick:
            print(f"not tested: Python {python}: --quick")
        elif not found(python):
            print(f"not tested: Python {python}: not found")
        else:
            check_python(python, wheel, extras, required=False)
    for extra in (extra for extra in STAGES if extra not in extras):
        print(f"not tested: xpnet[{extra}]: --quick")
    for extra, reason in LEFT_OUT.items():
        print(f"not tested: xpnet[{extra}]: {reason}")
    if quick:
        print("not tested: the sdist: --quick")
    else:
        check_sdist(sdist)
        print(
            f"sizes in MB: wheel {wheel.stat().st_size / 1e6:.0f}, installed with NumPy {sizes['']:.0f}, "
            f"with cli {sizes['cli']:.0f}, with cli and numba {sizes['numba']:.0f}"
        )


def found(python: str) -> bool:
    """Whether uv finds this version of Python."""
    try:
        uv("python", "find", "--no-project", python)
    except subprocess.CalledProcessError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())

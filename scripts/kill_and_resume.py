"""Kill training runs at random moments, go on with them, and compare the result with an uninterrupted run.

python scripts/kill_and_resume.py --kills 200

Each run is killed by SIGKILL, which no program can catch, again and again, and goes on with ``xpnet train --resume``.
At its end its parameters must be those of an uninterrupted run, bit for bit. A kill may lose no more than the steps
since the last checkpoint. The runs differ in network, backend, update rule and sampling.
"""

import argparse
import gzip
import itertools
import json
import random
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import xpnet
from xpnet.datasets import load_mnist
from xpnet.files import TEMPORARY
from xpnet.training.checkpoint import has_checkpoint, load_checkpoint
from xpnet.training.run_folder import CHECKPOINT

TRAIN = [sys.executable, "-m", "xpnet", "train"]
INTERVAL = 20
"""Steps between two checkpoints: so often that many kills hit the writing of one."""

RUNS = [
    *itertools.product(["two-layer"], ["numpy", "numba"], ["sgd", "adam"], ["random", "shuffled"]),
    *itertools.product(["deep-convnet"], ["numpy", "numba"], ["adam"], ["random", "shuffled"]),  # with dropout
]


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200, help="number of kills, in turn among the runs")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments")
    parser.add_argument("--without", nargs="*", default=[], help="networks or backends to leave out")
    arguments = parser.parse_args()
    runs = [run for run in RUNS if not set(run) & set(arguments.without)]
    rng = random.Random(arguments.seed)
    kills = [arguments.kills // len(runs) + (i < arguments.kills % len(runs)) for i in range(len(runs))]
    with tempfile.TemporaryDirectory() as folder:
        data = write_data(Path(folder) / "data")
        for number, (run, its_kills) in enumerate(zip(runs, kills, strict=True)):
            if its_kills:
                done, early, lost = killed(run, its_kills, data, Path(folder) / str(number), rng)
                print(
                    f"{' '.join(run)}: {done} kills, {early} before the first checkpoint, {lost} steps lost at most, "
                    "the parameters are those of an uninterrupted run",
                    flush=True,
                )


def write_data(folder: Path) -> Path:
    """Write the first images of MNIST in its format, so that epochs are short."""
    folder.mkdir()
    for part, (x, t) in zip(("train", "t10k"), load_mnist(normalize=False, flatten=False), strict=True):
        for kind, array in (("images-idx3", x[:110, 0]), ("labels-idx1", t[:110].astype("uint8"))):
            header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
            with gzip.open(folder / f"{part}-{kind}-ubyte.gz", "wb") as file:
                file.write(header + array.tobytes())
    return folder


def killed(
    run: tuple[str, str, str, str], kills: int, data: Path, folder: Path, rng: random.Random
) -> tuple[int, int, int]:
    """Kill a run some times, finish it, compare; return the kills, those before a checkpoint, and the lost steps."""
    net, backend, rule, sampling = run
    steps = 1200 if net == "two-layer" else 60
    options = ["--net", net, "--backend", backend, "--optimizer", rule, "--sampling", sampling, "--batch-size", "20"]
    command = [*TRAIN, *options, "--steps", str(steps), "--data", str(data), "--checkpoint-steps", str(INTERVAL)]
    subprocess.run([*command, "--out", str(folder / "whole")], check=True, capture_output=True)
    (whole,) = (folder / "whole").iterdir()

    early = lost = 0
    command += ["--out", str(folder / "killed")]
    for _ in range(kills):
        printed = run_and_kill(command, rng.randrange(max(steps // 6, 2)), rng.random() * 0.02)
        found = run_folders(folder / "killed")
        if not found:  # killed before it had a folder of its own
            early += 1
            continue
        command = [*TRAIN, "--resume", str(found[0]), "--checkpoint-steps", str(INTERVAL)]
        if has_checkpoint(found[0] / CHECKPOINT):
            lost = max(lost, printed - load_checkpoint(found[0] / CHECKPOINT)["current_iter"])
        else:
            early += 1
            lost = max(lost, printed)
        assert lost < INTERVAL, f"{run}: a kill lost {lost} steps, with checkpoints every {INTERVAL}"
    subprocess.run(command, check=True, capture_output=True)
    (resumed,) = run_folders(folder / "killed")
    for file in ("model.safetensors", "history.json"):
        assert contents(resumed / file) == contents(whole / file), f"{run}: {file} differs from an uninterrupted run's"
    return kills, early, lost


def run_folders(root: Path) -> list[Path]:
    """Return the folders of runs. One without its name yet, of a run killed before, is none; all others go on."""
    folders = [path for path in root.glob("*") if not path.name.startswith(TEMPORARY)]
    assert all((folder / "settings.json").exists() for folder in folders)
    return folders


def run_and_kill(command: list[str], lines: int, delay: float) -> int:
    """Kill a command after some lines of output and a delay; return the last step that it printed."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        printed = list(itertools.islice(process.stdout, lines))
        time.sleep(delay)
        process.kill()
        printed += process.stdout
        trouble = process.stderr.read()
    assert process.returncode in (-9, 0), trouble
    columns = [line.split() for line in printed]
    return max((int(c[1]) for c in columns if len(c) == 6 and c[1].isdigit()), default=0)


def contents(file: Path) -> object:
    """Return what must be the same in two runs: parameters by their bytes, the history without its times."""
    if file.suffix == ".json":
        history = json.loads(file.read_text())
        del history["evaluations"]["seconds"]
        return history
    return {name: array.tobytes() for name, array in xpnet.load(file).state().items()}


if __name__ == "__main__":
    main()

"""However a run of ``xpnet train`` ends, what it has learned is saved, and the exit status says how it ended.

The test takes some moments; ``python tests/test_ends.py 40`` takes as many as one wants.
"""

import errno
import json
import os
import pty
import random
import resource
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("typer", reason="the command line's extra, xpnet[cli], is not installed")

from test_datasets import idx

import xpnet
from xpnet.datasets import load_mnist
from xpnet.training import load_checkpoint

COMMAND = [sys.executable, "-m", "xpnet", "train", "--steps", "1000000", "--batch-size", "20"]
ENDS = {"SIGINT": {130}, "SIGTERM": {143}, "SIGHUP": {129}, "SIGTERM SIGHUP": {143, 129}, "closed": {1}}
"""Exit status of a run that got the signals, or whose output was closed. Two signals may come in any order."""


def write_data(folder):
    """Write the first images of MNIST, so that an epoch takes no time."""
    folder.mkdir()
    for part, (x, t) in zip(("train", "t10k"), load_mnist(normalize=False, flatten=False), strict=True):
        (folder / f"{part}-images-idx3-ubyte").write_bytes(idx(x[:200, 0]))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx(t[:200].astype("uint8")))
    return folder


@pytest.fixture
def data(tmp_path):
    return write_data(tmp_path / "data")


def report_of(folder):
    return json.loads((folder / "run.json").read_text())


def read_saved(runs):
    """Check the files of the only run, and return its report."""
    (folder,) = runs.iterdir()
    results = {"model.safetensors", "history.json", "history.jsonl", "run.json"}
    to_go_on = {"settings.json", "checkpoint.safetensors", "checkpoint-before.safetensors", ".lock"}
    assert results <= {file.name for file in folder.iterdir()} <= results | to_go_on
    assert load_checkpoint(folder / "checkpoint.safetensors")["current_iter"] == report_of(folder)["steps"]
    facts = report_of(folder)
    assert len(json.loads((folder / "history.json").read_text())["losses"]) == facts["steps"]
    assert xpnet.load(folder / "model.safetensors").params.size == 39_760
    return facts


def end(how, lines, data, runs):
    """End a run in some way after so many lines of output; check what it leaves."""
    command = [*COMMAND, "--data", str(data), "--out", str(runs)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        seen = [program.stdout.readline() for _ in range(lines)]
        if how == "closed":
            program.stdout.close()
            err = program.stderr.read()
            out = err
        else:
            for name in how.split():
                program.send_signal(getattr(signal, name))
            out, err = program.communicate()
    assert program.returncode in ENDS[how], err
    assert err.startswith("xpnet: error: ")
    assert err.count("\n") == 1
    assert f"written to {runs}" in out
    facts = read_saved(runs)
    assert not facts["complete"]
    assert facts["steps"] >= (int(seen[-1].split()[1]) if lines > 2 else 0)
    return facts["steps"]


@pytest.mark.parametrize(("how", "lines"), [("SIGTERM", 3), ("SIGHUP", 7), ("SIGTERM SIGHUP", 5), ("closed", 4)])
def test_what_was_learned_is_saved_however_a_run_ends(data, tmp_path, how, lines):
    end(how, lines, data, tmp_path / "runs")


def test_a_terminal_that_is_closed_is_a_hangup(data, tmp_path):
    errors = tmp_path / "errors"
    pid, terminal = pty.fork()
    if pid == 0:
        os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT), 2)
        os.execv(COMMAND[0], [*COMMAND, "--data", str(data), "--out", str(tmp_path / "runs")])
    seen = b""
    while b"   1.00 " not in seen:
        seen += os.read(terminal, 4096)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 129
    assert errors.read_text().endswith("xpnet: error: ended by SIGHUP\n")
    assert "Traceback" not in errors.read_text()
    read_saved(tmp_path / "runs")


def test_an_ignored_signal_stays_ignored(data, tmp_path):
    """As under nohup, where SIGHUP must not end the run."""
    command = [*COMMAND, "--data", str(data), "--out", str(tmp_path / "runs")]
    ignore = "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    with subprocess.Popen(
        [sys.executable, "-c", ignore, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as program:
        for _ in range(3):
            program.stdout.readline()
        program.send_signal(signal.SIGHUP)
        for _ in range(3):
            assert program.stdout.readline()
        program.send_signal(signal.SIGTERM)
        _, err = program.communicate()
    assert (program.returncode, err) == (143, "xpnet: error: ended by SIGTERM\n")
    read_saved(tmp_path / "runs")


def train(data, tmp_path, steps=20, **options):
    """Run a short training to its end."""
    command = [*COMMAND[:4], "--steps", str(steps), "--data", str(data), "--out", "runs"]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.run(command, cwd=tmp_path, check=False, **options)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_output_is_one_line_before_the_training(data, tmp_path):
    with open("/dev/full", "wb") as full:
        done = train(data, tmp_path, stdout=full)
    assert (done.returncode, done.stderr) == (1, b"xpnet: error: No space left on device: standard output\n")
    assert not (tmp_path / "runs").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_full_output_and_errors_are_a_status_and_no_more(data, tmp_path):
    with open("/dev/full", "wb") as full:
        assert train(data, tmp_path, stdout=full, stderr=full).returncode == 1


@pytest.mark.parametrize("closed", ["stdout", "stderr"])
def test_without_a_stream_the_run_is_saved(data, tmp_path, closed):
    number = {"stdout": 1, "stderr": 2}[closed]
    command = " ".join([*COMMAND[:4], "--steps", "20", "--data", str(data), "--out", str(tmp_path / "runs")])
    done = subprocess.run(["sh", "-c", f"{command} {number}>&-"], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    read_saved(tmp_path / "runs")


def test_a_full_disk_at_the_end_names_the_file_that_is_missing(data, tmp_path):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))

    done = train(data, tmp_path, preexec_fn=limit)
    assert done.returncode == 1
    (folder,) = (tmp_path / "runs").iterdir()
    name, reason = f"runs/{folder.name}", os.strerror(errno.EFBIG)
    *warnings, error = done.stderr.decode().splitlines()
    no_checkpoint = f"[Errno {errno.EFBIG}] {reason}: '{name}/checkpoint.safetensors'"
    assert set(warnings) == {f"xpnet: warning: no checkpoint is written: {no_checkpoint}"}  # several in a slow run
    assert error == f"xpnet: error: {reason}: {name}/model.safetensors"
    assert sorted(file.name for file in folder.iterdir()) == [".lock", "history.jsonl", "settings.json"]


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({"PYTHONIOENCODING": "ascii"}, "ユニ"),
        ({"PYTHONIOENCODING": "cp1252"}, "ユニ"),
        ({"LC_ALL": "C", "PYTHONUTF8": "0"}, "a[red]b[/x] :smile:"),
    ],
)
def test_any_folder_is_printed_on_any_console(data, tmp_path, environment, name):
    command = [*COMMAND[:4], "--steps", "2", "--data", str(data), "--out", name, "--profile"]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | environment, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert read_saved(tmp_path / name)["complete"]
    printed = name.encode("ascii", errors="backslashreplace")
    assert b"written to %s/" % printed in done.stdout


def main(times):
    """End runs at random moments in each way."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell makes programs in the background ignore it
    chance = random.Random(0)
    steps = []
    for i in range(times):
        how, lines = list(ENDS)[i % len(ENDS)], chance.randrange(2, 40)
        with tempfile.TemporaryDirectory() as folder:
            steps.append(end(how, lines, write_data(Path(folder) / "data"), Path(folder) / "runs"))
        print(f"{how} after {lines} lines: {steps[-1]} steps saved", flush=True)
    print(f"{len(steps)} runs ended, each saved; median {np.median(steps):.0f} steps")


if __name__ == "__main__":
    main(int(sys.argv[1]))

"""Several processes train as one does, and end as one does."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import parallel_program
import pytest
from parallel_program import CASES, VECTORS, results, trainer_of

from xpnet import DeviceError, asnumpy, get_array_module
from xpnet.layers import Affine, BatchNormalization, Dropout, Layer, Relu, SoftmaxWithLoss
from xpnet.nets import Sequential
from xpnet.optimizers import SGD, Momentum
from xpnet.parallel import Local, RankTeam, communicator, sum_in_float16
from xpnet.steps import compile_step
from xpnet.training import Trainer

MPIEXEC = Path(sys.executable).with_name("mpiexec")
needs_mpi = pytest.mark.skipif(
    not (find_spec("mpi4py") and MPIEXEC.exists()), reason="the extra xpnet[mpi] is not installed"
)
IN_A_TERMINAL = [
    sys.executable,
    "-c",
    "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))",
]
"""Runs a command in a terminal of its own, to which this process types."""

SECONDS = 30
"""Largest time of a run of several processes."""

ENDING = 30
"""Largest time until all have ended. On free cores it takes a few seconds; other tests run beside these."""


def start(ranks, *command, launcher=()):
    """Start processes, more than there are cores if need be."""
    allowed = {
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
        "OMPI_MCA_mpi_yield_when_idle": "1",
    }
    return subprocess.Popen(
        [*launcher, MPIEXEC, "-n", str(ranks), sys.executable, *command],
        env=os.environ | allowed,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process, seconds=SECONDS):
    """Wait for the end, and return exit status and output."""
    try:
        output, _ = process.communicate(timeout=seconds)
    finally:
        process.kill()
    return process.returncode, output


def program(ranks, case, where=""):
    return finish(start(ranks, parallel_program.__file__, "mpi", case, str(where)))


@needs_mpi
@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_train_as_one_process_does(ranks, tmp_path):
    status, output = program(ranks, "all", tmp_path)
    assert status == 0, output
    total = VECTORS[:ranks].sum(axis=0)
    error = np.load(tmp_path / "float16.npy") - total
    assert abs(error).max() < 2**-10 * abs(total).max()
    for name in CASES:
        alone = trainer_of(name, None)
        alone.train()
        with np.load(tmp_path / f"{name}.npz") as found:
            for quantity, value in results(alone).items():
                np.testing.assert_allclose(
                    found[quantity], value, rtol=1e-10, atol=1e-10, err_msg=f"{name}: {quantity}"
                )


@needs_mpi
@pytest.mark.parametrize(
    ("case", "statuses", "message"),
    [
        ("raise", {1}, "rank 1 of 2 ends all ranks: ValueError: no such thing"),
        ("SIGKILL", {137}, "rank 1"),
        ("SIGINT", {130}, "ends all ranks: KeyboardInterrupt"),
        ("differ", {1}, "the parameters of rank 1 differ from those of rank 0"),
    ],
)
def test_the_end_of_one_rank_ends_all(case, statuses, message):
    status, output = program(2, case)
    assert status in statuses, output
    assert message in output


def children(pid):
    """Return the processes below a process, by the number of their rank."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            variables = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
            found |= {int(v[10:]): child for v in variables if v.startswith(b"PMIX_RANK=")} | children(child)
    return found


def wait_for(condition, process):
    """Wait until a file is there, or the like."""
    until = time.monotonic() + SECONDS
    while not condition():
        assert process.poll() is None, finish(process)
        assert time.monotonic() < until
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.05)


@needs_mpi
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc to find the processes of a rank")
def test_a_run_of_the_command_line_that_was_ended_goes_on_with_other_ranks(tmp_path):
    pytest.importorskip("typer", reason="the extra xpnet[cli] is not installed")
    from test_ends import write_data

    from xpnet.training import load_checkpoint

    train = ["-m", "xpnet", "train", "--parallel", "mpi"]
    options = ["--steps", "100000000", "--batch-size", "20", "--checkpoint-seconds", "0.2"]
    runs = tmp_path / "runs"
    first = start(2, *train, *options, "--data", str(write_data(tmp_path / "data")), "--out", str(runs))
    wait_for(lambda: list(runs.glob("*/checkpoint-before.safetensors")), first)
    os.kill(children(first.pid)[1], signal.SIGKILL)
    status, output = finish(first, ENDING)
    assert status != 0
    assert "rank 1" in output
    (run,) = runs.iterdir()
    file = run / "checkpoint.safetensors"
    reached = load_checkpoint(file)["current_iter"]
    second = start(3, *train, "--resume", str(run))
    wait_for(lambda: file.exists() and load_checkpoint(file)["current_iter"] > reached, second)
    os.kill(children(second.pid)[2], signal.SIGINT)
    status, output = finish(second, ENDING)
    assert status == 130, output
    assert "rank 2 of 3 got SIGINT: all ranks stop after step" in output
    assert output.count("going on from step") == 1
    assert output.count("written to") == 1
    assert (run / "run.json").exists()
    reached = load_checkpoint(file)["current_iter"]
    third = start(2, *train, "--resume", str(run), launcher=IN_A_TERMINAL)
    wait_for(lambda: load_checkpoint(file)["current_iter"] > reached, third)
    third.stdin.write("\x03")
    third.stdin.flush()
    status, output = finish(third, ENDING)
    assert status != 0, output
    assert re.search(r"ranks? [01](, 1)? of 2 got SIGTERM: all ranks stop after step", output), output
    assert f"go on with: xpnet train --parallel mpi --resume {run}" in "".join(output.split("\r\n"))


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="'local', 'mpi' or 'nccl', got 'tcp'"):
        communicator("tcp")


class Two(Local):
    """A rank of two, the other of which does what this one does."""

    size = 2

    def sum(self, array):
        array *= 2.0

    def gather(self, value):
        return [value, value]


def test_tasks_shared_by_ranks_have_their_results_in_order():
    assert RankTeam(Two()).together([lambda i=i: i for i in range(5)]) == [0, 0, 2, 2, 4]
    assert RankTeam(Local()).together([lambda i=i: i for i in range(3)]) == [0, 1, 2]


def test_networks_that_mix_samples_are_refused_by_name():
    class Center(Layer):
        def forward(self, x, train=True):
            return x - x.mean(axis=0)

        def backward(self, dout):
            return dout - dout.mean(axis=0)

    net = Sequential([Center(), Affine.from_sizes(6, 3)], SoftmaxWithLoss())
    with pytest.raises(ValueError, match="2 processes cannot share the minibatches of this network: Center1 mixes"):
        compile_step(net, SGD(0.1), 4, communicator=Two())


def test_an_iterable_of_minibatches_is_refused(rng):
    net = Sequential([Affine.from_sizes(6, 3)], SoftmaxWithLoss())
    batches = [(rng.random((4, 6)), rng.integers(0, 3, 4))]
    with pytest.raises(ValueError, match="t_train is missing: several processes"):
        Trainer(net, batches, communicator=Two())


def test_shares_and_float16_are_refused(rng):
    net = Sequential([Affine.from_sizes(6, 3)], SoftmaxWithLoss())
    with pytest.raises(ValueError, match="shares must be 1 with several processes, got 2"):
        compile_step(net, SGD(0.1), 4, shares=2, communicator=Two())


class Pair(Two):
    """A rank of two whose gradients travel in float16, the other of which sends the same."""

    compression = "float16"
    capturable = False

    def exchange(self, blocks):
        return get_array_module(blocks).stack([blocks[0], blocks[0]])


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_terms_and_sum_of_a_compressed_sum_are_rounded_to_float16_at_any_scale(device, rng, scale):
    array = device.asarray((rng.standard_normal(8) * scale).astype("float32"))
    expected = 2.0 * asnumpy(array)[:4]
    sum_in_float16(Pair(), array)
    np.testing.assert_allclose(asnumpy(array)[:4], expected, rtol=2**-9, atol=2**-20 * abs(expected).max())


def test_a_compressed_sum_keeps_zeros_and_what_is_not_finite(device):
    for value, expected in ((0.0, 0.0), (np.inf, np.inf), (np.nan, np.nan)):
        array = device.asarray(np.array([value, 0.0], "float32"))
        sum_in_float16(Pair(), array)
        np.testing.assert_array_equal(asnumpy(array)[0], expected)


def test_steps_with_compression_are_those_without_to_the_rounding_of_float16(device, rng):
    x, t = device.asarray(rng.random((8, 6), dtype="float32")), device.asarray(rng.integers(0, 3, 8))
    moved = []
    for ranks in (Two(), Pair()):
        net = Sequential([Affine.from_sizes(6, 3, rng=0)], SoftmaxWithLoss(), device=device)
        before = asnumpy(net.params.flat).copy()
        step = compile_step(net, SGD(0.1), 8, "numpy", communicator=ranks)
        step.run(x, t, device.asarray(np.arange(8)[None]))
        moved.append(asnumpy(net.params.flat) - before)
    first = slice(0, 11)  # the block that this rank adds up
    np.testing.assert_allclose(moved[1][first], moved[0][first], rtol=2**-9, atol=2**-12 * abs(moved[0]).max())


def test_compression_is_for_mpi_and_float32():
    with pytest.raises(ValueError, match="compression must be None with 'local', got 'float16': only 'mpi' compresses"):
        communicator("local", "float16")
    with pytest.raises(ValueError, match="compression must be 'float16' or None, got 'bfloat16'"):
        communicator("mpi", "bfloat16")
    net = Sequential([Affine.from_sizes(6, 3)], SoftmaxWithLoss(), dtype="float64")
    with pytest.raises(ValueError, match="compression must be None for a network in float64"):
        compile_step(net, SGD(0.1), 4, communicator=Pair())


class FakeNCCL:
    """NCCL's interface in CuPy, for one process. It adds the array to itself, as if there were two."""

    available = True
    NCCL_SUM, NCCL_FLOAT32, NCCL_FLOAT64 = 0, 7, 8

    def __init__(self, cupy):
        self.cupy, self.made = cupy, []

    def get_unique_id(self):
        return (1, 2, 3)

    def NcclCommunicator(self, size, identity, rank):  # noqa: N802
        self.made.append((size, identity, rank))
        return self

    def allReduce(self, source, target, count, kind, operation, stream):  # noqa: N802
        assert operation == self.NCCL_SUM
        dtype = np.dtype({self.NCCL_FLOAT32: "float32", self.NCCL_FLOAT64: "float64"}[kind])
        memory = self.cupy.cuda.UnownedMemory(target, count * dtype.itemsize, self)
        array = self.cupy.ndarray(count, dtype, self.cupy.cuda.MemoryPointer(memory, 0))
        assert source == target
        array += array


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_arrays_of_a_gpu_go_by_nccl_on_the_current_stream_and_others_by_mpi(cupy, monkeypatch, dtype):
    pytest.importorskip("mpi4py", reason="the extra xpnet[mpi] is not installed")
    fake = FakeNCCL(cupy)
    monkeypatch.setattr(cupy.cuda, "nccl", fake, raising=False)
    ranks = communicator("nccl")
    assert fake.made == [(1, (1, 2, 3), 0)]
    array = cupy.arange(5, dtype=dtype)
    ranks.sum(array)
    assert array.get().tolist() == [0, 2, 4, 6, 8]
    host = np.arange(3.0)
    ranks.sum(host)
    assert host.tolist() == [0, 1, 2]


CAPTURED = {
    "dropout": lambda: [
        Affine.from_sizes(6, 5, std=0.5, rng=0),
        Dropout(0.5, seed=0),
        Affine.from_sizes(5, 3, std=0.5, rng=1),
    ],
    "batch normalization": lambda: [
        Affine.from_sizes(6, 5, std=0.5, rng=0),
        BatchNormalization(np.ones(5), np.zeros(5)),
        Relu(),
    ],
}


@pytest.mark.parametrize("microbatch", [None, 3])
@pytest.mark.parametrize("ignored", [None, 1])
@pytest.mark.parametrize("name", CAPTURED)
def test_steps_that_sum_by_nccl_are_captured(cupy, monkeypatch, rng, name, ignored, microbatch):
    """The other rank does what this one does. So the steps are those with the first half of each minibatch."""
    pytest.importorskip("mpi4py", reason="the extra xpnet[mpi] is not installed")
    if name == "batch normalization" and microbatch:
        pytest.skip("microbatches have no sums over ranks")
    monkeypatch.setattr(cupy.cuda, "nccl", FakeNCCL(cupy), raising=False)
    x, t = cupy.asarray(rng.random((40, 6))), cupy.asarray(rng.integers(0, 3, 40))
    indices = cupy.asarray(rng.integers(0, 40, (130, 8)))
    found = {}
    for kind, size in (("captured", 2), ("plain", 2), ("alone", 1)):
        ranks = communicator("nccl")
        ranks.size = size
        net = Sequential(CAPTURED[name](), SoftmaxWithLoss(ignore_index=ignored), device="cuda", dtype="float64")
        step = compile_step(net, Momentum(0.1), 8, microbatch=microbatch, communicator=ranks)
        graph = step.runners[0]
        if kind != "captured":
            step.runners = step.runners[1:]
        losses = step.run(x, t, indices if size == 2 else indices[:, :4])
        found[kind] = asnumpy(losses), *map(asnumpy, (net.params.flat, *net.buffers().values()))
        assert len(graph.graphs) == 3 * (kind == "captured")  # of 50, 10 and 1
    for captured, plain in zip(found["captured"], found["plain"], strict=True):
        np.testing.assert_array_equal(captured, plain)
    losses_and_params = slice(2)  # running variances divide by N - 1
    for captured, alone in zip(found["captured"][losses_and_params], found["alone"][losses_and_params], strict=True):
        np.testing.assert_allclose(captured, alone, rtol=1e-7, atol=1e-10)


def test_without_nccl_the_error_names_the_package(cupy, monkeypatch):
    pytest.importorskip("mpi4py", reason="the extra xpnet[mpi] is not installed")
    monkeypatch.setattr(cupy.cuda, "nccl", type("Missing", (), {"available": False}), raising=False)
    with pytest.raises(DeviceError, match="pip install nvidia-nccl-cu13"):
        communicator("nccl")


def test_arrays_of_a_gpu_go_to_mpi_by_the_host(cupy):
    pytest.importorskip("mpi4py", reason="the extra xpnet[mpi] is not installed")
    array = cupy.arange(5, dtype="float32")
    communicator("mpi").sum(array)
    assert array.get().tolist() == [0, 1, 2, 3, 4]


def test_steps_of_several_processes_run_on_every_device(device, rng):
    """Two ranks whose samples are the same take the step of one with half of the samples."""
    nets = [Sequential([Affine.from_sizes(6, 3, rng=0)], SoftmaxWithLoss(), device=device) for _ in range(2)]
    x, t = device.asarray(rng.random((8, 6), dtype="float32")), device.asarray(rng.integers(0, 3, 8))
    ours = compile_step(nets[0], SGD(0.1), 8, "numpy", communicator=Two()).run(x, t, device.asarray(np.arange(8)[None]))
    plain = compile_step(nets[1], SGD(0.1), 4, "numpy").run(x, t, device.asarray(np.arange(4)[None]))
    np.testing.assert_allclose(asnumpy(ours), asnumpy(plain), rtol=1e-6)
    np.testing.assert_allclose(asnumpy(nets[0].params.flat), asnumpy(nets[1].params.flat), rtol=1e-6)

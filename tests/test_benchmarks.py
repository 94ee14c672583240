"""The benchmarks' own rules: turns, agreement, replayed durations, and peers that do the same work as xpnet."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from xpnet import Device

pytest.importorskip("pytest_benchmark", reason="pytest-benchmark, of the bench extra, is not installed")

import peers
from contest import MOST_CALLS, PAUSE, ColdRuns, Contest, Contestant, Disagreement, Missing, Repeated, replay
from peers.matrix_products import list_products, multiply
from work import ImageWork, Work

ROOT = Path(__file__).parent.parent


class Stage:
    """A clock that moves when somebody works or pauses, and what happened."""

    def __init__(self):
        self.now = 0.0
        self.events = []

    def clock(self):
        return self.now

    def pause(self, seconds):
        self.now += seconds
        self.events.append("pause")

    def work(self, name, seconds):
        self.now += seconds
        self.events.append(name)

    def contestant(self, name, seconds, values=None, steps=1):
        entry = Repeated(lambda: self.work(name, seconds), lambda: values, steps)
        return Contestant(name, lambda: entry)

    def contest(self, *contestants, rounds=1, tolerance=0.0):
        return Contest(contestants, rounds, tolerance, clock=self.clock, pause=self.pause)


@pytest.fixture
def stage():
    return Stage()


def values(*numbers):
    return {"W": np.array(numbers)}


def test_parties_take_turns_each_after_a_pause_and_an_untimed_call(stage):
    contest = stage.contest(stage.contestant("a", 0.06), stage.contestant("b", 0.04), rounds=2)
    contest.outcome("b")
    assert stage.events == ["pause", "a", "a", "pause", "b", "b", "b"] * 2
    assert contest.outcome("a")[0] == pytest.approx([0.06] * 2)
    assert contest.outcome("b")[0] == pytest.approx([0.04] * 4)


def test_a_contest_is_held_once(stage):
    contest = stage.contest(stage.contestant("a", 0.06))
    contest.outcome("a")
    events = list(stage.events)
    contest.outcome("a")
    assert stage.events == events


def test_slow_calls_are_made_less_often_and_long_ones_once(stage):
    seconds = {"fast": 2**-16, "slow": 0.03125, "slower": 0.5, "long": 2.0}
    stage.contest(*(stage.contestant(name, duration) for name, duration in seconds.items())).outcome("long")
    assert [stage.events.count(name) for name in seconds] == [1 + MOST_CALLS, 1 + 3, 1 + 1, 1]


def test_seconds_are_per_step(stage):
    seconds, _ = stage.contest(stage.contestant("a", 0.08, steps=50)).outcome("a")
    assert seconds == pytest.approx([0.08 / 50])


def test_pauses_are_not_timed(stage):
    stage.contest(stage.contestant("a", 0.06), rounds=3).outcome("a")
    assert stage.now == pytest.approx(3 * (PAUSE + 2 * 0.06))


def test_cold_runs_take_the_seeds_of_their_rounds_and_are_timed_from_the_start_of_the_loop(stage):
    def start(seed):
        stage.work(f"build {seed}", 10.0)

        def run():
            stage.work(f"run {seed}", 1.0 + seed)
            return 100 * (seed + 1)

        return run

    contest = stage.contest(Contestant("a", lambda: ColdRuns(start, lambda: None)), rounds=3)
    seconds, facts = contest.outcome("a")
    assert seconds == pytest.approx([1.0, 2.0, 3.0])
    assert facts == {"steps": 200}
    assert stage.events == [event for i in range(3) for event in ("pause", f"build {i}", f"run {i}")]


def test_a_party_with_other_numbers_fails_untimed_and_the_others_go_on(stage):
    contest = stage.contest(
        stage.contestant("reference", 0.1, values(1.0, 2.0)),
        stage.contestant("wrong", 0.1, values(1.0, 2.1)),
        stage.contestant("close", 0.1, values(1.0, 2.0001)),
        stage.contestant("computes nothing", 0.1, None),
        tolerance=1e-3,
    )
    with pytest.raises(Disagreement, match=r"W of wrong is up to 0\.1.* apart from that of reference, allowed 0\.001"):
        contest.outcome("wrong")
    assert "wrong" not in stage.events
    assert len(contest.outcome("close")[0]) == len(contest.outcome("computes nothing")[0]) == 1


@pytest.mark.parametrize("result", [{"b": np.ones(2)}, {"W": np.ones(3)}, values(1.0, np.nan), {}])
def test_results_of_another_kind_disagree(stage, result):
    contest = stage.contest(stage.contestant("a", 0.1, values(1.0, 1.0)), stage.contestant("b", 0.1, result))
    with pytest.raises(Disagreement):
        contest.outcome("b")


def test_a_contestant_can_have_a_reference_of_its_own(stage):
    small, large = stage.contestant("small", 0.1, values(1.0)), stage.contestant("large", 0.1, values(1.0, 2.0))
    large = Contestant("large", large.enter, reference="large")
    assert stage.contest(small, large).outcome("large")[0]


def test_a_missing_party_says_why_and_the_others_go_on(stage):
    def enter():
        raise Missing("its library is not installed")

    contest = stage.contest(stage.contestant("a", 0.1), Contestant("b", enter))
    with pytest.raises(Missing, match="its library is not installed"):
        contest.outcome("b")
    assert contest.outcome("a")[0]


def test_a_party_that_breaks_down_breaks_its_own_outcome_only(stage):
    def call():
        raise ZeroDivisionError

    contest = stage.contest(stage.contestant("a", 0.1), Contestant("b", lambda: Repeated(call)), rounds=2)
    with pytest.raises(ZeroDivisionError):
        contest.outcome("b")
    assert len(contest.outcome("a")[0]) == 2


def test_without_a_reference_nobody_has_an_outcome(stage):
    def enter():
        raise Missing("no reference")

    contest = stage.contest(Contestant("a", enter), stage.contestant("b", 0.1))
    with pytest.raises(Missing, match="no reference"):
        contest.outcome("b")


DURATIONS = [0.1, 0.30000000000000004, 1e-7, 12.5]

REPLAYED = f"""
import pytest
from contest import replay

@pytest.mark.benchmark(group="a group", timer=replay({DURATIONS}))
def test_it(benchmark):
    benchmark.pedantic(lambda: None, rounds={len(DURATIONS)})
"""


def run_pytest(*arguments, cwd):
    """Run pytest in a process of its own; return what pytest-benchmark wrote of each benchmark, and the output."""
    figures = cwd / "figures.json"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--benchmark-json={figures}", *arguments]
    # Not the variables of pytest-xdist: pytest-benchmark would take this for one of its workers.
    outside = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    environment = {**outside, "PYTHONPATH": str(ROOT / "benchmarks")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(figures.read_text())["benchmarks"], done.stdout


def test_pytest_benchmark_is_shown_exactly_the_recorded_durations(tmp_path):
    (tmp_path / "test_replayed.py").write_text(REPLAYED)
    (found,), _ = run_pytest("test_replayed.py", cwd=tmp_path)
    assert found["stats"]["data"] == DURATIONS
    assert found["stats"]["median"] == pytest.approx(0.2)


def test_a_replay_that_is_read_too_often_ends():
    timer = replay([1.0])
    assert [timer(), timer()] == [0.0, 1.0]
    with pytest.raises(StopIteration):
        timer()


@pytest.mark.slow
def test_the_record_of_a_benchmark_says_what_was_measured_and_where(tmp_path):
    suite = str(ROOT / "benchmarks" / "test_layer_passes.py")
    found, printed = run_pytest(
        suite, "--device", "cpu", "--rounds", "1", "--threads", "1", "-k", "float32", cwd=tmp_path
    )
    assert len(found) == 2 * 5
    assert "Relu backward" in printed
    for benchmark in found:
        info = benchmark["extra_info"]
        environment = info.pop("environment")
        assert benchmark["group"] == f"layers: {info['work']} on cpu"
        assert benchmark["name"] == f"{info.pop('layer')} {info.pop('pass')}"
        assert info == {
            "kind": "layer",
            "party": "xpnet",
            "role": "xpnet",
            "work": f"784-50-10, batch 100, {info['dtype']}",
            "network": "784-50-10",
            "parameters": 39760,
            "batch": 100,
            "dtype": info["dtype"],
            "precision": "float32",
            "device": "cpu",
        }
        assert environment["threads"] == 1
        assert environment["peers"] == peers.versions()


@pytest.mark.parametrize(("option", "value"), [("--rounds", "0"), ("--threads", "0"), ("--threads", "100000")])
def test_options_out_of_their_range_are_refused(tmp_path, option, value):
    command = [sys.executable, "-m", "pytest", str(ROOT / "benchmarks"), option, value, "-p", "no:cacheprovider"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode != 0
    assert f"{option} must be 1 to" in done.stderr + done.stdout


PINNED = """
import os
import re
import numpy
import threads
threads.pin(1)
import threadpoolctl
assert {pool["num_threads"] for pool in threadpoolctl.threadpool_info()} == {1}
assert os.environ["OMP_NUM_THREADS"] == "1"
assert threads.available() == 1 or not hasattr(os, "sched_setaffinity")
"""


def test_threads_are_pinned_for_what_is_loaded_and_what_will_be():
    subprocess.run(
        [sys.executable, "-c", PINNED], check=True, env={**os.environ, "PYTHONPATH": str(ROOT / "benchmarks")}
    )


def enter(name, work, seed=0):
    try:
        return peers.enter(name, work, Device("cpu"), seed)
    except Missing as missing:
        pytest.skip(str(missing))


@pytest.fixture
def without_compiler(monkeypatch):
    """PyTorch's compiler takes its time; what it is given to compile can be run as it is."""
    if "torch" in peers.versions():
        import torch

        monkeypatch.setattr(torch, "compile", lambda function, **_: function)
        monkeypatch.setattr(torch.compiler, "reset", lambda: None)


PEERS_ON_THE_CPU = [name for name in peers.PARTIES if name not in ("xpnet", peers.LIMIT, "PyTorch CUDA graph")]


@pytest.mark.usefixtures("without_compiler")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", PEERS_ON_THE_CPU)
def test_a_peer_trains_as_xpnet_does(name, dtype):
    work = Work((784, 6, 10), batch=8, dtype=dtype)
    ours, theirs = enter("xpnet", work, seed=3), enter(name, work, seed=3)
    indices = work.minibatches(12)
    before = ours.parameters()
    for party in (ours, theirs):
        for start in (0, 6):  # the second call goes on where the first ended
            party.run(indices[start : start + 6])
            party.synchronize()
    expected, found = ours.parameters(), theirs.parameters()
    assert found.keys() == expected.keys()
    for key, parameter in expected.items():
        assert np.abs(parameter - before[key]).max() > 100 * work.tolerance
        np.testing.assert_allclose(found[key], parameter, rtol=work.tolerance, atol=work.tolerance)
    assert theirs.accuracy() == pytest.approx(ours.accuracy(), abs=1e-3)


@pytest.mark.usefixtures("without_compiler")
@pytest.mark.parametrize(
    ("network", "name"),
    [("SimpleConvNet", "the book"), ("SimpleConvNet", "PyTorch eager"), ("LeNet5", "PyTorch eager")],
)
def test_a_peer_trains_convolutional_networks_as_xpnet_does(network, name):
    work = ImageWork(network, batch=8, dtype="float64")
    ours, theirs = enter("xpnet", work, seed=3), enter(name, work, seed=3)
    before = ours.parameters()
    for party in (ours, theirs):
        party.run(work.minibatches(6))
    expected, found = ours.parameters(), theirs.parameters()
    assert found.keys() == expected.keys()
    for key, parameter in expected.items():
        assert np.abs(parameter - before[key]).max() > 100 * work.tolerance
        np.testing.assert_allclose(found[key], parameter, rtol=work.tolerance, atol=work.tolerance)


def test_the_book_has_no_lenet():
    with pytest.raises(Missing, match="the book's networks are SimpleConvNet and one of one hidden layer"):
        peers.enter("the book", ImageWork("LeNet5", batch=8, dtype="float64"), Device("cpu"))


def test_a_peer_whose_library_is_not_installed_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.neural_network", None)
    monkeypatch.delitem(sys.modules, "peers.scikit_learn", raising=False)
    with pytest.raises(Missing, match=r"scikit-learn: sklearn\S* is not installed"):
        peers.enter("scikit-learn", Work((784, 6, 10), batch=8, dtype="float32"), Device("cpu"))


def test_a_cuda_graph_is_missing_on_the_cpu():
    pytest.importorskip("torch", reason="PyTorch, the oracle extra, is not installed")
    with pytest.raises(Missing, match="needs a CUDA device"):
        peers.enter("PyTorch CUDA graph", Work((784, 6, 10), batch=8, dtype="float32"), Device("cpu"))


def test_the_books_network_is_missing_where_there_are_more_layers():
    with pytest.raises(Missing, match="one hidden layer"):
        peers.enter("the book", Work((784, 6, 6, 10), batch=8, dtype="float64"), Device("cpu"))


def test_the_book_is_recorded_with_the_dtype_that_it_computes_in():
    single = peers.as_contestant(peers.BOOK, Work((784, 6, 10), batch=8, dtype="float32"), None)
    assert (single.party, single.facts) == ("the book, float64", {"dtype": "float64"})
    assert peers.as_contestant(peers.BOOK, Work((784, 6, 10), batch=8, dtype="float64"), None).party == "the book"


def test_the_limit_is_all_matrix_products_of_a_step_but_the_images_gradient(rng):
    work = Work((784, 6, 5, 10), batch=8, dtype="float32")
    operands = list_products(work, rng)
    shapes = [(a.shape, b.shape) for a, b, _ in operands]
    assert shapes == [
        ((8, 784), (784, 6)),
        ((8, 6), (6, 5)),
        ((8, 5), (5, 10)),
        ((5, 8), (8, 10)),
        ((8, 10), (10, 5)),
        ((6, 8), (8, 5)),
        ((8, 5), (5, 6)),
        ((784, 8), (8, 6)),
    ]
    multiply(np.matmul, operands)
    for a, b, out in operands:
        np.testing.assert_allclose(out, a @ b, rtol=1e-6)


def test_the_limit_has_nothing_to_compare(rng):
    party = peers.enter(peers.LIMIT, Work((784, 6, 10), batch=8, dtype="float32"), Device("cpu"))
    party.run(np.zeros((2, 8), int))
    assert party.parameters() is None


def test_work_counts_its_parameters():
    work = Work((784, 50, 10), batch=100, dtype="float32")
    assert work.parameters == 39760 == sum(values.size for values in work.initial_parameters().values())
    assert str(work) == "784-50-10, batch 100, float32"


def test_peers_multiply_in_the_precision_that_the_work_asks_for():
    torch = pytest.importorskip("torch", reason="PyTorch, the oracle extra, is not installed")
    for precision, found in (("tf32", "high"), ("float32", "highest")):
        work = Work((784, 6, 10), batch=8, dtype="float32", precision=precision)
        peers.enter("PyTorch eager", work, Device("cpu"))
        assert torch.get_float32_matmul_precision() == found
    assert (str(Work((2, 1), 3, "float32", precision="tf32")), work.facts()["precision"]) == (
        "2-1, batch 3, TF32",
        "float32",
    )


@pytest.mark.slow
def test_the_map_has_all_parties_that_are_there_in_each_cell(tmp_path):
    out, picture = tmp_path / "crossover.json", tmp_path / "crossover.svg"
    command = [sys.executable, str(ROOT / "benchmarks/crossover.py"), "--rounds", "1", "--out", out]
    command += ["--widths", "3", "--batches", "2", "--picture", picture]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    result = json.loads(out.read_text())
    on_cpu = [cell for cell in result["cells"] if cell["device"] == "cpu"]
    assert [(cell["width"], cell["batch"]) for cell in on_cpu] == [(3, 2)]
    there = {"torch": ["PyTorch eager"], "jax": ["JAX jit", "JAX scanned"], "numba": ["xpnet, Numba"]}
    expected = {"xpnet"} | {name for package, names in there.items() if package in peers.versions() for name in names}
    for cell in on_cpu:
        assert set(cell["median_seconds"]) == set(cell["quartiles_seconds"]) == expected
    assert picture.read_text().count("784-W-10, float32, on") == len(result["environment"])


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        ({"xpnet": 3e-6, "xpnet, Numba": 1e-6, "PyTorch eager": 2e-6, "JAX jit": 5e-6}, ("xpnet, Numba", "2.00 times")),
        ({"xpnet": 4e-6, "JAX scanned": 1e-6}, ("JAX scanned", "4.00 times")),
        ({"xpnet": 4e-6}, ("xpnet", None)),
    ],
)
def test_the_map_names_the_fastest_and_the_ratio(seconds, shown):
    from report.crossover_map import draw_map

    cell = {"device": "cpu", "width": 16, "batch": 1, "median_seconds": seconds}
    environment = {"cpu": {"cores": 2, "processor": "a processor"}}
    picture = draw_map({"rounds": 3, "cells": [cell], "environment": environment}).decode()
    fastest, ratio = shown
    assert f"<!-- {fastest} -->" in picture
    assert re.findall(r"<!-- (\S+ times) -->", picture) == ([ratio] if ratio else [])

"""What every benchmark needs: equal threads and precision for all, contests held once, and the facts for the JSON.

`--rounds N`   turns of each party (and seeds, for the time to accuracy); the slow groups take 3 at most
`--parties P`  peers to compare with, with commas between; by default all, with '' none
`--threads N`  threads of each library, by default as many as there are cores to use; see `threads.pin`

TF32 is off for all, unless the work asks for it: each module of `peers` sees to its library, and CuPy's own switch, for
products that are not xpnet's, is set here, before CuPy is loaded.

The times are not pytest-benchmark's own: it would time one test after the other, and the parties of a contest have to
take turns. So the first test of a group holds the whole contest (`contest.Contest`), in which all parties are timed.
Each test then hands its party's times to pytest-benchmark. It lets it time a call that does nothing, by a timer
(`contest.replay`) that reads 0 before each call and the recorded seconds after it. The table, the statistics and the
JSON are pytest-benchmark's, made of the contest's times.
"""

from __future__ import annotations

import os

import peers
import pytest
import threads
from contest import Contest, Group, Missing, replay

OTHERS = [name for name in peers.PARTIES if not name.startswith("xpnet")]
"""Parties that `--parties` can leave out."""

TABLE = {"--benchmark-columns": ["min", "median", "max", "iqr", "rounds"], "--benchmark-sort": "median"}
"""How the table is drawn, unless the command line says otherwise: what fits a terminal and can be compared."""


def pytest_addoption(parser):
    parser.addoption("--rounds", type=int, default=5, help="turns of each party of a benchmark")
    parser.addoption("--parties", help="peers to compare with, with commas between; by default all")
    parser.addoption("--threads", type=int, default=threads.available(), help="threads of each library")


def pytest_configure(config):
    for option, most in {"--rounds": None, "--threads": threads.available()}.items():
        value = config.getoption(option)
        if value < 1 or (most is not None and value > most):
            raise pytest.UsageError(f"{option} must be 1 to {most or 'any number'}, got {value}")
    if unknown := chosen_parties(config) - set(OTHERS):
        raise pytest.UsageError(f"--parties must name some of {', '.join(OTHERS)}; got {', '.join(unknown)}")
    for option, value in TABLE.items():
        if not any(argument.startswith(option) for argument in config.invocation_params.args):
            setattr(config.option, option.removeprefix("--").replace("-", "_"), value)
    threads.pin(config.getoption("--threads"))
    os.environ["CUPY_TF32"] = "0"


def chosen_parties(config) -> set[str]:
    """Return the names of those that take part beside xpnet."""
    names = config.getoption("--parties")
    return set(OTHERS) if names is None else {name.strip() for name in names.split(",") if name.strip()}


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_machine_info(machine_info):
    """Leave out what identifies the machine; each benchmark's `environment` has what its figures depend on."""
    machine_info.clear()


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_commit_info(commit_info):
    """Keep which code it was, not where it lay."""
    for key in commit_info.keys() - {"id", "time", "dirty"}:
        del commit_info[key]


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_json(output_json):
    """Keep the statistics, not each of thousands of durations."""
    for benchmark in output_json["benchmarks"]:
        del benchmark["stats"]["data"]


@pytest.fixture(scope="session")
def contests():
    """The contests held so far, by the names of their groups."""
    return {}


@pytest.fixture
def record(request, device, contests):
    """Record the outcome of one contestant of a group as this test's benchmark."""

    def run(group: Group, name: str) -> None:
        title = f"{group.title}: {group.work} on {device}"
        if title not in contests:
            rounds = request.config.getoption("--rounds")
            chosen = chosen_parties(request.config)
            entered = [one for one in group.contestants() if one.name not in OTHERS or one.name in chosen]
            contests[title] = Contest(entered, min(rounds, group.most_rounds or rounds), group.tolerance)
        contest = contests[title]
        if name not in contest.contestants:
            pytest.skip(f"{name} is not among --parties")
        try:
            seconds, facts = contest.outcome(name)
        except Missing as missing:
            pytest.skip(str(missing))
        request.node.add_marker(pytest.mark.benchmark(group=title, timer=replay(seconds)))
        benchmark = request.getfixturevalue("benchmark")  # only now: the marker sets its timer
        contestant = contest.contestants[name]
        benchmark.name = name  # the table then reads as the comparison; the test's full name stays in the JSON
        benchmark.extra_info.update(
            kind=group.kind, party=contestant.party, role=contestant.role, work=group.work, **{**group.facts, **facts}
        )
        benchmark.extra_info.update(device=device.name, environment=peers.describe(device))
        benchmark.pedantic(lambda: None, rounds=len(seconds))

    return run

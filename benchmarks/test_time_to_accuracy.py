"""How long until the network is good: 97% test accuracy on MNIST, from a cold start of the loop.

The data are on the device and the network is built; all else counts, compilation too. All parties have the same
weights, minibatches and learning rate, and look at their test accuracy as often. A round is a seed.
"""

from __future__ import annotations

import functools

import peers
import pytest
from contest import ColdRuns, Group
from work import Work

WORK = Work((784, 50, 10), batch=100, dtype="float32", lr=0.5)

TARGET = 0.97

STEPS_BETWEEN = 200
"""Steps between two looks at the test accuracy."""

MOST_STEPS = 12_000

CHECKED_STEPS = 10

PARTIES = [name for name in peers.PARTIES if name != peers.LIMIT]


@pytest.mark.parametrize("party", PARTIES)
def test_time_to_accuracy(record, device, party):
    def contestants():
        builds = {name: functools.partial(enter, name, device) for name in PARTIES}
        return [peers.as_contestant(name, WORK, build) for name, build in builds.items()]

    facts = {**WORK.facts(), "lr": WORK.lr}
    record(Group("time to accuracy", "time to 97% test accuracy", str(WORK), facts, contestants, WORK.tolerance), party)


def enter(name, device):
    """Return a party's entry: ten steps to be compared, and a run per seed."""

    def result():
        party = peers.enter(name, WORK, device)
        party.run(WORK.minibatches(CHECKED_STEPS))
        return party.parameters()

    def start(seed):
        party = peers.enter(name, WORK, device, seed)
        indices = WORK.minibatches(MOST_STEPS, seed)
        party.synchronize()
        return lambda: train(party, indices)

    return ColdRuns(start, result)


def train(party, indices):
    """Train until the target is met; return the number of steps."""
    for done in range(0, len(indices), STEPS_BETWEEN):
        party.run(indices[done : done + STEPS_BETWEEN])
        if party.accuracy() >= TARGET:
            return done + STEPS_BETWEEN
    raise RuntimeError(f"{TARGET:.0%} test accuracy was not reached in {len(indices)} steps")

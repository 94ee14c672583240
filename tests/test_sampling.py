"""Samplers: what a minibatch has, and that an interruption anywhere changes nothing."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpnet.training.sampling import get_sampler

SIZES = st.tuples(st.integers(1, 40), st.integers(1, 12))


def sampler(name, size, seed=0):
    return get_sampler(name, np.random.default_rng(seed), *size)


def drawn(name, size, parts, seed=0):
    """The first minibatches, drawn some at a time, and the steps at which epochs ended."""
    found, ends, source = [], [], sampler(name, size, seed)
    for part in parts:
        indices = source.draw(part)
        assert 1 <= len(indices) <= part
        found += map(tuple, indices.tolist())
        if source.at_epoch_end:
            ends.append(source.steps)
    return found, ends


@given(st.sampled_from(["random", "shuffled"]), SIZES, st.lists(st.integers(1, 9), min_size=1, max_size=30))
def test_minibatches_are_the_same_however_many_are_drawn_at_a_time(name, size, parts):
    found, ends = drawn(name, size, parts)
    one_by_one, all_ends = drawn(name, size, [1] * len(found))
    assert found == one_by_one
    assert ends == all_ends


@given(SIZES, st.integers(1, 3))
def test_a_shuffled_epoch_has_each_sample_once(size, epochs):
    samples, batch_size = size
    source = sampler("shuffled", size)
    for epoch in range(1, epochs + 1):
        seen = []
        while source.steps < source.steps_in(epoch):
            indices = source.draw(3)
            seen += indices.reshape(-1).tolist()
            assert indices.shape[1] == batch_size or source.at_epoch_end
        assert sorted(seen) == list(range(samples))
        assert source.at_epoch_end
        assert source.epoch == epoch


@given(SIZES, st.integers(1, 4))
def test_random_draws_have_the_books_number_of_steps(size, epochs):
    samples, batch_size = size
    source = sampler("random", size)
    assert source.steps_in(epochs) == max(int(epochs * samples / batch_size), epochs)
    ends = []
    while source.steps < source.steps_in(epochs):
        indices = source.draw(5)
        assert indices.shape[1] == batch_size
        assert ((indices >= 0) & (indices < samples)).all()
        if source.at_epoch_end:
            ends.append(source.steps)
    assert ends == [source.steps_in(epoch) for epoch in range(1, epochs + 1)]


@given(
    st.sampled_from(["random", "shuffled"]),
    SIZES,
    st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9), st.booleans()), min_size=1, max_size=20),
)
def test_interruptions_and_restored_states_change_no_minibatch(name, size, parts):
    found, source = [], sampler(name, size)
    for part, undone, restored in parts:
        indices = source.draw(part)
        undone = min(undone, len(indices))
        source.put_back(undone)
        found += map(tuple, indices[: len(indices) - undone].tolist())
        if restored:
            state = json.loads(json.dumps(source.state()))
            source = sampler(name, size, seed=99)
            source.load_state(state)
        assert source.steps == len(found)
    assert found == drawn(name, size, [1] * len(found))[0]


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="sampling must be one of 'random', 'shuffled', 'in-order', got 'sequential'"):
        sampler("sequential", (3, 2))

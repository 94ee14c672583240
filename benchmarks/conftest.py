"""What every benchmark needs: the device's facts in the JSON, and a call that is over when the work is."""

from __future__ import annotations

import pytest

from xpnet import environment


@pytest.fixture
def measure(device, request):
    """Time a call on the device, its queued work included, after a warm-up; record the device's facts."""

    def run(function, rounds):
        def synchronised():
            result = function()
            device.synchronize()
            return result

        benchmark = request.getfixturevalue("benchmark")  # only now: a benchmark that is skipped must not ask for it
        benchmark.extra_info.update(environment.describe(device))
        return benchmark.pedantic(synchronised, rounds=rounds, warmup_rounds=1)

    return run

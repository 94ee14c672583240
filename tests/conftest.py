"""What the tests share: a fake in CuPy's place, random numbers, and how hypothesis looks for examples."""

from __future__ import annotations

import os
import sys

import fake_cupy
import numpy as np
import pytest
from hypothesis import settings

# No deadline: these machines may be busy. In CI the same examples each time, so that a change is judged by itself.
settings.register_profile("xpnet", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("xpnet")


@pytest.fixture
def cupy(monkeypatch):
    """The fake, in the place of CuPy."""
    module = fake_cupy.create()
    monkeypatch.setitem(sys.modules, "cupy", module)
    return module


@pytest.fixture
def rng():
    return np.random.default_rng(20261123)

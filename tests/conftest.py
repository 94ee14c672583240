"""What the tests share: a fake in CuPy's place, random numbers, and how hypothesis looks for examples."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from types import SimpleNamespace

import cuda_on_host
import fake_cupy
import numpy as np
import pytest
from hypothesis import settings

from xpnet import kernels

# No deadline: these machines may be busy. In CI the same examples each time, so that a change is judged by itself.
# With --hypothesis-profile thorough, ten thousand of each.
settings.register_profile("xpnet", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.register_profile("thorough", deadline=None, max_examples=10_000)
settings.load_profile("xpnet")


@pytest.fixture
def cupy(monkeypatch):
    """The fake, in the place of CuPy, with the CUDA kernels compiled for the host."""
    if cuda_on_host.COMPILER is None:
        pytest.skip("no g++ to compile the CUDA kernels for the host")
    module = fake_cupy.create()
    monkeypatch.setitem(sys.modules, "cupy", module)
    monkeypatch.setitem(sys.modules, "cupyx", SimpleNamespace(empty_pinned=np.empty))
    for name in ("cuda", "cublaslt"):  # they hold on to the CuPy that they were imported with
        monkeypatch.delitem(sys.modules, f"xpnet.kernels.{name}", raising=False)
    kernels.operations._for_cuda.cache_clear()
    monkeypatch.setattr(importlib.import_module("xpnet.kernels.cublaslt"), "_product", fake_cupy.make_product)
    yield module
    kernels.operations._for_cuda.cache_clear()


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium, the one that is installed: Playwright's own would be a download."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium is installed")
    quiet = ["no-first-run", "disable-background-networking", "disable-component-update", "disable-sync"]
    flags = [f"--{flag}" for flag in ("no-sandbox", "disable-gpu", *quiet)]
    with playwright.sync_playwright() as session:
        running = session.chromium.launch(executable_path=program, args=flags)
        yield running
        running.close()


@pytest.fixture
def rng():
    return np.random.default_rng(20261123)

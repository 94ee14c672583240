"""As many threads for each party as for every other."""

from __future__ import annotations

import os
from pathlib import Path

import threadpoolctl


def available() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def pin(number: int) -> None:
    """Give all libraries `number` threads; to be called before they are imported.

    - The process is confined to so many cores, its present threads too. XLA knows no other setting: JAX starts a thread
      for each core that it may use. (Where the system cannot confine a process, as on macOS, JAX takes all cores.)
    - OpenMP, OpenBLAS and MKL read their numbers from the environment when they are loaded: PyTorch, its compiled
      code and scikit-learn.
    - What is loaded already, NumPy's OpenBLAS, is told by threadpoolctl.
    """
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))[:number]
        for task in Path("/proc/self/task").iterdir():
            os.sched_setaffinity(int(task.name), cores)
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ[f"{library}_NUM_THREADS"] = str(number)
    threadpoolctl.threadpool_limits(number)

"""Values that the shell completes: runs, devices, data sets, initial weights. Typer completes declared choices."""

from __future__ import annotations

from pathlib import Path

__all__ = ["RUNS", "complete_data", "complete_device", "complete_run", "complete_std"]

RUNS = Path("runs")
"""Parent of the runs' folders by default."""


def complete_run(incomplete: str) -> list[str]:
    """Return the runs in the folder that was begun, and those in `RUNS`, whose path begins with `incomplete`."""
    from xpnet.training.runs import find_run_folders

    roots = dict.fromkeys((Path(f"{incomplete}x").parent, RUNS))
    return [path for root in roots for path in map(str, find_run_folders(root)) if path.startswith(incomplete)]


def complete_device() -> list[tuple[str, str]]:
    """Return the kinds of devices."""
    return [("cpu", "NumPy"), ("cuda", "CuPy, on the first GPU"), ("auto", "cuda if available, else cpu")]


def complete_data() -> list[str]:
    """Return the data sets and texts that have names."""
    from xpnet.datasets.loading import NAMES
    from xpnet.datasets.text import TEXTS

    return [*NAMES, *TEXTS]


def complete_std() -> list[str]:
    """Return the names of initial weights."""
    from xpnet.initializers import GAINS

    return [*GAINS, "glorot", "orthogonal"]

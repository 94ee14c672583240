"""`xpnet train` with NumPy alone, and with Numba, wherever Numba is installed."""

from __future__ import annotations

import sys


def xpnet_train(*arguments: str, numba: bool = False) -> list[str]:
    """Return the command."""
    return [sys.executable, "-m", "xpnet", "train", "--backend", "numba" if numba else "numpy", *arguments]

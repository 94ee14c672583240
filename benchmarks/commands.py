"""`xpnet train` as it is installed by default, and with the `numba` extra, wherever Numba is installed."""

from __future__ import annotations

import sys

WITHOUT_NUMBA = "import sys; sys.modules['numba'] = None; from xpnet.__main__ import main; main()"


def xpnet_train(*arguments: str, numba: bool = False) -> list[str]:
    """Return the command."""
    program = ["-m", "xpnet"] if numba else ["-c", WITHOUT_NUMBA]
    return [sys.executable, *program, "train", *arguments]

"""What ``xpnet`` prints without a command: where to begin, the last run, where help is."""

from __future__ import annotations

import shutil
import textwrap

import xpnet
from xpnet.cli.completion import RUNS

__all__ = ["welcome"]

FIRST = {
    "xpnet train": "trains a network on MNIST, in seconds",
    "xpnet graph apple": "draws values and gradients of a graph",
    "xpnet gradcheck": "compares backpropagation with numerical gradients",
}
"""Commands to begin with."""


def welcome() -> str:
    """Return a page of text for the width of the terminal. Commands are never broken, so that they can be copied."""
    columns = shutil.get_terminal_size().columns
    what = f"xpnet {xpnet.__version__}: neural networks on NumPy or CuPy, trained, checked and timed."
    parts = [
        [textwrap.fill(what, columns)],
        ["To begin with:", *_first(columns)],
        _last_run(columns),
        ["All commands, and one of them:", "  xpnet --help", "  xpnet train --help"],
    ]
    return "\n\n".join("\n".join(lines) for lines in parts if lines)


def _first(columns: int) -> list[str]:
    """Return the commands to begin with, each with its use beside it, or below it in a narrow terminal."""
    width = max(map(len, FIRST))
    if columns >= width + 4 + max(map(len, FIRST.values())):
        return [f"  {command:<{width}}  {use}" for command, use in FIRST.items()]
    return [
        line
        for command, use in FIRST.items()
        for line in (f"  {command}", textwrap.indent(textwrap.fill(use, max(columns - 4, 1)), "    "))
    ]


def _last_run(columns: int) -> list[str]:
    """Return the lines about the last run that has a network, if there is one."""
    if not RUNS.is_dir():
        return []  # before the import, which takes longer than all the rest
    from xpnet.training.runs import last_run

    run = last_run(RUNS)
    if run is None:
        return []
    accuracy = run.result.get("test_accuracy")
    reached = "" if accuracy is None else f", test accuracy {accuracy:.4f}"
    is_text = run.settings.recipe.length is not None
    use = f"generate {run.folder}" if is_text else f"predict {run.folder} digit.png"
    return [textwrap.fill(f"Use the last run{reached} (xpnet runs lists all):", columns), f"  xpnet {use}"]

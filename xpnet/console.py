"""The console of the command line: any encoding, and a reader that may go away."""

import errno
import io
import os
import sys
import warnings
from collections.abc import Mapping
from typing import Any, TextIO

from rich.console import Console

__all__ = ["Output", "escape_characters", "fail", "lost_output", "plain_warnings"]


class Output(Console):
    """Standard output. Texts are printed as they are: no markup, no wrapped lines.

    Parameters
    ----------
    quiet : bool, default False
        Whether to print nothing.

    Raises
    ------
    OSError
        If the reader is gone or the disk is full.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        super().__init__(quiet=quiet, highlight=False, markup=False, emoji=False, soft_wrap=True)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as Rich does; an error names standard output."""
        try:
            super().print(*objects, **options)
        except OSError as error:
            error.filename = "standard output"
            raise

    def on_broken_pipe(self) -> None:
        """Raise the error; Rich would end the program, with what it has learned."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    def print_pairs(self, pairs: Mapping[str, object], indent: int = 0) -> None:
        """Print a line per name, with the values below each other."""
        width = max(map(len, pairs))
        for key, value in pairs.items():
            self.print(f"{' ' * indent}{key:<{width}}  {value}")


def escape_characters() -> None:
    """Print a backslash escape for each character that the encoding of standard output does not have."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def plain_warnings() -> None:
    """Print each warning in one line, as errors are."""
    warnings.formatwarning = lambda message, *_, **__: f"xpnet: warning: {' '.join(str(message).split())}\n"


def fail(message: str, status: int) -> int:
    """Print an error in one line on standard error, if there is a reader, and return the exit status."""
    try:
        print(f"xpnet: error: {' '.join(message.split())}", file=sys.stderr, flush=True)
    except OSError:
        _discard(sys.stderr)
    return status


def lost_output() -> OSError | None:
    """Return the error of a standard output that cannot be written, and discard the rest of it."""
    try:
        if sys.stdout is not None:  # None if it was closed before the program started
            sys.stdout.flush()
    except OSError as error:
        _discard(sys.stdout)
        return error
    return None


def _discard(stream: TextIO) -> None:
    """Let a stream lead nowhere. Python writes what is left in it at exit, and would fail again."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)

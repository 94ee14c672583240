"""The commands together, and how each ends: exit status, and one line for an error."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

import xpnet
from xpnet.cli.checks import gradcheck, graph, info
from xpnet.cli.examples import EXAMPLES, as_text
from xpnet.cli.results import evaluate, export, predict, report, runs
from xpnet.cli.text import generate
from xpnet.cli.train import train
from xpnet.cli.welcome import welcome
from xpnet.console import Output, escape_characters, fail, lost_output, plain_warnings
from xpnet.interrupts import Ended

__all__ = ["app", "run"]

app = typer.Typer(rich_markup_mode=None)

INTERRUPTED = 130
"""Exit status that Typer returns for a KeyboardInterrupt (Ctrl-C)."""


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"xpnet {xpnet.__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def main(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Neural networks on NumPy or CuPy: train, check and time them by one flag."""
    if context.invoked_subcommand is None:
        Output().print(welcome())


for command in (train, generate, predict, evaluate, report, export, runs, gradcheck, graph, info):
    app.command(epilog=as_text(EXAMPLES[command.__name__]))(command)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status. Every error is one line on standard error."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    escape_characters()
    plain_warnings()
    status = _run(arguments)
    lost = lost_output()
    return status if lost is None else status or fail(f"{lost.strerror}: standard output", 1)


def _run(arguments: list[str]) -> int:  # noqa: PLR0911 - one per kind of error
    try:
        status = int(app(arguments, prog_name="xpnet", standalone_mode=False) or 0)
        return fail("interrupted", status) if status == INTERRUPTED else status
    except Ended as ended:
        return fail(str(ended), 128 + ended.number)
    except SystemExit as end:  # Typer's: completions end so, and what has no reader, as in `xpnet info | head -1`
        return int(end.code or 0)
    except typer.TyperException as error:  # a usage error, or a value that an option does not take
        return fail(error.format_message(), 2)
    except typer.Abort:
        return fail("aborted", 1)
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        return fail(f"{error.strerror or error}{where}", 1)
    except ImportError as error:
        return fail(str(error), 1)
    except (ValueError, FloatingPointError, xpnet.DeviceError) as error:
        return fail(str(error), 1)
    except MemoryError as error:
        return fail(f"out of memory: {error}", 1)
    except Exception as error:  # noqa: BLE001 - a fault of xpnet, in one line
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{place.filename}:{place.lineno}"
        return fail(f"unexpected {type(error).__name__} at {where}: {error}; please report this", 1)

"""The ``xpnet`` command, also as ``python -m xpnet``."""

import sys


def main() -> None:
    """Run the command line, or print which package it needs."""
    try:
        from xpnet.cli import run
    except KeyboardInterrupt:
        sys.exit(130)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"typer", "rich", "threadpoolctl"}:
            raise
        sys.exit(f"xpnet: the command line needs {error.name}; install it with pip install typer rich threadpoolctl")
    sys.exit(run())


if __name__ == "__main__":
    main()

"""The ``xpnet`` command, also as ``python -m xpnet``."""

import sys

from xpnet.extras import import_extra


def main() -> None:
    """Run the command line, or print which package it needs."""
    try:
        for package in ("typer", "rich.progress", "threadpoolctl"):
            import_extra(package, "cli")
        from xpnet.cli import run
    except KeyboardInterrupt:
        sys.exit(130)
    except ImportError as error:
        sys.exit(f"xpnet: error: {error}")
    sys.exit(run())


if __name__ == "__main__":
    main()

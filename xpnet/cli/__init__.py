"""The ``xpnet`` command line: it parses, calls the library, and prints."""

from xpnet.cli.app import app, run

__all__ = ["app", "run"]

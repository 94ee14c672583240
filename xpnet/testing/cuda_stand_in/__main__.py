"""Build the environment: ``python -m xpnet.testing.cuda_stand_in build FOLDER``."""

from __future__ import annotations

import argparse
import pathlib

from xpnet.testing.cuda_stand_in.build import build


def main() -> None:
    """Build, and print how to use what was built."""
    parser = argparse.ArgumentParser(prog="python -m xpnet.testing.cuda_stand_in", description="CuPy without a GPU.")
    parser.add_argument("command", choices=["build"])
    parser.add_argument("folder", type=pathlib.Path, help="folder of a virtual environment, made if missing")
    python = build(parser.parse_args().folder)
    print(f"CuPy on the stand-in: {python}")


if __name__ == "__main__":
    main()

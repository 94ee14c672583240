"""Write a report of benchmark results: tables, and on request a picture. Several results are told apart by file.

The results are JSON files that `python -m pytest benchmarks --benchmark-json=FILE` wrote.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


def main(argv: Sequence[str] | None = None) -> int:
    """Read, render all, then write all; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULT.json")
    parser.add_argument("--markdown", type=Path, help="where to write the tables; else they are printed")
    parser.add_argument("--fill", type=Path, metavar="README.md", help="where to bring the marked tables up to date")
    parser.add_argument("--picture", type=Path, help="where to draw training step and gradient: a .png or .svg file")
    arguments = parser.parse_args(argv)

    sys.path.append(str(BENCHMARKS))
    try:
        import report
    except ModuleNotFoundError as error:
        return fail(f"{error.name} is not installed; install it with pip install {error.name}")

    picture_format = arguments.picture and arguments.picture.suffix.removeprefix(".").lower()
    if arguments.picture and picture_format not in report.PICTURE_FORMATS:
        parser.error(f"--picture must end in .png or .svg, got {arguments.picture}")
    try:
        measurements = report.read(arguments.results)
        markdown = report.render_markdown(measurements)
        files = {}
        if arguments.markdown:
            files[arguments.markdown] = markdown.encode()
        if arguments.fill:
            text = arguments.fill.read_text(encoding="utf-8")
            files[arguments.fill] = report.fill_tables(text, measurements).encode()
        if arguments.picture:
            files[arguments.picture] = report.draw_picture(measurements, picture_format)
        write(files)
    except (report.Unreadable, OSError) as error:
        return fail(str(error))
    if not (arguments.markdown or arguments.fill):
        print(markdown, end="")
    if files:
        print("written:", *files, file=sys.stderr)
    return 0


def write(files: dict[Path, bytes]) -> None:
    """Write each file whole or not at all."""
    from xpnet.files import written_atomically

    for file, content in files.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        with written_atomically(file) as stream:
            stream.write(content)


def fail(message: str) -> int:
    """Say in a line what is wrong; return the exit status for it."""
    print(f"benchmark_report: error: {message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())

"""The page of a report. It needs only a browser, no script and no other file."""

from __future__ import annotations

from html import escape
from importlib import resources
from pathlib import Path
from string import Template

from xpnet.files import written_atomically
from xpnet.graph.labels import writable
from xpnet.report import sections
from xpnet.report.predictions import Predictions, predict_test_set
from xpnet.report.sections import omission
from xpnet.theme import style_sheet
from xpnet.training.run_folder import HISTORY, MODEL, RESULT
from xpnet.training.runs import Run

__all__ = ["page", "write_report"]

FILE = "report.html"


def write_report(folder: str | Path) -> Path:
    """Write ``report.html`` into the folder of a run, and return its path. Needs ``xpnet[cli,plot]``.

    The page has the run's result, learning curves, confusion matrix, precision and recall of each class (needs
    ``xpnet[sklearn]``), the most confidently wrong images, the first layer's weights, settings, timing and
    environment. All is read from the folder, and predicted for the test set that the settings name. Without these
    data, the page says why their sections are left out.

    Parameters
    ----------
    folder : str or Path
        The folder, as ``xpnet train`` wrote it.

    Raises
    ------
    ValueError
        If it is no run folder, the run has not written its results, or a file is damaged.
    OSError
        If a file cannot be read or written.
    ImportError
        If a package is missing; the error names it.
    """
    folder = Path(folder)
    run = Run.read(folder)
    for name in (MODEL, HISTORY, RESULT):
        run.file(name)
    try:
        predictions: Predictions | str = predict_test_set(run)
    except ValueError as error:
        predictions = str(error)
    text = page(run, predictions)
    with written_atomically(folder / FILE) as stream:
        stream.write(text.encode("utf-8"))
    return folder / FILE


def page(run: Run, predictions: Predictions | str) -> str:
    """Return the page of a run, and of its predictions for the test set or the reason why there are none."""
    if isinstance(predictions, str):
        of_data = dict.fromkeys(("Confusion matrix", "Classes", "Most confidently wrong"), omission(predictions))
    else:
        of_data = {
            "Confusion matrix": sections.confusion(predictions),
            "Classes": sections.class_table(predictions),
            "Most confidently wrong": sections.wrong(predictions),
        }
    parts = {
        "Summary": sections.summary(run),
        "Timing": sections.timing(run),
        "Learning curves": sections.curves(run),
        **of_data,
        "Weights of the first layer": sections.weights(run),
        "Settings": sections.settings(run),
        "Environment": sections.environment(run),
    }
    of_all = f"{run.result['steps']:,} of {run.settings.steps:,} steps"
    files = resources.files("xpnet.report")
    text = Template(files.joinpath("page.html").read_text("utf-8")).substitute(
        title=escape(f"Training run {run.name}"),
        lead=f"Complete after {run.result['steps']:,} steps." if run.result["complete"] else f"Not complete: {of_all}.",
        style=style_sheet() + files.joinpath("page.css").read_text("utf-8"),
        sections="\n".join(_section(number, *part) for number, part in enumerate(parts.items())),
    )
    return writable(text)  # a setting may hold any text


def _section(number: int, title: str, content: str) -> str:
    heading, kind = f"section-{number}", title.split(maxsplit=1)[0].lower()
    return (
        f'<section class="{kind}" aria-labelledby="{heading}">\n<h2 id="{heading}">{title}</h2>\n{content}\n</section>'
    )

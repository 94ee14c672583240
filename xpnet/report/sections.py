"""Sections of a report, as HTML."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from xpnet.device import asnumpy
from xpnet.report.pictures import draw_confusion, png, signed_colors, svg
from xpnet.report.predictions import Predictions
from xpnet.training.plots import draw_losses, draw_metric
from xpnet.training.runs import Run

__all__ = ["class_table", "confusion", "curves", "environment", "settings", "summary", "timing", "weights", "wrong"]

MOST_CLASSES = 50
"""Most classes of a confusion matrix that is drawn."""

MOST_WRONG = 24
"""Most wrong predictions that are shown."""

MOST_UNITS = 64
"""Most units or filters that are shown."""


def summary(run: Run) -> str:
    """Return network, result, device, duration, date and version."""
    network, last, environment = run.network, run.history.evaluations[-1:], run.result["environment"]
    metrics = {name.replace("_", " "): f"{value:.4f}" for e in last for name, value in e.metrics.items()}
    device = (environment.get("cuda") or {}).get("gpu") or environment.get("processor")
    facts = {
        "Network": f"{type(network).__name__}, {network.params.size:,} parameters, {network.dtype}",
        "Steps": f"{run.result['steps']:,}",
        **({name.capitalize(): text for name, text in metrics.items()} or {"Result": "not evaluated"}),
        "Device": f"{environment.get('device')} ({device}), by {run.result['backend']}",
        "Duration": f"{last[0].seconds:,.1f} s" if last else "not measured",
        "Results written": f"{run.ended:%Y-%m-%d %H:%M} UTC",
        "xpnet": environment.get("xpnet"),
    }
    return _facts(facts)


def curves(run: Run) -> str:
    """Return the learning curves: losses, and the metric of each set."""
    if not run.history.losses:
        return omission("there are no training steps.")
    losses, evaluations = run.history.losses, run.history.evaluations
    pictures = [
        svg(
            lambda axes: draw_losses(axes, run.history),
            "losses",
            f"Training loss of {len(losses):,} steps, {losses[0]:.4f} at the first and {losses[-1]:.4f} at the last",
            (5.2, 3.4),
        )
    ]
    if evaluations:
        last = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in evaluations[-1].metrics.items())
        description = f"Metric of each set at {len(evaluations)} evaluations; at the last one: {last}"
        pictures.append(svg(lambda axes: draw_metric(axes, run.history), "metric", description, (5.2, 3.4)))
    return f'<div class="pictures">{"".join(pictures)}</div>'


def confusion(predictions: Predictions) -> str:
    """Return the confusion matrix as a picture."""
    number, matrix = len(predictions.classes), predictions.confusion
    if number > MOST_CLASSES:
        return omission(f"there are {number} classes; at most {MOST_CLASSES} are drawn.")
    right = int(np.trace(matrix))
    text = f"{right:,} of {matrix.sum():,} test images are right ({right / matrix.sum():.4f})."
    side = max(4.6, 0.17 * number + 1.5)
    picture = svg(
        lambda axes: draw_confusion(axes, matrix, predictions.classes),
        "confusion",
        f"Confusion matrix of {number} classes. {text} The next section has the numbers of each class.",
        (side, side),
    )
    note = "A cell is as opaque as the square root of its share of the row, so that few errors can be seen too."
    size = "large" if number > 20 else "square"
    return (
        f'<p>{text} {note}</p><div class="picture {size}" tabindex="0" role="region" aria-label="Confusion matrix">'
        f"{picture}</div>"
    )


def class_table(predictions: Predictions) -> str:
    """Return a table of precision, recall, F1 and number of images of each class."""
    number = len(predictions.classes)
    support = predictions.confusion.sum(axis=1)
    try:
        scores = predictions.class_scores()
        columns = [[_share(value) for value in column] for column in (scores.precision, scores.recall, scores.f1)]
        note = ""
    except ImportError as error:
        columns, note = [["\u2013"] * number] * 3, f"<p>No precision, recall and F1: {escape(str(error))}.</p>"
    rows = zip(predictions.classes, *columns, (f"{count:,}" for count in support), strict=True)
    return note + _table(("class", "precision", "recall", "F1", "images"), rows)


def wrong(predictions: Predictions) -> str:
    """Return the images of the wrong predictions with the highest probabilities."""
    chosen = predictions.most_confidently_wrong(MOST_WRONG)
    if not len(chosen):
        return "<p>No test image is wrong.</p>"
    shape = predictions.samples.shape[1:]
    if len(shape) != 3 or shape[0] not in (1, 3):
        return omission(f"samples of the shape {shape} are no pictures of 1 or 3 channels.")
    predicted, names = predictions.predicted, predictions.classes
    figures = []
    for i in chosen:
        label, guess = escape(names[predictions.labels[i]]), escape(names[predicted[i]])
        pixels = np.broadcast_to(predictions.samples[i].transpose(1, 2, 0), (*shape[1:], 3))
        figures.append(
            f'<figure><img src="{png(pixels)}" alt="Test image {i}"><figcaption>label <b>{label}</b><br>'
            f"predicted <b>{guess}</b><br>{predictions.probabilities[i].max():.2%}</figcaption></figure>"
        )
    all_wrong = int((predicted != predictions.labels).sum())
    return (
        f"<p>{len(chosen)} of {all_wrong:,} wrong predictions: label, prediction and its probability.</p>"
        f'<div class="images">{"".join(figures)}</div>'
    )


def weights(run: Run) -> str:
    """Return the weights of the first layer as pictures, one per unit or filter."""
    image = run.sample_shape
    matrices = [asnumpy(values) for values in run.network.params.values() if values.ndim > 1]
    first = matrices[0] if matrices else np.empty(0)
    if first.ndim == 4 and first.shape[1] == 1:
        shown, kind = first[:, 0], "filters"
    elif first.ndim == 2 and len(image) == 3 and image[0] == 1 and len(first) == math.prod(image):
        shown, kind = first.T.reshape(-1, *image[1:]), "units"
    else:
        return omission(f"weights of the shape {first.shape} are no pictures of one channel.")
    total, shown = len(shown), shown[:MOST_UNITS].astype("float64")
    largest = float(np.abs(shown).max())
    pictures = "".join(f'<img src="{png(signed_colors(unit, largest or 1.0))}" alt="">' for unit in shown)
    number = f"All {total} {kind}" if total == len(shown) else f"The first {len(shown)} of {total} {kind}"
    return (
        f"<p>{number}. Orange is positive, blue negative, and the background zero; the strongest color is "
        f"{largest:.3g}.</p>"
        f'<div class="images {kind}" role="img" aria-label="{number} of the first layer">{pictures}</div>'
    )


def settings(run: Run) -> str:
    """Return all settings."""
    return _facts({name: _text(value) for name, value in run.result["settings"].items()})


def timing(run: Run) -> str:
    """Return duration, steps per second and the number of evaluations."""
    if not run.history.evaluations:
        return omission("the time is taken by evaluations, and there was none.")
    last = run.history.evaluations[-1]
    return _facts(
        {
            "Duration": f"{last.seconds:,.2f} s",
            "Steps per second": f"{last.step / last.seconds:,.0f}, evaluations included" if last.seconds else "\u2013",
            "Evaluations": f"{len(run.history.evaluations):,}",
            "Epochs": f"{last.epoch:,.2f}",
        }
    )


def environment(run: Run) -> str:
    """Return versions and hardware."""
    facts: dict[str, Any] = {}
    for name, value in run.result["environment"].items():
        facts |= {f"{name} {key}": part for key, part in value.items()} if isinstance(value, Mapping) else {name: value}
    return _facts({name: _text(value) for name, value in facts.items()})


def omission(reason: str) -> str:
    """Return a paragraph in place of a section's content."""
    return f'<p class="omitted">Left out: {escape(reason)}</p>'


def _text(value: Any) -> str:
    """Return a setting as text."""
    if value is None:
        return "none"
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _share(value: float) -> str:
    return "\u2013" if math.isnan(value) else f"{value:.4f}"


def _facts(facts: Mapping[str, Any]) -> str:
    rows = "".join(f'<tr><th scope="row">{escape(k)}</th><td>{escape(str(v))}</td></tr>' for k, v in facts.items())
    return f'<div class="table"><table><tbody>{rows}</tbody></table></div>'


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{escape(title)}</th>' for title in header)
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in cells)}</tr>'
        for name, *cells in rows
    )
    return (
        f'<div class="table"><table class="numbers"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )

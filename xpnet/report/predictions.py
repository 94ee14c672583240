"""Predictions for a run's test set, and what they show."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xpnet import functions
from xpnet.device import asnumpy
from xpnet.extras import import_extra
from xpnet.report.run import Run

__all__ = ["ClassScores", "Predictions", "predict_test_set"]

BATCH = 100
"""Samples that are predicted at a time: few enough for the values of a convolution to stay in the cache."""


@dataclass(frozen=True, eq=False)
class ClassScores:
    """Precision, recall and F1 of each class, (C,) each; NaN for what is 0/0."""

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray


@dataclass(frozen=True, eq=False)
class Predictions:
    """Test images and the probabilities of their classes.

    Attributes
    ----------
    images : (N, C, H, W)
        The images, uint8.
    labels : (N,)
        Their class ids.
    probabilities : (N, K)
        Probability of each class, for each image.
    classes : tuple of str
        Names of the K classes.
    """

    images: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray
    classes: tuple[str, ...]

    @property
    def predicted(self) -> np.ndarray:
        """The most probable class of each image, (N,)."""
        classes: np.ndarray = self.probabilities.argmax(axis=1)
        return classes

    @property
    def confusion(self) -> np.ndarray:
        """Number of images by label (row) and prediction (column), (K, K)."""
        number = len(self.classes)
        pairs = self.labels * number + self.predicted
        return np.bincount(pairs, minlength=number * number).reshape(number, number)

    def class_scores(self) -> ClassScores:
        """Return precision, recall and F1 of each class. Needs ``xpnet[sklearn]``."""
        metrics = import_extra("sklearn.metrics", "sklearn")
        ids = np.arange(len(self.classes))
        precision, recall, f1, _ = metrics.precision_recall_fscore_support(
            self.labels, self.predicted, labels=ids, zero_division=np.nan
        )
        return ClassScores(precision, recall, f1)

    def most_confidently_wrong(self, number: int) -> np.ndarray:
        """Return the indices of the wrong predictions with the highest probabilities, at most `number` of them."""
        wrong = np.flatnonzero(self.predicted != self.labels)
        order = np.argsort(-self.probabilities[wrong].max(axis=1), kind="stable")
        return wrong[order[:number]]


def predict_test_set(run: Run) -> Predictions:
    """Return the network's predictions for the test set that the settings name.

    Raises
    ------
    ValueError
        If the data are not there or do not fit the network, or the network does not classify.
    """
    network = run.network
    if not network.last_layer.classifies:
        raise ValueError(f"{type(network.last_layer).__name__} is the loss of a regression; there are no classes")
    try:
        _, (images, labels) = run.settings.load_data()
    except (OSError, TypeError) as error:
        raise ValueError(f"the data cannot be read: {error}") from None
    inputs = images.reshape(len(images), -1) if run.settings.recipe.flat else images
    parts = (slice(start, start + BATCH) for start in range(0, len(images), BATCH))
    scores = np.concatenate([asnumpy(network.predict(network.device.asarray(inputs[part]))) for part in parts])
    number = scores.shape[-1]
    if scores.ndim != 2 or number < 2:
        raise ValueError(f"the scores have the shape {scores.shape}, where (N, classes) was expected")
    if labels.max() >= number:
        raise ValueError(f"the test set has the label {labels.max()}, the network only {number} classes")
    return Predictions(images, labels, functions.softmax(scores), tuple(map(str, range(number))))

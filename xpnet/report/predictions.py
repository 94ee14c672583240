"""Predictions for a run's test set, and what they show."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xpnet.extras import import_extra
from xpnet.training.runs import Run

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
    """Test samples and the probabilities of their classes.

    Attributes
    ----------
    samples : (N, ...)
        The samples; images are uint8 (N, C, H, W).
    labels : (N,)
        Their class ids.
    probabilities : (N, K)
        Probability of each class, for each sample.
    classes : tuple of str
        Names of the K classes.
    """

    samples: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray
    classes: tuple[str, ...]

    @property
    def predicted(self) -> np.ndarray:
        """The most probable class of each sample, (N,)."""
        classes: np.ndarray = self.probabilities.argmax(axis=1)
        return classes

    @property
    def confusion(self) -> np.ndarray:
        """Number of samples by label (row) and prediction (column), (K, K)."""
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
    if network.is_language_model:
        raise ValueError("a language model predicts the next byte of a text; xpnet generate shows what it has learned")
    try:
        data = run.dataset()
    except (OSError, TypeError) as error:
        raise ValueError(f"the data cannot be read: {error}") from None
    if data.x_test is None or data.t_test is None:
        raise ValueError("the data set has no test set")
    source = run.settings.source
    probabilities = run.probabilities(network, run.shaped(data.x_test, source))
    return Predictions(data.x_test, data.t_test, probabilities, run.classes or ())

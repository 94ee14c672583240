"""What all estimators share: reading of data, labels and weights; training; scores, labels and probabilities."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
from scipy.sparse import issparse
from sklearn import get_config
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils import check_array, check_consistent_length, column_or_1d, gen_batches
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets, type_of_target, unique_labels
from sklearn.utils.validation import check_is_fitted, validate_data

from xpnet.device import asnumpy, get_array_module, get_device, is_on_host
from xpnet.nets import Network
from xpnet.optimizers import Optimizer
from xpnet.sklearn.callbacks import CallbackSupportMixin
from xpnet.training import Trainer
from xpnet.typing import Array

__all__ = ["Classifier", "NetworkEstimator", "Regressor", "dense"]

PREDICTED = 1000
"""Samples per prediction. Sparse samples are dense only inside it."""


class NetworkEstimator(CallbackSupportMixin, BaseEstimator):  # type: ignore[misc]
    """Base of the estimators. A subclass sets `net_` and `optimizer_` in fit.

    Attributes
    ----------
    net_ : Network
        The trained network.
    optimizer_ : Optimizer
        The update rule with its state.
    """

    net_: Network
    optimizer_: Optimizer
    reading: ClassVar[dict[str, Any]] = {}
    """Keyword arguments of ``validate_data`` for samples."""

    def _read(self, X: Any, reset: bool = False) -> Any:
        """Check samples: an array, or a matrix in the format CSR. A CuPy array stays where it is."""
        _check_dispatch(X)
        return _as_numbers(validate_data(self, X, reset=reset, **self.reading))

    def _read_pair(self, X: Any, y: Any, reset: bool = False, **checks: Any) -> tuple[Any, np.ndarray]:
        """Check samples and their labels or targets, which are then on the host."""
        _check_dispatch(X)
        X, y = validate_data(self, X, _on_host(y), reset=reset, multi_output=True, **checks, **self.reading)
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        return _as_numbers(X), y

    def _counted(
        self, X: Any, y: np.ndarray, sample_weight: Any, class_weight: Any = None
    ) -> tuple[Any, np.ndarray, np.ndarray | None]:
        """Return samples, targets and weights, without the samples of weight 0: they are as if absent."""
        weight = None if class_weight is None else compute_sample_weight(class_weight, y)
        if sample_weight is not None:
            given = column_or_1d(
                check_array(_on_host(sample_weight), ensure_2d=False, dtype="float64", input_name="sample_weight")
            )
            check_consistent_length(X, given)
            weight = given if weight is None else given * weight
        if weight is None or weight.all():
            return X, y, weight
        counted = np.flatnonzero(weight)
        if not len(counted):
            raise ValueError("all weights of samples are zero; at least one must be positive")
        return X[counted], y[counted], weight[counted]

    def _trainer(
        self, X: Any, t: np.ndarray, weight: np.ndarray | None, batch_size: int, seed: int | None, **settings: Any
    ) -> Trainer:
        """Return the trainer of `net_`; without a seed the minibatches are in the samples' order."""
        settings |= {"optimizer": self.optimizer_, "verbose": False, "mini_batch_size": batch_size}
        if seed is None or issparse(X):
            return Trainer(self.net_, _Minibatches(X, t, weight, batch_size, seed), **settings)
        return Trainer(self.net_, X, t, sample_weight=weight, sampling="shuffled", seed=seed, **settings)

    def _scores(self, X: Any) -> Array:
        """Return the network's scores of checked samples, where the samples are."""
        net = self.net_
        if not (is_on_host(X) or net.device.holds(X)):
            raise ValueError(f"X is on {get_device(X)}, the network on {net.device}; use device={str(get_device(X))!r}")
        back = asnumpy if is_on_host(X) else net.device.asarray
        scores = [back(net.predict(net.device.asarray(dense(X[part])))) for part in gen_batches(X.shape[0], PREDICTED)]
        return get_array_module(scores[0]).concatenate(scores)


class Classifier(ClassifierMixin, NetworkEstimator):  # type: ignore[misc]
    """Labels and probabilities of a network that ends in softmax or in sigmoids.

    Attributes
    ----------
    classes_ : (C,)
        The labels, sorted; for multi-label problems the columns' numbers.
    """

    classes_: np.ndarray

    def _check_classes(self, classes: Any) -> None:
        """Check the argument `classes` of partial_fit."""
        known = vars(self).get("classes_")
        if known is None and classes is None:
            raise ValueError("classes must be passed on the first call to partial_fit: the labels of all calls")
        if known is not None and classes is not None and not np.array_equal(known, np.unique(classes)):
            raise ValueError(f"classes is {classes}, but the first call had {known.tolist()}")

    def _learn_classes(self, y: Any, classes: Any = None) -> None:
        """Keep the labels, those of `classes` if given. Several labels per sample are y's columns."""
        if classes is not None and not type_of_target(y).startswith("multilabel"):
            y = np.asarray(classes)
        check_classification_targets(y)
        self._binarizer = LabelBinarizer().fit(y)
        self.classes_ = self._binarizer.classes_

    @property
    def _is_multilabel(self) -> bool:
        return str(self._binarizer.y_type_).startswith("multilabel")

    def _targets(self, y: np.ndarray, outputs: int) -> np.ndarray:
        """Return the labels for the network's loss: class ids, or a column of 0 and 1 per output."""
        unknown = np.setdiff1d(unique_labels(y), self.classes_)
        if len(unknown):
            raise ValueError(f"y has the labels {unknown.tolist()}; those of the fit are {self.classes_.tolist()}")
        if self._is_multilabel or (outputs == 1 and len(self.classes_) < 3):
            return np.asarray(self._binarizer.transform(y), "float32")
        return np.searchsorted(self.classes_, y)

    def predict(self, X: Any) -> Array:
        """Return the predicted labels, (N,), or (N, C) for a multi-label problem."""
        probabilities = self.predict_proba(X)
        return self._labels(probabilities)

    def predict_proba(self, X: Any) -> Array:
        """Return the probabilities of the classes, (N, C)."""
        return self._probabilities(self._checked_scores(X))

    def predict_log_proba(self, X: Any) -> Array:
        """Return the logarithms of the probabilities, (N, C); -inf for a probability of 0."""
        probabilities = self.predict_proba(X)
        with np.errstate(divide="ignore"):
            return get_array_module(probabilities).log(probabilities)

    def _checked_scores(self, X: Any) -> Array:
        check_is_fitted(self)
        return self._scores(self._read(X))

    def _probabilities(self, scores: Array) -> Array:
        xp = get_array_module(scores)
        if len(self.classes_) == 1:
            return xp.ones((len(scores), 1), scores.dtype)
        if scores.shape[1] == 1:
            scores = xp.concatenate([-scores, scores], axis=1)
        return self.net_.last_layer.probabilities(scores)

    def _labels(self, probabilities: Array) -> Array:
        """Return labels where the probabilities are. Only numbers can be on a CUDA device; others are on the host."""
        if is_on_host(probabilities):
            if self._is_multilabel:
                return self._binarizer.inverse_transform(probabilities)
            return self.classes_[probabilities.argmax(axis=1)]
        if self._is_multilabel:
            return (probabilities > 0.5).astype(int)
        ids = probabilities.argmax(axis=1)
        is_numeric = self.classes_.dtype.kind in "biuf"
        return get_device(ids).asarray(self.classes_)[ids] if is_numeric else self.classes_[asnumpy(ids)]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class Regressor(RegressorMixin, NetworkEstimator):  # type: ignore[misc]
    """Predictions for regression."""

    def predict(self, X: Any) -> Array:
        """Return the predicted targets, (N,), or (N, K) for several targets."""
        check_is_fitted(self)
        return self._outputs(self._scores(self._read(X)))

    def _outputs(self, scores: Array) -> Array:
        """Return predictions from scores."""
        return scores[:, 0] if scores.shape[1:] == (1,) else scores


class _Minibatches:
    """Minibatches of sparse samples, which become dense a minibatch at a time, or of samples in their order."""

    def __init__(self, X: Any, t: np.ndarray, weight: np.ndarray | None, batch_size: int, seed: int | None) -> None:
        self.X, self.targets, self.batch_size = X, (t,) if weight is None else (t, weight), batch_size
        self.rng = None if seed is None else np.random.default_rng(seed)

    def __len__(self) -> int:
        return math.ceil(int(self.X.shape[0]) / self.batch_size)

    def __iter__(self) -> Iterator[tuple[np.ndarray, ...]]:
        order = None if self.rng is None else self.rng.permutation(self.X.shape[0])
        for part in gen_batches(self.X.shape[0], self.batch_size):
            chosen = part if order is None else order[part]
            yield dense(self.X[chosen]), *(array[chosen] for array in self.targets)


def dense(X: Any) -> Array:
    """Return samples as an array."""
    return X.toarray() if issparse(X) else X


def _on_host(y: Any) -> Any:
    # scikit-learn itself reads what is on the host: lists, tables, None, sparse matrices.
    return y if is_on_host(y) else asnumpy(y)


def _as_numbers(X: Any) -> Any:
    # A network takes uint8 for pixels. In scikit-learn, they are numbers like others.
    return X.astype("float32") if X.dtype == np.uint8 else X


def _check_dispatch(X: Any) -> None:
    if not (is_on_host(X) or get_config()["array_api_dispatch"]):
        raise TypeError(
            "X is on a CUDA device, and scikit-learn takes NumPy arrays only; set SCIPY_ARRAY_API=1 in the "
            "environment, and call sklearn.set_config(array_api_dispatch=True)"
        )

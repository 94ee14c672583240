"""Multi-layer perceptrons in place of scikit-learn's ``MLPClassifier`` and ``MLPRegressor``."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils.metaestimators import available_if

from xpnet import settings
from xpnet.device import get_array_module
from xpnet.layers import IdentityWithLoss, Loss, SigmoidWithLoss, SoftmaxWithLoss
from xpnet.sklearn.base import Classifier, Regressor
from xpnet.sklearn.multilayer import MLP
from xpnet.sklearn.perceptron import CountsWithLoss, LabelsWithLoss
from xpnet.typing import Array

__all__ = ["MLPClassifier", "MLPRegressor"]


class MLPClassifier(Classifier, MLP):
    """Multi-layer perceptron for classification, in place of ``sklearn.neural_network.MLPClassifier``.

    Dtype and layout follow scikit-learn: float32 samples train a float32 network, all others a float64 one. ``uint8``
    samples are numbers, not pixels. Labels may be of any type; a matrix of 0 and 1 is a multi-label problem.

    Parameters
    ----------
    hidden_layer_sizes, activation, solver, alpha, batch_size, learning_rate, learning_rate_init, power_t, max_iter, \
    shuffle, random_state, tol, verbose, warm_start, momentum, nesterovs_momentum, early_stopping, \
    validation_fraction, beta_1, beta_2, epsilon, n_iter_no_change, max_fun
        As in scikit-learn, in its order and with its defaults. `activation` may also be a name of xpnet's, such as
        ``"gelu"``, or a name per hidden layer.
    class_weight : dict or "balanced", optional
        Weights of the classes, as in scikit-learn's linear models. They multiply those of the samples.
    dropout : float in [0, 1), default 0
        Share of the hidden units that dropout sets to 0 in training.
    batch_normalization : bool, default False
        Whether batch normalization stands before the activation of each hidden layer. Not with ``solver="lbfgs"``.
    validation_data : (X, y), optional
        Samples for `validation_scores_` and `validation_loss_curve_`, and for early stopping in place of a part of the
        training set.
    device : str or Device, default "cpu"
        Where to compute: ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"auto"``. Predictions are where the samples are.

    Attributes
    ----------
    classes_, loss_, best_loss_, loss_curve_, validation_scores_, best_validation_score_, t_, coefs_, intercepts_, \
    n_features_in_, feature_names_in_, n_iter_, n_layers_, n_outputs_, out_activation_
        As in scikit-learn.
    validation_loss_curve_ : list of float or None
        Loss of the validation samples after each pass, without the penalty.
    net_ : Network
        The trained network.
    optimizer_ : Optimizer
        The update rule with its state. ``warm_start`` and `partial_fit` go on from it.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> model = MLPClassifier((20,), solver="lbfgs", random_state=0).fit(X / 8, y)
    >>> bool(model.score(X / 8, y) > 0.95)
    True
    """

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: int = 10,
        max_fun: int = 15000,
        class_weight: Any = None,
        dropout: float = 0.0,
        batch_normalization: bool = False,
        validation_data: Any = None,
        device: Any = "cpu",
    ) -> None:
        self._keep(locals())

    @available_if(lambda self: self.solver != "lbfgs")  # type: ignore[untyped-decorator]
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> Self:
        """Train for one pass, and keep what was learned before.

        Parameters
        ----------
        X, y, sample_weight
            As in `fit`.
        classes : (C,), optional
            All labels of all calls; required in the first one.
        """
        self._check_classes(classes)
        return self._fit(X, y, sample_weight, incremental=True, classes=classes)

    def _begin(self, y: np.ndarray, first: bool, classes: Any) -> None:
        if first:
            self._learn_classes(y, classes)

    def _loss(self, y: np.ndarray) -> tuple[Loss, int, str]:
        """Return the loss, the number of outputs, and the name of their activation."""
        if self._is_multilabel:
            return LabelsWithLoss(), len(self.classes_), "logistic"
        if len(self.classes_) > 2:
            return SoftmaxWithLoss(), len(self.classes_), "softmax"
        return SigmoidWithLoss(), 1, "logistic"

    def _score_of(self, y: np.ndarray, scores: np.ndarray, weight: np.ndarray | None) -> float:
        return float(accuracy_score(y, self._labels(self._probabilities(scores)), sample_weight=weight))


class MLPRegressor(Regressor, MLP):
    """Multi-layer perceptron for regression, in place of ``sklearn.neural_network.MLPRegressor``.

    Targets are (N,) or (N, K).

    Parameters
    ----------
    loss : {"squared_error", "poisson"}
        The loss: half the squared error, or half of Poisson's deviance, for targets of at least 0. With ``"poisson"``
        the network's scores are logarithms of the predictions.
    hidden_layer_sizes, ...
        As in `MLPClassifier`, without `class_weight`.

    Attributes
    ----------
    loss_, ...
        As in `MLPClassifier`, without `classes_`. The scores of validation are R^2.

    Examples
    --------
    >>> from sklearn.datasets import make_regression
    >>> X, y = make_regression(n_samples=100, n_features=5, random_state=0)
    >>> model = MLPRegressor(hidden_layer_sizes=(20,), solver="lbfgs", random_state=0, max_iter=1000).fit(X, y)
    >>> bool(model.score(X, y) > 0.99)
    True
    """

    def __init__(
        self,
        loss: str = "squared_error",
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: int = 10,
        max_fun: int = 15000,
        dropout: float = 0.0,
        batch_normalization: bool = False,
        validation_data: Any = None,
        device: Any = "cpu",
    ) -> None:
        self._keep(locals())

    @available_if(lambda self: self.solver != "lbfgs")  # type: ignore[untyped-decorator]
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train for one pass, and keep what was learned before. The arguments are those of `fit`."""
        return self._fit(X, y, sample_weight, incremental=True)

    def _begin(self, y: np.ndarray, first: bool, classes: Any) -> None:
        settings.choice("loss", self.loss, ("squared_error", "poisson"))
        if self.loss == "poisson" and y.min() < 0:
            raise ValueError(f"loss='poisson' needs targets y of at least 0, got {y.min()}; use 'squared_error'")

    def _loss(self, y: np.ndarray) -> tuple[Loss, int, str]:
        loss, activation = (CountsWithLoss(), "exp") if self.loss == "poisson" else (IdentityWithLoss(), "identity")
        return loss, 1 if y.ndim == 1 else y.shape[1], activation

    def _outputs(self, scores: Array) -> Array:
        outputs = super()._outputs(scores)
        return get_array_module(outputs).exp(outputs) if self.out_activation_ == "exp" else outputs

    def _targets(self, y: np.ndarray, outputs: int) -> np.ndarray:
        return y.reshape(len(y), -1).astype(self.net_.dtype)

    def _score_of(self, y: np.ndarray, scores: np.ndarray, weight: np.ndarray | None) -> float:
        return float(r2_score(y, self._outputs(scores), sample_weight=weight))

"""Estimators around any network of xpnet."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.utils import check_random_state

from xpnet.layers import SigmoidWithLoss, SoftmaxWithLoss
from xpnet.nets import Network
from xpnet.optimizers import get_optimizer
from xpnet.settings import count
from xpnet.sklearn.base import Classifier, NetworkEstimator, Regressor
from xpnet.sklearn.callbacks import Passes, with_callbacks
from xpnet.training import Trainer

__all__ = ["NetClassifier", "NetRegressor"]


class _NetEstimator(NetworkEstimator):
    """Base of both estimators: copies the network at fit, and trains the copy."""

    reading: ClassVar[dict[str, Any]] = {"allow_nd": True}

    net: Any
    epochs: int
    batch_size: int
    optimizer: Any
    optimizer_param: Any
    class_weight: Any = None
    validation_data: Any
    callbacks: Any
    random_state: Any

    @with_callbacks  # type: ignore[untyped-decorator]
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train a copy of the network on samples X, (N, ...), with labels or targets y and weights, (N,)."""
        context = self._init_callback_context(max_subtasks=self.epochs)
        return self._train(X, y, sample_weight, True, self.epochs, context=context)

    def _train(
        self, X: Any, y: Any, sample_weight: Any, first: bool, epochs: int, classes: Any = None, context: Any = None
    ) -> Self:
        X, y = self._read_pair(X, y, reset=first)
        if first:
            number = self._learn(y, classes)
            self.net_ = self.net.copy() if isinstance(self.net, Network) else self.net(self.n_features_in_, number)
            self.optimizer_ = copy.deepcopy(get_optimizer(self.optimizer, **(self.optimizer_param or {})))
            self._rng = check_random_state(self.random_state)
        X, y, weight = self._counted(X, y, sample_weight, self.class_weight)
        outputs = self._check_outputs(self._scores(X[:1]))
        valid = None
        if self.validation_data is not None:
            X_valid, y_valid = self._read_pair(*self.validation_data)
            valid = X_valid, self._targets(y_valid, outputs)
        passes = Passes(context, self, lambda: {"net_": self.net_.copy()}, X, y, weight)

        def after_epoch(trainer: Trainer) -> None:
            trainer.stop_training |= passes.end(trainer.finished)

        trainer = self._trainer(
            X,
            self._targets(y, outputs),
            None if weight is None else weight.astype(self.net_.dtype),
            min(count("batch_size", self.batch_size), len(X)),
            int(self._rng.randint(2**31 - 1)),
            epochs=epochs,
            validation_data=valid,
            callbacks=[*copy.deepcopy(list(self.callbacks)), after_epoch],
            evaluate_sample_num_per_epoch=None,
        )
        self.history_ = trainer.train()
        passes.close()
        return self

    def _learn(self, y: np.ndarray, classes: Any) -> int:
        """Keep what predictions need of y, and return its number of classes or targets."""
        raise NotImplementedError

    def _check_outputs(self, scores: np.ndarray) -> int:
        """Return the network's number of outputs, if they suit the estimator."""
        raise NotImplementedError

    def _targets(self, y: np.ndarray, outputs: int) -> np.ndarray:
        """Return labels or targets as the network's loss takes them."""
        raise NotImplementedError


class NetClassifier(Classifier, _NetEstimator):
    """Classification by any network of xpnet that ends in `SoftmaxWithLoss` or `SigmoidWithLoss`.

    Samples are (N, ...), such as images. ``uint8`` samples are numbers, not pixels.

    Parameters
    ----------
    net : Network, or function
        A network, of which `fit` trains a copy: every fit begins with its parameters. Or a function that is called
        with the number of features (the length of the second axis) and of classes, and returns a new network. It has
        an output per class; one of two classes, or of several labels per sample, may end in `SigmoidWithLoss`.
    epochs : int, default 20
        Passes over the samples.
    batch_size : int, default 100
        Samples per step.
    optimizer : str or Optimizer, default "adam"
        The update rule, or its name (`xpnet.optimizers.get_optimizer`). `fit` copies it.
    optimizer_param : mapping, optional
        Settings of the update rule.
    class_weight : dict or "balanced", optional
        Weights of the classes, as in scikit-learn. They multiply those of the samples.
    validation_data : (X, y), optional
        A set for callbacks, such as `EarlyStopping`.
    callbacks : sequence of Callback or function, default ()
        Callbacks of `Trainer`. `fit` copies them.
    random_state : int, RandomState or None, default None
        Seed of the minibatches.

    Attributes
    ----------
    classes_ : (C,)
        The labels.
    net_, optimizer_, history_ : Network, Optimizer, History
        The trained network, the update rule, and the losses and evaluations of the last call.
    n_features_in_, feature_names_in_
        As in scikit-learn.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from xpnet.nets import SimpleConvNet
    >>> X, y = load_digits(return_X_y=True)
    >>> net = SimpleConvNet((1, 8, 8), {"filter_num": 8, "filter_size": 3, "pad": 0, "stride": 1}, 50, 10, seed=0)
    >>> model = NetClassifier(net, epochs=5, optimizer_param={"lr": 0.01}, random_state=0)
    >>> model = model.fit(X.reshape(-1, 1, 8, 8) / 16, y)
    >>> bool(model.score(X.reshape(-1, 1, 8, 8) / 16, y) > 0.9)
    True
    """

    def __init__(
        self,
        net: Network | Callable[[int, int], Network],
        *,
        epochs: int = 20,
        batch_size: int = 100,
        optimizer: Any = "adam",
        optimizer_param: Any = None,
        class_weight: Any = None,
        validation_data: Any = None,
        callbacks: Sequence[Any] = (),
        random_state: Any = None,
    ) -> None:
        self.net, self.epochs, self.batch_size = net, epochs, batch_size
        self.optimizer, self.optimizer_param = optimizer, optimizer_param
        self.class_weight, self.validation_data = class_weight, validation_data
        self.callbacks, self.random_state = callbacks, random_state

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> Self:
        """Train for one pass, and keep what was learned before: the network and the update rule's state.

        Parameters
        ----------
        X, y, sample_weight
            As in `fit`.
        classes : (C,), optional
            All labels of all calls; required in the first one.
        """
        self._check_classes(classes)
        return self._train(X, y, sample_weight, not hasattr(self, "net_"), 1, classes)

    def _learn(self, y: np.ndarray, classes: Any) -> int:
        self._learn_classes(y, classes)
        if len(self.classes_) < 2:
            raise ValueError(f"y has only one class, {self.classes_.tolist()[0]!r}; a NetClassifier needs two or more")
        return len(self.classes_)

    def _check_outputs(self, scores: np.ndarray) -> int:
        loss, wanted = self.net_.last_layer, len(self.classes_)
        if not isinstance(loss, (SoftmaxWithLoss, SigmoidWithLoss)):
            raise TypeError(f"a NetClassifier needs SoftmaxWithLoss or SigmoidWithLoss, got {type(loss).__name__}")
        allowed = {wanted} | ({1} if isinstance(loss, SigmoidWithLoss) and wanted <= 2 else set())
        if scores.ndim != 2 or scores.shape[1] not in allowed:
            raise ValueError(f"the network has scores of shape {scores.shape[1:]}, but y has {wanted} classes")
        return int(scores.shape[1])


class NetRegressor(Regressor, _NetEstimator):
    """Regression by any network of xpnet that ends in a loss for regression, such as `IdentityWithLoss`.

    Targets are (N,) or (N, K).

    Parameters
    ----------
    net, epochs, batch_size, optimizer, optimizer_param, validation_data, callbacks, random_state
        As in `NetClassifier`; a function is called with the numbers of features and of targets.

    Attributes
    ----------
    net_, optimizer_, history_, n_features_in_, feature_names_in_
        As in `NetClassifier`.

    Examples
    --------
    >>> from sklearn.datasets import make_regression
    >>> from xpnet.layers import HuberWithLoss
    >>> from xpnet.nets import Sequential
    >>> X, y = make_regression(n_samples=200, n_features=5, random_state=0)
    >>> net = Sequential.mlp([5, 50, 1], loss=HuberWithLoss(), seed=0)
    >>> model = NetRegressor(net, epochs=200, random_state=0, optimizer_param={"lr": 0.01}).fit(X, y / y.std())
    >>> bool(model.score(X, y / y.std()) > 0.95)
    True
    """

    def __init__(
        self,
        net: Network | Callable[[int, int], Network],
        *,
        epochs: int = 20,
        batch_size: int = 100,
        optimizer: Any = "adam",
        optimizer_param: Any = None,
        validation_data: Any = None,
        callbacks: Sequence[Any] = (),
        random_state: Any = None,
    ) -> None:
        self.net, self.epochs, self.batch_size = net, epochs, batch_size
        self.optimizer, self.optimizer_param = optimizer, optimizer_param
        self.validation_data, self.callbacks, self.random_state = validation_data, callbacks, random_state

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train for one pass, and keep what was learned before. The arguments are those of `fit`."""
        return self._train(X, y, sample_weight, not hasattr(self, "net_"), 1)

    def _learn(self, y: np.ndarray, classes: Any) -> int:
        return 1 if y.ndim == 1 else int(y.shape[1])

    def _check_outputs(self, scores: np.ndarray) -> int:
        if self.net_.last_layer.classifies:
            name = type(self.net_.last_layer).__name__
            raise TypeError(f"a NetRegressor needs a loss for regression, such as IdentityWithLoss, got {name}")
        return 0

    def _targets(self, y: np.ndarray, outputs: int) -> np.ndarray:
        return y.astype(self.net_.dtype) if y.ndim > 1 else y.astype(self.net_.dtype)[:, None]

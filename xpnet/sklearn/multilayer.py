"""Training of a perceptron by scikit-learn's rules for rates, stops and attributes."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state, gen_batches

from xpnet import settings
from xpnet.blas import blas
from xpnet.device import Device, asnumpy
from xpnet.layers import Affine
from xpnet.optimizers import SGD, Adam, Optimizer
from xpnet.sklearn.base import NetworkEstimator
from xpnet.sklearn.callbacks import Passes, with_callbacks
from xpnet.sklearn.lbfgs import STOPPED, minimize
from xpnet.sklearn.perceptron import Perceptron
from xpnet.training import Trainer

__all__ = ["MLP"]

SHARED = 10**6
"""Least number of samples times parameters for a second thread, which each pass starts anew. With fewer, the start
takes longer than what the thread saves."""

DIVIDED = 4 * 10**6
"""Least number of samples in a minibatch times parameters for a BLAS of several threads. Smaller products gain little
from a second thread, and wait long for it on a busy machine: there a BLAS of one thread took a tenth of the time."""


class _Samples(NamedTuple):
    """Samples, what they are labeled with, the network's targets, and weights."""

    X: Any
    y: np.ndarray
    t: np.ndarray
    weight: np.ndarray | None = None


class MLP(NetworkEstimator):
    """Base of both estimators: fit, by scikit-learn's rules for rates, stops and attributes.

    A subclass defines ``_begin`` (what is learned from y before training), ``_loss`` and ``_score_of``.
    """

    net_: Perceptron
    best_loss_: Any  # numbers and lists, or None, depending on early_stopping
    best_validation_score_: Any
    validation_scores_: Any
    validation_loss_curve_: Any
    reading: ClassVar[dict[str, Any]] = {"accept_sparse": "csr", "dtype": (np.float64, np.float32)}

    @with_callbacks  # type: ignore[untyped-decorator]
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train on samples X, (N, D), dense or sparse, with labels or targets y and weights, (N,).

        A sample of weight 0 is as if absent. With ``warm_start=True``, training goes on from the last fit.
        """
        return self._fit(X, y, sample_weight, incremental=False)

    def _fit(self, X: Any, y: Any, sample_weight: Any, incremental: bool, classes: Any = None) -> Self:
        self._check_settings()
        if incremental and self.early_stopping:
            raise ValueError("partial_fit has no early stopping: it does one pass; use early_stopping=False")
        first = not (hasattr(self, "net_") and (self.warm_start or incremental))
        rng = check_random_state(self.random_state)
        X, y = self._read_pair(X, y, reset=first)
        self._begin(y, first, classes)
        X, y, weight = self._counted(X, y, sample_weight, getattr(self, "class_weight", None))
        self._prepare(X, y, first, rng)
        self._scores(X[:1])  # checks the place of the samples
        weight = None if weight is None else weight.astype(self.net_.dtype)
        train, valid = _Samples(X, y, self._targets(y, self.n_outputs_), weight), None
        if self.validation_data is not None:
            X_valid, y_valid = self._read_pair(*self.validation_data)
            valid = _Samples(X_valid, y_valid, self._targets(y_valid, self.n_outputs_))
        elif self.early_stopping and self.solver != "lbfgs":
            train, valid = self._split(train, rng)
        # A partial_fit is a pass of a loop outside, without callbacks.
        context = None if incremental else self._init_callback_context(max_subtasks=self.max_iter)
        passes = Passes(context, self, self._fitted, train.X, train.y, train.weight)
        if self.solver == "lbfgs":
            self._fit_at_once(train, passes)
        else:
            self._fit_by_minibatches(train, valid, incremental, rng, passes)
        passes.close()
        return self

    def _fitted(self) -> dict[str, Any]:
        """Return copies of the attributes that change in each pass."""
        curves = {name: getattr(self, name) for name in ("loss_curve_", "validation_scores_", "validation_loss_curve_")}
        return {"net_": self.net_.copy()} | {name: curve and list(curve) for name, curve in curves.items()}

    def _check_settings(self) -> None:
        settings.choice("solver", self.solver, ("lbfgs", "sgd", "adam"))
        settings.choice("learning_rate", self.learning_rate, ("constant", "invscaling", "adaptive"))
        settings.positive("learning_rate_init", self.learning_rate_init)
        for name in ("alpha", "power_t", "tol"):
            settings.not_negative(name, getattr(self, name))
        for name in ("max_iter", "max_fun"):
            settings.count(name, getattr(self, name))
        if self.n_iter_no_change != math.inf:
            settings.count("n_iter_no_change", self.n_iter_no_change)
        if self.batch_size != "auto":
            settings.count("batch_size", self.batch_size)
        settings.fraction("validation_fraction", self.validation_fraction)
        if settings.fraction("dropout", self.dropout) and self.solver == "lbfgs":
            raise ValueError("solver='lbfgs' needs the same loss at each evaluation; dropout needs 'adam' or 'sgd'")
        if self.batch_normalization and self.solver == "lbfgs":
            raise ValueError("batch_normalization averages over the minibatches of solver 'adam' or 'sgd', not 'lbfgs'")

    def _sizes(self) -> list[int]:
        given = self.hidden_layer_sizes
        hidden = [settings.count("hidden_layer_sizes", size) for size in (given if np.iterable(given) else [given])]
        return [self.n_features_in_, *hidden, self.n_outputs_]

    def _prepare(self, X: Any, y: np.ndarray, first: bool, rng: np.random.RandomState) -> None:
        """Create the network and the attributes of a first fit."""
        if first:
            loss, self.n_outputs_, self.out_activation_ = self._loss(y)
            sizes = self._sizes()
            names = [self.activation] * (len(sizes) - 2) if isinstance(self.activation, str) else list(self.activation)
            if len(names) != len(sizes) - 2:
                raise ValueError(f"activation has {len(names)} names for {len(sizes) - 2} hidden layers")
            device = Device(self.device)
            normalized = bool(self.batch_normalization)
            self.net_ = Perceptron(sizes, names, loss, self.dropout, normalized, rng, device, X.dtype)
            self.n_layers_, self.n_iter_, self.t_ = len(sizes), 0, 0
            self.loss_curve_: list[float] = []
            self.validation_scores_ = self.validation_loss_curve_ = None
            self.best_loss_ = None if self.early_stopping else math.inf
            self.best_validation_score_ = -math.inf if self.early_stopping else None
            self._best: dict[str, np.ndarray] = {}
            self._waited = 0
            self._kept: Optimizer | None = None
            self._rate: tuple[str, float] | None = None
        elif self._sizes() != [len(self.coefs_[0]), *map(len, self.intercepts_)]:
            raise ValueError(
                f"hidden_layer_sizes is {self.hidden_layer_sizes}, but the last fit had other layers; use "
                "warm_start=False to begin again"
            )

    def _split(self, train: _Samples, rng: np.random.RandomState) -> tuple[_Samples, _Samples]:
        """Set samples for early stopping aside."""
        binary = hasattr(self, "classes_") and self.n_outputs_ == 1
        parts = train_test_split(
            *(array for array in train if array is not None),
            random_state=rng,
            test_size=self.validation_fraction,
            stratify=train.y if binary else None,
        )
        kept, valid = _Samples(*parts[::2]), _Samples(*parts[1::2])
        if valid.X.shape[0] < 2:
            raise ValueError(
                "the validation set has fewer than 2 samples; raise validation_fraction, or pass validation_data"
            )
        return kept, valid

    def _fit_at_once(self, train: _Samples, passes: Passes) -> None:
        def after_iteration(found: Any) -> bool:
            self.n_iter_, self.loss_ = self.n_iter_ + 1, float(found.fun)
            return passes.end(self.n_iter_ == self.max_iter)

        self.net_.penalize(self.alpha, train.weight)
        self.n_iter_, limits = 0, (self.tol, self.max_iter, self.max_fun)
        found = minimize(self.net_, train.X, train.t, train.weight, *limits, after_iteration)
        self.loss_, self.n_iter_ = float(found.fun), min(int(found.nit), self.max_iter)
        if not found.success and found.status != STOPPED:
            warnings.warn(
                f"lbfgs has not converged after {found.nit} iterations: {found.message}. Raise max_iter or max_fun, or "
                "scale the data",
                ConvergenceWarning,
                stacklevel=4,
            )

    def _fit_by_minibatches(
        self, train: _Samples, valid: _Samples | None, incremental: bool, rng: np.random.RandomState, passes: Passes
    ) -> None:
        n = train.X.shape[0]
        size = min(200, n) if self.batch_size == "auto" else self.batch_size
        if size > n:
            warnings.warn(f"batch_size is {size}, but there are {n} samples: a minibatch has them all", stacklevel=4)
            size = n
        self.net_.penalize(self.alpha, train.weight)
        self.optimizer_ = self._optimizer()
        counts = [part.stop - part.start for part in gen_batches(n, size)]
        seed = int(rng.randint(2**31 - 1)) if self.shuffle else None
        if valid is not None:
            self.validation_scores_ = self.validation_scores_ or []
            self.validation_loss_curve_ = self.validation_loss_curve_ or []
        self.n_iter_ = 0
        after_epoch = partial(self._after_epoch, counts, valid, passes)
        epochs = 1 if incremental else self.max_iter
        parameters, run = self.net_.params.flat.size, {"epochs": epochs, "callbacks": [after_epoch]}
        run["threads"] = 1 if n * parameters < SHARED else None
        trainer = self._trainer(train.X, train.t, train.weight, size, seed, **run)
        trainer.sets.clear()  # _after_epoch evaluates, by scikit-learn's metrics
        try:
            with blas if size * parameters < DIVIDED else nullcontext():
                trainer.train()
        except KeyboardInterrupt:
            warnings.warn("training was interrupted; the estimator keeps what it learned so far", stacklevel=4)
        else:
            if not (incremental or trainer.stop_training):
                warnings.warn(
                    f"the loss still falls after max_iter={self.max_iter} passes; raise max_iter for a better fit",
                    ConvergenceWarning,
                    stacklevel=4,
                )
        if self.early_stopping and self._best:
            self.net_.load_state(self._best)

    def _optimizer(self) -> Optimizer:
        """Return the update rule, with the state of the last fit or partial_fit, if it goes on from there."""
        kept = self._kept
        optimizer: Optimizer
        if self.solver == "sgd":
            optimizer = SGD(self.learning_rate_init, self.momentum, bool(self.nesterovs_momentum and self.momentum))
        else:
            optimizer = Adam(self.learning_rate_init, self.beta_1, self.beta_2, self.epsilon)
        if kept is not None and kept.state_names == optimizer.state_names:
            optimizer.steps, optimizer.state = kept.steps, dict(kept.state)
            if self._rate == (self.learning_rate, self.learning_rate_init):
                optimizer.lr = kept.lr
        self._rate, self._kept = (self.learning_rate, self.learning_rate_init), optimizer
        return optimizer

    def _after_epoch(self, counts: list[int], valid: _Samples | None, passes: Passes, trainer: Trainer) -> None:
        """Set the attributes of a pass, and stop or change the learning rate by scikit-learn's rules."""
        self.n_iter_ += 1
        self.t_ += sum(counts)
        self.loss_ = float(np.average(trainer.history.losses[-len(counts) :], weights=counts))
        self.loss_curve_.append(self.loss_)
        if self.verbose:
            print(f"Iteration {self.n_iter_}, loss = {self.loss_:.8f}")
        if valid is not None:
            self._validate(valid)
        if self.early_stopping:
            score, best = self.validation_scores_[-1], self.best_validation_score_
            waits = score < best + self.tol
            if score > best:
                self.best_validation_score_, self._best = score, self.net_.state()
        else:
            waits = self.loss_ > self.best_loss_ - self.tol
            self.best_loss_ = min(self.loss_, self.best_loss_)
        self._waited = self._waited + 1 if waits else 0
        optimizer = trainer.optimizer
        adapts = self.solver == "sgd" and self.learning_rate == "adaptive"
        if self.solver == "sgd" and self.learning_rate == "invscaling":
            optimizer.lr = self.learning_rate_init / (self.t_ + 1) ** self.power_t
        if self._waited > self.n_iter_no_change:
            if adapts and optimizer.current_lr > 1e-6:
                optimizer.lr, self._waited = optimizer.current_lr / 5.0, 0
            else:
                trainer.stop_training = True
            if self.verbose:
                print(
                    f"No improvement of {self.tol} in {self.n_iter_no_change} passes. "
                    + ("Stopping." if trainer.stop_training else f"Learning rate {optimizer.current_lr:g}.")
                )
        trainer.stop_training |= passes.end(trainer.finished)

    def _validate(self, valid: _Samples) -> None:
        scores, device = asnumpy(self._scores(valid.X)), self.net_.device
        loss = float(self.net_.last_layer.forward(device.asarray(scores), device.asarray(valid.t)))
        score = self._score_of(valid.y, scores, valid.weight)
        self.validation_loss_curve_.append(loss)
        self.validation_scores_.append(score)
        if self.verbose:
            print(f"Validation score: {score:.6f}, loss: {loss:.8f}")

    @property
    def coefs_(self) -> list[np.ndarray]:
        """Weights of each layer, (inputs, units), on the host."""
        return [asnumpy(layer.W) for layer in self._affine_layers()]

    @property
    def intercepts_(self) -> list[np.ndarray]:
        """Biases of each layer, (units,), on the host."""
        return [asnumpy(layer.b) for layer in self._affine_layers()]

    def _affine_layers(self) -> Iterator[Affine]:
        return (layer for layer in self.net_.layers.values() if isinstance(layer, Affine))

    def _keep(self, given: dict[str, Any]) -> None:
        """Keep the arguments of the constructor, unchanged."""
        for name in inspect.signature(type(self)).parameters:
            setattr(self, name, given[name])

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

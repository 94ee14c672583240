"""Training loop of section 5.7.4, with the interface of the book's ``Trainer``."""

import math
import time
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np

from xpnet.device import Device, asnumpy
from xpnet.inputs import as_array, check_equally_many
from xpnet.kernels import Backend, Precision
from xpnet.nets import Network
from xpnet.optimizers import Optimizer, get_optimizer
from xpnet.training.callbacks import Callback, PrintProgress
from xpnet.training.feed import HostFeed
from xpnet.training.history import Evaluation, History
from xpnet.typing import Array, Seed

__all__ = ["Trainer"]

EVALUATION_BATCH_SIZE = 10_000
"""Samples per transfer to a CUDA device in evaluations, if the data stay on the host."""


class Trainer:
    """Trains a network on random minibatches, and evaluates its accuracy once an epoch.

    Each step draws `mini_batch_size` samples with replacement (section 5.7.4), computes the gradient by
    backpropagation, and updates the parameters. One generator on the host draws the indices. Data, parameters and
    losses stay on the network's device.

    Parameters
    ----------
    network : Network
        The network to train. It is changed in place.
    x_train, x_test : (N, ...)
        Samples: floats, or pixels as ``uint8`` (`Network.predict`), as an array, table or list
        (`xpnet.inputs.as_array`). They are moved to the network's device, floats in its dtype. Samples that would take
        more than half of a CUDA device's free memory stay on the host, and are copied a few minibatches at a time.
    t_train, t_test : (N, C), (N,) or (N, 1) integers
        Labels.
    epochs : int, default 20
        Passes over the training set.
    mini_batch_size : int, default 100
        Samples per step.
    optimizer : str or Optimizer, default "sgd"
        The update rule, or its name (`xpnet.optimizers.get_optimizer`).
    optimizer_param : mapping, optional
        Settings of the update rule, in place of its defaults.
    evaluate_sample_num_per_epoch : int, optional
        Number of samples for accuracies, the first ones of each set; by default all.
    verbose : bool, default True
        Whether to print a line per epoch.
    steps : int, optional
        Number of steps, in place of `epochs`.
    seed : int or numpy.random.Generator, optional
        Seed of the minibatches. With the network's generator, one seed determines the whole run.
    callbacks : iterable of Callback
        Further callbacks.
    backend : {"numpy", "numba"}, optional
        Backend on the CPU; by default Numba, where it is installed and gains (`xpnet.steps.compile_step`).
    precision : {"float32", "tf32", "float16"}, default "float32"
        Precision of matrix products on a CUDA device, or of the layers (`xpnet.steps.compile_step`).

    Attributes
    ----------
    history : History
        Losses and evaluations so far.
    current_iter, max_iter, iter_per_epoch : int
        Steps so far, steps in all, and steps per epoch, rounded down.
    train_loss_list, train_acc_list, test_acc_list : list of float
        The history under the book's names.

    Raises
    ------
    ValueError
        If samples and labels do not fit together, or a setting is out of range.
    TypeError
        If a callback is not one.
    """

    REPORT_INTERVAL: ClassVar[int] = 100
    """Steps between two transfers of losses to the host. On a CUDA device each transfer waits for the queue."""

    def __init__(
        self,
        network: Network,
        x_train: Array,
        t_train: Array,
        x_test: Array,
        t_test: Array,
        epochs: int = 20,
        mini_batch_size: int = 100,
        optimizer: str | Optimizer = "sgd",
        optimizer_param: Mapping[str, Any] | None = None,
        evaluate_sample_num_per_epoch: int | None = None,
        verbose: bool = True,
        *,
        steps: int | None = None,
        seed: Seed = None,
        callbacks: Iterable[Callback] = (),
        backend: Backend | None = None,
        precision: Precision = "float32",
    ) -> None:
        for name, value in {
            "epochs": epochs,
            "mini_batch_size": mini_batch_size,
            "evaluate_sample_num_per_epoch": evaluate_sample_num_per_epoch,
            "steps": steps,
        }.items():
            if value is not None and (not isinstance(value, (int, np.integer)) or value < 1):
                raise ValueError(f"{name} must be a positive integer, got {value!r}")
        self.network = network
        if not isinstance(network, Network):
            raise TypeError(f"network must be an xpnet.nets.Network, got {type(network).__name__}")
        if not (optimizer_param is None or isinstance(optimizer_param, Mapping)):
            raise TypeError(f"optimizer_param must be a mapping of settings, got {type(optimizer_param).__name__}")
        self.optimizer = get_optimizer(optimizer, **(optimizer_param or {}))
        self.x_train, self.t_train = self._on_device("train", x_train, t_train)
        self.x_test, self.t_test = self._on_device("test", x_test, t_test)
        self.mini_batch_size = mini_batch_size
        self.evaluate_sample_num_per_epoch = evaluate_sample_num_per_epoch
        self.iter_per_epoch = max(len(self.x_train) // mini_batch_size, 1)
        self.max_iter = steps or self._steps_of(epochs)
        self.current_iter = 0
        self.history = History()
        self.callbacks = [*([PrintProgress()] if verbose else []), *callbacks]
        for callback in self.callbacks:
            if not isinstance(callback, Callback):
                raise TypeError(
                    f"callbacks must be instances of xpnet.training.Callback, got {callback!r}; "
                    "override on_steps or on_evaluation in a subclass, and pass an instance"
                )
        self._rng = network.device.rng(seed)
        self._step = network.compile(self.optimizer, mini_batch_size, backend, precision)
        self._feed: HostFeed | None = None
        if not network.device.holds(self.x_train):
            self._feed = HostFeed(network.device, self.x_train, self.t_train, mini_batch_size)
        self._seconds = 0.0

    @property
    def backend(self) -> Backend:
        """Backend of the steps on the CPU."""
        return self._step.backend

    @property
    def train_loss_list(self) -> list[float]:
        """The minibatch loss of each step."""
        return self.history.losses

    @property
    def train_acc_list(self) -> list[float]:
        """The accuracy on the training set at each evaluation."""
        return [evaluation.train_accuracy for evaluation in self.history.evaluations]

    @property
    def test_acc_list(self) -> list[float]:
        """The accuracy on the test set at each evaluation."""
        return [evaluation.test_accuracy for evaluation in self.history.evaluations]

    def train(self) -> History:
        """Run the remaining steps, and return the history.

        After an interruption (Ctrl-C, or an exception of a callback) trainer and network are in the state after the
        last whole step. Another call continues from there.

        Raises
        ------
        FloatingPointError
            If the loss is no longer finite.
        """
        started = time.perf_counter() - self._seconds
        try:
            # NumPy would warn of a diverging loss at every operation; _run reports it once.
            with self.network.device.activate(), np.errstate(over="ignore", invalid="ignore"):
                while True:
                    if self._evaluation_is_due():
                        self.history.evaluations.append(self._evaluate(started))
                        for callback in self.callbacks:
                            callback.on_evaluation(self)
                    if self.current_iter >= self.max_iter:
                        break
                    end = min(self._epoch_end(self.current_iter), self.max_iter)
                    self._run(min(self.REPORT_INTERVAL, end - self.current_iter))
                    for callback in self.callbacks:
                        callback.on_steps(self)
        finally:
            self._seconds = time.perf_counter() - started
        return self.history

    def _run(self, steps: int) -> None:
        """Run some steps, with one transfer of their indices to the device and one of their losses back."""
        device = self.network.device
        indices = self._rng.integers(0, len(self.x_train), (steps, self.mini_batch_size))
        losses = device.xp.zeros(steps, dtype=self.network.dtype)
        before = self._step.steps
        try:
            if self._feed is None:
                self._step.run(self.x_train, self.t_train, device.asarray(indices), losses)
            else:
                for part, x, t, places in self._feed.windows(indices):
                    self._step.run(x, t, places, losses[part])
        finally:
            done = self._step.steps - before
            self.current_iter += done
            self.history.losses.extend(asnumpy(losses[:done]).tolist())
        for i, loss in enumerate(self.history.losses[-steps:]):
            if not math.isfinite(loss):
                raise FloatingPointError(
                    f"training diverged: the loss is {loss} at step {self.current_iter - steps + i + 1}; "
                    "lower the learning rate, or check the data for values that are not finite"
                )

    def _steps_of(self, epochs: int) -> int:
        """Return the number of steps in so many epochs: the book's int(epochs * max(N / batch, 1))."""
        return max(epochs * len(self.x_train) // self.mini_batch_size, epochs)

    def _epoch_end(self, step: int) -> int:
        """Return the step at which the epoch ends that the next step belongs to."""
        epoch = min((step + 1) * self.mini_batch_size // len(self.x_train), step + 1)
        return next(end for end in map(self._steps_of, range(max(epoch, 1), step + 3)) if end > step)

    def _evaluation_is_due(self) -> bool:
        """Tell whether an epoch or the run ends here and is not evaluated yet (by this call or an interrupted one)."""
        evaluated = self.history.evaluations[-1].step if self.history.evaluations else 0
        ends = self.current_iter in (self._epoch_end(self.current_iter - 1), self.max_iter)
        return ends and self.current_iter > evaluated

    def _evaluate(self, started: float) -> Evaluation:
        n = self.evaluate_sample_num_per_epoch
        train_accuracy = test_accuracy = math.nan
        if self.network.last_layer.classifies:
            train_accuracy = self._accuracy(self.x_train[:n], self.t_train[:n])
            test_accuracy = self._accuracy(self.x_test[:n], self.t_test[:n])
        return Evaluation(
            step=self.current_iter,
            epoch=self.current_iter / max(len(self.x_train) / self.mini_batch_size, 1.0),
            loss=self.history.mean_loss_since_evaluation(),
            train_accuracy=train_accuracy,
            test_accuracy=test_accuracy,
            seconds=time.perf_counter() - started,
        )

    def _accuracy(self, x: Array, t: Array) -> float:
        device = self.network.device
        if device.holds(x):
            return self._step.accuracy(x, t)
        correct = 0.0
        for start in range(0, len(x), EVALUATION_BATCH_SIZE):
            part = slice(start, min(start + EVALUATION_BATCH_SIZE, len(x)))
            accuracy = self._step.accuracy(device.asarray(x[part]), device.asarray(t[part]))
            correct += accuracy * (part.stop - start)
        return correct / len(x)

    def _on_device(self, part: str, x: Array, t: Array) -> tuple[Array, Array]:
        """Check samples and labels once for all steps, and move them to the network's device if they fit."""
        names = f"x_{part}", f"t_{part}"
        x, t = map(as_array, names, (x, t))
        check_equally_many(**dict(zip(names, (x, t), strict=True)))
        if len(x) == 0:
            raise ValueError(f"x_{part} is empty")
        device = self.network.device
        dtype = self.network.dtype if x.dtype.kind == "f" else None
        fits = device.holds(x) or device.has_room_for(x.nbytes)
        place = device if fits else Device("cpu")
        x, t = place.asarray(x, dtype), place.asarray(t)
        with device.activate():
            scores = self.network.predict(device.asarray(x[:1]))
            self.network.last_layer.check_labels(t, (len(x), *scores.shape[1:]))
        return x, t

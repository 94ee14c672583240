"""Training loop of section 5.7.4, with the interface of the book's ``Trainer``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from xpnet.datasets import Windows
from xpnet.device import asnumpy
from xpnet.kernels import Backend, Precision
from xpnet.nets import Network, evaluation
from xpnet.optimizers import Optimizer, get_optimizer
from xpnet.parallel import Communicator
from xpnet.settings import count
from xpnet.steps import compile_step
from xpnet.training.callbacks import Callback, PrintProgress, as_callback
from xpnet.training.history import Evaluation, History
from xpnet.training.lockstep import locksteps
from xpnet.training.losses import PendingLosses
from xpnet.training.placing import batches_of, placed
from xpnet.training.sampling import get_sampler
from xpnet.training.sources import ArraySource, Source, WindowSource
from xpnet.typing import Array, Sampling, Seed

__all__ = ["Trainer"]

STATE_VERSION = 1
"""Version of the entries of `Trainer.state`."""


class Trainer:
    """Trains a network on minibatches, and evaluates it once an epoch.

    Each step computes the gradient of a minibatch by backpropagation, and updates the parameters. By default the
    `mini_batch_size` samples are drawn with replacement, as in the book (section 5.7.4). One generator on the host
    draws the indices. Data, parameters and losses stay on the network's device.

    Parameters
    ----------
    network : Network
        The network to train. It is changed in place.
    x_train : (N, ...), Windows, or iterable
        Samples: floats, or pixels as ``uint8`` (`Network.predict`), as an array, table or list
        (`xpnet.device.as_array`). They are moved to the network's device, floats in its dtype. Samples that would take
        more than half of a CUDA device's free memory stay on the host, and are copied a few minibatches at a time.
        Memory-mapped arrays (``numpy.memmap``) are read a few minibatches at a time. Without `t_train`, an iterable of
        minibatches ``(x, t)`` or ``(x, t, sample_weight)``, such as a PyTorch DataLoader.
        `Windows` of a text are cut anywhere for random draws, else side by side.
    t_train : (N, C), (N,) or (N, 1) integers, optional
        Labels.
    x_test, t_test : arrays, optional
        Test set.
    epochs : int, default 20
        Passes over the training set.
    mini_batch_size : int, default 100
        Samples per step; for an iterable those of its first minibatch, the largest one.
    optimizer : str or Optimizer, default "sgd"
        The update rule, or its name (`xpnet.optimizers.get_optimizer`).
    optimizer_param : mapping, optional
        Settings of the update rule, in place of its defaults.
    evaluate_sample_num_per_epoch : int, optional
        Number of samples for evaluations, the first ones of each set; by default all.
    verbose : bool, default True
        Whether to print a line per epoch.
    steps : int, optional
        Number of steps, in place of `epochs`.
    sampling : {"random", "shuffled", "in-order"}, default "random"
        ``"random"`` draws each minibatch with replacement. ``"shuffled"`` visits each sample once in an epoch, in
        shuffled order; the last minibatch may be smaller. ``"in-order"`` goes on in each row of a minibatch where the
        one before ended, for layers that carry a state (`xpnet.training.sampling.InOrder`).
    sample_weight : (N,), optional
        Weights of the training samples in the loss (`TrainingStep.run`).
    validation_data : (x, t), optional
        A set of its own for decisions during training, such as `EarlyStopping`.
    seed : int or numpy.random.Generator, optional
        Seed of the minibatches. With the network's generator, one seed determines the whole run.
    callbacks : iterable of Callback or function
        Further callbacks. A function is called with the trainer after each evaluation.
    backend : {"numpy", "numba"}, optional
        Backend on the CPU; by default Numba, where it is installed and gains (`xpnet.steps.compile_step`).
    precision : {"float32", "tf32", "float16"}, default "float32"
        Precision of matrix products on a CUDA device, or of the layers (`xpnet.steps.compile_step`).
    threads : int, optional
        Largest number of threads on the CPU; by default that of the BLAS.
    shares : int, optional
        Number of shares of a minibatch, which fixes the results to the bit (`xpnet.steps.compile_step`).
    microbatch : int, optional
        Largest number of samples that are computed at a time, to save memory (`xpnet.steps.compile_step`).
    communicator : Communicator, optional
        Connection to other processes with a trainer of the same data and settings (`xpnet.parallel.communicator`). They
        share each minibatch, and `train` gives them all rank 0's state. Rank 0 alone prints.

    Attributes
    ----------
    history : History
        Losses and evaluations so far.
    current_iter, max_iter, iter_per_epoch : int
        Steps so far, steps in all, and steps per epoch, rounded down; None for an iterable without a length.
    stop_training : bool
        Whether to stop after this evaluation or report. Callbacks set it.
    train_loss_list, train_acc_list, test_acc_list : list of float
        The history under the book's names.

    Raises
    ------
    ValueError
        If samples and labels do not fit together, or a setting is out of range.
    """

    REPORT_INTERVAL: int = 100
    """Steps between two transfers of losses to the host."""

    def __init__(
        self,
        network: Network,
        x_train: Array | Windows | Iterable[Any],
        t_train: Array | None = None,
        x_test: Array | None = None,
        t_test: Array | None = None,
        epochs: int = 20,
        mini_batch_size: int = 100,
        optimizer: str | Optimizer = "sgd",
        optimizer_param: Mapping[str, Any] | None = None,
        evaluate_sample_num_per_epoch: int | None = None,
        verbose: bool = True,
        *,
        steps: int | None = None,
        sampling: Sampling = "random",
        sample_weight: Array | None = None,
        validation_data: tuple[Array, Array] | None = None,
        seed: Seed = None,
        callbacks: Iterable[Callback | Callable[[Trainer], object]] = (),
        backend: Backend | None = None,
        precision: Precision = "float32",
        threads: int | None = None,
        shares: int | None = None,
        microbatch: int | None = None,
        communicator: Communicator | None = None,
    ) -> None:
        for name, value in {
            "epochs": epochs,
            "mini_batch_size": mini_batch_size,
            "evaluate_sample_num_per_epoch": evaluate_sample_num_per_epoch,
            "steps": steps,
        }.items():
            if value is not None:
                count(name, value)
        self.network = network
        if not isinstance(network, Network):
            raise TypeError(f"network must be an xpnet.nets.Network, got {type(network).__name__}")
        if not (optimizer_param is None or isinstance(optimizer_param, Mapping)):
            raise TypeError(f"optimizer_param must be a mapping of settings, got {type(optimizer_param).__name__}")
        self.optimizer = get_optimizer(optimizer, **(optimizer_param or {}))
        self.mini_batch_size = mini_batch_size
        self.evaluate_sample_num_per_epoch = evaluate_sample_num_per_epoch
        self.x_train = self.t_train = self.x_test = self.t_test = None
        self.sets: dict[str, tuple[Array, Array]] = {}
        self.source: Source
        rng = network.device.rng(seed)
        self.max_iter: int | None
        self.iter_per_epoch: int | None
        if t_train is None and not isinstance(x_train, Windows):
            self.source = batches = batches_of(network, x_train, sample_weight)
            self.mini_batch_size = len(batches.first[0])
            self.iter_per_epoch = batches.steps_per_epoch
            self.max_iter = steps or (self.iter_per_epoch and epochs * self.iter_per_epoch)
        else:
            with self._memory_named():
                self.source = source = self._drawn(x_train, t_train, sample_weight, sampling, rng)
            self.max_iter = steps or source.sampler.steps_in(epochs)
            self.iter_per_epoch = max(len(self.sets["train"][0]) // mini_batch_size, 1)
        if (x_test is None) != (t_test is None):
            raise ValueError("x_test and t_test go together: pass both, or none to train without a test set")
        if x_test is not None:
            self.x_test, self.t_test = placed(network, "test", x_test, t_test)
            self.sets["test"] = self.x_test, self.t_test
        if validation_data is not None:
            x, t = placed(network, "validation", *validation_data)
            self.sets["validation"] = x, t
        self.epochs = epochs
        self.current_iter = 0
        self.history = History()
        self._pending = PendingLosses(network, self.history)
        self._lockstep = locksteps(communicator, t_train is not None)
        printing = PrintProgress() if communicator is None or communicator.rank == 0 else Callback()
        self.callbacks = [*([printing] if verbose else []), *map(as_callback, callbacks)]
        self.stop_training = False
        size, rule = self.mini_batch_size, self.optimizer
        self._step = compile_step(network, rule, size, backend, precision, threads, shares, microbatch, communicator)
        self._seconds = 0.0

    @property
    def backend(self) -> Backend:
        """Backend of the steps on the CPU."""
        return self._step.backend

    @property
    def finished(self) -> bool:
        """Whether all steps are taken, or a callback stopped the training."""
        all_taken = self.source.epoch >= self.epochs if self.max_iter is None else self.current_iter >= self.max_iter
        return self.stop_training or all_taken

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
            If the loss is no longer finite. The network keeps its last parameters with a finite loss.
        MemoryError
            If a device has no memory for minibatches of this size.
        """
        started = time.perf_counter() - self._seconds
        self._tell("on_start")
        try:
            # NumPy would warn of a diverging loss at every operation; PendingLosses reports it once.
            with (
                self.network.device.activate(),
                np.errstate(over="ignore", invalid="ignore"),
                self._pending.looked_at(),
            ):
                while True:
                    if self._evaluation_is_due():
                        self._report(all_steps=True)
                        self.history.evaluations.append(self._evaluate(started))
                        self._tell("on_evaluation")
                    if self.finished:
                        break
                    left = self.REPORT_INTERVAL if self.max_iter is None else self.max_iter - self.current_iter
                    self._run(min(self.REPORT_INTERVAL, left))
                    self._report(all_steps=False)
        finally:
            self._seconds = time.perf_counter() - started
            self._tell("on_end")
        return self.history

    def state(self) -> dict[str, Any]:
        """Return all that another trainer of the same data and settings needs to go on: numbers, texts, arrays."""
        self._pending.look()
        optimizer = self.optimizer
        kept = {quantity: {name: asnumpy(a) for name, a in kept.items()} for quantity, kept in optimizer.state.items()}
        return {
            "version": STATE_VERSION,
            "settings": self._settings(),
            "current_iter": self.current_iter,
            "stop_training": self.stop_training,
            "seconds": self._seconds,
            "network": self.network.state(),
            "optimizer": {"steps": optimizer.steps, "state": kept},
            "step": self._step.state(),
            "source": self.source.state(),
            "losses": np.array(self.history.losses),
            "evaluations": [evaluation.columns() for evaluation in self.history.evaluations],
            "callbacks": {name: callback.state() for name, callback in self._callbacks_by_name()},
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore the result of `state`. `train` then takes the steps that the other trainer would have taken.

        Raises
        ------
        ValueError
            If the state is from other settings, of another network, or from another version of xpnet.
        """
        if state.get("version") != STATE_VERSION:
            raise ValueError(
                f"the state has version {state.get('version')}, this xpnet reads {STATE_VERSION}; go on with the "
                "xpnet that wrote it"
            )
        found, expected = dict(state["settings"]), self._settings()
        for name in expected.keys() | found.keys():
            if found.get(name) != expected.get(name):
                raise ValueError(
                    f"the state is of a run with {name} {found.get(name)}, this one has {expected.get(name)}"
                )
        self.network.load_state(state["network"])
        self.optimizer.steps = state["optimizer"]["steps"]
        self.optimizer.state = dict(state["optimizer"]["state"])
        self._step.load_state(state["step"])
        self.source.load_state(state["source"])
        self.current_iter, self._seconds = state["current_iter"], state["seconds"]
        self.stop_training = state["stop_training"]
        self.history.losses[:] = np.asarray(state["losses"]).tolist()
        self.history.evaluations[:] = [Evaluation.of_columns(columns) for columns in state["evaluations"]]
        for name, callback in self._callbacks_by_name():
            if name in state["callbacks"]:
                callback.load_state(state["callbacks"][name])

    def _settings(self) -> dict[str, Any]:
        """Return the settings that determine a run."""
        data = None if self.x_train is None else list(self.x_train.shape)
        return {
            "mini_batch_size": self.mini_batch_size,
            "training samples": data,
            "sampling": self.source.name,
            "optimizer": {"name": type(self.optimizer).__name__, **self.optimizer.fixed_settings()},
            "precision": self._step.precision,
        }

    def _callbacks_by_name(self) -> Iterator[tuple[str, Callback]]:
        return ((f"{type(callback).__name__}{i}", callback) for i, callback in enumerate(self.callbacks))

    def _tell(self, event: str) -> None:
        for callback in (*self.callbacks, *self._lockstep):
            getattr(callback, event)(self)

    def _report(self, all_steps: bool) -> None:
        if self._pending.look(all_steps):
            self._tell("on_steps")

    def _run(self, steps: int) -> None:
        """Run some steps, with one transfer of their indices to the device. Their losses are pending then."""
        losses = self.network.device.xp.zeros(steps, dtype=self.network.dtype)
        before, steps_before = self._pending.snapshot(), self._step.steps
        try:
            with self._memory_named():
                self.source.run(self._step, losses)
        finally:
            done = self._step.steps - steps_before
            self.current_iter += done
            self._pending.add(losses[:done], before)

    @contextmanager
    def _memory_named(self) -> Iterator[None]:
        try:
            yield
        except MemoryError as error:
            raise MemoryError(
                f"{self.network.device} has no memory for minibatches of {self.mini_batch_size} samples; lower "
                f"mini_batch_size, or set microbatch ({error})"
            ) from error

    def _evaluation_is_due(self) -> bool:
        """Tell whether an epoch or the run ends here and is not evaluated yet (by this call or an interrupted one)."""
        evaluated = self.history.evaluations[-1].step if self.history.evaluations else 0
        return (self.source.at_epoch_end or self.finished) and self.current_iter > evaluated

    def _evaluate(self, started: float) -> Evaluation:
        metrics = {
            f"{part}_{name}": value for part, (x, t) in self.sets.items() for name, value in self._metrics(x, t).items()
        }
        return Evaluation(
            step=self.current_iter,
            epoch=self.source.epoch,
            loss=self.history.mean_loss_since_evaluation(),
            seconds=time.perf_counter() - started,
            metrics=metrics,
        )

    def _metrics(self, x: Array, t: Array) -> dict[str, float]:
        x, t = (array[: self.evaluate_sample_num_per_epoch] for array in (x, t))
        if self.network.device.holds(x):
            return self._step.evaluate(x, t)
        return evaluation.evaluate(self.network, x, t)

    def _drawn(
        self, x_train: Any, t_train: Any, sample_weight: Any, sampling: Sampling, rng: np.random.Generator
    ) -> ArraySource:
        """Return the source of minibatches of a training set, and keep the set."""
        windows = x_train if isinstance(x_train, Windows) else None
        if windows is not None:
            if t_train is not None or sample_weight is not None:
                raise ValueError("x_train is Windows, which have their own labels; leave out t_train and sample_weight")
            x_train, t_train = windows.x, windows.t
        x, t, *weight = placed(self.network, "train", x_train, t_train, sample_weight)
        self.x_train, self.t_train = self.sets["train"] = x, t
        size, device = self.mini_batch_size, self.network.device
        sampler = get_sampler(sampling, rng, len(x), size, None if windows is None else windows.starts)
        if windows is not None:
            return WindowSource(device, windows, sampler, size)
        return ArraySource(device, (x, t, *weight), sampler, size, isinstance(x_train, np.memmap))

"""A run on several processes: one state at the start, one decision at each report, one end."""

from __future__ import annotations

import contextlib
import hashlib
import signal
import sys
import time
from typing import TYPE_CHECKING

from xpnet.device import asnumpy
from xpnet.interrupts import HeldInterrupts
from xpnet.parallel import Communicator
from xpnet.training.callbacks import Callback

if TYPE_CHECKING:
    from xpnet.training.trainer import Trainer

__all__ = ["Lockstep", "locksteps"]

SECONDS = 0.2
"""Time between two agreements, about. A signal to one rank waits that long for the others."""


class Lockstep(Callback):
    """Keeps the trainers of several ranks in the same state. It is told of events after all other callbacks.

    At the start all ranks get rank 0's state. After each report they agree whether to stop, and whether a signal has
    come to any of them: then all are interrupted, after the same step. After each evaluation they compare parameters.

    Parameters
    ----------
    communicator : Communicator
        Connection of the ranks.
    """

    def __init__(self, communicator: Communicator) -> None:
        self.communicator = communicator
        self._held = HeldInterrupts(insistent=False)
        self._time, self._step, self._longest = 0.0, 0, 1

    def on_start(self, trainer: Trainer) -> None:
        self._held.__enter__()
        self._longest = trainer.REPORT_INTERVAL
        trainer.load_state(self.communicator.broadcast(trainer.state() if self.communicator.rank == 0 else {}))
        trainer.REPORT_INTERVAL = 1  # until a step has been timed
        self._time, self._step = time.monotonic(), trainer.current_iter

    def on_steps(self, trainer: Trainer) -> None:
        now, steps = time.monotonic(), max(trainer.current_iter - self._step, 1)
        slowest = self._agree(trainer, (now - self._time) / steps)
        trainer.REPORT_INTERVAL = max(min(int(SECONDS / max(slowest, 1e-9)), self._longest), 1)
        self._time, self._step = time.monotonic(), trainer.current_iter

    def on_evaluation(self, trainer: Trainer) -> None:
        own = hashlib.sha256(asnumpy(trainer.network.params.flat).tobytes()).hexdigest()
        first, *others = self.communicator.gather(own)
        different = [str(rank) for rank, found in enumerate(others, 1) if found != first]
        if different:
            raise RuntimeError(
                f"after step {trainer.current_iter} the parameters of rank {', '.join(different)} differ from those of "
                "rank 0; give all ranks the same data, settings and machine, and change no parameters in callbacks of "
                "one rank"
            )
        self._agree(trainer, 0.0)
        self._time = time.monotonic()

    def on_end(self, trainer: Trainer) -> None:
        trainer.REPORT_INTERVAL = self._longest
        self._held.__exit__()

    def _agree(self, trainer: Trainer, seconds: float) -> float:
        """Stop, or be interrupted, if any rank is; return the longest of the ranks' times."""
        told = self.communicator.gather((self._held.number, trainer.stop_training, seconds))
        numbers, stops, times = zip(*told, strict=True)
        trainer.stop_training = any(stops)
        signalled = [rank for rank, number in enumerate(numbers) if number is not None]
        if signalled:
            number = numbers[signalled[0]]
            if self.communicator.rank == 0:
                _tell(_ended(signalled, self.communicator.size, signal.Signals(number), trainer.current_iter), number)
            if self._held.number is None:
                signal.raise_signal(number)
        self._held.release()
        return float(max(times))


def _ended(ranks: list[int], size: int, found: signal.Signals, step: int) -> str:
    got = f"rank{'s' * (len(ranks) > 1)} {', '.join(map(str, ranks))} of {size} got {found.name}"
    return f"xpnet: {got}: all ranks stop after step {step}"


def _tell(text: str, number: int) -> None:
    """Print a text to standard error, and to the terminal if a launcher may have closed that of its processes.

    After Ctrl-C, Open MPI's mpiexec sends SIGTERM to the ranks, and drops what they print from then on.
    """
    print(text, file=sys.stderr, flush=True)
    if number == signal.SIGTERM:
        with contextlib.suppress(OSError), open("/dev/tty", "w") as terminal:  # none in a batch job
            print(text, file=terminal)


def locksteps(communicator: Communicator | None, has_arrays: bool) -> list[Lockstep]:
    """Return the callback that keeps the trainers of several processes together; none for a process alone.

    Raises
    ------
    ValueError
        If several processes would train on an iterable, from which they cannot draw the same minibatches.
    """
    if communicator is None or communicator.size == 1:
        return []
    if not has_arrays:
        raise ValueError("t_train is missing: several processes draw the same minibatches, from arrays")
    return [Lockstep(communicator)]

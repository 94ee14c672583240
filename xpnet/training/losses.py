"""Losses on their way from the device into a history, and the check that they are finite."""

import contextlib
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from xpnet.nets import Network
from xpnet.training.history import History
from xpnet.typing import Array

__all__ = ["PendingLosses"]


class _Window(NamedTuple):
    """Some steps: their losses on the host, what to wait for first, and the network's arrays before them."""

    losses: np.ndarray
    copied: Any
    before: list[Array]


class PendingLosses:
    """The losses of the last steps, which the history does not have yet.

    On a CUDA device the losses of the newest steps stay pending. So the device has these steps to work on while the
    host looks at the earlier ones. On the CPU all steps are done, and nothing stays pending.

    Parameters
    ----------
    network : Network
        The trained network. It gets its last parameters with a finite loss back.
    history : History
        The losses that have been looked at are appended to it.
    """

    def __init__(self, network: Network, history: History) -> None:
        self.network, self.history = network, history
        self._windows: list[_Window] = []

    def snapshot(self) -> list[Array]:
        """Return copies of the parameters and buffers, for `add`."""
        return [array.copy() for array in self._arrays()]

    def add(self, losses: Array, before: list[Array]) -> None:
        """Add the losses of some steps, and begin to copy them to the host.

        Parameters
        ----------
        losses : (S,) array on the device
            Losses of the steps.
        before : list of arrays
            Result of `snapshot` before these steps.
        """
        if self.network.device.name == "cpu":
            self._windows.append(_Window(losses, None, before))
        elif losses.size:
            import cupyx

            # A copy that began later would wait for the steps after these.
            on_host = losses.get(out=cupyx.empty_pinned(losses.shape, losses.dtype), blocking=False)
            self._windows.append(_Window(on_host, self.network.device.xp.cuda.get_current_stream().record(), before))

    def look(self, all_steps: bool = True) -> bool:
        """Append losses to the history; with `all_steps` all, else those that the device is done with.

        Returns
        -------
        bool
            Whether there were any.

        Raises
        ------
        FloatingPointError
            If a loss is not finite. Nothing is pending then, and the network has the parameters before its steps.
        """
        kept = 0 if all_steps or self.network.device.name == "cpu" else 1
        looked = False
        while len(self._windows) > kept:
            losses, copied, before = self._windows[0]
            if copied is not None:
                copied.synchronize()
            first = len(self.history.losses)
            self.history.losses.extend(losses.tolist())
            del self._windows[0]
            looked = True
            bad = next((i for i, loss in enumerate(losses) if not math.isfinite(loss)), None)
            if bad is not None:
                self._restore(before)
                raise FloatingPointError(
                    f"training diverged: the loss is {losses[bad]} at step {first + bad + 1}; the network keeps its "
                    f"parameters of step {first}. Lower the learning rate, or check the data for values that are not "
                    "finite"
                )
        return looked

    @contextlib.contextmanager
    def looked_at(self) -> Iterator[None]:
        """Context of a training run. At its end, also after an interruption, nothing is pending."""
        try:
            yield
        finally:
            self.look()

    def _restore(self, before: list[Array]) -> None:
        for losses, copied, _ in self._windows:  # of steps after these
            copied.synchronize()
            self.history.losses.extend(losses.tolist())
        self._windows.clear()
        for array, value in zip(self._arrays(), before, strict=True):
            array[...] = value

    def _arrays(self) -> list[Array]:
        return [self.network.params.flat, *self.network.buffers().values()]

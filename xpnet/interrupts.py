"""Ctrl-C, delayed to the end of a step."""

import signal
import threading
from types import FrameType
from typing import Any, Self

__all__ = ["HeldInterrupts"]


class HeldInterrupts:
    """Context that delays Ctrl-C until the next call of `release` or the end of the context.

    Call `release` between steps, where an interrupt does no harm. A second Ctrl-C interrupts at once. The context does
    nothing in a thread other than the main thread, or if Python does not handle the signal.

    Examples
    --------
    >>> done = []
    >>> try:
    ...     with HeldInterrupts() as interrupts:
    ...         for part in range(5):
    ...             signal.raise_signal(signal.SIGINT)
    ...             done.append(part)
    ...             interrupts.release()
    ... except KeyboardInterrupt:
    ...     print(done)
    [0]
    """

    def __init__(self) -> None:
        self._held: tuple[int, FrameType | None] | None = None
        self._handler: Any = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            handler = signal.getsignal(signal.SIGINT)
            if callable(handler):
                self._handler = handler
                signal.signal(signal.SIGINT, self._hold)
        return self

    def __exit__(self, *_: object) -> None:
        if self._handler is not None:
            signal.signal(signal.SIGINT, self._handler)
            self.release()

    def release(self) -> None:
        """Raise the delayed KeyboardInterrupt, if any."""
        if self._held is not None:
            held, self._held = self._held, None
            self._handler(*held)

    def _hold(self, number: int, frame: FrameType | None) -> None:
        if self._held is None:
            self._held = (number, frame)
        else:
            self.release()

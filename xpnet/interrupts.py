"""Signals that end a program: delayed to the end of a step, raised as exceptions."""

import signal
import threading
from types import FrameType
from typing import Any, Self

__all__ = ["Ended", "EndingSignals", "HeldInterrupts"]

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Ctrl-C, the request to end, and a closed terminal (which Windows does not have)."""


class HeldInterrupts:
    """Context that delays Ctrl-C until the next call of `release` or the end of the context.

    Call `release` between steps, where an interrupt does no harm. A second Ctrl-C interrupts at once. SIGTERM and
    SIGHUP are delayed in the same way. The context does nothing in a thread other than the main thread, or for signals
    that Python does not handle.

    Parameters
    ----------
    insistent : bool, default True
        Whether a second Ctrl-C interrupts at once.

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

    def __init__(self, *, insistent: bool = True) -> None:
        self._insistent = insistent
        self._held: tuple[int, FrameType | None] | None = None
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._handlers = {n: handler for n in SIGNALS if callable(handler := signal.getsignal(n))}
            for number in self._handlers:
                signal.signal(number, self._hold)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self.release()

    @property
    def number(self) -> int | None:
        """Number of the delayed signal, if any."""
        return None if self._held is None else self._held[0]

    def release(self) -> None:
        """Pass the delayed signal on to its own handler, if any. That of Ctrl-C raises KeyboardInterrupt."""
        if self._held is not None:
            held, self._held = self._held, None
            self._handlers[held[0]](*held)

    def _hold(self, number: int, frame: FrameType | None) -> None:
        if self._held is None:
            self._held = (number, frame)
        elif number == signal.SIGINT and self._insistent:
            self.release()


class Ended(SystemExit):
    """A signal asked the program to end. ``code`` is the exit status for it, 128 plus the signal's number."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number

    def __str__(self) -> str:
        name = signal.Signals(self.number).name
        return "interrupted" if self.number == signal.SIGINT else f"ended by {name}"


class EndingSignals:
    """Context in which the first SIGINT (Ctrl-C), SIGTERM or SIGHUP raises `Ended`, and later ones do nothing.

    So a program that catches the exception can save its work undisturbed: systems often send several of them. A signal
    that is ignored stays ignored, as under ``nohup``. The context does nothing in a thread other than the main thread.

    Attributes
    ----------
    ended : Ended or None
        The exception, once it was raised. Another one may have hidden it: a closed terminal refuses output, too.

    Examples
    --------
    >>> with EndingSignals():
    ...     try:
    ...         signal.raise_signal(signal.SIGTERM)
    ...     except Ended as ended:
    ...         signal.raise_signal(signal.SIGINT)
    ...         print(ended, ended.code)
    ended by SIGTERM 143
    """

    def __init__(self) -> None:
        self.ended: Ended | None = None
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            handlers = {number: signal.getsignal(number) for number in SIGNALS}
            self._handlers = {n: h for n, h in handlers.items() if callable(h) or h == signal.SIG_DFL}
            for number in self._handlers:
                signal.signal(number, self._end)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _end(self, number: int, _frame: FrameType | None) -> None:
        if self.ended is None:
            self.ended = Ended(number)
            raise self.ended

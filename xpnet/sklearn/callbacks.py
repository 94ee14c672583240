"""A fit as scikit-learn's callbacks see it: a task with a subtask per pass (SLEP023, scikit-learn 1.9 and newer)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["CallbackSupportMixin", "Passes", "with_callbacks"]

Method = TypeVar("Method", bound=Callable[..., Any])

try:
    from sklearn.callback import CallbackSupportMixin, with_callbacks
except ImportError:  # before 1.9

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """No callbacks: this scikit-learn has none."""

        def _init_callback_context(self, **settings: Any) -> None:
            return None

    def with_callbacks(method: Method) -> Method:
        """Return the method."""
        return method


class Passes:
    """Calls the hooks of scikit-learn's callbacks around the passes of a fit.

    Parameters
    ----------
    context : CallbackContext or None
        The context of the fit. None calls nothing.
    estimator : NetworkEstimator
        The estimator.
    fitted : function
        Returns copies of the attributes that change during the fit.
    X, y, sample_weight : arrays
        What the fit was given; a callback may ask for them.
    """

    def __init__(
        self, context: Any, estimator: Any, fitted: Callable[[], dict[str, Any]], X: Any, y: Any, sample_weight: Any
    ) -> None:
        self.context = context
        metadata = None if sample_weight is None else {"sample_weight": sample_weight}
        self._arguments = {"estimator": estimator, "X": X, "y": y, "metadata": metadata}
        self._fitted = fitted
        self._task: Any = None
        if context is not None:
            context.call_on_fit_task_begin(**self._arguments)
            self._begin()

    def end(self, is_last: bool) -> bool:
        """End a pass, and begin the next one; return whether a callback stops the fit."""
        if self.context is None:
            return False
        stops = bool(self._task.call_on_fit_task_end(**self._arguments, reconstruction_attributes=self._fitted))
        self._task = None
        if not (stops or is_last):
            self._begin()
        return stops

    def close(self) -> None:
        """End the fit."""
        if self._task is not None:  # L-BFGS converged at the end of the pass before: this one never ran
            self._task.call_on_fit_task_end(estimator=self._arguments["estimator"])
        if self.context is not None:
            self.context.call_on_fit_task_end(**self._arguments, reconstruction_attributes=self._fitted)

    def _begin(self) -> None:
        self._task = self.context.subcontext(task_name="pass")
        self._task.call_on_fit_task_begin(**self._arguments, reconstruction_attributes=self._fitted)

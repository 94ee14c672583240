"""BLAS of NumPy and of compiled code: its number of threads, and its products of small matrices."""

import contextlib
import functools
import os
import threading
from typing import Any

__all__ = ["blas"]

AVX512 = {"SkylakeX", "Cooperlake", "SapphireRapids"}
"""OpenBLAS's names for CPUs with AVX-512."""


class _Blas:
    """BLAS of NumPy and of compiled code, and a context in which it uses one thread.

    Several contexts may be open at a time. The end of the last one restores the number of threads.
    """

    def __init__(self) -> None:
        self._lock, self._users = threading.Lock(), 0
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._leave_all)

    def __enter__(self) -> int:
        """Limit BLAS to one thread, and return its number of threads outside of the context."""
        with self._lock:
            if self._users == 0:
                self._threads = self._number()
                self._limit = self._loaded.limit(limits=1)
            self._users += 1
            return self._threads

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._limit.restore_original_limits()

    def _leave_all(self) -> None:
        # A forked child has none of the threads that are in the context, and one of them may have held the lock.
        self._lock = threading.Lock()
        if self._users:
            self._users = 0
            self._limit.restore_original_limits()

    @property
    def threads(self) -> int:
        """Number of threads outside of the context."""
        with self._lock:
            return self._threads if self._users else self._number()

    def _number(self) -> int:
        return min((library.num_threads for library in self._loaded.lib_controllers), default=2)

    @functools.cached_property
    def small(self) -> int:
        """Largest number of multiplications of a product that is computed without copying the matrices; 0 if none is.

        OpenBLAS has kernels for small matrices on CPUs with AVX-512.
        """
        names = {library.info().get("architecture") for library in self._loaded.lib_controllers}
        return 10**6 if names & AVX512 else 0

    @functools.cached_property
    def _loaded(self) -> Any:
        from threadpoolctl import ThreadpoolController

        with contextlib.suppress(ModuleNotFoundError):
            import scipy.linalg.cython_blas  # noqa: F401  # loads the BLAS that Numba calls, for threadpoolctl to find

        return ThreadpoolController().select(user_api="blas")


blas = _Blas()

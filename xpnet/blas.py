"""The BLAS that products in compiled code call: its threads, and how it computes small matrices."""

from __future__ import annotations

import functools
import threading
from typing import Any

__all__ = ["blas"]

AVX512 = {"SkylakeX", "Cooperlake", "SapphireRapids"}
"""OpenBLAS's names for CPUs with these instructions."""


class _Blas:
    """The BLAS; and a context in which it uses one thread, of which several may be open at a time.

    The last to be left gives it its threads back.
    """

    def __init__(self) -> None:
        self._lock, self._users = threading.Lock(), 0

    def __enter__(self) -> int:
        """Return how many threads it uses outside."""
        with self._lock:
            if self._users == 0:
                self._threads = min((library.num_threads for library in self._loaded.lib_controllers), default=2)
                self._limit = self._loaded.limit(limits=1)
            self._users += 1
            return self._threads

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._limit.restore_original_limits()

    @functools.cached_property
    def small(self) -> int:
        """Multiplications of a product up to which it does not copy the matrices first; 0 if it always does.

        OpenBLAS has a way of its own for small matrices on CPUs with AVX-512.
        """
        names = {library.info().get("architecture") for library in self._loaded.lib_controllers}
        return 10**6 if names & AVX512 else 0

    @functools.cached_property
    def _loaded(self) -> Any:
        import scipy.linalg.cython_blas  # noqa: F401  # through which Numba calls it: loaded, so that it is found
        from threadpoolctl import ThreadpoolController

        return ThreadpoolController().select(user_api="blas")


blas = _Blas()

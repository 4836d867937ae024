"""``inner_max_num_threads``: what a task's own libraries may use, where the user says so."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from typing import Any


def check_inner_limit(count: Any) -> None:
    """Raise unless `count` is None or a whole number above 0: inside a task it would be too late."""
    if count is None:
        return
    if not hasattr(count, "__index__"):
        raise TypeError(f"inner_max_num_threads must be a whole number or None, not {type(count).__name__!r}")
    if count < 1:
        raise ValueError(f"inner_max_num_threads must be at least 1, not {count}")


def inner_limit(count: int | None) -> contextlib.AbstractContextManager[Any]:
    """Limit BLAS, OpenMP and Numba to `count` threads in the calling thread's task; None limits nothing.

    BLAS and OpenMP through threadpoolctl where it is installed (it comes with scikit-learn). BLAS libraries have one
    width per process: it goes back to the user's when the last limited task ends, and concurrent tasks should ask for
    the same.
    """
    return contextlib.nullcontext() if count is None else _limited(int(count))


@contextlib.contextmanager
def _limited(count: int) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        libraries = _libraries.found()
        blas = [library for library in libraries if library.user_api == "blas"]
        stack.enter_context(_blas_width.limited(blas, count))
        for library in libraries:
            if library.user_api == "openmp":  # its width belongs to the calling thread
                stack.callback(library.set_num_threads, library.num_threads)
                library.set_num_threads(count)
        if "numba.np.ufunc.parallel" in sys.modules:
            _limit_numba(stack, count)
        yield


def _limit_numba(stack: contextlib.ExitStack, count: int) -> None:
    import numba

    try:
        before = numba.get_num_threads()
    except Exception:  # its layer cannot start; a task that uses it will say so
        return
    stack.callback(numba.set_num_threads, before)
    numba.set_num_threads(min(count, before))


class _Libraries:
    """threadpoolctl's handles; looked for again when modules, which may bring libraries, were imported."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._modules = -1
        self._found: list[Any] = []

    def found(self) -> list[Any]:
        modules = len(sys.modules)
        if modules != self._modules:
            try:
                from threadpoolctl import ThreadpoolController
            except ImportError:
                return []
            with self._lock:
                modules = len(sys.modules)
                if modules != self._modules:
                    found = ThreadpoolController().lib_controllers
                    self._found = [library for library in found if library.num_threads is not None]
                    self._modules = modules
        return self._found


class _BlasWidth:
    """Widths of libraries that have one per process, while any limited task runs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tasks = 0
        self._before: dict[str, tuple[Any, int]] = {}

    @contextlib.contextmanager
    def limited(self, libraries: list[Any], count: int) -> Iterator[None]:
        with self._lock:
            self._tasks += 1
            for library in libraries:
                if library.filepath not in self._before:
                    self._before[library.filepath] = library, library.num_threads
                if library.num_threads != count:
                    library.set_num_threads(count)
        try:
            yield
        finally:
            with self._lock:
                self._tasks -= 1
                if self._tasks == 0:
                    for library, width in self._before.values():
                        library.set_num_threads(width)
                    self._before.clear()


_libraries = _Libraries()
_blas_width = _BlasWidth()

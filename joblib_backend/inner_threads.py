"""``inner_max_num_threads``: what a task's own libraries may use, where the user says so."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

from .. import _native
from .._blocking import MOST_AT_ONCE


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

    OpenBLAS has one width per process, so while such a task runs the others' calls are limited too.
    """
    return contextlib.nullcontext() if count is None else _limited(min(count, MOST_AT_ONCE))


@contextlib.contextmanager
def _limited(count: int) -> Iterator[None]:
    with _native.WidthLimit(count), contextlib.ExitStack() as stack:
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

"""``inner_max_num_threads``: what a task's own libraries may use, where the user says so."""

from __future__ import annotations

import contextlib
import sys
from typing import Any


def inner_limit(count: int | None) -> contextlib.AbstractContextManager[Any]:
    """Limit BLAS, OpenMP and Numba to `count` threads in the calling thread's task; None limits nothing.

    BLAS and OpenMP through threadpoolctl where it is installed (it comes with scikit-learn). OpenBLAS has one width per
    process, so concurrent tasks should ask for the same.
    """
    if count is None:
        return contextlib.nullcontext()
    stack = contextlib.ExitStack()
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        pass
    else:
        stack.enter_context(threadpool_limits(limits=count))
    if "numba.np.ufunc.parallel" in sys.modules:
        import numba

        before = numba.get_num_threads()
        numba.set_num_threads(min(count, before))
        stack.callback(numba.set_num_threads, before)
    return stack

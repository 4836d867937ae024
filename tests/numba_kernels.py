"""Compiled kernels of the Numba tests that count from the inside: ids in use, threads computing at once, updates lost.

`check_numba` runs a test's code in a fresh process that can import them; they are compiled once per test run, the rest
load them from the cache.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path

import numpy as np
from fresh import check_fresh
from llvmlite import ir
from numba import get_num_threads, get_thread_id, guvectorize, njit, prange, types, vectorize
from numba.core import cgutils
from numba.extending import intrinsic

NOW, MOST, SHARED, LOST = range(4)  # of a gauge: threads inside, the most so far, ids used twice, updates lost
GAUGE = 4

_cache = None


def check_numba(
    code: str, *, threads: int = 4, slots: int | None = None, env: dict[str, str] | None = None, timeout: float = 60
) -> str:
    """`check_fresh` under NUMBA_THREADING_LAYER=composable with `threads` Numba threads and an arena of `slots`."""
    global _cache
    if _cache is None:
        _cache = tempfile.mkdtemp(prefix="numba_kernels_")
        atexit.register(shutil.rmtree, _cache, ignore_errors=True)
    size = f"from composable_threads import _native\n_native.configure({slots})\n" if slots else ""
    variables = {
        "NUMBA_THREADING_LAYER": "composable",
        "NUMBA_NUM_THREADS": str(threads),
        "NUMBA_CACHE_DIR": _cache,
        "PYTHONPATH": str(Path(__file__).parent),
    }
    import textwrap

    return check_fresh(size + textwrap.dedent(code), env={**variables, **(env or {})}, timeout=timeout)


def _atomic(operation: str):
    # What an atomic operation of LLVM does to one element of an int64 array; gives the old value.
    def function(typing_context, array, index, value):
        def generate(context, builder, signature, arguments):
            view = context.make_array(signature.args[0])(context, builder, arguments[0])
            place = cgutils.get_item_pointer(context, builder, signature.args[0], view, [arguments[1]])
            return builder.atomic_rmw(operation, place, arguments[2], "seq_cst")

        return types.int64(array, types.intp, types.int64), generate

    return intrinsic(function)


atomic_add = _atomic("add")
atomic_max = _atomic("max")
sched_yield = types.ExternalFunction("sched_yield", types.int32())
usleep = types.ExternalFunction("usleep", types.int32(types.uint32))
assert ir is not None


@njit(cache=True, nogil=True)
def work(rounds, x):
    """About `rounds` nanoseconds of arithmetic that no compiler removes."""
    for _ in range(rounds):
        x = x * 1.0000001 + 1e-9
    return x

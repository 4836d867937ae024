"""Compiled kernels of the Numba tests that look from the inside: ids in use, threads computing, updates lost.

`check_numba` runs a test's code in a fresh process that can import them; they are compiled once per test run.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
import textwrap
from pathlib import Path

import numpy as np
from fresh import check_fresh
from numba import get_thread_id, njit, prange, types
from numba.core import cgutils
from numba.extending import intrinsic

# What a gauge counts: threads computing now, the most so far, and what must stay 0: ids out of range, ids that two
# chunks of a region had at once, masks or ids not restored after nesting, updates of an id's cell lost.
NOW, MOST, RANGE, SHARED, CHANGED, LOST = range(6)

_cache = None


def check_numba(
    code: str, *, threads: int = 4, slots: int | None = None, env: dict[str, str] | None = None, timeout: float = 60
) -> str:
    """`check_fresh` with the layer selected, ``NUMBA_NUM_THREADS=threads`` and, if given, an arena of `slots`."""
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
    return check_fresh(size + textwrap.dedent(code), env={**variables, **(env or {})}, timeout=timeout)


def new_gauge() -> np.ndarray:
    return np.zeros(6, np.int64)


def check_gauge(gauge: np.ndarray, most: int) -> None:
    """At most `most` threads computed at once, and every id, mask and update was right."""
    assert gauge[NOW] == 0, gauge
    assert 1 <= gauge[MOST] <= most, gauge
    assert not gauge[RANGE:].any(), gauge


def _atomic(operation: str):
    # The atomic operation of LLVM on one element of an int64 array; gives the old value.
    def typed(typing_context, array, index, value):
        def generate(context, builder, signature, arguments):
            kind = signature.args[0]
            view = context.make_array(kind)(context, builder, arguments[0])
            place = cgutils.get_item_pointer(context, builder, kind, view, [arguments[1]])
            return builder.atomic_rmw(operation, place, arguments[2], "seq_cst")

        return types.int64(array, types.intp, types.int64), generate

    return intrinsic(typed)


atomic_add = _atomic("add")
atomic_max = _atomic("max")
# numba.get_num_threads() keeps a function from being cached; what it calls does not.
num_threads = types.ExternalFunction("get_num_threads", types.intp())


@njit(cache=True)
def work(rounds, gauge):
    """Some nanoseconds of arithmetic a round, counted as one thread that computes."""
    atomic_max(gauge, MOST, atomic_add(gauge, NOW, 1) + 1)
    x = 1.0
    for _ in range(rounds):
        x = x * 1.0000001 + 1e-9
    atomic_add(gauge, NOW, -1 if x > 0 else -2)  # so that the compiler needs x


@njit(cache=True)
def take_id(used, gauge):
    me = get_thread_id()
    if not 0 <= me < num_threads():
        atomic_add(gauge, RANGE, 1)
    if atomic_add(used, me, 1) != 0:
        atomic_add(gauge, SHARED, 1)
    return me


@njit(cache=True)
def give_id(used, me, mask, gauge):
    if get_thread_id() != me or num_threads() != mask:
        atomic_add(gauge, CHANGED, 1)
    atomic_add(used, me, -1)


@njit(parallel=True, cache=True, nogil=True)
def leaf(n, rounds, gauge):
    mask = num_threads()
    used = np.zeros(mask, np.int64)
    cells = np.zeros(mask, np.int64)
    for i in prange(n):
        me = take_id(used, gauge)
        before = cells[me]
        work(rounds, gauge)
        cells[me] = before + 1
        give_id(used, me, mask, gauge)
    atomic_add(gauge, LOST, n - cells.sum())


@njit(parallel=True, cache=True, nogil=True)
def nest2(n, rounds, gauge):
    mask = num_threads()
    used = np.zeros(mask, np.int64)
    cells = np.zeros(mask, np.int64)
    for i in prange(n):
        me = take_id(used, gauge)
        before = cells[me]
        leaf(n, rounds, gauge)
        cells[me] = before + 1
        give_id(used, me, mask, gauge)
        work(rounds, gauge)
    atomic_add(gauge, LOST, n - cells.sum())


@njit(parallel=True, cache=True, nogil=True)
def nest3(n, rounds, gauge):
    mask = num_threads()
    used = np.zeros(mask, np.int64)
    cells = np.zeros(mask, np.int64)
    for i in prange(n):
        me = take_id(used, gauge)
        before = cells[me]
        nest2(n, rounds, gauge)
        cells[me] = before + 1
        give_id(used, me, mask, gauge)
        work(rounds, gauge)
    atomic_add(gauge, LOST, n - cells.sum())


@njit(parallel=True, cache=True, nogil=True)
def nest4(n, rounds, gauge):
    mask = num_threads()
    used = np.zeros(mask, np.int64)
    cells = np.zeros(mask, np.int64)
    for i in prange(n):
        me = take_id(used, gauge)
        before = cells[me]
        nest3(n, rounds, gauge)
        cells[me] = before + 1
        give_id(used, me, mask, gauge)
        work(rounds, gauge)
    atomic_add(gauge, LOST, n - cells.sum())

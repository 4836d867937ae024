"""Compiled kernels of the Numba tests that look from the inside: ids in use, threads computing, updates lost.

`run_numba` and `check_numba` run a test's code in a fresh process that can import them; they are compiled once per test
run.
"""

from __future__ import annotations

import atexit
import shutil
import subprocess
import tempfile
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from fresh import run_fresh
from numba import get_thread_id, njit, prange, types
from numba.core import cgutils
from numba.extending import intrinsic

# What a gauge counts: threads inside now, the most so far, what a test sets; and what must stay 0: ids out of range,
# ids that two iterations of a region had at once, ids or masks changed by nesting, lost updates of an id's cell, waits
# in vain.
NOW, MOST, SIGNAL, RANGE, SHARED, CHANGED, LOST, LATE = range(8)

_cache = None


def run_numba(
    code: str,
    *,
    threads: int = 4,
    slots: int | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 120,
    args: Sequence[str] = (),
) -> subprocess.CompletedProcess[str]:
    """`run_fresh` with the layer selected, ``NUMBA_NUM_THREADS=threads`` and, if given, an arena of `slots`."""
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
    return run_fresh(size + textwrap.dedent(code), env={**variables, **(env or {})}, timeout=timeout, args=args)


def check_numba(code: str, **options) -> str:
    """`run_numba` that must exit with 0 and write nothing to stderr; returns its stdout."""
    done = run_numba(code, **options)
    report = f"exit code {done.returncode}\n--- stdout\n{done.stdout}\n--- stderr\n{done.stderr}"
    assert done.returncode == 0 and not done.stderr, report
    return done.stdout


def new_gauge() -> np.ndarray:
    return np.zeros(8, np.int64)


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
usleep = types.ExternalFunction("usleep", types.int32(types.uint32))


@njit(cache=True)
def work(rounds, gauge):
    """Some nanoseconds of arithmetic a round, counted as one thread that computes."""
    atomic_max(gauge, MOST, atomic_add(gauge, NOW, 1) + 1)
    x = 1.0
    for _ in range(rounds):
        x = x * 1.0000001 + 1e-9
    atomic_add(gauge, NOW, -1 if x > 0 else -2)  # so that the compiler needs x


@njit(cache=True)
def begin(used, cells, gauge):
    """An iteration begins: its id, which nobody else has now, and its mask, and what its id has done so far."""
    me, mask = get_thread_id(), num_threads()
    if not (0 <= me < mask and mask == used.size):
        atomic_add(gauge, RANGE, 1)
    if atomic_add(used, me, 1) != 0:
        atomic_add(gauge, SHARED, 1)
    return me, mask, cells[me]


@njit(cache=True)
def end(me, mask, before, used, cells, gauge):
    if get_thread_id() != me or num_threads() != mask:
        atomic_add(gauge, CHANGED, 1)
    # As a reduction does: read at the start, written at the end, not atomic.
    cells[me] = before + 1
    atomic_add(used, me, -1)


@njit(parallel=True, cache=True, nogil=True)
def leaf(n, rounds, gauge):
    """A region of `n` iterations of `work`; `nest2` to `nest4` run such regions in theirs, that many deep."""
    used, cells = np.zeros((2, num_threads()), np.int64)
    for _ in prange(n):
        me, mask, before = begin(used, cells, gauge)
        work(rounds, gauge)
        end(me, mask, before, used, cells, gauge)
    atomic_add(gauge, LOST, n - cells.sum())


@njit(parallel=True, cache=True, nogil=True)
def nest2(n, rounds, gauge):
    used, cells = np.zeros((2, num_threads()), np.int64)
    for _ in prange(n):
        me, mask, before = begin(used, cells, gauge)
        leaf(n, rounds, gauge)
        end(me, mask, before, used, cells, gauge)
        work(rounds, gauge)
    atomic_add(gauge, LOST, n - cells.sum())


@njit(parallel=True, cache=True, nogil=True)
def nest3(n, rounds, gauge):
    used, cells = np.zeros((2, num_threads()), np.int64)
    for _ in prange(n):
        me, mask, before = begin(used, cells, gauge)
        nest2(n, rounds, gauge)
        end(me, mask, before, used, cells, gauge)
        work(rounds, gauge)
    atomic_add(gauge, LOST, n - cells.sum())


@njit(parallel=True, cache=True, nogil=True)
def nest4(n, rounds, gauge):
    used, cells = np.zeros((2, num_threads()), np.int64)
    for _ in prange(n):
        me, mask, before = begin(used, cells, gauge)
        nest3(n, rounds, gauge)
        end(me, mask, before, used, cells, gauge)
        work(rounds, gauge)
    atomic_add(gauge, LOST, n - cells.sum())


@njit(cache=True)
def until(count, wanted, gauge):
    """Sleep until ``gauge[count] >= wanted``. After ten seconds in vain nobody waits any more."""
    for _ in range(10_000):
        if atomic_add(gauge, count, 0) >= wanted or atomic_add(gauge, LATE, 0) > 0:
            return
        usleep(1000)
    atomic_add(gauge, LATE, 1)


@njit(parallel=True, cache=True, nogil=True)
def meet(n, first, wanted, gauge):
    """Iterations from `first` on stay until `wanted` threads were in such iterations at once.

    Each is long even where nobody is waited for: iterations found short are not offered to others the next time before
    the caller has run the first of them, in a full arena (a worker that still tidies up after its task) those below 0.2 ms
    neither, and a region that waits for others in that one would wait in vain.
    """
    for i in prange(n):
        if i >= first:
            atomic_max(gauge, MOST, atomic_add(gauge, NOW, 1) + 1)
            usleep(1000)
            until(MOST, wanted, gauge)
            atomic_add(gauge, NOW, -1)


@njit(parallel=True, cache=True, nogil=True)
def hold(n, gauge):
    """All iterations stay until somebody sets ``gauge[SIGNAL]``."""
    for _ in prange(n):
        atomic_max(gauge, MOST, atomic_add(gauge, NOW, 1) + 1)
        until(SIGNAL, 1, gauge)
        atomic_add(gauge, NOW, -1)


@njit(parallel=True, cache=True, nogil=True)
def outlast(n, slow, gauge):
    """Iteration `slow` stays until all others are done."""
    for i in prange(n):
        if i == slow:
            until(MOST, n - 1, gauge)
        else:
            atomic_add(gauge, MOST, 1)


@njit(parallel=True, cache=True)
def sums(x):
    """Reductions whose result depends on the order of the additions."""
    total, product, least, rows = 0.0, 1.0, np.inf, np.zeros(3)
    for i in prange(x.size):
        total += x[i]
        product *= 1 + x[i] * 1e-6
        least = min(least, x[i])
        rows += np.array([x[i], x[i] ** 2, 1 / x[i]])
    return total, product, least, rows


def compute(slots: int) -> None:
    """Regions in an arena of `slots`, for processes that were forked or spawned: right answers, all slots used."""
    gauge = new_gauge()
    nest2(8, 2000, gauge)
    check_gauge(gauge, slots)
    gauge = new_gauge()
    meet(4 * slots, 0, slots, gauge)
    check_gauge(gauge, slots)
    assert gauge[MOST] == slots, gauge

"""What a trace adds: ``trace_cost.py WORK off|on``; CPU time per unit counts."""

from __future__ import annotations

import sys
from collections.abc import Callable

import composable_threads
import numba
import numpy as np
from composable_threads.dask_backend import get
from joblib import Parallel, delayed
from measure import measure

numba.config.THREADING_LAYER = "composable"


@numba.njit(parallel=True)
def add(out):
    for i in numba.prange(out.size):
        out[i] += 1.0


@numba.njit
def often(out, times):
    for _ in range(times):
        add(out)


def nothing(i):
    return i


def region() -> tuple[Callable[[], object], int]:
    """Regions of four items, from compiled code: about the smallest there is."""
    out, count = np.ones(4), 500_000
    return lambda: often(out, count), count


def small_region() -> tuple[Callable[[], object], int]:
    """Regions of a few microseconds."""
    out, count = np.ones(20_000), 20_000
    return lambda: often(out, count), count


def call() -> tuple[Callable[[], object], int]:
    """The smallest regions, each called from Python."""
    out, count = np.ones(4), 100_000
    return lambda: [add(out) for _ in range(count)], count


def joblib() -> tuple[Callable[[], object], int]:
    count = 30_000
    return lambda: Parallel(2, backend="composable")(delayed(nothing)(i) for i in range(count)), count


def map_calls() -> tuple[Callable[[], object], int]:
    count = 50_000

    def run() -> None:
        with composable_threads.Executor(2) as executor:
            list(executor.map(nothing, range(count)))

    return run, count


def dask() -> tuple[Callable[[], object], int]:
    count = 5_000
    graph = {("a", i): (nothing, i) for i in range(count)} | {("b", i): (nothing, ("a", i)) for i in range(count)}
    return lambda: get(graph, [("b", i) for i in range(count)]), 2 * count


if __name__ == "__main__":
    work, units = globals()[sys.argv[1]]()
    work()
    if sys.argv[2] == "on":
        composable_threads.trace(limit=10_000_000).start()
    measure(work, 9, units)

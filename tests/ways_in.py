"""Small computations through every way into the arena, for programs of tests that fork, exit or are interrupted.

Each takes the arena's `slots`, checks its answer, and that as many of its tasks meet as there are slots.
"""

from __future__ import annotations

import os
import threading
import time

import composable_threads
from composable_threads.dask_backend import get
from joblib import Parallel, delayed
from numba_kernels import compute

PATIENCE = 30  # seconds that tasks wait for one another: only where something is broken


def meeting(slots: int):
    """A function of numbers that returns only where `slots` threads are in it at once."""
    barrier = threading.Barrier(slots)

    def double(i: int) -> int:
        barrier.wait(PATIENCE)
        return 2 * i

    return double


def through_joblib(slots: int, form: str = "list") -> None:
    double = meeting(slots)
    calls = Parallel(n_jobs=slots, backend="composable", return_as=form)
    assert list(calls(delayed(double)(i) for i in range(2 * slots))) == [2 * i for i in range(2 * slots)]


def through_dask(slots: int) -> None:
    double = meeting(slots)
    graph = {("x", i): (double, i) for i in range(2 * slots)}
    graph["sum"] = (sum, list(graph))
    assert get(graph, "sum") == 2 * sum(range(2 * slots))


def through_executor(slots: int) -> None:
    double = meeting(slots)
    with composable_threads.Executor() as executor:
        first = executor.submit(pow, 2, 10)
        assert list(executor.map(double, range(2 * slots))) == [2 * i for i in range(2 * slots)]
        assert first.result() == 1024


WAYS = {"numba": compute, "joblib": through_joblib, "dask": through_dask, "executor": through_executor}


def compute_all(slots: int) -> None:
    for way in WAYS.values():
        way(slots)


def wait_until(count: int, wanted: int, gauge) -> None:
    """Sleep until ``gauge[count] >= wanted``, without the GIL, which those who are to get there need."""
    deadline = time.monotonic() + PATIENCE
    while gauge[count] < wanted:
        assert time.monotonic() < deadline, gauge
        time.sleep(0.001)


def forked(run) -> int:
    """`run` in a forked child; its exit code. What the child raises goes to stderr."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            run()
            code = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

"""Numba, Joblib, Dask, executors and pools inside one another: right answers, one arena, never more than P threads."""

from __future__ import annotations

import textwrap

import pytest
from numba_kernels import check_numba

# Every level calls `inside(i)` for i in range(WIDE) and adds up; the innermost counts the threads that compute at once.
LEVELS = """
import os, sys, threading, time, traceback
import concurrent.futures as cf
import dask, joblib, numba, numpy
import composable_threads as c
from composable_threads import _native
from numba import njit, objmode, prange
from numba_kernels import MOST, NOW, leaf, new_gauge, nest2

WIDE = 6
gauge = new_gauge()
inside = threading.local()

def compute(i):
    leaf(1, 3000, gauge)  # one iteration: runs where it is called, without the GIL
    return i

def by_region(i):
    leaf(WIDE, 3000, gauge)
    return i

def by_joblib(work):
    return sum(joblib.Parallel(n_jobs=-1, backend="composable")(joblib.delayed(work)(i) for i in range(WIDE)))

def by_dask(work):
    graph = {("task", i): (work, i) for i in range(WIDE)}
    return dask.base.get_scheduler(scheduler="composable")(graph | {"sum": (sum, list(graph))}, "sum")

def by_executor(work):
    with c.Executor() as pool:
        return sum(pool.map(work, range(WIDE)))

def by_pool(work):
    with c.ThreadPool(WIDE) as pool:
        return sum(pool.map(work, range(WIDE), chunksize=1))

TASKS = {"joblib": by_joblib, "dask": by_dask, "executor": by_executor, "pool": by_pool}
TOTAL = sum(range(WIDE))

def check(most):
    assert gauge[NOW] == 0 and 1 <= gauge[MOST] <= most, gauge
    assert c.info()["peak_running"] <= most, c.info()["peak_running"]
    gauge[:] = 0
    c.reset_peak()
"""

# A region whose iterations call Python. The callable waits in a global: a region takes no Python objects.
REGION = """
called, errors = [], []

def call(i):
    try:
        return called[-1](i)
    except BaseException as error:
        errors.append(error)
        return 0

@njit(parallel=True)
def region(n, results):
    for i in prange(n):
        with objmode(result="int64"):
            result = call(i)
        results[i] = result

def by_numba(work):
    called.append(work)
    results = numpy.zeros(WIDE, numpy.int64)
    region(WIDE, results)
    called.pop()
    if errors:
        raise errors.pop()
    return int(results.sum())
"""
SIZES = [1, 2, 3, 4, 8]


def check(code: str, *, slots: int, levels: str = LEVELS, timeout: float = 120) -> str:
    return check_numba(levels + textwrap.dedent(code), slots=slots, timeout=timeout)


# --- pairs and triples


@pytest.mark.parametrize("slots", SIZES)
def test_pairs_stay_within_the_arena_and_are_right(slots):
    check(
        f"""
        OUTSIDE = TASKS | {{"numba": by_numba}}
        for outer, outside in OUTSIDE.items():
            for inner in (by_region, lambda i: by_joblib(compute), lambda i: by_dask(compute)):
                for _ in range(3):
                    expected = TOTAL if inner is by_region else TOTAL * WIDE
                    assert outside(inner) == expected, outer
                check({slots})
        """,
        slots=slots,
        levels=LEVELS + REGION,
    )


@pytest.mark.parametrize("slots", SIZES)
def test_triples_stay_within_the_arena_and_are_right(slots):
    check(
        f"""
        WIDE, TOTAL = 4, 6
        for outside in TASKS.values():
            for middle in TASKS.values():
                for inner, expected in ((by_region, TOTAL * WIDE), (lambda i: by_joblib(compute), TOTAL * WIDE * WIDE)):
                    assert outside(lambda i: middle(inner)) == expected
                    check({slots})
        """,
        slots=slots,
    )


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_threads_of_the_program_outside_add_no_more_than_themselves(slots):
    check(
        f"""
        def many(count, run):
            results = []
            def body():
                for _ in range(3):
                    results.append(run())
            threads = [threading.Thread(target=body) for _ in range(count)]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
            return results
        for count in range(1, 9):
            assert many(count, lambda: by_region(5)) == [5] * 3 * count
            check(max({slots}, count))
            for outside in TASKS.values():
                assert many(count, lambda: outside(by_region)) == [TOTAL] * 3 * count
                # These threads wait, or help with a permit. One job of Joblib's alone is done where it is asked for.
                check(max({slots}, count if outside is by_joblib and {slots} == 1 else 1))
        """,
        slots=slots,
    )


@pytest.mark.parametrize("slots", [1, 3])
def test_innermost_exception_reaches_the_outermost_caller(slots):
    check(
        """
        def fails(i):
            if i == 3:
                raise LookupError("innermost")
            return compute(i)
        OUTSIDE = TASKS | {"numba": by_numba}
        for outer, outside in OUTSIDE.items():
            for middle in TASKS.values():
                for inner in TASKS.values():
                    try:
                        outside(lambda i: middle(lambda i: inner(fails)))
                    except LookupError as error:
                        assert error.args == ("innermost",)
                        seen = "".join(traceback.format_exception(error))
                        assert "in fails" in seen, seen
                    else:
                        raise AssertionError((outer, middle, inner))
                    errors.clear()
        assert by_joblib(by_region) == TOTAL
        """,
        slots=slots,
        levels=LEVELS + REGION,
    )


def test_a_thousand_calls_of_each_from_eight_threads_leave_no_thread_behind():
    check(
        """
        import faulthandler
        faulthandler.cancel_dump_traceback_later()  # its watchdog is a thread too
        def threads_now():
            return len(os.listdir("/proc/self/task"))
        def round(calls):
            results = []
            def body():
                for _ in range(calls):
                    results.extend([by_joblib(int), by_dask(int), by_region(TOTAL)])
            threads = [threading.Thread(target=body) for _ in range(8)]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
            assert results == [TOTAL] * 8 * 3 * calls
        def settle(most):
            deadline = time.monotonic() + 5
            while threads_now() > most and time.monotonic() < deadline:
                time.sleep(0.02)
            return threads_now()
        round(5)
        first = settle(0)
        round(125)
        last = settle(first)
        assert last <= first, (first, last)
        check(8)
        """,
        slots=2,
    )


# --- tasks that wait


def test_task_that_says_it_waits_lets_another_in():
    check(
        """
        release, inside = threading.Event(), []
        def wait(i):
            with c.blocking(), c.blocking():
                inside.append(i)
                release.wait(30)
            return _native.holds_permit()
        with c.Executor() as pool:
            waiting = [pool.submit(wait, i) for i in range(6)]
            # None of the six has ended, and still a seventh runs.
            assert pool.submit(compute, 7).result(30) == 7
            assert sorted(inside) == list(range(6)) and c.info()["running"] <= 2
            release.set()
            assert [future.result() for future in waiting] == [True] * 6
        check(2)
        """,
        slots=2,
    )


def test_blocking_outside_tasks_does_nothing_and_lets_errors_pass():
    check(
        """
        with c.blocking():
            assert not _native.holds_permit()
        def task():
            try:
                with c.blocking():
                    assert not _native.holds_permit()
                    raise LookupError("inside")
            except LookupError as error:
                return error.args, _native.holds_permit()
        with c.Executor() as pool:
            assert pool.submit(task).result() == (("inside",), True)
        """,
        slots=1,
    )


@pytest.mark.parametrize("slots", [1, 2, 4])
def test_tasks_that_wait_unsaid_and_then_compute_regions_stay_within_the_arena(slots):
    # The keeper gives the permits of the sleeping ones away; waking up they must not compute as so many more.
    check(
        f"""
        def task(i):
            time.sleep(0.08)
            return by_region(i)
        with c.Executor(16) as pool:
            assert sum(pool.map(task, range(32))) == sum(range(32))
        check({slots})
        """,
        slots=slots,
    )


@pytest.mark.parametrize("slots", [1, 2])
def test_tasks_may_wait_for_tasks_of_their_executor(slots):
    check(
        f"""
        pool, single, prepared = c.Executor(), c.Executor(1), c.Executor(1, initializer=int)
        def fib(n):
            if n < 2:
                return n
            futures = pool.submit(fib, n - 1), pool.submit(fib, n - 2)
            return sum(future.result() for future in futures)
        def chain(n):  # deeper than one stack
            return n and 1 + pool.submit(chain, n - 1).result()
        def patient(n):
            return n and 1 + pool.submit(patient, n - 1).result(timeout=30)
        def collect():
            futures = [pool.submit(compute, i) for i in range(5)]
            assert cf.wait(futures).not_done == set()
            return sum(future.result() for future in cf.as_completed(futures))
        assert pool.submit(fib, 12).result(60) == 144
        assert pool.submit(chain, 200).result(60) == 200
        assert pool.submit(patient, 20).result(60) == 20
        assert pool.submit(collect).result(60) == 10
        assert pool.submit(lambda: sum(pool.map(compute, range(9)))).result(60) == 36
        for one in (single, prepared):
            assert one.submit(lambda: one.submit(compute, 3).result() + 1).result(60) == 4
        try:
            single.submit(single.shutdown).result(30)
        except RuntimeError as error:
            assert str(error) == "cannot join current thread"
        check({slots})
        """,
        slots=slots,
    )


@pytest.mark.parametrize("workers", ["", "1", "5"])
@pytest.mark.parametrize("slots", [1, 2])
def test_iterations_of_a_region_may_wait_for_futures(slots, workers):
    # The keeper takes no permit from a region; on P = 1 nobody else could run what they wait for.
    check(
        f"""
        def collect(i):
            with c.Executor({workers}) as pool:
                futures = [pool.submit(compute, i) for _ in range(3)]
                assert cf.wait(futures).not_done == set()
                more = [pool.submit(compute, i) for _ in range(3)]
                return sum(future.result() for future in cf.as_completed(futures + more))
        assert by_numba(collect) == 6 * TOTAL
        check({slots})
        """,
        slots=slots,
        levels=LEVELS + REGION,
        timeout=30,
    )


@pytest.mark.parametrize("make", ["c.Executor", "cf.ThreadPoolExecutor"])
def test_executor_of_one_stays_a_queue_for_tasks_that_wait_for_it(make):
    check(
        f"""
        c.activate()
        queue, pool, lock = {make}(1), {make}(8), threading.Lock()
        asked, begun, now, most = [], [], 0, 0
        def alone(i):
            global now, most
            begun.append(i)
            now += 1
            most = max(most, now)
            time.sleep(0.001)
            now -= 1
        def ask(i):
            with lock:
                asked.append(i)
                future = queue.submit(alone, i)
            future.result()
        list(pool.map(ask, range(100)))
        assert most == 1 and begun == asked
        """,
        slots=2,
    )


@pytest.mark.parametrize("slots", [1, 2])
def test_numba_mask_of_a_task_is_its_own(slots):
    check(
        f"""
        def narrow(_=None):
            assert numba.get_num_threads() == 4
            numba.set_num_threads(1)
            return 1
        def task():
            with c.Executor() as pool:
                assert pool.submit(narrow).result() == 1  # this thread may run it
            for inside in TASKS.values():
                if not (inside is by_joblib and {slots} == 1):  # one job alone is done where it is asked for
                    assert inside(narrow) == WIDE
            return numba.get_num_threads()
        with c.Executor(1) as pool:
            assert [pool.submit(task).result() for _ in range(3)] == [4] * 3
        assert numba.get_num_threads() == 4
        """,
        slots=slots,
    )

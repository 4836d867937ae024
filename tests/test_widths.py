"""Widths of BLAS and OpenMP calls: the share of the arena inside tasks, the user's own outside."""

from __future__ import annotations

import pytest

pytest.importorskip("sklearn")
from width_programs import run


@pytest.mark.parametrize("slots", [1, 2])
def test_width_is_one_in_a_full_arena(slots):
    out = run(f"print(together({slots + 2}, widths)[0])", slots)
    assert out.strip() == "{'openblas': [1], 'openmp': [1]}"


# Each door runs `body` in as many tasks and returns what it saw.
DOORS = {
    "executor": "list(ct.Executor(2).map(body, range(count)))",
    "thread pool": "applied(ct.ThreadPool(2), body, count)",
    "joblib": "joblib.Parallel(2, backend='composable')(joblib.delayed(body)(i) for i in range(count))",
    "dask": "dask.compute(*[dask.delayed(body)(i) for i in range(count)], scheduler='composable', num_workers=2)",
    "activated executor": "list(concurrent.futures.ThreadPoolExecutor(2).map(body, range(count)))",
    "activated thread pool": "applied(multiprocessing.pool.ThreadPool(2), body, count)",
    "activated joblib": "joblib.Parallel(2)(joblib.delayed(body)(i) for i in range(count))",
    "activated dask": "dask.compute(*[dask.delayed(body)(i) for i in range(count)], num_workers=2)",
    "threads": "in_threads(body, count)",
}


@pytest.mark.parametrize("door", DOORS)
def test_every_door_leads_to_the_share(door):
    code = f"""
import concurrent.futures, contextlib, dask, joblib, multiprocessing.pool
def applied(pool, body, count):
    return [job.get() for job in [pool.apply_async(body, (i,)) for i in range(count)]]
def in_threads(body, count):
    out = []
    def run():
        with ct.task():
            out.append(body(0))
    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    return out
meet = threading.Barrier(2)
def crowded(_):
    meet.wait()
    seen = numpy_width(), scipy_width(), widths()["openmp"]
    meet.wait()  # until here both run
    return seen
def alone(_):
    return numpy_width(), scipy_width(), widths()["openmp"]
with ct.activate() if {door.startswith("activated")} else contextlib.nullcontext():
    for _ in range(3):
        body, count = crowded, 2 if {door == "threads"} else 6
        found = list({DOORS[door]})
        assert {{row[:2] for row in found}} == {{(1, 1)}}, found
        # OpenMP's width is the one a task began with, perhaps alone: the first of two threads, the last of a queue.
        assert 2 * [row[2] for row in found].count([1]) >= count, found
        body, count = alone, 1
        until(lambda: _native.counts()["running"] == 0)
        assert list({DOORS[door]}) == [(2, 2, [2])]
        until(lambda: _native.counts()["running"] == 0)
print(widths())
"""
    assert run(code, 2).strip() == "{'openblas': [2], 'openmp': [2]}"


def test_a_task_that_is_alone_has_all_cores():
    out = run("print(together(1, widths)[0])", 2)
    assert out.strip() == "{'openblas': [2], 'openmp': [2]}"


def test_queued_tasks_count():
    code = """
seen = []
group = _native.TaskGroup(1)  # one at a time, so never more than one runs
for _ in range(3):
    group.submit(lambda: seen.append(widths()["openblas"]))
group.help()
other = _native.TaskGroup(2)
held = threading.Event()
other.submit(held.wait)
other.submit(lambda: (seen.append(widths()["openblas"]), held.set()))
other.help()
print(seen)
"""
    # A group of limit 1 is one task's worth of load however long its queue is; two that may run at once are two.
    assert run(code, 2).strip() == "[[2], [2], [2], [1]]"


def test_tasks_count_that_are_queued_while_the_first_one_waits_for_the_gil():
    code = """
import ctypes, sys
sys.setswitchinterval(30)  # the submitter keeps the GIL until it waits
library = ctypes.CDLL(next(row["filepath"] for row in threadpool_info() if row["user_api"] == "openmp"))
seen = set()
for turn in range(20):
    with ct.Executor(2) as executor:
        first = executor.submit(library.omp_get_max_threads)
        taken = time.monotonic() + 0.005
        while time.monotonic() < taken: pass
        held = threading.Event()
        other = executor.submit(held.wait)
        seen.add(first.result())
        held.set()
print(seen)
"""
    assert run(code, 2).strip() == "{1}"


def test_widths_are_put_back_after_tasks_that_end_badly():
    code = """
before = widths()
def bad():
    raise ValueError("boom")
with ct.Executor(2) as executor:
    futures = [executor.submit(bad) for _ in range(20)]
    futures += [executor.submit(bad) for _ in range(20)]
    for future in futures:
        future.cancel()
assert widths() == before, widths()
for backend in ("composable",):
    import joblib
    for tasks in ([joblib.delayed(bad)()] * 4, [joblib.delayed(widths)()] * 4):
        try:
            joblib.Parallel(2, backend=backend)(tasks)
        except ValueError:
            pass
        assert widths() == before, widths()
print("same")
"""
    assert run(code, 2).strip() == "same"


def test_widths_are_put_back_after_calls_that_are_cancelled():
    code = """
import joblib
before, held = widths(), threading.Event()
for turn in range(3):
    held.clear()
    with ct.Executor(2) as executor:
        futures = [executor.submit(held.wait) for _ in range(40)]
        until(lambda: _native.counts()["running"] == 2)
        assert scipy_width() == 1
        executor.shutdown(wait=False, cancel_futures=True)
        held.set()
    try:
        joblib.Parallel(2, backend="composable", timeout=0.01)(joblib.delayed(time.sleep)(0.05) for _ in range(8))
    except joblib.parallel.TimeoutError:
        pass
    pool = ct.ThreadPool(2)
    pool.map_async(time.sleep, [0.01] * 40)
    pool.terminate()
    until(lambda: _native.counts()["running"] == 0)
    assert widths() == before, widths()
print("same")
"""
    assert run(code, 2).strip() == "same"


def test_widths_in_nested_calls_and_after_them():
    code = """
import dask, joblib
before = widths()
def leaf():
    return numpy_width(), scipy_width(), widths()["openmp"]
def in_joblib():
    return joblib.Parallel(2, backend="composable")(joblib.delayed(leaf)() for _ in range(3))
def in_dask(fails):
    parts = [dask.delayed(in_joblib)() for _ in range(2)]
    parts += [dask.delayed(lambda: 1 / 0)()] if fails else []
    return dask.compute(*parts, scheduler="composable")
for fails in (False, True, False):
    with ct.Executor(3) as executor:
        for future in [executor.submit(in_dask, fails) for _ in range(3)]:
            try:
                seen = [leaf for part in future.result() for leaf in part]
                assert len(seen) == 6 and {width for row in seen for width in row[:2]} <= {1, 2}, seen
            except ZeroDivisionError:
                assert fails
    until(lambda: _native.counts()["running"] == 0)
    assert widths() == before, widths()
print(before)
"""
    assert run(code, 2).strip() == "{'openblas': [2], 'openmp': [2]}"


def test_a_users_narrower_width_is_not_raised():
    code = "print(together(1, widths)[0], widths())"
    out = run(code, 2, OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")
    assert out.strip() == "{'openblas': [1], 'openmp': [1]} {'openblas': [1], 'openmp': [1]}"


# On the main thread, which helps with its own calls, and on a thread of the program that has a block counted as a task.
@pytest.mark.parametrize("own", [1, 5])
def test_a_users_openmp_width_survives_tasks_on_its_thread(own):
    code = f"""
import ctypes, joblib
library = ctypes.CDLL(next(row["filepath"] for row in threadpool_info() if row["user_api"] == "openmp"))
set_width, width = library.omp_set_num_threads, library.omp_get_max_threads
def check():
    set_width({own})
    here, seen = threading.get_ident(), []
    def body(i):
        seen.append((threading.get_ident() == here, width()))
    for _ in range(20):
        joblib.Parallel(2, backend="composable")(joblib.delayed(body)(i) for i in range(4))
        with ct.task():
            body(0)
        assert width() == {own}, width()
        try:
            joblib.Parallel(2, backend="composable")([joblib.delayed(int)("no number")] * 4)
        except ValueError:
            pass
        assert width() == {own}, width()
    assert max(found for mine, found in seen if mine) == min({own}, 2), seen
    return any(mine for mine, _ in seen)
out = [check()]
thread = threading.Thread(target=lambda: out.append(check()))
thread.start()
thread.join()
print(out, width())
"""
    assert run(code, 2).strip() == f"[True, True] {own}"


def test_a_users_openblas_width_is_the_most_and_survives_tasks():
    code = """
import ctypes
set_width = getattr(ctypes.CDLL(NUMPY), next(name for name in (
    "scipy_openblas_set_num_threads64_", "scipy_openblas_set_num_threads", "openblas_set_num_threads64_",
    "openblas_set_num_threads") if hasattr(ctypes.CDLL(NUMPY), name)))
for own in (1, 2, 3):
    until(lambda: _native.counts()["running"] == 0)
    set_width(own)
    print(set(together(2, numpy_width)), set(together(1, numpy_width)), numpy_width(), scipy_width())
"""
    assert run(code, 2).splitlines() == ["{1} {1} 1 2", "{1} {2} 2 2", "{1} {2} 3 2"]


def test_task_context_counts_and_restores():
    code = """
print(ct.info()["running"])
with ct.task():
    with ct.task():
        print(ct.info()["running"], widths())
    with ct.Executor(1) as executor:
        other = executor.submit(widths)
        while not other.done():  # computing, not waiting
            pass
        print(other.result())
print(ct.info()["running"], widths())
"""
    assert run(code, 2).splitlines() == [
        "0",
        "1 {'openblas': [2], 'openmp': [2]}",
        "{'openblas': [1], 'openmp': [1]}",
        "0 {'openblas': [2], 'openmp': [2]}",
    ]


@pytest.mark.parametrize("call", ["np.dot(a, a)", "np.linalg.solve(a, a)"])
def test_blas_in_a_shared_numba_region_has_width_one(call):
    code = f"""
import ctypes, numba, numpy as np
library = ctypes.CDLL(next(row["filepath"] for row in threadpool_info() if "scipy.libs" in row["filepath"]))
names = ("scipy_openblas_get_num_threads", "openblas_get_num_threads")  # before SciPy 1.16 without its prefix
get = next(getattr(library, name) for name in names if hasattr(library, name))
get.argtypes, get.restype = [], ctypes.c_int
@numba.njit(parallel=True)
def products(a, seen):
    for i in numba.prange(seen.size):
        {call}
        seen[i] = get()
a, seen = np.random.rand(100, 100), np.zeros(400, np.int64)
products(a, seen)
products(a, seen)
# The caller alone measures the first blocks; from the offer on every call is narrow.
print(sorted(set(seen[len(seen) // 2 :])), get())
"""
    assert run(code, 2, NUMBA_THREADING_LAYER="composable").strip() == "[np.int64(1)] 2"


def test_a_forked_child_has_the_users_widths():
    code = """
import os, warnings
warnings.filterwarnings("ignore", ".*fork.*", DeprecationWarning)  # Python 3.12 and later, of threads
def fork():
    child = os.fork()
    if child == 0:
        os._exit(0 if widths() == {"openblas": [2], "openmp": [2]} else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
together(3, widths)
print(fork())
held = threading.Event()
def compute():  # one that sleeps would lose its permit
    while not held.is_set():
        sum(range(1000))
with ct.Executor(2) as executor:
    futures = [executor.submit(compute) for _ in range(2)]
    until(lambda: _native.counts()["running"] == 2)
    print(widths()["openblas"], fork())  # the tasks stay with the parent
    held.set()
print(widths())
"""
    assert run(code, 2).splitlines() == ["0", "[1] 0", "{'openblas': [2], 'openmp': [2]}"]


def test_a_child_forked_in_a_task_has_tasks_and_widths_of_its_own():
    code = """
import os, warnings
warnings.filterwarnings("ignore", ".*fork.*", DeprecationWarning)
def both():
    return numpy_width(), scipy_width(), widths()["openmp"]
with ct.task():  # the child is in the middle of it too
    child = os.fork()
    if child == 0:
        code = 1 if both() != (2, 2, [2]) else 0
        code += 2 if {width[:2] for width in together(3, both)} - {(1, 1), (2, 2)} else 0
        code += 4 if together(1, both) != [(2, 2, [2])] else 0
if child == 0:
    os._exit(code + (8 if both() != (2, 2, [2]) else 0))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), widths())
"""
    assert run(code, 2).strip() == "0 {'openblas': [2], 'openmp': [2]}"

"""`limit(n)` makes the arena narrower for everybody or for a thread, through every door, and threadpoolctl can do the same."""

from __future__ import annotations

import threading

import composable_threads as ct
import pytest
from composable_threads import _native
from fresh import check_fresh
from numba_kernels import check_numba

# `most(run)`: how many threads were at once in what `run(body)` runs. They compute: a task that sleeps loses its permit once it
# is found, and others come.
START = """
import threading, time
import composable_threads as ct
from composable_threads import _native
_native.configure(4)

def most(run):
    lock, here, seen = threading.Lock(), [0], [0]
    def body(*_):
        with lock:
            here[0] += 1
            seen[0] = max(seen[0], here[0])
        end = time.perf_counter() + 0.004
        while time.perf_counter() < end: time.sleep(0)
        with lock: here[0] -= 1
    run(body)
    return seen[0]

def by_executor(body):
    with ct.Executor(4) as executor: list(executor.map(body, range(24)))
def by_pool(body):
    with ct.ThreadPool(4) as pool: pool.map(body, range(24), chunksize=1)
def by_joblib(body):
    from joblib import Parallel, delayed, parallel_config
    with parallel_config("composable"): Parallel(n_jobs=4, batch_size=1)(delayed(body)(i) for i in range(24))
def by_dask(body):
    from composable_threads.dask_backend import get
    get({("a", i): (body, i) for i in range(24)}, [("a", i) for i in range(24)])
"""


def run(code: str) -> str:
    return check_fresh(START + code, env={"NUMBA_THREADING_LAYER": "composable"}).strip()


@pytest.mark.parametrize("door", ["executor", "pool", "joblib", "dask"])
@pytest.mark.parametrize("scope", ["process", "thread"])
def test_no_more_tasks_at_once_than_the_limit(door: str, scope: str) -> None:
    code = f"""
for n in (1, 2, 3):
    with ct.limit(n, scope={scope!r}):
        assert _native.most() == (n if {scope!r} == "process" else 4)
        found = most(by_{door})
        assert found <= n, (found, n)
assert _native.most() == 4 and _native.thread_limit() == 0
"""
    run(code)


def test_numba_regions_and_what_is_nested_in_tasks_share_the_limit() -> None:
    # Of a thread's limit the gauge tells who computes: a worker between two tasks has a permit for a moment.
    check_numba("""
import composable_threads as ct
from numba_kernels import *
leaf(8, 100, new_gauge())
def both(n, scope):
    gauge = new_gauge()
    with ct.limit(n, scope=scope):
        ct.reset_peak()
        leaf(200, 20_000, gauge)
        with ct.Executor(2) as executor:
            for future in [executor.submit(leaf, 50, 20_000, gauge) for _ in range(4)]: future.result()
        if scope == "process": assert ct.info()["peak_running"] <= n, (n, ct.info()["peak_running"])
    check_gauge(gauge, n)
    return gauge[MOST]
for scope in ("process", "thread"):
    assert both(1, scope) == 1
    assert max(both(2, scope) for _ in range(10)) == 2
    assert max(both(3, scope) for _ in range(10)) >= 2
""", slots=4)  # fmt: skip


def test_the_end_of_a_limit_lets_waiting_tasks_begin() -> None:
    code = """
meet = threading.Barrier(4)
block = ct.limit(1)
with ct.Executor(4) as executor:
    with block:
        futures = [executor.submit(meet.wait, 30) for _ in range(4)]
    for future in futures: future.result()
"""
    run(code)


def test_of_several_limits_the_smallest_stands_until_it_ends() -> None:
    code = """
outer, inner = ct.limit(3), ct.limit(1)
outer.__enter__(); inner.__enter__()
assert _native.most() == 1
outer.__exit__(None, None, None)
assert _native.most() == 1
end = threading.Thread(target=inner.__exit__, args=(None, None, None)); end.start(); end.join()
assert _native.most() == 4
with ct.limit(3, scope="thread"):
    with ct.limit(9, scope="thread"): assert _native.thread_limit() == 3
    with ct.limit(2, scope="thread"): assert _native.thread_limit() == 2
    assert _native.thread_limit() == 3
assert _native.thread_limit() == 0
"""
    run(code)


def test_limits_of_other_threads_end_with_a_fork() -> None:
    code = """
import os, warnings
warnings.filterwarnings("ignore", ".*fork.*", DeprecationWarning)  # Python 3.12 and later, of threads
go, here = threading.Event(), threading.Event()
def other():
    with ct.limit(1):
        here.set()
        go.wait()
thread = threading.Thread(target=other); thread.start(); here.wait()
with ct.limit(3), ct.limit(2, scope="thread"):
    assert _native.most() == 1
    child = os.fork()
    if child == 0:
        assert _native.most() == 3 and _native.thread_limit() == 2
        os._exit(0 if most(by_executor) <= 2 else 1)
    go.set(); thread.join()
    assert os.waitpid(child, 0)[1] == 0
    assert _native.most() == 3
assert _native.most() == 4
"""
    run(code)


def test_blas_in_tasks_under_a_limit_uses_no_more() -> None:
    pytest.importorskip("threadpoolctl")
    code = """
import numpy
from threadpoolctl import threadpool_info
numpy.ones((9, 9)) @ numpy.ones((9, 9))
def widths(): return {row["num_threads"] for row in threadpool_info() if row["user_api"] == "blas"}
user = widths()
def alone():
    with ct.Executor(1) as executor: return max(executor.submit(widths).result())
if user == {4}:
    assert alone() == 4
for scope in ("process", "thread"):
    with ct.limit(2, scope=scope):
        assert widths() == user  # the program's own calls are not the arena's
        assert alone() <= 2, scope
def task():
    with ct.limit(1, scope="thread"): inside = widths()
    return inside
with ct.Executor(1) as executor: assert executor.submit(task).result() == {1}
assert widths() == user
"""
    run(code)


@pytest.mark.parametrize(
    ("n", "error"),
    [(0, ValueError), (-3, ValueError), (1.5, TypeError), ("2", TypeError), (None, TypeError), (True, TypeError)],
)
def test_a_bad_count_is_refused(n: object, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"^n must be"):
        ct.limit(n)  # type: ignore[arg-type]


def test_a_bad_scope_is_refused() -> None:
    with pytest.raises(ValueError, match="scope must be one of 'process', 'thread', not 'task'"):
        ct.limit(1, scope="task")


def test_misuse_of_a_context_is_told_and_changes_nothing() -> None:
    context = ct.limit(10**12)
    with pytest.raises(RuntimeError, match="was not entered"):
        context.__exit__(None, None, None)
    with context, pytest.raises(RuntimeError, match="in use already"):
        context.__enter__()
    first, second = ct.limit(2, scope="thread"), ct.limit(1, scope="thread")
    with first:
        with second:
            with pytest.raises(RuntimeError, match="reverse order"):
                first.__exit__(None, None, None)
            told: list[BaseException] = []

            def leave() -> None:
                try:
                    second.__exit__(None, None, None)
                except RuntimeError as error:
                    told.append(error)

            thread = threading.Thread(target=leave)
            thread.start()
            thread.join()
            assert "left by the thread that entered it" in str(told[0])
            assert _native.thread_limit() == 1
        assert _native.thread_limit() == 2
    assert _native.thread_limit() == 0


# --- threadpoolctl

TPC = """
import threadpoolctl as t
if not hasattr(t, "register"): raise SystemExit
def listed(): return [row["num_threads"] for row in t.threadpool_info() if row["user_api"] == "composable"]
"""


def test_threadpoolctl_lists_the_arena_and_limits_it_by_name() -> None:
    pytest.importorskip("threadpoolctl")
    code = """
assert listed() == [4] and _native.started_slots() is None, listed()
with t.threadpool_limits(2, user_api="composable"):
    assert _native.most() == 2 and listed() == [2]
    with t.threadpool_limits(3, user_api="composable"): assert _native.most() == 3
    with t.threadpool_limits({"composable": 9}): assert _native.most() == 4
    with t.threadpool_limits({"_native": 1}): assert _native.most() == 1
    assert listed() == [2]
assert _native.most() == 4 and listed() == [4]
limiter = t.threadpool_limits(1, user_api="composable")
assert _native.most() == 1
limiter.restore_original_limits()
assert _native.most() == 4
@t.threadpool_limits.wrap(limits=2, user_api="composable")
def wrapped(): return _native.most()
assert [wrapped(), wrapped(), _native.most()] == [2, 2, 4]
info = next(row for row in t.threadpool_info() if row["user_api"] == "composable")
assert info["version"] == ct.__version__ and info["internal_api"] == "composable" and set(info) == {
    "user_api", "internal_api", "num_threads", "prefix", "filepath", "version"}
"""
    run(TPC + code)


def test_a_limit_without_a_name_leaves_the_arena_alone() -> None:
    pytest.importorskip("threadpoolctl")
    code = """
import numpy
with t.threadpool_limits(1):
    assert _native.most() == 4
    assert {row["num_threads"] for row in t.threadpool_info() if row["user_api"] == "blas"} == {1}
with t.threadpool_limits(1, user_api="blas"): assert _native.most() == 4
before = t.threadpool_info()
with t.threadpool_limits(1, user_api="composable"):
    # What an unrelated limit puts back at its end is what it found.
    with t.threadpool_limits(1, user_api="blas"): pass
    assert _native.most() == 1
    with t.threadpool_limits(before): assert _native.most() == 4
    assert _native.most() == 1
assert _native.most() == 4
try: t.threadpool_limits(1, user_api="nonsense")
except ValueError: pass
else: raise AssertionError
"""
    run(TPC + code)


def test_in_a_task_threadpoolctl_limits_what_the_task_opens() -> None:
    pytest.importorskip("threadpoolctl")
    code = """
def task():
    with t.threadpool_limits(1, user_api="composable"):
        inside = _native.most(), _native.thread_limit(), listed()
    return inside, _native.thread_limit(), listed()
with ct.Executor(2) as executor: assert executor.submit(task).result() == ((4, 1, [1]), 0, [4])
for bad in (0, -1):
    try: t.threadpool_limits(bad, user_api="composable")
    except ValueError as error: assert "at least 1" in str(error)
    else: raise AssertionError(bad)
assert _native.most() == 4
"""
    run(TPC + code)

"""Ctrl-C in every way in, alone and nested: nothing begins after it but what runs, and the next call works.

`test_joblib_nesting.py` sends it at random moments of Joblib calls; here what has begun is counted.
"""

from __future__ import annotations

import pytest
from numba_kernels import check_numba

# `run(task)` gives the sum of 100 calls of `task` through one way in.
WAYS = {
    "call": "def run(task): return sum(Parallel(n_jobs=JOBS, backend='composable')(delayed(task)(i) for i in range(100)))",
    "call_of_any_size": """
def run(task):
    calls = Parallel(n_jobs=JOBS, backend="composable", pre_dispatch="all", batch_size=1)
    return sum(calls(delayed(task)(i) for i in range(100)))
""",
    "call_with_timeout": """
def run(task):
    return sum(Parallel(n_jobs=JOBS, backend="composable", timeout=60)(delayed(task)(i) for i in range(100)))
""",
    "generator": """
def run(task):
    return sum(Parallel(n_jobs=JOBS, backend="composable", return_as="generator")(delayed(task)(i) for i in range(100)))
""",
    "generator_unordered": """
def run(task):
    calls = Parallel(n_jobs=JOBS, backend="composable", return_as="generator_unordered", pre_dispatch="all")
    return sum(calls(delayed(task)(i) for i in range(100)))
""",
    "graph": "def run(task): return sum(get({('x', i): (task, i) for i in range(100)}, [('x', i) for i in range(100)]))",
    "graph_by_dasks_own_loop": """
from dask.callbacks import Callback
def run(task):
    with Callback():
        return sum(get({('x', i): (task, i) for i in range(100)}, [('x', i) for i in range(100)]))
""",
    "map": """
def run(task):
    asked.clear()
    with c.Executor() as executor:
        results = executor.map(task, range(100))
        asked.set()
        return sum(results)
""",
    "pool": """
def run(task):
    with c.ThreadPool(JOBS) as pool:
        return sum(pool.imap(task, range(100)))
""",
}

PROGRAM = """
import os, signal, sys, threading, time
import composable_threads as c
from composable_threads.dask_backend import get
from joblib import Parallel, delayed
from numba_kernels import *
from ways_in import wait_until
import warnings
warnings.simplefilter("ignore")  # Joblib tells of tasks that were cancelled
SLOTS = c._native.slots()
JOBS = max(SLOTS, 2)  # one job is the caller's own loop
begun, ended, released = [], [], threading.Event()

# For results: what map() was asked for and nobody goes through is done, as in a stock executor.
asked = threading.Event()
asked.set()

def interrupt():
    asked.wait(60)
    time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGINT)

def task(i):
    # The fifth one sends it; all that run then stay until the caller has been interrupted.
    begun.append(i)
    try:
        if len(begun) == 5:
            interrupt()
        if len(begun) >= 5:
            released.wait(60)
    finally:
        ended.append(i)
    return i

def check(run, most, nested=False):
    for _ in range(3):
        begun.clear(), ended.clear(), released.clear()
        # `with` waits for what runs, so it is released from here.
        keep = threading.Timer(0.5, released.set)
        keep.start()
        try:
            run(task)
        except KeyboardInterrupt:
            count = len(begun)
        else:
            raise AssertionError("lost")
        released.set()
        keep.cancel()
        while len(ended) < len(begun):
            time.sleep(0.001)
        assert 5 <= len(begun) <= 4 + most and (nested or len(begun) == count), (begun, count)
        assert run(abs) == 4950
"""


@pytest.mark.parametrize("slots", [1, 2, 4])
@pytest.mark.parametrize("way", WAYS)
def test_nothing_begins_after_ctrl_c_and_the_next_call_works(way, slots):
    # Those four that ended and as many as may be in the middle: blocked ones make room for others up to the call's
    # limit.
    check_numba(
        PROGRAM + WAYS[way] + "\ncheck(run, JOBS + 1 + MORE)".replace("MORE", "4" if way == "map" else "0"), slots=slots
    )


@pytest.mark.parametrize("slots", [1, 2])
def test_ctrl_c_while_a_map_draws_drops_what_has_not_begun(slots):
    check_numba(PROGRAM + """
first, interrupted = threading.Event(), threading.Event()
def task(i):
    begun.append(i)
    first.set()
    interrupted.wait(60)
def numbers():
    for i in range(50):
        yield i
        if i == 30:
            first.wait(60)
            threading.Timer(0.5, interrupted.set).start()  # `with` waits for what runs
            interrupt()
            time.sleep(60)
try:
    with c.Executor() as executor:
        executor.map(task, numbers())
except KeyboardInterrupt:
    pass
assert 1 <= len(begun) <= SLOTS + 4, begun  # without max_workers four more than P, where they block
with c.Executor() as executor:
    assert sum(executor.map(abs, range(100))) == 4950
""", slots=slots)  # fmt: skip


NESTED = {
    "graphs_in_a_call": "def inner(i): return get({'x': (task, i), 'y': (abs, 'x')}, 'y')\n" + WAYS["call"],
    "calls_in_a_graph": "def inner(i): return sum(Parallel(n_jobs=2, backend='composable')([delayed(task)(i), delayed(abs)(0)]))\n"
    + WAYS["graph"],
    "maps_in_a_generator": "executor = c.Executor()\ndef inner(i): return sum(executor.map(task, [i]))\n"
    + WAYS["generator"],
    "calls_in_a_map": "def inner(i): return sum(Parallel(n_jobs=2, backend='composable')([delayed(task)(i), delayed(abs)(0)]))\n"
    + WAYS["map"],
    "all": """
executor = c.Executor()
def innermost(i): return executor.submit(task, i).result()
def middle(i): return sum(Parallel(n_jobs=2, backend='composable')([delayed(innermost)(i), delayed(abs)(0)]))
def inner(i): return get({'x': (middle, i), 'y': (abs, 'x')}, 'y')
"""
    + WAYS["call"],
}


@pytest.mark.parametrize("slots", [1, 2, 4])
@pytest.mark.parametrize("way", NESTED)
def test_nothing_begins_after_ctrl_c_in_nested_calls_and_the_next_one_works(way, slots):
    # Counted in the innermost tasks. An outer task that runs then may begin its own, and gives its place away while it
    # waits.
    check_numba(PROGRAM + NESTED[way] + """
outer = run
def run(task):
    return outer(inner if task is not abs else abs)
check(run, 2 * JOBS + 5, nested=True)  # four more: an executor of no limit lets so many begin where others are blocked
""", slots=slots)  # fmt: skip


REGION = """
def send(gauge, wanted):
    # When so many iterations are in the middle; they go on once it is sent.
    def wait_and_send():
        wait_until(NOW, wanted, gauge)
        interrupt()
        gauge[SIGNAL] = 1
    thread = threading.Thread(target=wait_and_send)
    thread.start()
    return thread
"""


@pytest.mark.parametrize("slots", [1, 2, 4])
def test_ctrl_c_in_the_last_iterations_of_a_region_is_raised_and_no_other_one_begins(slots):
    check_numba(PROGRAM + REGION + """
for _ in range(3):
    gauge, started = new_gauge(), 0
    thread = send(gauge, SLOTS)
    try:
        for _ in range(50):
            started += 1
            hold(32, gauge)
    except KeyboardInterrupt:
        pass
    else:
        raise AssertionError("lost")
    thread.join()
    assert started == 1, started
    check_gauge(gauge, SLOTS)
    gauge = new_gauge()
    nest2(8, 1000, gauge)
    check_gauge(gauge, SLOTS)
""", slots=slots)  # fmt: skip


@pytest.mark.parametrize(("slots", "chunk", "nogil"), [(2, 0, True), (2, 1, False), (4, 0, False)])
def test_ctrl_c_ends_a_region_between_its_blocks(slots, chunk, nogil):
    check_numba(PROGRAM + REGION + f"""
import numba
@njit(parallel=True, nogil={nogil})
def long(n, gauge):
    for _ in prange(n):
        atomic_add(gauge, NOW, 1)
        usleep(100)
    return n
@njit
def around(n, gauge):
    return long(n, gauge) + 1
@njit(parallel=True, nogil={nogil})
def many(m, n, gauge):
    done = 0
    for _ in range(m):
        done += long(n, gauge)
    return done
numba.set_parallel_chunksize({chunk})
for function in (long, around, lambda n, gauge: many(n // 100, 100, gauge)):
    gauge = new_gauge()
    assert function(200, gauge) in (200, 201) and gauge[NOW] == 200  # compiled; what an iteration costs is known
    gauge = new_gauge()
    thread = send(gauge, 100)
    try:
        function(100_000, gauge)
    except KeyboardInterrupt:
        pass
    else:
        raise AssertionError("lost")
    thread.join()
    assert 100 <= gauge[NOW] < 50_000, gauge
    ended = gauge[NOW]
    time.sleep(0.1)
    assert gauge[NOW] == ended
""", slots=slots)  # fmt: skip


def test_handler_of_a_signal_runs_in_the_middle_of_a_region_and_may_run_regions():
    check_numba(PROGRAM + REGION + """
gauge, inner, seen = new_gauge(), new_gauge(), []
def handle(*_):
    nest2(8, 100, inner)
    seen.append(gauge[LATE])
    gauge[SIGNAL] = 1
signal.signal(signal.SIGINT, handle)
@njit(parallel=True, nogil=True)
def region(n, gauge):
    found = 0
    for i in prange(n):
        if i < 1000:
            usleep(1000)
        else:
            until(SIGNAL, 1, gauge)  # gives up after a while
        found += i
        if gauge[SIGNAL] == 0:
            atomic_add(gauge, LATE, 1)
    return found
region(1, new_gauge())
region(500, new_gauge())  # signal.signal() has put the interpreter's handler into its place; a region looks after that
threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
assert region(1004, gauge) == 1004 * 1003 // 2
assert len(seen) == 1, seen
check_gauge(inner, SLOTS)
""", slots=2)  # fmt: skip


@pytest.mark.parametrize("slots", [1, 2, 4])
@pytest.mark.parametrize("way", ["call", "generator", "graph", "map"])
def test_ctrl_c_in_regions_in_tasks_begins_no_other_region(way, slots):
    check_numba(PROGRAM + REGION + WAYS[way] + """
def region(i):
    begun.append(i)
    hold(8, gauge)
    time.sleep(0.02)  # so that the caller comes to see it before they are all done
    return i
for _ in range(3):
    begun.clear()
    gauge = new_gauge()
    thread = send(gauge, SLOTS)
    try:
        run(region)
    except KeyboardInterrupt:
        count = len(begun)
    else:
        raise AssertionError("lost")
    thread.join()
    assert run(abs) == 4950
    assert len(begun) <= count + JOBS and count < 60, (count, len(begun))
""", slots=slots)  # fmt: skip

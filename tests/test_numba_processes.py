"""Numba's regions and the life of a process: children of any kind compute, wherever forked; exit is prompt."""

from __future__ import annotations

import pytest
from numba_kernels import check_numba, run_numba

# --- fork

FORK = """
import os, threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Python says that fork and threads do not mix
import composable_threads as c
from numba_kernels import *

def forked(run):
    \"\"\"`run` in a child; its exit code.\"\"\"
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            run()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

compute(2)
"""


def test_child_of_an_idle_arena_computes_on_all_slots():
    check_numba(FORK + "assert forked(lambda: compute(2)) == 0; compute(2)", slots=2)


def test_child_of_a_child_computes_on_all_slots():
    check_numba(FORK + """
def child():
    compute(2)
    assert forked(lambda: compute(2)) == 0
    compute(2)
assert forked(child) == 0
""", slots=2)  # fmt: skip


def test_child_forked_while_regions_run_computes_on_all_slots():
    check_numba(FORK + """
ended, gauge = threading.Event(), new_gauge()
def busy():
    while not ended.is_set():
        nest2(8, 5000, gauge)
threads = [threading.Thread(target=busy) for _ in range(3)]
for thread in threads: thread.start()
codes = [forked(lambda: compute(2)) for _ in range(8)]
ended.set()
for thread in threads: thread.join()
assert codes == [0] * 8, codes
check_gauge(gauge, 3)
""", slots=2)  # fmt: skip


def test_child_forked_by_a_task_computes_on_all_slots():
    check_numba(FORK + """
def task(n):
    gauge = new_gauge()
    nest2(n, 1000, gauge)
    code = forked(lambda: compute(2))
    nest2(n, 1000, gauge)
    check_gauge(gauge, 2)
    return code
with c.Executor() as executor:
    assert list(executor.map(task, [4] * 6)) == [0] * 6
""", slots=2)  # fmt: skip


def test_child_forked_inside_a_region_computes():
    # The child has one thread and never leaves the iteration which it was forked in.
    check_numba(FORK + """
from numba import objmode
codes = []
def fork_here(i):
    gauge = new_gauge()
    codes.append(forked(lambda: (leaf(100, 1000, gauge), check_gauge(gauge, 2))))
@njit(parallel=True)
def region(n, gauge):
    for i in prange(n):
        work(1000, gauge)
        with objmode():
            fork_here(i)
gauge = new_gauge()
region(12, gauge)
check_gauge(gauge, 2)
assert codes == [0] * 12, codes
""", slots=2)  # fmt: skip


def test_child_forked_while_another_thread_makes_the_arena_makes_its_own():
    check_numba("""
    import ctypes, os, signal, threading, warnings
    warnings.simplefilter("ignore", DeprecationWarning)
    from composable_threads._native import numba as abi
    size_t, pointer = ctypes.c_size_t, ctypes.c_void_p
    sched_size = ctypes.CFUNCTYPE(size_t, size_t, size_t, pointer, pointer)(abi.get_sched_size)
    start, end = (ctypes.c_ssize_t * 1)(0), (ctypes.c_ssize_t * 1)(99)
    def first_use():
        sched_size(2, 1, start, end)
    def fork(run):
        pid = os.fork()
        if pid == 0:
            signal.alarm(20)
            run()
            os._exit(0)
        return pid
    def attempt(loops):
        thread = threading.Thread(target=first_use)
        thread.start()
        for _ in range(loops): pass
        os._exit(os.waitpid(fork(first_use), 0)[1] != 0)
    for number in range(150):
        assert os.waitpid(fork(lambda: attempt(number)), 0)[1] == 0, number
    """)  # fmt: skip


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_processes_of_multiprocessing_compute(method):
    # Spawned processes have an arena of the machine's size.
    check_numba(f"""
    import multiprocessing, warnings
    warnings.simplefilter("ignore", DeprecationWarning)
    from composable_threads import _native
    from numba_kernels import compute
    slots = _native.slots()
    compute(slots)
    context = multiprocessing.get_context({method!r})
    processes = [context.Process(target=compute, args=[slots]) for _ in range(2)]
    for process in processes: process.start()
    for process in processes: process.join()
    assert [process.exitcode for process in processes] == [0] * 2
    compute(slots)
    """)  # fmt: skip


# --- exit

EXITS = {
    "after_regions": ("nest2(8, 1000, gauge)", 0),
    "after_first_use_in_another_thread": ("threading.Thread(target=nest2, args=(8, 1000, gauge)).start()", 0),
    "with_an_error": ("nest2(8, 1000, gauge); sys.exit(3)", 3),
    "while_threads_compute": ("threading.Thread(target=leaf, args=(100, 300_000, gauge)).start(); sys.exit(4)", 4),
    "while_daemon_threads_are_in_regions": ("start_daemons(lambda: nest2(8, 5000, gauge)); sys.exit(5)", 5),
    "while_daemon_threads_are_in_a_long_iteration": ("start_daemons(lambda: hold(8, gauge)); sys.exit(6)", 6),
    "while_tasks_compute": ("executor = composable_threads.Executor(); start_tasks(executor); sys.exit(7)", 7),
}


@pytest.mark.parametrize("slots", [1, 2])
@pytest.mark.parametrize("case", EXITS)
def test_process_exits(case, slots):
    code, expected = EXITS[case]
    done = run_numba(f"""
    import sys, threading
    import composable_threads
    from numba_kernels import *
    gauge = new_gauge()
    def start_daemons(run):
        def forever():
            while True:
                run()
        for _ in range(3):
            threading.Thread(target=forever, daemon=True).start()
        while not gauge[MOST]:
            pass
    def start_tasks(executor):
        for _ in range(20):
            executor.submit(nest2, 8, 1000, gauge)
    {code}
    """, slots=slots)  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (expected, "", "")

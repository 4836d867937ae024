"""A process ends whenever it is told to, with the exit code that plain Python gives and without a message.

`test_numba_processes.py` has ends in regions, `test_activate.py` those with executors; here are Joblib calls, Dask
graphs, tasks that end the program, and what is still alive when the interpreter goes.
"""

from __future__ import annotations

import textwrap

import pytest
from fresh import run_fresh

# Far above what any of these needs; what hangs is killed and reported with its stacks.
LIMIT = 60

START = """
import atexit, gc, os, sys, threading, time
from composable_threads import _native
SLOTS = int(sys.argv[1])
_native.configure(SLOTS)
"""
EXECUTOR = "import composable_threads as c\nexecutor = c.Executor()\n"
DASK = """
from composable_threads.dask_backend import get
def graph(task, count):
    return get({("x", i): (task, i) for i in range(count)}, [("x", i) for i in range(count)])
"""
JOBLIB = """
import warnings
from joblib import Parallel, delayed
warnings.simplefilter("ignore", UserWarning)  # it tells of tasks that were cancelled
def calls(task, count, form="list"):
    return Parallel(n_jobs=2, backend="composable", return_as=form)(delayed(task)(i) for i in range(count))
"""
# `daemon(run)` returns once a daemon thread is in the middle of one of the tasks that `run` runs for ever.
DAEMON = """
inside = threading.Event()
def task(i):
    inside.set()
    sum(range(2000))
def daemon(run):
    def forever():
        while True:
            run()
    for _ in range(2):
        threading.Thread(target=forever, daemon=True).start()
    inside.wait()
"""
# What stays alive in a module, in a cycle and in a thread-local; its destructor computes in the arena once more.
ALIVE = """
class Late:
    def __init__(self, use):
        self.use, self.me = use, self
    def __del__(self):
        try:
            self.use()
        except BaseException:
            pass
"""

# Name: program, exit code, stdout.
ENDS = {
    # sys.exit() in a task: an executor keeps it for who asks, the others raise it in the caller.
    "sys_exit_in_a_task_of_an_executor": (EXECUTOR + "executor.submit(sys.exit, 3)\nprint('on')", 0, "on\n"),
    "sys_exit_in_a_task_that_is_asked_for": (EXECUTOR + "executor.submit(sys.exit, 3).result()", 3, ""),
    "sys_exit_in_a_graph": (DASK + "graph(lambda i: sys.exit(4) if i == 7 else i, 50)", 4, ""),
    "sys_exit_in_a_call": (JOBLIB + "calls(lambda i: sys.exit(5) if i == 7 else i, 50)", 5, ""),
    "sys_exit_in_a_generator": (JOBLIB + "list(calls(lambda i: sys.exit(6) if i == 7 else i, 50, 'generator'))", 6, ""),
    "sys_exit_in_all_nested": (
        EXECUTOR + DASK + JOBLIB + "def inner(i): return graph(lambda j: sys.exit(7), 3)\n"
        "executor.submit(calls, inner, 3).result()",
        7,
        "",
    ),
    # os._exit() from anywhere.
    "os_exit_in_a_task": (EXECUTOR + "executor.submit(os._exit, 8)\ntime.sleep(50)", 8, ""),
    "os_exit_in_a_graph": (DASK + "graph(lambda i: os._exit(9) if i == 7 else time.sleep(0.001), 50)", 9, ""),
    "os_exit_in_a_call": (JOBLIB + "calls(lambda i: os._exit(10) if i == 7 else time.sleep(0.001), 50)", 10, ""),
    # First use off the main thread, which ends before or after.
    "first_graph_off_the_main_thread": (DASK + "threading.Thread(target=graph, args=(print, 1)).start()", 0, "0\n"),
    "first_call_off_the_main_thread": (JOBLIB + "threading.Thread(target=calls, args=(print, 1)).start()", 0, "0\n"),
    "first_task_off_the_main_thread": (
        EXECUTOR + "threading.Thread(target=lambda: executor.submit(print, 0).result()).start()",
        0,
        "0\n",
    ),
    # A program that ends while its daemon threads compute.
    "daemon_threads_in_graphs": (DASK + DAEMON + "daemon(lambda: graph(task, 20))\nsys.exit(11)", 11, ""),
    "daemon_threads_in_calls": (JOBLIB + DAEMON + "daemon(lambda: calls(task, 20))\nsys.exit(12)", 12, ""),
    "daemon_threads_in_generators": (
        JOBLIB + DAEMON + "daemon(lambda: list(calls(task, 20, 'generator')))\nsys.exit(13)",
        13,
        "",
    ),
    "daemon_threads_in_nested_calls": (
        DASK + JOBLIB + DAEMON + "daemon(lambda: calls(lambda i: graph(task, 5), 5))\nsys.exit(14)",
        14,
        "",
    ),
    # Work still queued or running that nobody waits for.
    "generator_half_consumed": (
        JOBLIB + "found = calls(abs, 500, 'generator')\nprint(next(found))\nsys.exit(15)",
        15,
        "0\n",
    ),
    "generator_of_long_tasks": (
        JOBLIB + "found = calls(lambda i: time.sleep(0.05), 100, 'generator')\nsys.exit(16)",
        16,
        "",
    ),
    "generator_in_a_cycle": (
        JOBLIB
        + "class Box: pass\nbox = Box()\nbox.box, box.found = box, calls(abs, 99, 'generator_unordered')\ndel box",
        0,
        "",
    ),
    "map_half_consumed": (EXECUTOR + "found = executor.map(abs, range(-9, 0))\nprint(next(found))", 0, "9\n"),
    "abandoned_graph": (
        DASK
        + "def task(i):\n    if i == 9: raise SystemExit(17)  # the first in its order\n    time.sleep(0.05)\ngraph(task, 60)",
        17,
        "",
    ),
    "abandoned_call": (
        JOBLIB + "def task(i):\n    if i == 1: raise LookupError\n    time.sleep(0.05)\n"
        "try: calls(task, 60)\nexcept LookupError: sys.exit(18)",
        18,
        "",
    ),
    # While the interpreter ends.
    "use_at_exit": (
        DASK + JOBLIB + "atexit.register(lambda: print(sum(graph(abs, 9)), sum(calls(abs, 9))))\nsys.exit(19)",
        19,
        "36 36\n",
    ),
    "use_in_destructors": (
        EXECUTOR + DASK + JOBLIB + ALIVE + "kept = Late(lambda: graph(abs, 9)), Late(lambda: calls(abs, 9))\n"
        "more = Late(lambda: executor.submit(abs, 1).result(1))\nexecutor.submit(abs, 1).result()\nsys.exit(20)",
        20,
        "",
    ),
    "executors_and_groups_alive": (
        EXECUTOR
        + "class Box: pass\nbox = Box()\nbox.box, box.pool, box.group = box, c.Executor(2), _native.TaskGroup(2)\n"
        "box.pool.submit(abs, 1).result()\nsys.box = box\nbox.tasks = [box.pool.submit(time.sleep, 0.01) for _ in range(5)]\n"
        "sys.exit(21)",
        21,
        "",
    ),
}


def check_end(code: str, expected: tuple[int, str], slots: int, **options) -> None:
    done = run_fresh(START + textwrap.dedent(code), args=[str(slots)], timeout=LIMIT, **options)
    assert (done.returncode, done.stdout, done.stderr) == (*expected, ""), done


@pytest.mark.parametrize("slots", [1, 2, 4])
@pytest.mark.parametrize("end", ENDS)
def test_process_ends_with_the_right_code_and_no_message(end, slots):
    code, *expected = ENDS[end]
    check_end(code, tuple(expected), slots)


# CPython before 3.14 ends a thread that comes back from a sleep while the interpreter ends by pthread_exit, which
# unwinds through the frames of C++ below it; in the middle of a graph that was a crash in every second run.
SLEEPERS = {
    "graph": DASK + "run = lambda: graph(task, 50)",
    "graph_with_callbacks": DASK
    + "from dask.callbacks import Callback\ndef run():\n    with Callback(): graph(task, 50)",
    "call": JOBLIB + "run = lambda: calls(task, 50)",
    "generator": JOBLIB + "run = lambda: list(calls(task, 50, 'generator'))",
    "graphs_in_a_call": DASK + JOBLIB + "run = lambda: calls(lambda i: graph(task, 5), 9)",
    "map": EXECUTOR + "run = lambda: list(executor.map(task, range(50)))",
    "pool": "import composable_threads as c\npool = c.ThreadPool(3)\nrun = lambda: list(pool.imap(task, range(50)))",
    "region": """
import sys
from numba import njit, objmode, prange
sys.task = task  # Numba 0.60 pickles what the block refers to by itself, an Event with it
@njit(parallel=True)
def region(n):
    for i in prange(n):
        with objmode():
            sys.task(i)
region(2)
run = lambda: region(50)
""",
}


@pytest.mark.parametrize("slots", [1, 4])
@pytest.mark.parametrize("way", SLEEPERS)
def test_process_ends_while_tasks_of_daemon_threads_sleep(way, slots):
    before = """
inside = threading.Event()
def task(i):
    inside.set()
    time.sleep(0.001 * (i % 40))
    return [i] * 10
"""
    code = """
inside.clear()
def forever():
    try:
        while True: run()
    except RuntimeError:  # no new work while the interpreter ends
        pass
for _ in range(3): threading.Thread(target=forever, daemon=True).start()
inside.wait()
time.sleep(0.03)
sys.exit(23)
"""
    env = {"NUMBA_THREADING_LAYER": "composable", "NUMBA_NUM_THREADS": "4", "PYTHONWARNINGS": "ignore"}
    check_end(before + SLEEPERS[way] + code, (23, ""), slots, env=env)


UNHANDLED = {
    "graph": DASK + "graph(lambda i: 1 / 0 if i == 7 else i, 50)",
    "call": JOBLIB + "calls(lambda i: 1 / 0 if i == 7 else i, 50)",
    "generator": JOBLIB + "for _ in calls(lambda i: 1 / 0 if i == 7 else i, 50, 'generator'): pass",
    "executor": EXECUTOR + "executor.submit(lambda: 1 / 0).result()",
}


@pytest.mark.parametrize("slots", [1, 2])
@pytest.mark.parametrize("way", UNHANDLED)
def test_unhandled_error_is_a_traceback_and_exit_code_1(way, slots):
    done = run_fresh(START + UNHANDLED[way], args=[str(slots)], timeout=LIMIT)
    assert (done.returncode, done.stdout) == (1, "")
    # Joblib adds the error's frames as text, which has its name once more.
    assert done.stderr.rstrip().endswith("ZeroDivisionError: division by zero"), done.stderr
    assert "Exception ignored" not in done.stderr and "Fatal" not in done.stderr, done.stderr


def test_process_ends_where_there_is_one_slot():
    # As under a quota of one CPU; numba #10556 is such an end that hangs.
    code = """
assert c.info()["slots"] == 1, c.info()
print(executor.submit(pow, 2, 3).result(), sum(graph(abs, 9)), sum(calls(abs, 9)))
executor.submit(print, "queued")
raise SystemExit(22)
"""
    code = f"{EXECUTOR}{DASK}{JOBLIB}{code}"
    done = run_fresh(code, env={"COMPOSABLE_NUM_THREADS": "1"}, timeout=LIMIT)
    assert (done.returncode, done.stdout, done.stderr) == (22, "8 36 36\nqueued\n", "")

"""A fork at any moment: parent and child both go on to compute through every way in, and nothing is left behind.

`test_numba_processes.py` has the regions' part of this, `test_activate.py` the executors'; here it is all ways at once.
"""

from __future__ import annotations

import pytest
from numba_kernels import check_numba

# Python 3.12 and later warn of every fork beside threads.
QUIET_FORKS = {"PYTHONWARNINGS": "ignore::DeprecationWarning"}

PROGRAM = """
import faulthandler, os, sys, threading, time
faulthandler.cancel_dump_traceback_later()  # its thread is not in children that end as a program does
import composable_threads as c
from composable_threads.dask_backend import get
from joblib import Parallel, delayed
from numba import njit, objmode, prange
from numba_kernels import *
from ways_in import *
SLOTS = c._native.slots()

def child():
    info = c.info()
    assert info["forked"] and info["slots"] == SLOTS and info["running"] <= 1, info
    compute_all(SLOTS)
    # Each way in met as many tasks as there are slots: the child's arena is as parallel as its parent's.
    assert c.info()["peak_running"] <= SLOTS, c.info()

compute_all(SLOTS)
"""


def check_forks(code: str, slots: int, timeout: float = 120) -> None:
    check_numba(PROGRAM + code, slots=slots, env=QUIET_FORKS, timeout=timeout)


@pytest.mark.parametrize("slots", [1, 2, 4])
def test_child_forked_at_any_moment_computes_through_every_way(slots):
    check_forks("""
def fork_in_task(_):
    return forked(child)

def fork_and_go_on():
    code = forked(child)
    compute_all(SLOTS)
    return code

def twice_deep():
    child()
    assert forked(child) == 0
    child()

# Idle, from the main thread and from another one.
assert forked(child) == 0 and forked(twice_deep) == 0
compute_all(SLOTS)
codes = []
thread = threading.Thread(target=lambda: codes.append(forked(twice_deep)))
thread.start(); thread.join()
assert codes == [0]

# From tasks of every kind; two at once.
with c.Executor() as executor:
    assert list(executor.map(fork_in_task, range(2))) == [0, 0]
    assert executor.submit(forked, twice_deep).result() == 0
    assert executor.submit(fork_and_go_on).result() == 0
assert get({"x": (fork_and_go_on,)}, "x") == 0
assert get({"x": (fork_in_task, 0), "y": (fork_in_task, 1), "z": (list, ["x", "y"])}, "z") == [0, 0]
assert list(Parallel(n_jobs=2, backend="composable")(delayed(fork_in_task)(i) for i in range(2))) == [0, 0]

# While a region's iterations stay in every slot, and tasks are queued.
gauge, executor = new_gauge(), c.Executor()
region = threading.Thread(target=hold, args=(8, gauge))
region.start()
wait_until(NOW, SLOTS, gauge)
queued = [executor.submit(pow, i, 2) for i in range(10)]
assert [forked(child) for _ in range(3)] == [0] * 3
gauge[SIGNAL] = 1
region.join()
assert [future.result() for future in queued] == [i * i for i in range(10)]
check_gauge(gauge, SLOTS)
compute_all(SLOTS)
assert not c.info()["forked"]
""", slots)  # fmt: skip


@pytest.mark.parametrize("slots", [1, 2])
def test_child_forked_inside_a_region_computes_through_every_way(slots):
    check_forks("""
codes = []
def fork_here():
    codes.append(forked(child))
@njit(parallel=True)
def region(n, gauge):
    for i in prange(n):
        work(1000, gauge)
        with objmode():
            fork_here()
gauge = new_gauge()
region(3, gauge)
assert codes == [0] * 3, codes
check_gauge(gauge, SLOTS)
compute_all(SLOTS)
""", slots)  # fmt: skip


@pytest.mark.parametrize("slots", [2, 4])
def test_children_forked_while_all_ways_are_busy_compute_through_all(slots):
    check_forks("""
ended = threading.Event()
def regions():
    nest2(8, 300, new_gauge())
def calls():
    assert list(Parallel(n_jobs=2, backend="composable")(delayed(abs)(i) for i in range(20))) == list(range(20))
def graphs():
    assert get({("x", i): (abs, i) for i in range(20)}, [("x", i) for i in range(20)]) == tuple(range(20))
def maps():
    with c.Executor() as executor:
        assert list(executor.map(abs, range(20))) == list(range(20))
failed = []
def forever(run):
    try:
        while not ended.is_set():
            run()
    except BaseException as error:
        failed.append(error)
        raise
threads = [threading.Thread(target=forever, args=[run]) for run in (regions, calls, graphs, maps)]
for thread in threads: thread.start()
codes = []
for i in range(40):
    time.sleep(0.0003 * (i % 7))
    codes.append(forked(child))
ended.set()
for thread in threads: thread.join()
assert codes == [0] * 40 and not failed, (codes, failed)
compute_all(SLOTS)
""", slots)  # fmt: skip


@pytest.mark.parametrize(
    "module", ["composable_threads.joblib_backend.backend._claiming", "composable_threads.activation._lock"]
)
def test_a_lock_that_another_thread_holds_is_free_in_the_child(module):
    module, name = module.rsplit(".", 1)
    check_forks(f"""
import importlib
lock = getattr(importlib.import_module({module!r}), {name!r})
held, release = threading.Event(), threading.Event()
def hold_lock():
    with lock:
        held.set()
        release.wait(60)
thread = threading.Thread(target=hold_lock)
thread.start()
held.wait()
def use():
    faulthandler.dump_traceback_later(20, exit=True)
    through_joblib(2)
    c.activate().deactivate()
code = forked(use)
release.set()
thread.join()
assert code == 0, code
use()
faulthandler.cancel_dump_traceback_later()
""", 2)  # fmt: skip


@pytest.mark.parametrize("slots", [1, 2])
def test_child_that_ends_as_programs_do_leaves_its_parents_work_to_the_parent(slots):
    check_forks("""
executor, release, ran = c.Executor(), threading.Event(), []
def task(i):
    release.wait(60)
    ran.append(os.getpid())
futures = [executor.submit(task, i) for i in range(8)]
results = Parallel(n_jobs=2, backend="composable", return_as="generator")(delayed(task)(i) for i in range(8))
pids = []
for i in range(4):
    pid = os.fork()
    if pid == 0:
        if i % 2:
            compute_all(SLOTS)
        sys.exit(3)
    pids.append(pid)
codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
release.set()
for future in futures: future.result()
list(results)
assert codes == [3] * 4, codes
assert ran == [os.getpid()] * 16, ran
""", slots)  # fmt: skip


# Neither sys.exit() nor an error has a caller there. Under the stock pools such a child hangs.
RETURNS = """
def task(how):
    pid = os.fork()
    if pid > 0:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    signal.alarm(30)
    compute_all(SLOTS)
    threading.Timer(0.1, os.write, (write, b"d")).start()  # which the end waits for, as that of a program does
    if how == "exit":
        sys.exit(3)
    return 1 / 0 if how == "error" else how
import signal
HOWS = ["value", "exit", "error"]
read, write = os.pipe()
"""


@pytest.mark.parametrize("slots", [1, 2, 4])
def test_child_that_returns_from_the_task_it_was_forked_in_ends(slots):
    check_forks(RETURNS + """
with c.Executor() as executor:
    assert list(executor.map(task, HOWS)) == [0] * 3
assert [get({"x": (task, how)}, "x") for how in HOWS] == [0] * 3
results = Parallel(n_jobs=2, backend="composable", return_as="generator")(delayed(task)(how) for how in HOWS)
assert list(results) == [0] * 3
assert os.read(read, 99) == b"d" * 9
""", slots)  # fmt: skip


def test_child_that_returns_into_a_call_of_its_parent_gets_an_error():
    check_forks("""
parent, codes = os.getpid(), []
def task(i):
    barrier.wait(60)
    if threading.current_thread() is threading.main_thread():
        pid = os.fork()
        if pid > 0:
            codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
def call():
    global barrier
    barrier = threading.Barrier(2)  # so that the other task is another thread's
    list(Parallel(n_jobs=2, backend="composable")(delayed(task)(i) for i in range(2)))
try:
    for _ in range(100):
        call()
        assert os.getpid() == parent
        if codes:  # empty where another thread took this one's task while the first waited
            break
except RuntimeError as error:
    assert os.getpid() != parent and "forked" in str(error), error
    compute_all(SLOTS)
    os._exit(5)
assert os.getpid() == parent and codes == [5], codes

release = threading.Event()
results = Parallel(n_jobs=2, backend="composable", return_as="generator")(delayed(release.wait)(60) for _ in range(3))
def consume():
    try:
        list(results)
    except RuntimeError as error:
        assert "forked" in str(error)
        compute_all(SLOTS)
        os._exit(5)
assert forked(consume) == 5
release.set()
assert list(results) == [True] * 3
""", 2)  # fmt: skip


# --- processes that libraries start


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_processes_of_multiprocessing_compute_through_every_way(method):
    check_forks(f"""
import multiprocessing, concurrent.futures
context = multiprocessing.get_context({method!r})
def from_a_task():
    process = context.Process(target=compute_all, args=[2])
    process.start()
    process.join()
    compute_all(2)
    return process.exitcode
with c.Executor() as executor:
    code = executor.submit(from_a_task).result()
assert code == 0, code
gauge = new_gauge()
region = threading.Thread(target=hold, args=(8, gauge))
region.start()
wait_until(NOW, 2, gauge)
with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
    answers = list(pool.map(compute_all, [2] * 2))
gauge[SIGNAL] = 1
region.join()
with context.Pool(1) as pool:
    assert pool.apply(compute_all, [2]) is None
compute_all(2)
""", 2)  # fmt: skip


def test_processes_of_subprocess_and_loky_compute_through_every_way():
    check_forks("""
import subprocess
from joblib.externals.loky import ProcessPoolExecutor, get_reusable_executor
command = [sys.executable, "-c", "from ways_in import compute_all; compute_all(2)"]
def start(_):
    # With a preexec_fn the process is forked as by os.fork(), without it is not.
    for options in ({"preexec_fn": os.getpgrp}, {}):
        subprocess.run(command, check=True, env={**os.environ, "COMPOSABLE_NUM_THREADS": "2"}, **options)
    compute_all(2)
with c.Executor() as executor:
    list(executor.map(start, range(1)))
os.environ["COMPOSABLE_NUM_THREADS"] = "2"
start(0)
with ProcessPoolExecutor(1) as pool:
    assert list(pool.map(compute_all, [2])) == [None]
assert list(Parallel(n_jobs=2, backend="loky")(delayed(compute_all)(2) for _ in range(2))) == [None] * 2
compute_all(2)
get_reusable_executor().shutdown()
""", 2)  # fmt: skip


# --- what forks cost


def test_a_fork_waits_for_no_work():
    check_forks("""
gauge, executor, release = new_gauge(), c.Executor(), threading.Event()
region = threading.Thread(target=hold, args=(8, gauge))
region.start()
wait_until(NOW, 2, gauge)
tasks = [executor.submit(release.wait, 60) for _ in range(4)]
for _ in range(20):
    assert forked(lambda: None) == 0
    assert gauge[NOW] == 2 and gauge[LATE] == 0, gauge  # every slot was computing before and after
    assert not any(task.done() for task in tasks)
gauge[SIGNAL] = 1
release.set()
region.join()
assert all(task.result() for task in tasks)
""", 2)  # fmt: skip


def test_a_thousand_forks_leak_nothing():
    check_forks("""
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
def left():
    time.sleep(0.3)  # threads without work end after a tenth of a second
    return {
        "threads": len(os.listdir("/proc/self/task")),
        "files": sorted(os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")[:-1]),
        "shared memory": [name for name in os.listdir("/dev/shm") if str(os.getpid()) in name],
    }
def some(count):
    for i in range(count):
        assert forked(child if i % 20 == 0 else lambda: None) == 0
        if i % 50 == 0:
            compute_all(SLOTS)
some(60)
before, memory = left(), resident()
some(1000)
after, grown = left(), resident() - memory
assert after.pop("threads") <= before.pop("threads") and after == before, (before, after)
assert grown < 4 << 20, grown
""", 2, timeout=200)  # fmt: skip

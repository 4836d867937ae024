"""What asks a thread who it is, or looks into it, finds in tasks what it finds in those of the stock pools.

Names, logging, tracers, profilers, debuggers, faulthandler, tracemalloc, py-spy.
"""

from __future__ import annotations

import re
import shutil
import signal
import sysconfig

import pytest
from fresh import check_fresh, run_fresh
from tool_doors import DOORS

QUIET_FORKS = {"PYTHONWARNINGS": "ignore::DeprecationWarning"}  # Python 3.12 and later warn of forks beside threads


def test_a_worker_has_the_kernels_name_in_threading_and_in_log_records():
    code = """
import io, logging
out = io.StringIO()
logging.basicConfig(stream=out, format="%(threadName)s")

def name(_):
    logging.warning("here")
    kernels = open("/proc/thread-self/comm").read().strip()
    return threading.current_thread().name, kernels

for door, run in through.items():
    out.truncate(0), out.seek(0)
    names = run(at_once(name), range(2))
    ours = [pair for pair in names if pair[0] != "MainThread"]  # Joblib's caller runs tasks too
    assert len(ours) == 2 or (door == "joblib" and ours), (door, names)
    assert all(python == kernels and python.startswith("composable-") for python, kernels in ours), (door, names)
    assert sorted(out.getvalue().split()) == sorted(python for python, _ in names), door
"""
    check_fresh(DOORS + code)


def test_a_worker_has_as_much_stack_as_a_thread_of_the_program():
    code = """
import ctypes
libc = ctypes.CDLL(None)
libc.pthread_self.restype = ctypes.c_void_p
libc.pthread_getattr_np.argtypes = [ctypes.c_void_p, ctypes.c_void_p]

def stack_size():
    attributes, size = ctypes.create_string_buffer(256), ctypes.c_size_t()
    assert libc.pthread_getattr_np(libc.pthread_self(), attributes) == 0
    libc.pthread_attr_getstacksize(attributes, ctypes.byref(size))
    return size.value

usual = []
thread = threading.Thread(target=lambda: usual.append(stack_size()))
thread.start(), thread.join()
for door, run in through.items():
    sizes = run(at_once(lambda _: (threading.current_thread().name, stack_size())), range(2))
    # Joblib's caller runs tasks too.
    assert all(size >= usual[0] for name, size in sizes if name != "MainThread"), (door, sizes)
"""
    check_fresh(DOORS + code)


def test_every_thread_that_the_arena_starts_is_named_before_it_has_work():
    code = """
import os, time
import composable_threads as c
from composable_threads import _native
_native.configure(4)
c.Executor().submit(abs, 1).result()

def names():
    return sorted(open(f"/proc/self/task/{task}/comm").read().strip() for task in os.listdir("/proc/self/task"))

late = time.monotonic() + 20
while [name for name in names() if name.startswith("composable")] != [f"composable-{i}" for i in range(4)]:
    assert time.monotonic() < late, names()
    time.sleep(0.01)
"""
    check_fresh(code)


def test_threading_forgets_threads_that_end():
    # A forked child's workers are spares, which end when they have been idle for a while.
    code = """
import os, threading, time
import composable_threads as c
c.Executor().submit(abs, 1).result()
child = os.fork()
if child == 0:
    name = c.Executor().submit(lambda: threading.current_thread().name).result()
    assert name.startswith("composable-s"), name
    late = time.monotonic() + 20
    while threading.enumerate() != [threading.main_thread()]:
        assert time.monotonic() < late, threading.enumerate()
        time.sleep(0.01)
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert check_fresh(code, env=QUIET_FORKS).strip() == "7"


HOOKS = """
def watched(run, install):
    # Events of `task` in other threads than the main one, while the function is set and when it is no more.
    seen = []
    def watch(frame, event, argument):
        if frame.f_code is task.__code__ and threading.current_thread() is not threading.main_thread():
            seen.append(event)
        return watch
    run(at_once(task), range(2))  # threads that live on are there already
    install(watch)
    try:
        run(at_once(task), range(2))
    finally:
        install(None)
    during = sorted(set(seen))
    seen.clear()
    run(at_once(task), range(2))
    return during, seen

def task(item):
    return item
"""


@pytest.mark.parametrize("module", ["threading.setprofile", "threading.settrace"])
def test_functions_for_threads_to_come_reach_the_tasks_of_pools_to_come(module):
    # Dask's own threads live on like ours, and would not see what is set later; ours do.
    code = f"""
for door in through:
    found = watched(through[door], {module})
    assert found[0] and not found[1], (door, found)
    assert door == "dask" or found == watched(stock[door], {module}), door
"""
    check_fresh(DOORS + HOOKS + code)


def test_functions_for_all_threads_reach_tasks_once_they_are_set():
    code = """
if hasattr(threading, "setprofile_all_threads"):  # from Python 3.12 on
    for install in (threading.setprofile_all_threads, threading.settrace_all_threads):
        for door, run in through.items():
            found = watched(run, install)
            assert found[0] and not found[1], (door, found)
"""
    check_fresh(DOORS + HOOKS + code)


def test_what_a_task_sets_for_its_thread_is_its_threads():
    code = """
import cProfile, pstats, sys

def deep(n):
    return n if n == 0 else deep(n - 1)

def profiled(_):
    profile = cProfile.Profile()
    profile.runcall(deep, 5)
    return pstats.Stats(profile).total_calls

def traced(_):
    seen = []
    sys.setprofile(lambda frame, event, argument: seen.append((event, frame.f_code.co_name)))
    deep(2)
    sys.setprofile(None)
    return seen.count(("call", "deep"))

for door, run in through.items():
    assert run(profiled, range(4)) == stock[door](profiled, range(4)), door
    assert run(traced, range(4)) == [3] * 4, door
"""
    check_fresh(DOORS + code)


def test_a_debugger_stops_in_a_task_and_goes_on():
    code = """
import io, pdb

def task(item):
    out = io.StringIO()
    secret = item + 40
    debugger = pdb.Pdb(stdin=io.StringIO("p secret\\nwhere\\nsecret = 7\\ncontinue\\n"), stdout=out, nosigint=True)
    debugger.set_trace()
    found = secret
    return found, "41" in out.getvalue() and "task" in out.getvalue(), sys.gettrace()

for door, run in through.items():
    assert run(task, [1, 1]) == [(7, True, None)] * 2, door
"""
    check_fresh(DOORS + code)


def test_faulthandler_shows_where_every_task_is():
    code = """
import faulthandler, tempfile

def stuck_here(item):
    barrier.wait(30)  # both are here
    barrier.wait(30)  # the stacks were written

for door in ("executor", "pool", "dask"):
    barrier = threading.Barrier(3)
    caller = threading.Thread(target=through[door], args=(stuck_here, range(2)))
    caller.start()
    barrier.wait(30)
    with tempfile.TemporaryFile("w+") as out:
        faulthandler.dump_traceback(out)
        out.seek(0)
        stacks = out.read()
    barrier.wait(30)
    caller.join()
    assert stacks.count("in stuck_here") == 2, stacks
"""
    check_fresh(DOORS + code)


def test_faulthandler_names_the_task_that_crashed():
    code = """
import ctypes, faulthandler
import composable_threads as c
faulthandler.enable()
def crash_here():
    ctypes.string_at(0)
c.Executor().submit(crash_here).result()
"""
    done = run_fresh(code)
    assert done.returncode == -signal.SIGSEGV
    assert "Segmentation fault" in done.stderr
    current = done.stderr.split("Current thread", 1)[1].split("\n\n")[0]
    assert "in crash_here" in current


def test_tracemalloc_tells_which_line_of_a_task_allocated():
    code = """
import tracemalloc

def task(item):
    return bytearray(300_000)

line = task.__code__.co_firstlineno + 1
for door, run in through.items():
    tracemalloc.start()
    kept = run(task, range(4))
    found = tracemalloc.take_snapshot().statistics("lineno")
    tracemalloc.stop()
    assert sum(s.size for s in found if s.traceback[0].lineno == line) >= 4 * 300_000, (door, found[:3])
"""
    check_fresh(DOORS + code)


def test_py_spy_shows_workers_by_name_and_what_they_run():
    py_spy = shutil.which("py-spy", path=sysconfig.get_path("scripts"))
    if py_spy is None:
        pytest.skip("py-spy is not installed")
    code = f"""
import subprocess, os, threading
import composable_threads as c
from composable_threads import _native
_native.configure(2)
barrier = threading.Barrier(3)
def spied_on():
    barrier.wait(30)
    barrier.wait(30)
executor = c.Executor()
tasks = [executor.submit(spied_on) for _ in range(2)]
barrier.wait(30)
done = subprocess.run([{py_spy!r}, "dump", "--pid", str(os.getpid())], capture_output=True, text=True)
barrier.wait(30)
print(done.stdout, done.stderr)
"""
    told = check_fresh(code)
    if re.search("permission", told, re.IGNORECASE):
        pytest.skip("the system does not let py-spy look into a process")
    stacks = [stack for stack in told.split("Thread ") if "spied_on" in stack]
    assert sorted(re.findall(r'"(composable-\d)"', "".join(stacks))) == ["composable-0", "composable-1"], told


@pytest.mark.parametrize("door", ["executor", "activated", "pool"])
def test_an_error_of_a_tracer_is_the_tasks_error_as_in_a_stock_pool(door):
    code = f"""
def tracer(frame, event, argument):
    if frame.f_code is task.__code__:
        raise ZeroDivisionError("tracer")
    return None

def task(item):
    return item

def outcome(run):
    threading.settrace(tracer)
    try:
        return run(task, [1, 2])
    except Exception as error:
        return repr(error)
    finally:
        threading.settrace(None)

print(outcome(through[{door!r}]), outcome(stock[{door!r}]), sep="|")
"""
    ours, theirs = check_fresh(DOORS + code, allow_stderr=True).strip().split("|")
    assert ours == theirs == "ZeroDivisionError('tracer')"

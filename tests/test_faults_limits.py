"""What the system refuses: threads, shared memory, standard streams, stack, CPUs. The right result or a clear error.

Thread creation fails under RLIMIT_NPROC, which the kernel does not hold against root: so the process becomes, in its
real user id, one that nobody is, keeps its rights to files and gives up the two that would lift the limit.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack

import pytest
from cgroups import PERIOD, Groups
from fresh import check_fresh
from numba_kernels import check_numba

# Everything is imported and compiled before a limit falls: what is tested is the arena's first, or later, thread.
DOORS = """
import ctypes, os, resource, sys, threading, time
os.environ["NUMBA_THREADING_LAYER"] = "composable"
os.environ["OPENBLAS_NUM_THREADS"] = "1"
import numba, numpy as np, scipy.linalg, joblib
import composable_threads as c
from composable_threads import _native
from composable_threads.dask_backend import get
import composable_threads.joblib_backend
from numba.np.ufunc import parallel
_native.configure(SLOTS)
def work(i):
    time.sleep(0.002)
    return i * i
@numba.njit("i8(i8)", parallel=True)
def region(n):
    total = 0
    for i in numba.prange(n):
        total += i % 7
    return total
parallel._launch_threads()
SQUARES = [i * i for i in range(9)]
executor, pool = c.Executor(), c.ThreadPool(2)
with c.activate(): pass
c.info()
call = [joblib.delayed(work)(i) for i in range(9)]
graph = {f"x{i}": (work, i) for i in range(9)}
ways = {
    "submit": lambda: [future.result() for future in [executor.submit(work, i) for i in range(9)]],
    "map": lambda: list(executor.map(work, range(9))),
    "pool": lambda: pool.map(work, range(9)),
    "imap": lambda: list(pool.imap(work, range(9))),
    "joblib": lambda: joblib.Parallel(2, backend="composable")(call),
    "generator": lambda: list(joblib.Parallel(2, backend="composable", return_as="generator")(call)),
    "dask": lambda: list(get(graph, list(graph))),
    "numba": lambda: region(10**7) == sum(i % 7 for i in range(7)) * (10**7 // 7) + sum(range(10**7 % 7)) and SQUARES,
}
def threads_now():
    return len(os.listdir("/proc/self/task"))
"""

FEW_THREADS = """
class Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]
def give_up_rights():
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = Header(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(ctypes.byref(header), sets) == 0
    for right in (21, 24):  # CAP_SYS_ADMIN, CAP_SYS_RESOURCE
        sets[0] &= ~(1 << right)
    assert libc.capset(ctypes.byref(header), sets) == 0
def give_room(threads):
    resource.setrlimit(resource.RLIMIT_NPROC, (threads_now() + threads, 10_000))
resource.setrlimit(resource.RLIMIT_NPROC, (10_000, 10_000))
os.setresuid(1_000_000 + os.getpid(), 0, 0)
give_up_rights()
give_room(0)
try:
    threading.Thread(target=int).start()
except RuntimeError:
    pass
else:
    raise AssertionError("a thread can be had")
"""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become a user who has no other process")
WAYS = ["submit", "map", "pool", "imap", "joblib", "generator", "dask", "numba"]


def check_doors(code: str, slots: int, **options) -> str:
    return check_fresh(f"SLOTS = {slots}\n{DOORS}\n{code}", **options)


@needs_root
@pytest.mark.parametrize("slots", [1, 2, 4])
def test_without_a_thread_to_be_had_calls_say_so_and_later_ones_work(slots):
    check_doors(
        FEW_THREADS
        + """
for name, way in ways.items():
    try:
        answer = way()
    except RuntimeError as error:
        assert name != "numba" and "can't start new thread" in str(error), (name, error)
    else:
        assert name == "numba" and answer == SQUARES, (name, answer)
    assert threads_now() == 2, name
with c.task():
    assert get(graph, list(graph)) == tuple(SQUARES)  # a task computes nodes itself
resource.setrlimit(resource.RLIMIT_NPROC, (10_000, 10_000))
for name, way in ways.items():
    while _native.counts()["running"] > 0:  # else a region of this thread may run as one more
        time.sleep(0.001)
    assert way() == SQUARES, name
assert c.info()["peak_running"] <= SLOTS
""",
        slots,
    )


@needs_root
@pytest.mark.parametrize(("slots", "room"), [(2, 1), (4, 1), (4, 2), (4, 3)])
def test_fewer_threads_than_slots_do_all_the_work(slots, room):
    check_doors(
        FEW_THREADS
        + f"""
give_room({room})
for name, way in ways.items():
    assert way() == SQUARES, name
    assert threads_now() <= 2 + {room}, name
resource.setrlimit(resource.RLIMIT_NPROC, (10_000, 10_000))
for name, way in ways.items():
    assert way() == SQUARES, name
assert c.info()["peak_running"] <= SLOTS
""",
        slots,
    )


@needs_root
def test_workers_that_wait_need_no_thread_that_cannot_be_had():
    # The arena has its threads; what it cannot have is spares for those that wait.
    check_doors(
        """
assert ways["submit"]() == SQUARES
"""
        + FEW_THREADS
        + """
def nested(depth):
    if depth == 0:
        return 1
    return executor.submit(nested, depth - 1).result() + sum(get({"x": (nested, depth - 1)}, ["x"]))
assert executor.submit(nested, 5).result() == 32
for name, way in ways.items():
    assert executor.submit(way).result() == SQUARES, name
""",
        slots=2,
    )


@pytest.mark.parametrize("slots", [2, 4])
def test_no_address_space_for_stacks_is_an_error_or_no_matter(slots):
    check_doors(
        """
threading.stack_size(64 << 20)
with open("/proc/self/statm") as statm:
    size = int(statm.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
resource.setrlimit(resource.RLIMIT_AS, (size + (3 << 20), -1))
for name, way in ways.items():
    try:
        answer = way()
    except (RuntimeError, MemoryError) as error:
        assert "can't start new thread" in str(error), (name, error)
    else:
        assert answer == SQUARES, (name, answer)
resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
for name, way in ways.items():
    assert way() == SQUARES, name
""",
        slots,
    )


def test_without_shared_memory_every_door_works():
    out = check_fresh(
        """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
NEWNS, PRIVATE, READ_ONLY = 0x20000, 1 << 18 | 1 << 14, 1
if libc.unshare(NEWNS) or libc.mount(b"none", b"/", None, PRIVATE, None) or libc.mount(
        b"none", b"/dev/shm", b"tmpfs", READ_ONLY, None):
    print(os.strerror(ctypes.get_errno()))
    sys.exit()
import multiprocessing
try:
    multiprocessing.Lock()
except OSError:
    pass
else:
    raise AssertionError("there is shared memory")
import warnings
warnings.simplefilter("ignore")  # Joblib's, that it goes without processes
SLOTS = 2
"""
        + DOORS
        + """
for name, way in ways.items():
    assert way() == SQUARES, name
for form in ("list", "generator"):
    try:
        list(joblib.Parallel(2, backend="composable", return_as=form)(joblib.delayed(divmod)(1, i) for i in (1, 0)))
    except ZeroDivisionError:
        pass
    else:
        raise AssertionError("the error is lost")
assert c.info()["peak_running"] <= SLOTS
print("done")
"""
    )
    if out != "done\n":
        pytest.skip(f"may not hide /dev/shm: {out.strip()}")


@pytest.mark.parametrize("streams", ["closed", "broken"])
def test_without_standard_streams_every_door_works(streams, tmp_path):
    code = (
        "SLOTS = 2\n"
        + DOORS
        + """
class Loud:
    def __del__(self):
        raise ValueError("in a destructor")
for name, way in ways.items():
    assert way() == SQUARES, name
assert pool.apply_async(abs, (-1,), callback=lambda value: 1 / 0).get(30) == 1
assert executor.submit(Loud).result() and pool.map(lambda _: Loud(), range(3)) and executor.submit(int).result() == 0
pid = os.fork()
if pid == 0:
    os._exit(0 if ways["dask"]() == SQUARES else 1)
assert os.waitpid(pid, 0)[1] == 0
with open("done", "w") as file:
    file.write("done")
"""
    )
    if streams == "broken":
        code = (
            "import os, sys\nread, write = os.pipe()\nos.close(read)\nfor fd in (1, 2): os.dup2(write, fd)\n"
            # What stays in the buffer would be an error of the interpreter's own at its end.
            "sys.stdout = sys.stderr\n" + code + "\nos._exit(0)"
        )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        timeout=60,
        preexec_fn=(lambda: [os.close(fd) for fd in range(3)]) if streams == "closed" else None,
    )
    assert (tmp_path / "done").exists() and done.returncode == 0


# --- no end of nesting

NESTING = """
import os, sys
import composable_threads as c
from composable_threads import _native
from composable_threads.dask_backend import get
_native.configure({slots})
executor, limited = c.Executor(), c.Executor(2)
def in_submit():
    return executor.submit(in_submit).result()
def in_limited():
    return limited.submit(in_limited).result()
def in_map(_=0):
    return list(executor.map(in_map, [0]))
def in_new_executors():
    with c.Executor() as new:
        return new.submit(in_new_executors).result()
def in_new_pools():
    with c.ThreadPool(2) as new:
        return new.apply(in_new_pools)
def in_graph():
    return get({{"x": (in_graph,)}}, "x")
def in_wide_graph():
    return get({{"x": (in_wide_graph,), "y": (in_wide_graph,)}}, ["x", "y"])
def in_graph_in_submit():
    return executor.submit(get, {{"x": (in_graph_in_submit,)}}, "x").result()
try:
    {name}()
except RecursionError:
    pass
else:
    raise AssertionError("it ended")
assert len(os.listdir("/proc/self/task")) < 1200
assert executor.submit(abs, -1).result() == 1 and get({{"x": (abs, -1)}}, "x") == 1
assert c.info()["peak_running"] <= {slots}
os._exit(0)  # what was abandoned still recurses
"""


@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.parametrize(
    "name",
    ["submit", "limited", "map", "new_executors", "new_pools", "graph", "wide_graph", "graph_in_submit"],
)
def test_endless_nesting_is_a_recursion_error(name, slots):
    check_fresh(NESTING.format(name=f"in_{name}", slots=slots))


def test_endless_nesting_of_regions_is_a_recursion_error():
    check_numba(
        """
        import os, numpy as np, composable_threads as c
        from numba import njit, objmode, prange
        @njit(parallel=True)
        def region(n):
            out = np.zeros(n)
            for i in prange(n):
                with objmode():
                    deeper(n)
                out[i] = i
            return out.sum()
        wanted = [False]
        def deeper(n):
            if wanted[0]:
                region(n)
        region(1)
        wanted[0] = True
        executor = c.Executor()
        for call in (lambda: region(1), lambda: executor.submit(region, 1).result()):
            try:
                call()
            except RecursionError:
                pass
            else:
                raise AssertionError("it ended")
        wanted[0] = False
        assert region(100) == 4950
        """,
        slots=2,
    )


def test_tasks_that_start_tasks_may_go_on_without_an_end_as_long_as_nobody_waits():
    check_fresh("""
import sys, threading
import composable_threads as c
sys.setrecursionlimit(200)
executor, ended = c.Executor(), threading.Event()
def go_on(left):
    assert executor.submit(abs, -1).result() == 1
    if left:
        executor.submit(go_on, left - 1)
    else:
        ended.set()
executor.submit(go_on, 3000)
assert ended.wait(50)
""")


# --- many threads, fewer CPUs


@pytest.mark.parametrize("slots", [1, 2])
def test_64_threads_that_launch_regions_at_once_are_all_right(slots):
    check_numba(
        """
        import os, threading, time, faulthandler
        import composable_threads as c
        from numba_kernels import *
        nest2(4, 100, new_gauge())
        before = len(os.listdir("/proc/self/task"))
        gauge, errors, start = new_gauge(), [], threading.Barrier(64)
        def run():
            start.wait()
            try:
                for _ in range(5):
                    nest2(6, 300, gauge)
            except BaseException as error:
                errors.append(error)
        threads = [threading.Thread(target=run) for _ in range(64)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        assert not errors, errors
        check_gauge(gauge, 64)
        for _ in range(500):
            if len(os.listdir("/proc/self/task")) <= before + 2: break
            time.sleep(0.01)
        else:
            raise AssertionError(os.listdir("/proc/self/task"))
        """,
        slots=slots,
    )


CHANGING = """
before = c.info()
def all_right():
    for name, way in ways.items():
        assert way() == SQUARES, name
    now = c.info()
    assert (now["slots"], now["slots_source"], now["started"]) == (SLOTS, before["slots_source"], True), now
    assert now["peak_running"] <= SLOTS
all_right()
before = c.info()
for narrow in (True, False) * 2:
    change(narrow)
    all_right()
    with c.activate(slots=SLOTS):
        all_right()
"""


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there is one CPU")
def test_affinity_may_change_while_the_arena_runs():
    cpus = len(os.sched_getaffinity(0))
    code = """
cpus = os.sched_getaffinity(0)
def change(narrow):
    for thread in os.listdir("/proc/self/task"):
        try:
            os.sched_setaffinity(int(thread), {min(cpus)} if narrow else cpus)
        except ProcessLookupError:
            pass
"""
    # P is what was there at first; more than one CPU's worth of threads only take turns.
    code = (
        DOORS.replace("_native.configure(SLOTS)\n", "")
        + code
        + CHANGING
        + "assert before['slots_source'] == 'affinity'"
    )
    check_fresh(f"SLOTS = {cpus}\n{code}")


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there is one CPU")
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_quota_may_change_while_the_arena_runs(version):
    with ExitStack() as undo:
        groups = Groups(version, undo)
        group = groups.make(2 * PERIOD)
        place = group / ("cpu.cfs_quota_us" if version == "v1" else "cpu.max")
        code = f"""
def change(narrow):
    with open({str(place)!r}, "w") as file:
        file.write(str({PERIOD} // 2 if narrow else 2 * {PERIOD}))
"""
        code = DOORS.replace("_native.configure(SLOTS)\n", "") + code + CHANGING
        check_fresh(f"SLOTS = 2\n{code}", preexec_fn=groups.joins(group))

"""MKL on oneTBB runs on the arena's threads; on any threading layer its width is the task's share."""

from __future__ import annotations

import importlib.metadata
import platform

import pytest
from fresh import check_fresh, run_fresh


def file_of(distribution: str, name: str) -> str:
    try:
        files = importlib.metadata.files(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{distribution} is not installed; it has wheels for x86-64 only", allow_module_level=True)
    return str(next(file.locate().resolve() for file in files if file.name.startswith(name)))


if platform.machine() != "x86_64":
    pytest.skip("MKL has wheels for x86-64 only", allow_module_level=True)
MKL_RT = file_of("mkl", "libmkl_rt.so")

# One thread for OpenBLAS, which NumPy brings, so that threads are the arena's, MKL's or the program's.
TBB = {"MKL_THREADING_LAYER": "TBB", "OPENBLAS_NUM_THREADS": "1", "MKL_RT": MKL_RT}
INTEL = TBB | {"MKL_THREADING_LAYER": "INTEL", "KMP_BLOCKTIME": "0"}

CALL = f"""
import ctypes, os, pathlib, sys, threading, time
import numpy as np
mkl_rt = ctypes.CDLL({MKL_RT!r})

def product(a, b):
    # row-major, no transposition; ctypes lets the GIL go
    n, out = len(a), np.zeros_like(a)
    pointer = lambda array: ctypes.c_void_p(array.ctypes.data)
    mkl_rt.cblas_dgemm(101, 111, 111, n, n, n, ctypes.c_double(1), pointer(a), n, pointer(b), n, ctypes.c_double(0),
                       pointer(out), n)
    return out

def mapped(part):
    lines = pathlib.Path("/proc/self/maps").read_text().splitlines()
    return sorted({{os.path.realpath(line.split(maxsplit=5)[5]) for line in lines if part in line}})

def is_right(out, a, b):
    return bool(np.abs(out - a @ b).max() < 1e-9)

rng = np.random.default_rng(0)
a, b = rng.random((2, 700, 700))
"""

# What each thread of the process did, by its own clock. `served()`: all of the arena's workers have begun once, so
# oneTBB, which has as many, starts no thread of any other name.
WATCH = """
import composable_threads as ct
from composable_threads import _native
_native.configure(2)
before_us = set(os.listdir("/proc/self/task"))

def threads():
    time.sleep(0.001)  # the kernel books what a thread does on a tick, or when it leaves its core
    found = {}
    for task in pathlib.Path("/proc/self/task").iterdir():
        try:
            used = int((task / "schedstat").read_text().split()[0])
            found[task.name] = (task / "comm").read_text().strip(), used
        except (FileNotFoundError, ProcessLookupError):
            pass
    return found

def served():
    meet = threading.Barrier(2)
    with ct.Executor(2) as executor:
        for future in [executor.submit(meet.wait) for _ in range(2)]:
            future.result()

def shares(run):
    # names and parts of the CPU time of those threads that did more than a tenth
    was = threads()
    run()
    did = {name: (comm, used - was.get(name, (comm, 0))[1]) for name, (comm, used) in threads().items()}
    total = sum(used for _, used in did.values())
    return sorted((comm, used / total) for comm, used in did.values() if used > total / 10)

def ours(names):
    return all(name.startswith("composable-") for name in names)

def new_threads():
    return [comm for name, (comm, _) in threads().items() if name not in before_us]

def in_tasks(count, body):
    with ct.Executor(count) as executor:
        return [future.result() for future in [executor.submit(body) for _ in range(count)]]
"""


# --- finding libtbb


def test_stock_process_dies_for_want_of_libtbb():
    found = run_fresh("import ctypes; ctypes.CDLL('libtbb.so.12')", env={"COMPOSABLE_AUTOLOAD": "0"})
    if found.returncode == 0:
        pytest.skip("the system's loader finds a libtbb by itself")
    done = run_fresh(CALL + "product(a, b)", env=TBB)
    assert done.returncode != 0
    assert "libtbb.so.12" in done.stdout + done.stderr


@pytest.mark.parametrize(
    "door", ["import composable_threads", "import composable_threads; composable_threads.activate()"]
)
def test_it_works_with_us_and_there_is_one_libtbb(door):
    code = """
print(is_right(product(a, b), a, b), len(mapped("libtbb.so")), len(mapped("libmkl_tbb_thread")))
print(os.path.dirname(mapped("libtbb.so")[0]) == os.path.realpath(os.path.join(sys.prefix, "lib")))
"""
    assert check_fresh(door + "\n" + CALL + code, env=TBB).splitlines() == ["True 1 1", "True"]


def test_activation_leaves_the_threading_layer_to_the_user():
    # On oneTBB MKL knows no mkl.set_num_threads and no MKL_NUM_THREADS: whoever relies on them must not lose them.
    code = """
import composable_threads
before = dict(os.environ)
with composable_threads.activate():
    print(is_right(product(a, b), a, b), mapped("libmkl_tbb_thread"), len(mapped("libmkl_intel_thread")))
print(dict(os.environ) == before)
"""
    assert check_fresh(CALL + code, env={"OPENBLAS_NUM_THREADS": "1"}).splitlines() == ["True [] 1", "True"]


# --- whose threads, how many


def test_products_in_tasks_run_on_the_arenas_workers():
    code = """
served()
a, b = rng.random((2, 1600, 1600))
product(a, b)  # MKL has loaded what it needs
for count in (1, 2, 4):
    outs = []
    found = shares(lambda: outs.extend(in_tasks(count, lambda: product(a, b))))
    assert all(is_right(out, a, b) for out in outs) and len(outs) == count
    assert ours(name for name, _ in found), found
# One alone is shared out between both workers, unless the machine gives the other one no time.
alone = [len(shares(lambda: in_tasks(1, lambda: product(a, b)))) for _ in range(10)]
print(max(alone), len(mapped("libtbb.so")))
assert ours(new_threads()), new_threads()
"""
    assert check_fresh(CALL + WATCH + code, env=TBB).strip() == "2 1"


def test_sparse_products_in_tasks_run_on_the_arenas_workers():
    file_of("sparse_dot_mkl", "sparse_dot.py")
    code = """
served()
import scipy.sparse
from sparse_dot_mkl import dot_product_mkl
x, y = (scipy.sparse.random(2000, 2000, 0.05, "csr", rng=rng) for _ in range(2))
right = (x @ y).toarray()
for count in (1, 2, 4):
    outs = []
    found = shares(lambda: outs.extend(in_tasks(count, lambda: dot_product_mkl(x, y))))
    assert all(abs(out.toarray() - right).max() < 1e-9 for out in outs) and len(outs) == count
    assert ours(name for name, _ in found), found
    print(count, len(mapped("libtbb.so")), len(mapped("libmkl_tbb_thread")))
assert ours(new_threads()), new_threads()
"""
    assert check_fresh(CALL + WATCH + code, env=TBB).splitlines() == ["1 1 1", "2 1 1", "4 1 1"]


def test_products_bring_helpers_only_where_the_arena_has_room():
    # A thread of the program multiplies; oneTBB's workers are idle, and would help if nobody said how many may.
    code = """
served()
product(a, b)  # MKL has chosen its layer
def helpers():
    def products():
        with ct.task():
            for _ in range(4):
                product(a, b)
    return [name for name, _ in shares(products) if name.startswith("composable-")]
def busy():
    with ct.task():
        began.set()
        while not over:
            sum(range(1000))
        ended.set()
print(len(helpers()))
began, ended, over = threading.Event(), threading.Event(), []
other = threading.Thread(target=busy)
other.start()
began.wait()
print(len(helpers()))
over.append(True)
ended.wait()
other.join()
print(len(helpers()))
"""
    assert check_fresh(CALL + WATCH + code, env=TBB).splitlines() == ["1", "0", "1"]


def test_a_wait_in_a_product_never_runs_another_task():
    # MKL waits in oneTBB, whose queue is also the arena's.
    code = """
served()
inside, nested = threading.local(), []
def body():
    if getattr(inside, "task", False):
        nested.append(True)
    inside.task = True
    out = product(a[:300, :300].copy(), b[:300, :300].copy())
    inside.task = False
    return is_right(out, a[:300, :300], b[:300, :300])
for _ in range(10):
    assert all(in_tasks(8, body))
    assert all(in_tasks(1, body))
print(nested)
"""
    assert check_fresh(CALL + WATCH + code, env=TBB).strip() == "[]"


# --- widths

WIDTHS = """
local, most = mkl_rt.MKL_Set_Num_Threads_Local, mkl_rt.MKL_Get_Max_Threads
def own():
    # the calling thread's own width; 0: as the process
    width = local(0)
    local(width)
    return width
def together(count, body):
    go, meet = threading.Event(), threading.Barrier(count)
    def task():
        meet.wait()
        seen = body()
        meet.wait()
        return seen
    with ct.Executor(2) as executor:
        # Until all are queued, others hold the places.
        gates = [executor.submit(go.wait) for _ in range(2 if count > 1 else 0)]
        futures = [executor.submit(task) for _ in range(count)]
        go.set()
        for gate in gates: gate.result()
        return [future.result() for future in futures]
"""


@pytest.mark.parametrize("env", [TBB, INTEL], ids=["tbb", "intel"])
def test_width_is_the_share_and_the_users_own_is_put_back(env):
    code = """
product(a, b)
for width in (0, 1, 2):
    def check():
        local(width)
        with ct.task():
            inside = most(), own()
        try:
            with ct.task():
                1 / 0
        except ZeroDivisionError:
            pass
        return inside[0], own()
    out = []
    other = threading.Thread(target=lambda: out.append(check()))
    other.start()
    other.join()
    print(width, check(), out[0], set(together(2, most)), set(together(1, most)), own())
"""
    assert check_fresh(CALL + WATCH + WIDTHS + code, env=env).splitlines() == [
        "0 (2, 0) (2, 0) {1} {2} 0",
        "1 (1, 1) (1, 1) {1} {2} 1",
        "2 (2, 2) (2, 2) {1} {2} 2",
    ]


def test_a_users_own_width_of_the_process_survives_tasks():
    file_of("mkl-service", "__init__.py")
    code = """
import mkl
product(a, b)
for width in (1, 2):
    mkl.set_num_threads(width)
    inside = set(together(1, mkl.get_max_threads)), set(together(2, mkl.get_max_threads))
    print(*inside, mkl.get_max_threads(), own())
"""
    out = check_fresh(CALL + WATCH + WIDTHS + code, env=INTEL).splitlines()
    assert out == ["{1} {1} 1 0", "{2} {1} 2 0"]


def test_a_limit_of_threadpoolctl_wins_in_a_task_and_ends_there():
    pytest.importorskip("threadpoolctl")
    code = """
from threadpoolctl import threadpool_limits
product(a, b)
def limited():
    with threadpool_limits(1, user_api="blas"):
        inside = most()
    return inside, most()
print(together(1, limited), own())
"""
    assert check_fresh(CALL + WATCH + WIDTHS + code, env=TBB).strip() == "[(1, 2)] 0"


def test_our_own_calls_do_not_choose_the_layer():
    # libmkl_rt takes interface and threading layer at the first call of any of its functions.
    code = """
with ct.activate():
    def scope():
        return [row["scope"] for row in ct.info()["libraries"] if row["kind"] == "mkl"]
    in_tasks(4, int)
    print(scope(), mapped("libmkl_core"))
    print(mkl_rt.MKL_Set_Threading_Layer(1), mkl_rt.MKL_Get_Max_Threads(), len(mapped("libmkl_sequential")))
    in_tasks(4, int)
    print(scope())
"""
    out = check_fresh(CALL + WATCH + code, env=TBB).splitlines()
    assert out == ["['waiting'] []", "1 1 1", "['thread']"]


def test_a_forked_child_multiplies_with_workers_of_its_own():
    code = """
import warnings
warnings.filterwarnings("ignore", ".*fork.*", DeprecationWarning)  # Python 3.12 and later, of threads
served()
in_tasks(4, lambda: product(a, b))
child = os.fork()
if child == 0:
    small, other = a[:200, :200].copy(), b[:200, :200].copy()
    rights = [is_right(out, small, other) for out in in_tasks(4, lambda: product(small, other))]
    os._exit(0 if rights == [True] * 4 and own() == 0 else 1)
deadline = time.monotonic() + 20
while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
    time.sleep(0.01)
print(ended[0] == child and os.waitstatus_to_exitcode(ended[1]))
"""
    assert check_fresh(CALL + WATCH + WIDTHS + code, env=TBB).strip() == "0"

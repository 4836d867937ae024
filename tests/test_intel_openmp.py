"""Intel's OpenMP runtime, which LLVM's is too: each thread's own width is the share of its task, for the task."""

from __future__ import annotations

import importlib.metadata

import pytest
from fresh import check_fresh


def libiomp5() -> str:
    try:
        files = importlib.metadata.files("intel-openmp") or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("intel-openmp is not installed; it has wheels for x86-64 only", allow_module_level=True)
    return str(next(file.locate().resolve() for file in files if file.name == "libiomp5.so"))


CALL = f"""
import ctypes, os, threading, time
import composable_threads as ct
from composable_threads import _native
omp = ctypes.CDLL({libiomp5()!r})
width, set_width = omp.omp_get_max_threads, omp.omp_set_num_threads

def in_tasks(count, body):
    # A map queues them all before the first one begins.
    with ct.Executor(_native.slots()) as executor:
        return list(executor.map(lambda _: body(), range(count)))

def until_quiet():
    while ct.info()["running"]: time.sleep(0.001)
"""


def run(code: str, slots: int, **env: str) -> list[str]:
    return check_fresh(CALL + f"_native.configure({slots})\n" + code, env=env).splitlines()


def test_width_is_the_share_in_tasks_and_the_users_own_outside():
    code = """
for own in (2, 1, 5):
    set_width(own)
    def block():
        with ct.task():
            return width()
    out = []
    other = threading.Thread(target=lambda: (set_width(own), out.append((block(), width()))))
    other.start()
    other.join()
    seen = in_tasks(6, width)
    until_quiet()
    print(own, seen[:4], in_tasks(1, width), out[0], block(), width())
    until_quiet()
print([row["scope"] for row in ct.info()["libraries"] if row["kind"] == "openmp"])
"""
    assert run(code, 2) == [
        "2 [1, 1, 1, 1] [2] (2, 2) 2 2",
        "1 [1, 1, 1, 1] [2] (1, 1) 1 1",
        "5 [1, 1, 1, 1] [2] (2, 5) 2 5",
        "['thread']",
    ]


def test_a_narrower_environment_is_not_exceeded():
    assert run("print(in_tasks(1, width), width())", 2, OMP_NUM_THREADS="1") == ["[1] 1"]


def test_width_is_put_back_after_tasks_that_raise_and_those_around_a_fork():
    code = """
import warnings
warnings.filterwarnings("ignore", ".*fork.*", DeprecationWarning)  # Python 3.12 and later, of threads
set_width(3)
try:
    with ct.task():
        1 / 0
except ZeroDivisionError:
    print(width())
with ct.task():
    child = os.fork()
    inside = width()
if child == 0:
    os._exit(0 if (inside, width()) == (2, 3) else 1)
print(inside, width(), os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert run(code, 2) == ["3", "2 3 0"]


def test_a_thread_has_widths_of_one_and_one_other():
    # Teams that grow and shrink are dear, so a thread's other size changes once in 50 ms at most, however the load
    # does.
    code = """
OFTEN = 0.05
seen = {}  # by thread, in order
def body():
    seen.setdefault(threading.get_ident(), []).append(width())
began = time.monotonic()
for turn in range(150):
    in_tasks(1, body)
    until_quiet()
    in_tasks(2, body)
    in_tasks(7, body)
most = 1 + (time.monotonic() - began) / OFTEN
def changes(widths):
    others = [width for width in widths if width > 1]
    return sum(one != other for one, other in zip([None] + others, others))
print(all(changes(widths) <= most for widths in seen.values()))
print(sorted({width for widths in seen.values() for width in widths}))
# The share of two tasks is 2 and of one 4, so both were wanted, far more often.
print(sum(width > 1 for widths in seen.values() for width in widths) > 100)
"""
    out = run(code, 4, OMP_NUM_THREADS="4")
    assert out[0] == out[2] == "True" and out[1] in ("[1, 2, 4]", "[1, 4]", "[1, 2]"), out


def test_regions_have_the_threads_of_their_width():
    # Not only what the runtime says: what it does. A region of its own ABI, which compilers call with a microtask.
    code = """
KMPC = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)
class Ident(ctypes.Structure):
    _fields_ = [("a", ctypes.c_int32), ("flags", ctypes.c_int32), ("b", ctypes.c_int32), ("c", ctypes.c_int32),
                ("source", ctypes.c_char_p)]
ident = Ident(0, 2, 0, 0, b";unknown;unknown;0;0;;")
def team():
    sizes = []
    @KMPC
    def microtask(global_id, bound_id):
        sizes.append(omp.omp_get_num_threads())
    omp.__kmpc_fork_call(ctypes.byref(ident), 0, microtask)
    return len(sizes), set(sizes)
print(in_tasks(1, team), in_tasks(6, team)[:4], team())
"""
    assert run(code, 2) == ["[(2, {2})] [(1, {1}), (1, {1}), (1, {1}), (1, {1})] (2, {2})"]

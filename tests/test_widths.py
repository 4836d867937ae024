"""Widths of BLAS and OpenMP calls: the share of the arena inside tasks, the user's own outside."""

from __future__ import annotations

import pytest
from width_programs import run

@pytest.mark.parametrize("slots", [1, 2])
def test_width_is_one_in_a_full_arena(slots):
    out = run(f"print(together({slots + 2}, widths)[0])", slots)
    assert out.strip() == "{'openblas': [1], 'openmp': [1]}"


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


def test_a_users_narrower_width_is_not_raised():
    code = "print(together(1, widths)[0], widths())"
    out = run(code, 2, OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")
    assert out.strip() == "{'openblas': [1], 'openmp': [1]} {'openblas': [1], 'openmp': [1]}"


def test_limits_set_outside_tasks_survive_them():
    code = """
with threadpool_limits(1):
    together(3, widths)
    print(widths())
together(3, widths)
print(widths())
"""
    assert run(code, 2).split("\n")[:2] == ["{'openblas': [1], 'openmp': [1]}", "{'openblas': [2], 'openmp': [2]}"]


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


def test_blas_in_a_shared_numba_region_has_width_one():
    code = """
import ctypes, numba, numpy as np
library = ctypes.CDLL(next(row["filepath"] for row in threadpool_info() if "scipy.libs" in row["filepath"]))
names = ("scipy_openblas_get_num_threads", "openblas_get_num_threads")  # before SciPy 1.16 without its prefix
get = next(getattr(library, name) for name in names if hasattr(library, name))
get.argtypes, get.restype = [], ctypes.c_int
@numba.njit(parallel=True)
def products(a, seen):
    for i in numba.prange(seen.size):
        np.dot(a, a)
        seen[i] = get()
a, seen = np.random.rand(200, 200), np.zeros(400, np.int64)
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
"""
    assert run(code, 2).strip() == "0"



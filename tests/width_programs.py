"""What the tests of BLAS and OpenMP widths share: the start of their programs, and running them."""

from __future__ import annotations

from fresh import check_fresh

# `widths()`: by kind of library as threadpoolctl, not we, sees them in the calling thread. `together()`: as many tasks
# that are all queued before the first one begins, and that all run while one looks if the arena holds them. `until()`:
# patience with an event.
WIDTHS = """
import numpy, scipy.linalg, sklearn.cluster, threading, time
from threadpoolctl import ThreadpoolController, threadpool_info, threadpool_limits
import composable_threads as ct
from composable_threads import _native

def widths():
    found = {}
    for row in threadpool_info():
        if row["user_api"] != "composable":
            found.setdefault(row["internal_api"], set()).add(row["num_threads"])
    return {kind: sorted(values) for kind, values in sorted(found.items())}

def blas(where):
    controller = next(row for row in ThreadpoolController().lib_controllers if where + ".libs" in row.filepath)
    return controller.filepath, controller.get_num_threads

NUMPY, numpy_width = blas("numpy")
SCIPY, scipy_width = blas("scipy")

def together(count, body):
    slots, go, out = _native.slots(), threading.Event(), []
    meet = threading.Barrier(min(count, slots))
    def task():
        if count <= slots: meet.wait()
        out.append(body())
        if count <= slots: meet.wait()
    with ct.Executor(slots) as executor:
        # Widths of OpenMP are those of a task's start: until all are queued, others hold the places.
        gates = [executor.submit(go.wait) for _ in range(slots if count > 1 else 0)]
        futures = [executor.submit(task) for _ in range(count)]
        go.set()
        for future in gates + futures:
            future.result()
    return out

def until(holds):
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.001)
"""


def run(code: str, slots: int, **env: str) -> str:
    """Output of a fresh process that begins with ``WIDTHS`` and an arena of so many slots."""
    return check_fresh(WIDTHS + f"_native.configure({slots})\n" + code, env=env)

"""Nothing grows with the number of regions, calls and graphs: memory of a process after many is that after a tenth."""

from __future__ import annotations

import pytest
from fresh import check_fresh

# The largest growth allowed, in KiB.
GROWTH = 2048

WORK = {
    "regions": """
        import numba
        @numba.njit(parallel=True, nogil=True)
        def fill(out):
            for i in numba.prange(out.size):
                out[i] = i
        @numba.njit(nogil=True)
        def often(out, count):
            for _ in range(count):
                fill(out)
        out = numpy.zeros(50_000)
        small = numpy.zeros(8)
        total = 100_000
        def run(count):
            often(small, count)
            often(out, count // 20)  # these are shared
    """,
    "joblib": """
        from joblib import Parallel, delayed
        total = 10_000
        def run(count):
            for _ in range(count):
                Parallel(2, backend="composable")(delayed(abs)(i) for i in range(3))
    """,
    "graphs": """
        from composable_threads.dask_backend import get
        graph = {("in", i): (abs, i) for i in range(50)} | {"out": (sum, [("in", i) for i in range(50)])}
        total = 1_000
        def run(count):
            for _ in range(count):
                get(graph, "out")
    """,
    "executor": """
        import composable_threads
        total = 2_000
        def run(count):
            for _ in range(count):
                with composable_threads.Executor(2) as executor:
                    list(executor.map(abs, range(5)))
    """,
}


@pytest.mark.parametrize("what", WORK)
def test_memory_after_many_is_that_after_a_tenth(what):
    code = f"""
        import gc, numpy
        from composable_threads import _native
        _native.configure(2)
        def resident():
            gc.collect()
            with open("/proc/self/status") as status:
                return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
        {WORK[what]}
        run(total // 10)
        before = resident()
        run(total)
        print(resident() - before)
    """
    grown = int(check_fresh(code, env={"NUMBA_THREADING_LAYER": "composable"}, timeout=120))
    assert grown <= GROWTH, f"{grown} KiB more"

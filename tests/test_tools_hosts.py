"""Dask's and Joblib's own reporters tell of tasks in the arena what they tell of those in the stock threads."""

from __future__ import annotations

import re

import pytest
from fresh import check_fresh

GRAPH = """
import io, threading
import dask
from dask.diagnostics import CacheProfiler, Profiler, ProgressBar, ResourceProfiler

names = {}

def inc(x):
    names[threading.get_ident()] = threading.current_thread().name
    return x + 1

graph = {("x", i): (inc, i) for i in range(20)} | {"total": (sum, [("x", i) for i in range(20)])}

def compute(scheduler):
    from dask.base import get_scheduler
    return get_scheduler(scheduler=scheduler)(graph, "total")
"""


def test_progress_bar_counts_every_task():
    code = """
out = io.StringIO()
with ProgressBar(out=out, dt=0.01):
    assert compute("composable") == 210
    assert compute("composable") == 210
last = [line for line in out.getvalue().replace("\\r", "\\n").split("\\n") if line.strip()]
assert sum("100% Completed" in line for line in last) == 2, last
"""
    check_fresh(GRAPH + code)


@pytest.mark.parametrize("activated", [False, True])
def test_profilers_see_every_task_on_the_threads_that_run_them(activated):
    code = f"""
import contextlib
import composable_threads as c
activation = c.activate() if {activated} else contextlib.nullcontext()

def tasks(scheduler):
    with Profiler() as profile, CacheProfiler() as cached, ResourceProfiler(dt=0.01) as resources:
        assert compute(scheduler) == 210
    assert all(one.end_time >= one.start_time for one in profile.results)
    assert all(one.free_time >= one.cache_time for one in cached.results)
    workers = {{one.worker_id for one in profile.results}}
    return sorted(map(str, (one.key for one in profile.results))), sorted(map(str, (one.key for one in cached.results))), workers

stock = tasks("threads")
with activation:
    ours = tasks("threads" if {activated} else "composable")
assert ours[:2] == stock[:2] and len(ours[0]) == 21
assert all(names.get(worker, "composable-").startswith("composable-") for worker in ours[2]), names
"""
    check_fresh(GRAPH + code)


def test_tqdm_counts_the_tasks_of_a_graph():
    code = """
from tqdm.dask import TqdmCallback
out = io.StringIO()
with TqdmCallback(desc="graph", file=out, mininterval=0):
    assert compute("composable") == 210
assert "graph: 100%" in out.getvalue() and "21/21" in out.getvalue(), out.getvalue()
"""
    check_fresh(GRAPH + code)


def verbose_of(backend: str, verbose: int) -> tuple[list[str], str]:
    code = f"""
import joblib
from composable_threads import _native
_native.configure(2)
with joblib.parallel_config({backend!r}, n_jobs=2):
    print(joblib.Parallel(verbose={verbose}, batch_size=1)(joblib.delayed(abs)(-i) for i in range(12)))
"""
    from fresh import run_fresh

    done = run_fresh(code)
    assert done.returncode == 0, done.stderr
    told = done.stderr + done.stdout
    counts = re.findall(r"Done +(\d+) (?:out of +\d+|tasks)", told)
    return counts, told


@pytest.mark.parametrize("verbose", [1, 10, 100])
def test_joblib_tells_its_progress(verbose):
    ours, told = verbose_of("composable", verbose)
    stock, stock_told = verbose_of("threading", verbose)
    assert "Using backend ComposableBackend with 2 concurrent workers" in told
    assert ours[-1] == stock[-1] == "12"
    assert "12 out of  12" in told and "12 out of  12" in stock_told
    assert [int(count) for count in ours] == sorted(int(count) for count in ours)
    if verbose == 100:
        assert min(len(ours), len(stock)) >= 11  # of 12 tasks, one is left out by Joblib; both print these to stdout


@pytest.mark.parametrize("kind", ["generator", "generator_unordered"])
def test_a_generator_of_results_under_tqdm(kind):
    code = f"""
import io
import joblib
from tqdm import tqdm
from composable_threads import _native
_native.configure(2)
out = io.StringIO()
results = joblib.Parallel(n_jobs=2, backend="composable", return_as={kind!r})(joblib.delayed(abs)(-i) for i in range(50))
found = list(tqdm(results, total=50, file=out, mininterval=0))
assert (found if {kind!r} == "generator" else sorted(found)) == list(range(50)), found
assert "100%" in out.getvalue() and "50/50" in out.getvalue()
inputs = tqdm(range(50), file=out, mininterval=0)  # a bar over what is dispatched, drawn from worker threads
joblib.Parallel(n_jobs=2, backend="composable")(joblib.delayed(abs)(i) for i in inputs)
assert inputs.n == 50, inputs.n
"""
    check_fresh(code)

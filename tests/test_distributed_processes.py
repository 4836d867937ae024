"""Clusters of real worker processes: how they get the arena, its size, widths, workers that die or start anew."""

from __future__ import annotations

import os

import pytest
from fresh import check_fresh, run_fresh

pytest.importorskip("distributed")

PRELOAD = "composable_threads.dask_backend.preload"
START = """
import os, signal, sys, time
import dask
from dask import delayed
from distributed import Client, LocalCluster, get_worker
import composable_threads
from composable_threads.dask_backend import ComposablePlugin

def cluster_of(processes, threads, **options):
    options |= {"n_workers": processes, "threads_per_worker": threads, "dashboard_address": ":0"}
    return LocalCluster(processes=True, **options)

def look(dask_worker):
    info = composable_threads.info()
    return type(dask_worker.executors["default"]).__name__, info["slots"], info["active"]
"""
OURS = "ArenaThreadPoolExecutor"


def check_cluster(code: str, **options) -> str:
    return check_fresh(START + code, allow_stderr=True, timeout=120, **options)


# --- ways in


def test_importing_the_dask_backend_imports_no_distributed():
    code = """
    import sys, composable_threads.dask_backend
    print([name for name in sys.modules if name.startswith("distributed")])
    composable_threads.dask_backend.ComposablePlugin
    print("distributed" in sys.modules)
    """
    assert check_fresh(code).split() == ["[]", "True"]


def test_the_plugin_gives_workers_the_arena_and_takes_it_back():
    code = """
with cluster_of(2, 1) as cluster, Client(cluster) as client:
    client.register_plugin(ComposablePlugin())
    print(*client.run(look).values())
    client.restart()  # new processes
    print(*client.run(look).values())
    client.register_plugin(ComposablePlugin())  # again
    print(*client.run(look).values())
    assert client.gather(client.map(abs, range(20))) == list(range(20))
    client.unregister_worker_plugin(ComposablePlugin.name)
    print(*client.run(look).values())
    assert client.gather(client.map(pow, range(20), [2] * 20)) == [i * i for i in range(20)]
"""
    ours, stock = f"('{OURS}', 1, True)", "('ThreadPoolExecutor', 1, False)"
    assert check_cluster(code).splitlines() == [f"{ours} {ours}"] * 3 + [f"{stock} {stock}"]


@pytest.mark.parametrize("way", ["argument", "config", "environment"])
def test_the_preload_gives_workers_the_arena(way):
    options = {"preload": PRELOAD} if way == "argument" else {}
    settings = {"distributed.worker.preload": [PRELOAD]} if way == "config" else {}
    code = f"""
dask.config.set({settings})
with cluster_of(1, 2, **{options}) as cluster, Client(cluster) as client:
    print(*client.run(look).values())
    assert client.gather(client.map(abs, range(20))) == list(range(20))
"""
    env = {"DASK_DISTRIBUTED__WORKER__PRELOAD": PRELOAD} if way == "environment" else {}
    assert check_cluster(code, env=env).split("\n")[0] == f"('{OURS}', {min(2, os.cpu_count())}, True)"


def test_the_arena_is_no_larger_than_the_process_may_use():
    code = f"""
with cluster_of(1, 4, preload={PRELOAD!r}) as cluster, Client(cluster) as client:
    print(*client.run(look).values(), *client.nthreads().values())
"""
    assert check_cluster(code, env={"COMPOSABLE_NUM_THREADS": "1"}).strip() == f"('{OURS}', 1, True) 4"


def test_a_worker_of_the_command_line_takes_the_preload():
    code = f"""
import subprocess
with LocalCluster(n_workers=0, dashboard_address=":0") as cluster, Client(cluster) as client:
    command = [sys.executable, "-m", "distributed.cli.dask_worker", cluster.scheduler_address]
    worker = subprocess.Popen([*command, "--nthreads=2", "--no-dashboard", "--preload", {PRELOAD!r}])
    client.wait_for_workers(1, timeout=60)
    print(*client.run(look).values())
    client.retire_workers()
    print(worker.wait(60))
"""
    assert check_cluster(code).splitlines() == [f"('{OURS}', {min(2, os.cpu_count())}, True)", "0"]


def test_what_is_no_worker_is_refused_with_a_reason():
    code = f"""
with LocalCluster(n_workers=0, dashboard_address=":0", scheduler_kwargs={{"preload": {PRELOAD!r}}}) as cluster:
    print(cluster.scheduler.status.name)
"""
    done = run_fresh(START + code)
    assert done.stdout.strip() == "running" and "not for a Scheduler" in done.stderr


# --- widths

WIDTHS = f"""
def widths():
    import numpy, sklearn.ensemble
    found = {{row["kind"]: row["width"] for row in composable_threads.info()["libraries"]}}
    return found["openblas"], found["openmp"]
def crowded(i):
    time.sleep(0.3)
    return widths()
def show(**options):
    with cluster_of(1, 2, preload={PRELOAD!r}, **options) as cluster, Client(cluster) as client:
        client.submit(widths).result()  # which loads them
        alone = client.submit(widths, pure=False).result()
        together = client.gather(client.map(crowded, range(2)))
        print(alone, *set(together), *client.run(widths).values())
"""
FREE = "(2, 2) (1, 1) (1, 1)"


def widths_of(code: str, **options) -> list[str]:
    pytest.importorskip("sklearn")
    options.setdefault("env", {})["COMPOSABLE_NUM_THREADS"] = "2"
    return check_cluster(WIDTHS + code, **options).splitlines()


def test_the_nannys_widths_hold_no_idle_core_back():
    if os.cpu_count() < 2:
        pytest.skip("one CPU is never idle")
    # The second nanny finds in its own environment what the first one put there.
    assert widths_of("show()\nshow()") == [FREE, FREE]


@pytest.mark.parametrize("way", ["environment", "os.environ", "argument", "configuration"])
def test_a_width_that_the_user_set_counts(way, tmp_path):
    ones, code, env = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}, "show()", {}
    if way == "environment":
        env = ones
    elif way == "os.environ":
        code = f"os.environ.update({ones})\nshow()"
    elif way == "argument":
        code = f"show(env={ones})"
    else:
        lines = "".join(f"      {name}: {width}\n" for name, width in ones.items())
        (tmp_path / "widths.yaml").write_text(f"distributed:\n  nanny:\n    pre-spawn-environ:\n{lines}")
        env = {"DASK_CONFIG": str(tmp_path)}
    assert widths_of(code, env=dict(env)) == ["(1, 1) (1, 1) (1, 1)"]


# --- Joblib, memory

# Numba regions to nest, and what the first `n` of them give together.
LEAVES = """
import numba
@numba.njit(parallel=True)
def squares(n):
    total = 0.0
    for i in numba.prange(n):
        total += float(i) ** 2
    return total
def leaf(i):
    return squares(1000 + i)
def sum_of_leaves(n):
    return sum(sum(float(k) ** 2 for k in range(1000 + i)) for i in range(n))
"""


def test_joblib_on_a_cluster_shares_the_arenas_of_its_workers():
    code = """
import joblib
from joblib import Parallel, delayed as call
def nested(n):
    spread = sum(Parallel()(call(leaf)(i) for i in range(n)))
    with joblib.parallel_config("composable"):
        own = sum(Parallel(n_jobs=4)(call(leaf)(i) for i in range(n)))
    time.sleep(0.05)
    return spread, own, numba.threading_layer(), get_worker().address
def peak():
    return composable_threads.info()["peak_running"]
with cluster_of(2, 1) as cluster, Client(cluster) as client:
    client.register_plugin(ComposablePlugin())
    with joblib.parallel_backend("dask"):
        found = Parallel()(call(nested)(i) for i in range(1, 11))
    for n, (spread, own, *_) in enumerate(found, 1):
        expected = sum_of_leaves(n)
        assert abs(spread - expected) <= 1e-9 * expected >= abs(own - expected), (n, spread, own, expected)
    *_, layers, addresses = map(set, zip(*found))
    print(*layers, len(addresses), *client.run(peak).values())
"""
    assert check_cluster(LEAVES + code) == "composable 2 1 1\n"


@pytest.mark.parametrize("preload", [[], [PRELOAD]], ids=["stock", "arena"])
def test_results_that_do_not_fit_are_spilled_and_come_back(preload):
    code = f"""
import numpy
def part(i):
    return numpy.full(125_000, i)  # 1 MB
def spilled(dask_worker):
    return len(dask_worker.data.slow)
dask.config.set({{"distributed.worker.memory." + name: False for name in ("spill", "pause", "terminate")}})
dask.config.set({{"distributed.worker.memory.target": 0.5}})
with cluster_of(1, 2, memory_limit="10MB", preload={preload}) as cluster, Client(cluster) as client:
    parts = client.map(part, range(20))
    total = client.submit(lambda parts: [int(part.sum()) for part in parts], parts)
    assert total.result() == [125_000 * i for i in range(20)]
    (slow,) = client.run(spilled).values()
    print(slow >= 15, *(name for name, *_ in client.run(look).values()))
"""
    assert check_cluster(code).split() == ["True", OURS if preload else "ThreadPoolExecutor"]


# --- workers that die


def test_a_worker_killed_in_the_middle_of_nested_work_costs_no_answer():
    code = f"""
import numpy
def nested(n, victim):
    from joblib import Parallel, delayed as call
    if get_worker().address == victim and n == 3:
        # On this worker only, once it has nested work on the way: the other one gets the task next.
        dask.compute([delayed(leaf)(i) for i in range(4)])
        os.kill(os.getpid(), signal.SIGKILL)
    own = sum(Parallel(n_jobs=2)(call(leaf)(i) for i in range(n)))
    return own, dask.delayed(sum)([delayed(leaf)(i) for i in range(n)]).compute()
with cluster_of(2, 1, preload={PRELOAD!r}) as cluster, Client(cluster) as client:
    victim = next(iter(client.scheduler_info()["workers"]))
    pids = set(client.run(os.getpid).values())
    futures = client.map(nested, range(8), victim=victim, pure=False)
    left = pids
    while left == pids:  # the scheduler may give the deadly task to the other worker
        futures.append(client.submit(nested, 3, victim, workers=[victim], allow_other_workers=True, pure=False))
        for n, (own, spread) in zip([*range(8), 3], client.gather(futures)):
            expected = sum_of_leaves(n)
            assert numpy.allclose([own, spread], expected), (n, own, spread, expected)
        del futures[8:]
        client.wait_for_workers(2)
        left = pids & set(client.run(os.getpid).values())
    print(len(left), *client.run(look).values())
"""
    ours = f"('{OURS}', 1, True)"
    assert check_cluster(LEAVES + code) == f"1 {ours} {ours}\n"


def test_a_process_ends_at_once_although_a_task_goes_on():
    # The nanny asks its worker to end, and waits.
    code = f"""
def endless():
    import threading
    threading.Event().wait()
with cluster_of(1, 2, preload={PRELOAD!r}) as cluster, Client(cluster) as client:
    future = client.submit(endless)
    while not any(client.processing().values()):
        time.sleep(0.01)
print("closed")
"""
    assert check_cluster(code) == "closed\n"

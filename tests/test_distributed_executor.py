"""The pool of a worker by itself: its size, what closes, what does not, and the doors of its process."""

from __future__ import annotations

import threading
import time

import pytest

pytest.importorskip("distributed")

from composable_threads import _native
from composable_threads.activation import is_active
from composable_threads.dask_backend import ArenaThreadPoolExecutor
from distributed import Client, LocalCluster
from distributed.threadpoolexecutor import rejoin, secede
from fresh import check_fresh

LONG = 30


def options(**more):
    return {"processes": False, "n_workers": 1, "dashboard_address": ":0", **more}


@pytest.fixture
def executor():
    executor = ArenaThreadPoolExecutor(2)
    yield executor
    executor.shutdown()
    assert not is_active()


def test_a_worker_takes_it_for_threads(executor):
    assert "ThreadPoolExecutor" in str(type(executor))  # distributed's own words


@pytest.mark.parametrize(("bad", "error"), [(0, ValueError), (-1, ValueError), ("2", TypeError), (1.5, TypeError)])
def test_a_bad_size_is_refused(bad, error):
    with pytest.raises(error, match="max_workers"):
        ArenaThreadPoolExecutor(bad)


def test_doors_open_with_the_first_task_and_close_with_the_last_pool(executor):
    other = ArenaThreadPoolExecutor(1)
    assert not is_active()
    assert executor.submit(is_active).result(LONG) and other.submit(is_active).result(LONG)
    executor.shutdown()
    assert is_active()
    other.shutdown()
    assert not is_active()


def test_after_shutdown_it_takes_tasks_only_if_a_worker_has_it(executor):
    assert executor.submit(abs, -1).result(LONG) == 1
    executor.shutdown()
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(abs, -1)
    with LocalCluster(**options(threads_per_worker=2, executor=executor)) as cluster, Client(cluster) as client:
        assert client.submit(abs, -1).result(LONG) == 1


def test_threads_have_the_pools_names_in_its_tasks():
    pools = [ArenaThreadPoolExecutor(1, f"Pool{i}") for i in range(2)]
    names = [pool.submit(lambda: threading.current_thread().name).result(LONG) for pool in pools * 2]
    for pool in pools:
        pool.shutdown()
    assert [name.split("-")[0] for name in names] == ["Pool0", "Pool1"] * 2


def test_pools_made_in_tasks_are_the_arenas_and_those_of_the_process_are_not(executor):
    from concurrent.futures import ThreadPoolExecutor
    from multiprocessing.pool import ThreadPool

    def ask():
        with ThreadPoolExecutor(1) as pool, ThreadPool(1) as threads:
            return pool.submit(_native.task_depth).result() > 0, threads.apply(_native.task_depth) > 0

    assert executor.submit(ask).result(LONG) == (True, True)
    assert ask() == (False, False)


def test_shutdown_waits_no_longer_than_it_is_told_and_not_for_who_has_seceded(executor):
    release, stop = threading.Event(), threading.Event()

    def goes():
        secede()
        release.wait(LONG)

    gone = executor.submit(goes)
    stays = executor.submit(stop.wait, LONG)
    executor.shutdown(timeout=0.05)
    assert not gone.done() and not stays.done()
    stop.set()
    executor.shutdown()  # would wait for ever
    assert stays.done() and not gone.done()
    release.set()
    gone.result(LONG)


def test_who_returns_goes_before_who_is_queued(executor):
    order, both, returned = [], threading.Barrier(3), threading.Event()

    def leaves():
        secede()
        both.wait(LONG)
        rejoin()
        order.append("returned")
        returned.set()

    def queued():
        order.append("queued")
        returned.wait(LONG)

    def fills():
        both.wait(LONG)
        while not (executor._returning or order):
            time.sleep(0.001)

    futures = [executor.submit(leaves), executor.submit(fills), executor.submit(fills)]
    futures += [executor.submit(queued) for _ in range(4)]
    for future in futures:
        future.result(3 * LONG)
    assert order.index("returned") <= 1, order  # one place is its, the other one's is not


def test_a_task_that_ends_without_rejoining_gives_its_extra_place_back(executor):
    for _ in range(5):
        executor.submit(secede).result(LONG)
    executor.shutdown()
    assert executor._tasks.group.limit == 2 and not executor._away and not executor._threads


def test_the_arena_outlives_workers_and_serves_the_next():
    executor = ArenaThreadPoolExecutor()
    for nthreads in (2, 1):
        more = options(threads_per_worker=nthreads, executor=executor)
        with LocalCluster(**more) as cluster, Client(cluster) as client:
            assert all(client.gather(client.map(lambda i: _native.task_depth(), range(8), pure=False)))
            assert executor._max_workers == nthreads
    more = options(n_workers=2, threads_per_worker=1, executor=executor)
    with LocalCluster(**more) as cluster, Client(cluster) as client:
        assert client.submit(abs, -1).result(LONG) == 1 and executor._max_workers == 2
        cluster.scale(1)
        while len(client.scheduler_info()["workers"]) > 1:
            time.sleep(0.01)
        assert client.gather(client.map(lambda i: _native.task_depth(), range(8), pure=False)) == [1] * 8
    assert not is_active()


def test_a_worker_is_closed_while_a_task_goes_on_for_ever_and_the_process_ends():
    code = """
    import threading, time
    from composable_threads.dask_backend import ArenaThreadPoolExecutor
    from distributed import Client, LocalCluster
    def endless():
        threading.Event().wait()
    options = dict(processes=False, n_workers=1, threads_per_worker=2, dashboard_address=":0")
    cluster = LocalCluster(executor=ArenaThreadPoolExecutor(), **options)
    client = Client(cluster)
    future = client.submit(endless)
    worker = cluster.workers[0]
    while not worker.active_threads:
        time.sleep(0.01)
    client.sync(worker.close, timeout=0.2)
    print(worker.status.name)
    """
    assert check_fresh(code, allow_stderr=True).split() == ["closed"]


def test_the_gap_between_two_tasks_of_a_worker_is_not_taken_for_idleness():
    # A worker gives its next task only when its loop has heard that one has ended.
    code = """
import asyncio, threading, time
import numpy
import composable_threads
from composable_threads import _native
from composable_threads.dask_backend import executor as module
_native.configure(2)
module._SETTLE_SECONDS = 1.0
def width():
    return next(row["width"] for row in composable_threads.info()["libraries"] if row["kind"] == "openblas")
def runs_until(event):
    first = width()
    while not event.is_set(): time.sleep(0)
    return first
async def main():
    own, pool = width(), module.ArenaThreadPoolExecutor(2)
    go = [threading.Event() for _ in range(3)]
    ends = [asyncio.wrap_future(pool.submit(runs_until, event)) for event in go[:2]]
    while pool._tasks.group.active < 2: await asyncio.sleep(0.001)
    go[0].set()
    await ends[0]
    assert width() == 1
    ends.append(asyncio.wrap_future(pool.submit(runs_until, go[2])))
    go[1].set()
    assert await ends[1] in (1, 2)
    assert width() == 1
    while width() == 1: await asyncio.sleep(0.01)  # one goes on alone
    go[2].set()
    assert await ends[2] == 1
    while width() != own or pool._settles: await asyncio.sleep(0.01)
    pool.shutdown()
asyncio.run(main())
"""
    check_fresh(code, env={"OPENBLAS_NUM_THREADS": "2"})

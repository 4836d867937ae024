"""Many short tasks: what the doors group when they submit, nobody can tell but by what it costs."""

from __future__ import annotations

import threading
import time
from multiprocessing.pool import ThreadPool as StockThreadPool

import pytest
from composable_threads import ThreadPool
from fresh import check_fresh
from joblib import Parallel, delayed


def test_tasks_are_drawn_as_they_are_needed():
    drawn, gate = [], threading.Event()

    def tasks():
        for i in range(10_000):
            drawn.append(i)
            yield delayed(gate.wait)(20) if i < 2 else delayed(abs)(i)

    call = threading.Thread(target=lambda: Parallel(2, backend="composable")(tasks()))
    call.start()
    time.sleep(0.1)
    assert len(drawn) <= 8  # pre_dispatch is 2 * n_jobs
    gate.set()
    call.join(30)
    assert not call.is_alive() and len(drawn) == 10_000


@pytest.mark.parametrize("chunksize", [None, 1, 3])
def test_pool_map_gives_what_the_stock_pool_gives(chunksize):
    with ThreadPool(2) as ours, StockThreadPool(2) as stock:
        for count in (0, 1, 2, 1000):
            assert ours.map(abs, range(count), chunksize) == stock.map(abs, range(count), chunksize)
            assert list(ours.imap(abs, range(count), chunksize or 1)) == list(range(count))


def test_a_single_task_of_a_pool_counts_as_one():
    # Queue entries beyond the tasks would make BLAS calls narrow which are alone.
    with ThreadPool(2) as pool:
        queued = pool.map(lambda _: pool._group.queued, [0])
    assert queued == [0]


def test_short_tasks_of_a_call_are_not_handed_over_one_by_one():
    code = """
    import resource
    from composable_threads import Executor, _native
    from joblib import Parallel, delayed
    _native.configure(2)
    def switches(run):
        run()
        before = resource.getrusage(resource.RUSAGE_SELF)
        run()
        after = resource.getrusage(resource.RUSAGE_SELF)
        return after.ru_nvcsw - before.ru_nvcsw
    executor = Executor(2)
    print(switches(lambda: Parallel(2, backend="composable")(delayed(abs)(i) for i in range(20_000))))
    print(switches(lambda: list(executor.map(abs, range(20_000)))))
    """
    by_call, by_map = map(int, check_fresh(code).split())
    assert by_call < 5_000 and by_map < 5_000

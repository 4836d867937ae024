"""Many short tasks: Joblib's batches, ``Executor.map`` and pools group what they submit, and nobody can tell."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from concurrent.futures import CancelledError, TimeoutError
from multiprocessing.pool import ThreadPool as StockThreadPool

import pytest
from composable_threads import Executor, ThreadPool
from fresh import check_fresh
from joblib import Parallel, delayed


def parallel(**options) -> Parallel:
    return Parallel(options.pop("n_jobs", 2), backend="composable", **options)


# --- Joblib


@pytest.mark.parametrize("batch_size", ["auto", 1, 7])
@pytest.mark.parametrize("return_as", ["list", "generator", "generator_unordered"])
def test_every_task_runs_once_and_results_keep_their_order(batch_size, return_as):
    ran = []

    def task(i):
        ran.append(i)
        return i * i

    out = parallel(batch_size=batch_size, return_as=return_as)(delayed(task)(i) for i in range(3000))
    results = list(out)
    if return_as == "generator_unordered":
        results.sort()
    assert results == [i * i for i in range(3000)]
    assert sorted(ran) == list(range(3000))


@pytest.mark.parametrize("n_jobs", [2, 4])
def test_tasks_may_wait_for_one_another_after_many_short_ones(n_jobs):
    # By then batches are large; two tasks of one batch that wait for each other must not run one after the other.
    barrier = threading.Barrier(n_jobs)

    def task(i):
        return barrier.wait(30) if i >= 4000 else i

    out = parallel(n_jobs=n_jobs)(delayed(task)(i) for i in range(4000 + 3 * n_jobs))
    assert out[:4000] == list(range(4000))
    assert sorted(out[4000:]) == sorted(list(range(n_jobs)) * 3)


def test_batches_of_short_tasks_grow_and_those_of_long_ones_do_not():
    sizes: dict[str, list[int]] = {"short": [], "long": []}

    for kind, seconds, count in (("short", 0.0, 4000), ("long", 0.003, 30)):
        call = parallel()
        backend = call._backend
        choose = type(backend).compute_batch_size

        def recorded(self, kind=kind, choose=choose):
            sizes[kind].append(choose(self))
            return sizes[kind][-1]

        backend.compute_batch_size = recorded.__get__(backend)
        call(delayed(time.sleep if seconds else abs)(seconds) for _ in range(count))
    assert max(sizes["short"]) > 8
    assert max(sizes["long"]) == 1


def test_an_error_in_a_grown_batch_has_its_frames_and_stops_the_call():
    ran = []

    def fails(i):
        ran.append(i)
        if i == 5000:
            raise LookupError(f"task {i}")
        return i

    with pytest.raises(LookupError, match="task 5000") as caught:
        parallel()(delayed(fails)(i) for i in range(100_000))
    assert "in fails" in str(caught.value.__cause__)
    assert len(ran) < 60_000
    assert parallel()(delayed(abs)(i) for i in range(10)) == list(range(10))


def test_tasks_are_drawn_as_they_are_needed():
    drawn, gate = [], threading.Event()

    def tasks():
        for i in range(10_000):
            drawn.append(i)
            yield delayed(gate.wait)(20) if i < 2 else delayed(abs)(i)

    call = threading.Thread(target=lambda: parallel()(tasks()))
    call.start()
    time.sleep(0.1)
    assert len(drawn) <= 8  # pre_dispatch is 2 * n_jobs
    gate.set()
    call.join(30)
    assert not call.is_alive() and len(drawn) == 10_000


def test_tasks_of_a_batch_see_their_own_nested_backend():
    def nested(i):
        return sum(Parallel()(delayed(abs)(j) for j in range(i % 5)))

    assert parallel()(delayed(nested)(i) for i in range(500)) == [sum(range(i % 5)) for i in range(500)]


# --- Executor.map


def test_map_gives_results_in_order_and_each_call_runs_once():
    ran = []
    with Executor(3) as executor:
        out = executor.map(lambda a, b: ran.append(a) or a * b, range(5000), range(5000, 0, -1))
        assert list(out) == [a * b for a, b in zip(range(5000), range(5000, 0, -1), strict=True)]
    assert sorted(ran) == list(range(5000))


def test_map_raises_at_the_call_that_failed_and_drops_the_rest():
    started = []

    def fails(i):
        started.append(i)
        if i == 10:
            time.sleep(0.01)
            raise KeyError(i)
        time.sleep(0.0005)
        return i

    with Executor(2) as executor:
        results = executor.map(fails, range(10_000))
        assert [next(results) for _ in range(10)] == list(range(10))
        with pytest.raises(KeyError, match="10"):
            next(results)
        with pytest.raises(StopIteration):
            next(results)
    assert len(started) < 9000


def test_calls_of_a_map_may_wait_for_one_another():
    barrier = threading.Barrier(4)
    with Executor(4) as executor:
        assert sorted(executor.map(lambda i: barrier.wait(30), range(8))) == sorted([0, 1, 2, 3] * 2)


def test_map_takes_its_arguments_at_once_and_times_out():
    gate = threading.Event()
    with Executor(2) as executor:
        drawn = []
        results = executor.map(lambda _: gate.wait(20), (drawn.append(i) for i in range(50)), timeout=0.05)
        assert len(drawn) == 50
        with pytest.raises(TimeoutError):
            next(results)
        gate.set()


def test_a_map_in_a_task_of_the_same_executor_is_no_deadlock():
    with Executor(1) as executor:
        assert executor.submit(lambda: sum(executor.map(abs, range(20)))).result(30) == 190
    with Executor() as executor:
        assert list(executor.map(lambda i: sum(executor.map(abs, range(i))), range(20))) == [sum(range(i)) for i in range(20)]


def test_shutdown_that_cancels_leaves_no_call_of_a_map_waiting():
    begun, gate = threading.Event(), threading.Event()
    executor = Executor(1)
    results = executor.map(lambda i: begun.set() or gate.wait(20), range(100))
    assert begun.wait(20)
    executor.shutdown(wait=False, cancel_futures=True)
    gate.set()
    assert next(results) is True
    with pytest.raises(CancelledError):
        next(results)


def test_arguments_and_results_of_a_map_are_not_kept():
    class Held:
        pass

    refs = []

    def task(held):
        refs.append(weakref.ref(held))
        return Held()

    with Executor(2) as executor:
        for result in executor.map(task, [Held() for _ in range(50)]):
            refs.append(weakref.ref(result))
            del result
    gc.collect()
    assert [ref for ref in refs if ref() is not None] == []


# --- ThreadPool


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


# --- what it costs


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

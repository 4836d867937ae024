"""What ``concurrent.futures`` promises of an executor of threads; every promise is also tried on the stock one."""

from __future__ import annotations

import concurrent.futures as cf
import contextlib
import contextvars
import gc
import logging
import threading
import time
import traceback
import weakref
from concurrent.futures.thread import BrokenThreadPool

import pytest
from composable_threads import Executor, _native, activate


@contextlib.contextmanager
def activated_executor(*args, **kwargs):
    with activate(), cf.ThreadPoolExecutor(*args, **kwargs) as pool:
        yield pool


KINDS = {"executor": Executor, "activated": activated_executor, "stock": cf.ThreadPoolExecutor}


@pytest.fixture(params=KINDS)
def make(request):
    """Makes executors of one kind and checks that their tasks run where they should."""
    with contextlib.ExitStack() as stack:

        def make_one(*args, **kwargs):
            pool = stack.enter_context(KINDS[request.param](*args, **kwargs))
            if "initializer" not in kwargs:
                assert (pool.submit(_native.task_depth).result(30) > 0) == (request.param != "stock")
            return pool

        yield make_one


def fails(text="told"):
    raise LookupError(text)


# --- submit, results, errors


def test_submit_passes_all_arguments_on(make):
    pool = make()
    future = pool.submit(lambda *args, **kwargs: (args, kwargs), 1, self=2, fn=3)
    assert future.result() == ((1,), {"self": 2, "fn": 3})
    assert future.done() and not future.running() and not future.cancelled() and not future.cancel()


def test_exceptions_of_tasks_keep_their_frames(make):
    future = make().submit(fails)
    with pytest.raises(LookupError, match="told") as caught:
        future.result()
    assert "fails" in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert future.exception() is caught.value


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_exceptions_that_end_programs_end_only_the_task(make, error):
    def task():
        raise error

    pool = make(1)
    with pytest.raises(error):
        pool.submit(task).result()
    assert pool.submit(int).result() == 0


def test_result_with_timeout_gives_up_and_can_be_asked_again(make):
    release = threading.Event()
    future = make().submit(release.wait)
    for ask in (future.result, future.exception):
        with pytest.raises(cf.TimeoutError):
            ask(timeout=0.01)
    release.set()
    assert future.result(30) is True


def test_callbacks_are_called_in_order_and_their_errors_are_logged(make, caplog):
    called = []
    pool, release = make(1), threading.Event()
    future = pool.submit(release.wait)
    future.add_done_callback(lambda done: called.append(1))
    future.add_done_callback(lambda done: fails("in a callback"))
    future.add_done_callback(lambda done: called.append(2))
    release.set()
    future.result()
    future.add_done_callback(lambda done: called.append(3))
    pool.submit(int).result()
    assert [entry for entry in called if entry != 3] == [1, 2] and 3 in called
    assert "in a callback" in caplog.text


def test_nothing_holds_on_to_a_task_that_is_done(make):
    class Value:
        def method(self, other):
            return None

    value, argument = Value(), Value()
    refs = weakref.ref(value), weakref.ref(argument)
    future = make(1).submit(value.method, argument)
    del value, argument
    future.result()
    deadline = time.monotonic() + 10
    gc.disable()  # a cycle would be found and cleared
    try:
        while any(ref() is not None for ref in refs):
            assert time.monotonic() < deadline
            time.sleep(0.005)
    finally:
        gc.enable()


def test_wait_and_as_completed(make):
    pool, release = make(3), threading.Event()
    slow, good, bad = pool.submit(release.wait), pool.submit(int), pool.submit(fails)
    done, pending = cf.wait([slow, good, bad], return_when=cf.FIRST_EXCEPTION)
    assert bad in done and pending == {slow} - done
    done, pending = cf.wait([slow], timeout=0.01)
    assert (done, pending) == (set(), {slow})
    with pytest.raises(cf.TimeoutError):
        list(cf.as_completed([slow, good], timeout=0.01))
    release.set()
    assert set(cf.as_completed([slow, good, bad], timeout=30)) == {slow, good, bad}
    assert cf.wait([slow, good, bad]).not_done == set()


# --- map


def test_map_keeps_order_and_stops_at_the_shortest(make):
    pool = make()
    assert list(pool.map(pow, range(10), range(8))) == [i**i for i in range(8)]
    assert list(pool.map(pow, [], [])) == []
    assert list(pool.map(divmod, [5] * 40, [3] * 40, chunksize=7)) == [(1, 2)] * 40


def test_map_submits_at_once_and_gives_results_lazily(make):
    release, started = threading.Event(), threading.Semaphore(0)

    def task(i):
        started.release()
        if i == 1:
            release.wait()
        return i

    results = make(2).map(task, range(2))
    assert started.acquire(timeout=30) and started.acquire(timeout=30)  # nobody asked for a result yet
    assert next(results) == 0
    release.set()
    assert next(results) == 1
    assert next(results, None) is None


def test_map_raises_at_the_place_of_the_error_and_cancels_the_rest(make):
    ran, release = [], threading.Event()

    def task(i):
        if i == 2:
            raise LookupError(i)
        if i > 2:
            release.wait()
        ran.append(i)
        return i

    pool = make(1)
    results = pool.map(task, range(50))
    assert (next(results), next(results)) == (0, 1)
    with pytest.raises(LookupError):
        next(results)
    release.set()
    pool.submit(int).result()
    assert len(ran) < 10


def test_map_with_timeout(make):
    release = threading.Event()
    pool = make(2)
    results = pool.map(lambda i: i and release.wait(), [0, 1], timeout=0.05)
    assert next(results) == 0
    with pytest.raises(cf.TimeoutError):
        next(results)
    release.set()


def test_map_over_what_is_not_iterable_is_a_type_error(make):
    with pytest.raises(TypeError, match="not iterable"):
        make().map(int, 5)


# --- cancel, shutdown


def test_queued_tasks_can_be_cancelled_and_never_run(make):
    pool, release, ran, told = make(1), threading.Event(), [], []
    running = pool.submit(release.wait)
    while not running.running():
        time.sleep(0.001)
    queued = pool.submit(ran.append, 1)
    queued.add_done_callback(told.append)
    assert not running.cancel()
    assert queued.cancel() and queued.cancel() and queued.cancelled()
    assert told == [queued]
    for ask in (queued.result, queued.exception):
        with pytest.raises(cf.CancelledError):
            ask(30)
    release.set()
    assert running.result() is True
    pool.submit(int).result()
    assert cf.wait([queued], timeout=30).done == {queued}
    assert ran == []


def test_shutdown_waits_for_all_and_refuses_more(make):
    pool, done = make(2), []
    for i in range(20):
        pool.submit(lambda i=i: (time.sleep(0.001), done.append(i)))
    pool.shutdown()
    assert sorted(done) == list(range(20))
    pool.shutdown()
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        pool.submit(int)
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.map(int, "12")


def test_shutdown_without_wait_returns_and_the_tasks_are_done(make):
    pool, release = make(1), threading.Event()
    futures = [pool.submit(release.wait) for _ in range(5)]
    pool.shutdown(wait=False)
    assert not futures[-1].done()
    release.set()
    assert [future.result(30) for future in futures] == [True] * 5


@pytest.mark.parametrize("wait", [True, False])
def test_shutdown_can_cancel_what_is_queued(make, wait):
    pool, release = make(2), threading.Event()
    futures = [pool.submit(release.wait) for _ in range(20)]
    while sum(future.running() for future in futures) < 2:
        time.sleep(0.001)
    threading.Timer(0.05, release.set).start()
    pool.shutdown(wait=wait, cancel_futures=True)
    assert [future.cancelled() for future in futures] == [False] * 2 + [True] * 18
    assert [future.result(30) for future in futures[:2]] == [True] * 2


def test_context_manager_waits_and_lets_the_error_pass(make):
    pool, done = make(1), []
    with pytest.raises(LookupError), pool as entered:
        assert entered is pool
        pool.submit(lambda: (time.sleep(0.02), done.append(1)))
        fails()
    assert done == [1]
    with pytest.raises(RuntimeError):
        pool.submit(int)


def test_task_may_shut_its_executor_down_and_submit_before(make):
    pool = make(1)

    def task():
        future = pool.submit(int)
        pool.shutdown(wait=False)
        with pytest.raises(RuntimeError):
            pool.submit(int)
        return future

    assert pool.submit(task).result(30).result(30) == 0


# --- workers, initializer, context


def test_no_more_than_max_workers_at_once_and_as_many_as_that_may_meet(make):
    for workers in (1, 3, 12):
        pool = make(workers)
        barrier = threading.Barrier(workers)
        assert sorted(pool.map(barrier.wait, [30] * workers)) == list(range(workers))
        now, most, lock = [0], [0], threading.Lock()

        def task(_, now=now, most=most, lock=lock):
            with lock:
                now[0] += 1
                most[0] = max(most[0], now[0])
            time.sleep(0.002)
            with lock:
                now[0] -= 1

        list(pool.map(task, range(30)))
        assert most[0] <= workers


def test_initializer_runs_once_in_every_thread_before_its_first_task(make):
    prepared, lock = [], threading.Lock()
    local = threading.local()

    def prepare(value):
        with lock:
            prepared.append(threading.get_ident())
        local.value = value

    def task(_):
        time.sleep(0.002)
        return local.value, threading.get_ident()

    pool = make(3, initializer=prepare, initargs=("set",))
    results = list(pool.map(task, range(40)))
    assert {value for value, _ in results} == {"set"}
    assert len(prepared) == len(set(prepared)) and {ident for _, ident in results} <= set(prepared)


def test_failing_initializer_breaks_the_executor(make, caplog):
    pool = make(2, initializer=fails, initargs=("in the initializer",))
    with caplog.at_level(logging.CRITICAL):
        future = pool.submit(int)
        with pytest.raises(BrokenThreadPool, match="initializer failed"):
            future.result(30)
        with pytest.raises(BrokenThreadPool):
            for _ in range(1000):  # the stock one notes it a moment later
                pool.submit(int)
                time.sleep(0.001)
    assert "in the initializer" in caplog.text


@pytest.mark.parametrize("kind", ["executor", "activated", "stock"])
@pytest.mark.parametrize(("options", "error"), [
    ({"max_workers": 0}, ValueError),
    ({"max_workers": -3}, ValueError),
    ({"max_workers": "2"}, TypeError),
    ({"initializer": 5}, TypeError),
])  # fmt: skip
def test_bad_arguments(kind, options, error):
    with pytest.raises(error), KINDS[kind](**options):
        pass


def test_whole_numbers_of_every_type_are_accepted(make):
    import numpy

    for workers in (True, numpy.int64(2)):
        assert make(workers).submit(int).result() == 0


def test_half_a_worker_is_refused_by_ours_and_taken_where_the_stock_one_takes_it():
    with pytest.raises(TypeError, match="max_workers must be a whole number"):
        Executor(1.5)
    for kind in ("activated", "stock"):
        with KINDS[kind](1.5) as pool:
            barrier = threading.Barrier(2)
            assert sorted(pool.map(lambda _, barrier=barrier: barrier.wait(30), range(2))) == [0, 1]


def test_tasks_see_the_context_of_their_submitter_and_do_not_change_it():
    variable = contextvars.ContextVar("variable", default="default")
    with Executor() as pool:
        variable.set("first")
        first = pool.submit(lambda: (variable.get(), variable.set("changed"))[0])
        variable.set("second")
        assert list(pool.map(lambda _: variable.get(), range(5))) == ["second"] * 5
        assert first.result() == "first" and variable.get() == "second"

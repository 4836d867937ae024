"""``Executor.map`` makes no futures, and nobody can tell; every promise of the stock executor is tried on it too."""

from __future__ import annotations

import concurrent.futures as cf
import contextlib
import contextvars
import gc
import itertools
import threading
import time
import traceback
import weakref
from concurrent.futures.thread import BrokenThreadPool

import pytest
from composable_threads import Executor, _native, activate, blocking
from fresh import check_fresh

LONG = 30  # seconds after which a test that waits for another thread gives up


@contextlib.contextmanager
def activated_executor(*args, **kwargs):
    with activate(), cf.ThreadPoolExecutor(*args, **kwargs) as pool:
        yield pool


KINDS = {"executor": Executor, "activated": activated_executor, "stock": cf.ThreadPoolExecutor}


@pytest.fixture(params=KINDS)
def make(request):
    """Makes executors of one kind."""
    with contextlib.ExitStack() as stack:
        yield lambda *args, **kwargs: stack.enter_context(KINDS[request.param](*args, **kwargs))


@pytest.fixture(params=["executor", "activated"])
def make_ours(request):
    with contextlib.ExitStack() as stack:
        yield lambda *args, **kwargs: stack.enter_context(KINDS[request.param](*args, **kwargs))


def group_of(pool):
    return (pool._tasks if isinstance(pool, Executor) else pool._composable).group


def fails(x):
    raise LookupError(x)


# --- answers, order


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 2, 3_000])
def test_results_come_in_order_whatever_is_gone_through(make, workers, count):
    pool = make(workers)
    for numbers in (range(count), list(range(count)), iter(range(count)), dict.fromkeys(range(count))):
        assert list(pool.map(lambda x: 2 * x, numbers)) == list(range(0, 2 * count, 2))
    assert list(pool.map(pow, range(count), itertools.repeat(2))) == [i * i for i in range(count)]


def test_one_worker_begins_calls_in_order_and_between_what_was_submitted_before_and_after(make):
    pool, ran, release = make(1), [], threading.Event()
    pool.submit(release.wait, LONG)
    pool.submit(ran.append, "before")
    first = pool.map(ran.append, range(50))
    pool.submit(ran.append, "between")
    second = pool.map(ran.append, "ab")
    pool.submit(ran.append, "after")
    release.set()
    assert list(first) == [None] * 50 and list(second) == [None] * 2
    pool.submit(int).result(LONG)
    assert ran == ["before", *range(50), "between", "a", "b", "after"]


def test_every_call_is_begun_before_the_next_one_is_drawn(make):
    began = threading.Semaphore(0)

    def numbers():
        for i in range(20):
            assert i == 0 or began.acquire(timeout=LONG)
            yield i

    assert list(make(2).map(lambda i: (began.release(), i)[1], numbers())) == list(range(20))


def test_calls_run_though_nobody_asks_for_a_result(make):
    done = threading.Semaphore(0)
    results = make(2).map(lambda _: done.release(), range(40))
    assert all(done.acquire(timeout=LONG) for _ in range(40))
    del results


@pytest.mark.parametrize("workers", [2, 5])
def test_calls_may_wait_for_one_another_as_many_as_there_are_workers(make, workers):
    barrier = threading.Barrier(workers)
    calls = [lambda: None] * 500 + [lambda: barrier.wait(LONG)] * (4 * workers)
    found = list(make(workers).map(lambda call: call(), calls))
    assert found[:500] == [None] * 500
    assert sorted(found[500:]) == sorted([*range(workers)] * 4)


def test_more_calls_begin_while_others_block_if_the_user_set_no_limit():
    barrier = threading.Barrier(_native.slots() + 3)

    def call(_):
        with blocking():
            return barrier.wait(LONG)

    with Executor() as pool:
        assert sorted(pool.map(call, range(barrier.parties))) == list(range(barrier.parties))


def test_calls_see_a_copy_of_the_context_they_were_drawn_in():
    variable = contextvars.ContextVar("variable", default=0)

    def numbers():
        for i in range(6):
            variable.set(i)
            yield i

    def call(_):
        seen = variable.get()
        variable.set("changed")
        return seen

    with Executor(1) as pool:
        assert list(pool.map(call, numbers())) == list(range(6))
        assert variable.get() == 5


# --- errors, time-outs, early ends


def test_an_error_is_raised_in_its_place_with_its_frames(make):
    results = make(2).map(lambda i: fails(i) if i == 7 else i, range(500))
    assert list(itertools.islice(results, 7)) == list(range(7))
    with pytest.raises(LookupError, match="7") as caught:
        next(results)
    assert "fails" in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    with pytest.raises(StopIteration):
        next(results)


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_errors_that_end_programs_end_only_the_call(make, error):
    def call(i):
        if i == 1:
            raise error

    pool = make(2)
    results = pool.map(call, range(3))
    assert next(results) is None
    with pytest.raises(error):
        next(results)
    assert list(pool.map(abs, [-1])) == [1]


def test_an_error_of_the_iterable_is_raised_at_once_and_what_was_drawn_runs(make):
    def numbers():
        yield from range(5)
        raise KeyError("in the iterable")

    pool, ran = make(1), []
    with pytest.raises(KeyError, match="in the iterable"):
        pool.map(ran.append, numbers())
    pool.submit(int).result(LONG)
    assert ran == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("end", ["close", "error", "time-out", "collected"])
def test_what_has_not_begun_is_dropped_when_the_iterator_ends(make, end):
    release, ran = threading.Event(), []

    def call(i):
        ran.append(i)
        if i == 2:
            raise LookupError
        return i < 2 or release.wait(LONG)

    pool = make(1)
    timeout = 1 if end == "time-out" else None
    results = pool.map(call, range(3_000) if end == "error" else [0, 1, *range(3, 3_000)], timeout=timeout)
    assert next(results) is next(results) is True
    if end == "close":
        results.close()
    elif end == "collected":
        del results
        gc.collect()
    else:
        with pytest.raises(LookupError if end == "error" else cf.TimeoutError):
            next(results)
    if not isinstance(pool, cf.ThreadPoolExecutor) or hasattr(pool, "_composable"):
        assert group_of(pool).queued == 0
    release.set()
    pool.submit(int).result(LONG)
    assert len(ran) <= 5


def test_the_time_out_counts_from_the_call_for_all_results(make):
    release, done = threading.Event(), threading.Semaphore(0)
    results = make(2).map(lambda i: release.wait(LONG) if i == 3 else done.release(), range(4), timeout=0.2)
    assert all(done.acquire(timeout=LONG) for _ in range(3))
    time.sleep(0.2)
    assert [next(results) for _ in range(3)] == [None] * 3  # they are there
    with pytest.raises(cf.TimeoutError):
        next(results)
    release.set()


def test_shutdown_can_cancel_what_has_not_begun(make):
    pool, release, began = make(2), threading.Event(), threading.Semaphore(0)
    results = pool.map(lambda i: (began.release(), release.wait(LONG))[1], range(300))
    assert began.acquire(timeout=LONG) and began.acquire(timeout=LONG)
    pool.shutdown(wait=False, cancel_futures=True)
    release.set()
    assert next(results) is next(results) is True
    with pytest.raises(cf.CancelledError):
        next(results)
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.map(int, "12")


def test_shutdown_waits_for_the_calls_of_a_map(make):
    pool, done = make(2), []
    pool.map(lambda i: (time.sleep(0.001), done.append(i)), range(40))
    pool.shutdown()
    assert sorted(done) == list(range(40))


def test_a_failing_initializer_breaks_a_map(make, caplog):
    pool = make(2, initializer=fails, initargs=("in the initializer",))
    with pytest.raises(BrokenThreadPool):
        list(pool.map(int, range(10)))
    assert "in the initializer" in caplog.text


def test_a_program_may_end_in_the_middle_of_a_map():
    code = """
from composable_threads import Executor
done = []
results = Executor(2).map(done.append, range(2_000))
next(results)
import atexit
atexit.register(lambda: print(len(done)))
"""
    assert check_fresh(code) == "2000\n"


# --- subclasses, nesting, what is left behind


@pytest.mark.parametrize("kind", KINDS)
def test_a_subclass_that_overrides_submit_sees_every_call(kind):
    with activate() if kind == "activated" else contextlib.nullcontext():

        class Counting(Executor if kind == "executor" else cf.ThreadPoolExecutor):
            submitted = 0

            def submit(self, *args, **kwargs):
                self.submitted += 1
                return super().submit(*args, **kwargs)

        with Counting(2) as pool:
            assert list(pool.map(abs, range(-30, 0))) == list(range(30, 0, -1))
            assert pool.submitted == 30


@pytest.mark.parametrize("workers", [1, 2, None])
def test_maps_nest_in_the_calls_of_the_same_executor(make_ours, workers):
    pool = make_ours(workers)

    def outer(i):
        return sum(pool.map(lambda j: i * j, range(30)))

    assert list(pool.map(outer, range(20))) == [i * 435 for i in range(20)]
    assert pool.submit(lambda: list(pool.map(outer, range(5)))).result(LONG) == [i * 435 for i in range(5)]
    assert group_of(pool).queued == 0


def test_a_task_that_waits_for_a_map_of_another_executor_runs_no_stranger(make_ours):
    other, outer, here = make_ours(2), make_ours(2), threading.local()

    def task(i):
        assert not getattr(here, "waits", False)
        here.waits = True
        try:
            return sum(other.map(abs, range(i)))
        finally:
            here.waits = False

    assert list(outer.map(task, range(60))) == [sum(range(i)) for i in range(60)]


class Value:
    pass


def test_arguments_and_results_die_with_their_last_user(make):
    refs = []

    def make_value(*_):
        value = Value()
        refs.append(weakref.ref(value))
        return value

    gc.disable()  # a cycle would be found and cleared
    try:
        results = make(2).map(make_value, (make_value() for _ in range(200)))
        for _ in range(200):
            next(results)
        deadline = time.monotonic() + LONG
        while any(ref() is not None for ref in refs):  # though the iterator lives
            assert time.monotonic() < deadline
            time.sleep(0.005)
        assert len(refs) == 400 and next(results, None) is None
    finally:
        gc.enable()


def test_an_error_that_was_raised_is_in_no_cycle(make_ours):
    def call(value):
        raise LookupError

    value, pool = Value(), make_ours(2)
    ref = weakref.ref(value)
    gc.disable()
    try:
        results = pool.map(call, [value])
        with pytest.raises(LookupError):
            next(results)
        del results, value
        deadline = time.monotonic() + LONG
        while ref() is not None:
            assert time.monotonic() < deadline
            time.sleep(0.005)
    finally:
        gc.enable()


def test_maps_leave_no_objects_and_no_memory_behind():
    code = """
import gc
from composable_threads import Executor
def resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096
def maps(count):
    for _ in range(count):
        assert list(pool.map(abs, range(200))) == list(range(200))
    gc.collect()
    return len(gc.get_objects()), resident()
pool = Executor(2)
maps(100)
objects, memory = maps(300)
more_objects, more_memory = maps(3_000)
print(more_objects - objects < 50, more_memory - memory < 2 << 20)
"""
    assert check_fresh(code) == "True True\n"

"""Errors of every kind, from every place, reach whoever asked, as those of the stock pool do."""

from __future__ import annotations

import concurrent.futures as cf
import gc
import logging
import multiprocessing.pool as mp
import sys
import threading
import time
import weakref

import dask.threaded
import pytest
from composable_threads import Executor, ThreadPool
from composable_threads.dask_backend import get
from joblib import Parallel, delayed
from numba_kernels import check_numba

pytestmark = pytest.mark.filterwarnings("ignore:.* tasks which were still being processed:UserWarning")


class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no text")

    __repr__ = __str__


class Unpicklable(Exception):
    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()

    def __reduce__(self):
        raise TypeError("cannot be pickled")


class Frozen(Exception):
    def __setattr__(self, name, value):
        raise AttributeError("frozen")


class Base(BaseException):
    pass


def make_error(kind):
    return BaseExceptionGroup("several", [KeyboardInterrupt(), ValueError()]) if kind == "group" else kind()  # noqa: F821


KINDS = [ValueError, Mute, Unpicklable, Frozen, StopIteration, RecursionError, MemoryError, cf.CancelledError]
ENDING = [SystemExit, GeneratorExit, KeyboardInterrupt, Base]  # of those a stock pool of multiprocessing's hangs
if sys.version_info >= (3, 11):
    ENDING.append("group")


def fail(error):
    raise error


def ends_with(error):
    yield -1
    raise error


def by_joblib(backend, **options):
    parallel = {"n_jobs": 2, "backend": backend, **options}
    return {
        "task": lambda error: list(Parallel(**parallel)(delayed(fail)(error) for _ in range(3))),
        "iterator": lambda error: list(Parallel(**parallel)(delayed(abs)(i) for i in ends_with(error))),
    }


def by_executor(pool):
    return {
        "submit": lambda error: pool.submit(fail, error).result(),
        "map": lambda error: list(pool.map(fail, [error])),
        "iterator of map": lambda error: list(pool.map(abs, ends_with(error))),
    }


def by_graph(get):
    return {
        "task": lambda error: get({"x": (fail, error), "y": (abs, -1)}, ["x", "y"]),
        "task with a cache": lambda error: get({"x": (fail, error)}, "x", cache={}),
    }


def by_pool(pool):
    return {
        "apply": lambda error: pool.apply(fail, (error,)),
        "map": lambda error: pool.map(fail, [error]),
        "imap": lambda error: list(pool.imap(fail, [error])),
        "iterator of map": lambda error: pool.map(abs, ends_with(error)),
        "iterator of imap": lambda error: list(pool.imap(abs, ends_with(error))),
        "iterator of imap in chunks": lambda error: list(pool.imap(abs, ends_with(error), 2)),
        "iterator of imap_unordered": lambda error: list(pool.imap_unordered(abs, ends_with(error))),
    }


def outcome(way, kind):
    error = make_error(kind)
    try:
        return way(error)
    except BaseException as raised:
        return "the error itself" if raised is error else (type(raised), type(raised.__cause__))


@pytest.fixture(scope="module")
def doors():
    with cf.ThreadPoolExecutor(2) as executor, mp.ThreadPool(2) as pool, Executor(2) as ours, ThreadPool(2) as our_pool:
        yield {
            "executor": (by_executor(ours), by_executor(executor)),
            "joblib": (by_joblib("composable"), by_joblib("threading")),
            "generator": tuple(by_joblib(name, return_as="generator") for name in ("composable", "threading")),
            "dask": (by_graph(get), by_graph(dask.threaded.get)),
            "thread_pool": (by_pool(our_pool), by_pool(pool)),
        }


@pytest.mark.parametrize("door", ["executor", "joblib", "generator", "dask", "thread_pool"])
@pytest.mark.parametrize("kind", KINDS + ENDING)
def test_an_error_reaches_the_caller_as_it_does_in_the_stock_pool(doors, door, kind):
    ours, stock = doors[door]
    # By Python's own threads, where they survive it.
    judged_by_stock = kind in KINDS or door == "executor"
    for name, way in ours.items():
        expected = outcome(stock[name], kind) if judged_by_stock else "the error itself"
        if door == "dask" and kind is Frozen and name == "task":
            expected = "the error itself"  # stock raises the AttributeError of setting its traceback
        assert outcome(way, kind) == expected, name
    assert outcome(next(iter(ours.values())), LookupError)  # it goes on


@pytest.mark.parametrize("form", ["list", "generator", "generator_unordered"])
@pytest.mark.parametrize("count", [0, 1, 5])
def test_an_error_of_an_iterator_that_is_dispatched_at_once_is_not_lost(form, count):
    # Joblib itself returns an empty list here if the iterator fails among the first tasks.
    def tasks():
        yield from [delayed(abs)(-1)] * count
        raise LookupError("told")

    with pytest.raises(LookupError, match="told"):
        list(Parallel(2, backend="composable", return_as=form, pre_dispatch="all")(tasks()))


@pytest.mark.parametrize("form", ["list", "generator"])
def test_of_several_errors_at_once_one_is_raised_and_the_next_call_is_right(form):
    barrier = threading.Barrier(2)

    def both(number):
        barrier.wait(30)
        raise (KeyError, IndexError)[number]

    for _ in range(20):
        with pytest.raises(LookupError):
            list(Parallel(2, backend="composable", return_as=form)(delayed(both)(i) for i in range(2)))
        with pytest.raises(LookupError):
            get({"x": (both, 0), "y": (both, 1)}, ["x", "y"])
        with Executor(2) as pool:
            futures = [pool.submit(both, i) for i in range(2)]
            assert [type(future.exception(30)) for future in futures] == [KeyError, IndexError]
    assert get({"x": (abs, -1)}, "x") == 1


@pytest.mark.parametrize("door", ["dask", "map", "submit"])
def test_an_error_that_comes_when_its_call_has_raised_another_is_not_kept(door):
    begun, raised, gone, kept = threading.Event(), threading.Event(), threading.Event(), []

    def task(number):
        if number == 0:
            begun.wait(30)
            raise KeyError
        begun.set()
        raised.wait(30)
        error = Base()
        kept.append(weakref.ref(error, lambda _: gone.set()))
        raise error

    with Executor(2) as pool, pytest.raises(KeyError):
        try:
            {
                "dask": lambda: get({"x": (task, 0), "y": (task, 1)}, ["x", "y"]),
                "map": lambda: list(pool.map(task, range(2))),
                "submit": lambda: [future.result() for future in [pool.submit(task, i) for i in range(2)]],
            }[door]()
        finally:
            raised.set()
    for _ in range(100):
        gc.collect()
        if gone.wait(0.1):
            break
    assert kept and kept[0]() is None


# --- beside the result


class Result:
    def __del__(self):
        raise ValueError("in a destructor")


@pytest.mark.parametrize("door", ["submit", "dropped", "map", "joblib", "dask", "thread_pool"])
def test_errors_in_destructors_of_results_are_told_and_disturb_nothing(door, monkeypatch):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: told.append(type(unraisable.exc_value)))
    with Executor(2) as pool, ThreadPool(2) as threads:
        {
            "submit": lambda: [pool.submit(Result).result() for _ in range(4)],
            "dropped": lambda: [pool.submit(Result) for _ in range(4)],
            "map": lambda: list(pool.map(lambda _: Result(), range(4))),
            "joblib": lambda: Parallel(2, backend="composable")(delayed(Result)() for _ in range(4)),
            "dask": lambda: get(
                {**{f"x{i}": (Result,) for i in range(4)}, "y": (len, [f"x{i}" for i in range(4)])}, "y"
            ),
            "thread_pool": lambda: threads.map(lambda _: Result(), range(4)),
        }[door]()
    for _ in range(1000):
        gc.collect()
        if len(told) == 4:
            break
        time.sleep(0.01)
    assert told == [ValueError] * 4


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, Base])
@pytest.mark.parametrize("place", ["outside", "in a task"])
def test_errors_of_callbacks_that_end_a_stock_thread_are_logged_and_nobodys_result(error, place, caplog):
    with Executor() as pool:

        def call():
            release = threading.Event()
            future = pool.submit(release.wait)
            future.add_done_callback(lambda done: fail(error()))
            release.set()
            return future.result()

        assert call() if place == "outside" else pool.submit(call).result()
    assert [record.levelno for record in caplog.records] == [logging.CRITICAL]
    assert error.__name__ in caplog.text


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("hook_fails", [False, True])
@pytest.mark.parametrize("error", [ValueError, SystemExit, Base])
def test_a_callback_of_a_pool_that_fails_costs_no_result(error, hook_fails, monkeypatch, capfd):
    told = []

    def hook(args):
        told.append(args.exc_type)
        if hook_fails:
            raise RuntimeError("in the hook")

    monkeypatch.setattr(threading, "excepthook", hook)
    with ThreadPool(2) as pool:
        calls = [pool.apply_async(abs, (-i,), callback=lambda value: fail(error())) for i in range(5)]
        calls.append(pool.map_async(abs, range(3), callback=lambda value: fail(error())))
        assert [call.get(30) for call in calls] == [0, 1, 2, 3, 4, [0, 1, 2]]
        assert pool.map(abs, range(3)) == [0, 1, 2]
    assert told == [error] * 6
    assert capfd.readouterr().err.count("RuntimeError: in the hook") == 6 * hook_fails


# --- Numba


@pytest.mark.parametrize("slots", [1, 2])
def test_python_errors_in_parallel_kernels_are_the_callers(slots):
    check_numba(
        """
        import numba, numpy as np, composable_threads as c
        from numba import njit, objmode, prange
        class Base(BaseException): pass
        class Mute(Exception):
            def __str__(self): raise RuntimeError("no text")
        kinds = [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration, Base, Mute]
        def perhaps(i, bad, kind):
            if i == bad:
                raise kinds[kind]
        @njit(parallel=True)
        def region(n, bad, kind):
            out = np.zeros(n)
            for i in prange(n):
                with objmode():
                    perhaps(i, bad, kind)
                out[i] = i
            return out.sum()
        region(4, -1, 0)
        def told(n, bad, kind):
            try:
                return region(n, bad, kind)
            except BaseException as error:
                return type(error)
        with c.Executor() as pool:
            for kind, error in enumerate(kinds):
                for bad in (0, 50, 99):
                    assert told(100, bad, kind) is error, (error, bad)
                    assert pool.submit(told, 100, bad, kind).result() is error, (error, bad)
            assert region(100, -1, 0) == pool.submit(region, 100, -1, 0).result() == 4950
        """,
        slots=slots,
    )

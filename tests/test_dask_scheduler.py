"""Dask graphs in the arena: every way to select the scheduler, and all that ``dask.threaded.get`` promises."""

from __future__ import annotations

import contextvars
import random
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.pool import ThreadPool as StockThreadPool

import dask
import pytest
from composable_threads import _native
from composable_threads.dask_backend import get
from dask.cache import Cache
from dask.callbacks import Callback
from dask.diagnostics import CacheProfiler, Profiler, ProgressBar, ResourceProfiler
from fresh import check_fresh

# --- ways to select it

COLLECTIONS = {
    "delayed": "[dask.delayed(where)(i) for i in range(4)]",
    "array": "[__import__('dask.array').array.ones(4, chunks=1).map_blocks(lambda block: where(block), dtype=float)]",
    "bag": "[__import__('dask.bag').bag.from_sequence(range(4), npartitions=4).map(where)]",
    "dataframe": "[__import__('dask.dataframe').dataframe.from_pandas("
    "__import__('pandas').DataFrame({'x': range(4)}), npartitions=4).map_partitions(where, meta={'x': int})]",
}
WAYS = {
    "name": "dask.compute(*made, scheduler='composable')",
    "function": "from composable_threads.dask_backend import get; dask.compute(*made, scheduler=get)",
    "attribute": "import composable_threads.dask_backend as b; dask.compute(*made, scheduler=b.get)",
    "persist": "dask.persist(*made, scheduler='composable')",
    "config": "with dask.config.set(scheduler='composable'): dask.compute(*made)",
    "variable": "dask.compute(*made)",
}


@pytest.mark.parametrize("way", WAYS)
def test_tasks_run_in_the_arena_whichever_way_it_is_selected(way):
    # One process for all collections: each import of a collection costs as much as all the rest.
    code = f"""
        import dask, sys
        assert "composable_threads" not in sys.modules
        names = set()
        def where(value=None):
            with open("/proc/thread-self/comm") as comm:
                names.add(comm.read().split("-")[0])
            return value
        for collection, made in {{ {", ".join(f"{name!r}: lambda: {code}" for name, code in COLLECTIONS.items())} }}.items():
            made = made()
            names.clear()
            {WAYS[way]}
            print(collection, *sorted(names))
    """
    out = check_fresh(code, env={"DASK_SCHEDULER": "composable"} if way == "variable" else {})
    assert [line.split() for line in out.splitlines()] == [[name, "composable"] for name in COLLECTIONS]


# --- order and release


def inc(value):
    return value + 1


def layered_graph(seed: int) -> dict:
    """A random graph of 10 layers of 8 tasks, each with up to 3 inputs from the layers before."""
    draw = random.Random(seed)
    graph: dict = {("in", i): i for i in range(4)}
    for layer in range(10):
        before = list(graph)
        for i in range(8):
            graph[layer, i] = (sum, draw.sample(before, draw.randint(1, 3)))
    graph["out"] = (sum, [(9, i) for i in range(8)])
    return graph


class Pretask(Callback):
    def __init__(self):
        self.keys = []

    def _pretask(self, key, dsk, state):
        self.keys.append(key)


@pytest.mark.parametrize("seed", range(5))
def test_one_worker_runs_tasks_in_the_order_of_get_sync(seed):
    graph = layered_graph(seed)
    ran = []

    def record(key, values):
        ran.append(key)
        return sum(values)

    graph = {key: (record, list(key), *task[1:]) if isinstance(task, tuple) else task for key, task in graph.items()}
    with Pretask() as stock:
        expected = dask.local.get_sync(graph, "out")
    stock_ran, ran[:] = ran[:], []
    with Pretask() as ours:
        assert get(graph, "out", num_workers=1) == expected
    assert ours.keys == stock.keys
    assert ran == stock_ran


class Block:
    """A value that counts how many of its kind are alive."""

    alive = 0
    most = 0

    def __init__(self, *inputs):
        self.value = 1 + sum(block.value for block in inputs)
        Block.alive += 1
        Block.most = max(Block.most, Block.alive)

    def __del__(self):
        Block.alive -= 1


@pytest.mark.parametrize("shape", ["chain", "tree"])
def test_intermediates_are_released_as_early_as_in_get_sync(shape):
    if shape == "chain":
        graph = {0: (Block,)} | {i: (Block, i - 1) for i in range(1, 100)}
        last = 99
    else:
        graph = {("leaf", i): (Block,) for i in range(64)}
        level, name = [("leaf", i) for i in range(64)], 0
        while len(level) > 1:
            graph |= {(name, i): (Block, level[2 * i], level[2 * i + 1]) for i in range(len(level) // 2)}
            level, name = [(name, i) for i in range(len(level) // 2)], name + 1
        last = level[0]
    most = {}
    for which in (dask.local.get_sync, get):
        Block.most = Block.alive = 0
        result = which(graph, last, num_workers=1)
        assert result.value == {"chain": 100, "tree": 127}[shape]
        most[which] = Block.most
        assert_soon(lambda: Block.alive == 1)  # the worker may still be on its way out of the last task
        del result
    assert most[get] == most[dask.local.get_sync] <= 10


def assert_soon(condition, seconds=5):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_cache_of_the_caller_holds_what_the_stock_scheduler_leaves_in_it():
    graph = {"data": 5, "a": (inc, "data"), "b": (inc, "a"), "c": (sum, ["a", "b"])}
    caches: list[dict] = []
    for which in (dask.threaded.get, get):
        for way in ({"cache": {}}, None):
            with dask.config.set(cache=way or {}):
                assert which(graph, ["a", "c"], **(way or {})) == (6, 13)
                caches.append((way or {}).get("cache", dask.config.get("cache")))
    assert caches[0].items() >= {"a": 6, "c": 13}.items()
    assert caches == [caches[0]] * 4


def test_opportunistic_cache_spares_the_second_computation():
    ran = []
    graph = {"a": (lambda: ran.append("a") or time.sleep(0.01) or 3,), "b": (inc, "a")}
    with Cache(1e6, 0):
        assert get(graph, "b") == 4
        assert get(graph, "b") == 4
    assert ran == ["a"]


# --- callbacks


def test_callbacks_are_called_in_the_caller_in_order_and_nested_graphs_see_none():
    seen = []

    class All(Callback):
        def _start(self, dsk):
            seen.append(("start", threading.get_ident()))

        def _start_state(self, dsk, state):
            seen.append(("start_state", threading.get_ident()))

        def _pretask(self, key, dsk, state):
            seen.append(("pre", key, threading.get_ident()))

        def _posttask(self, key, result, dsk, state, worker_id):
            seen.append(("post", key, threading.get_ident()))

        def _finish(self, dsk, state, failed):
            seen.append(("finish", failed, threading.get_ident()))

    def nested(value):
        return get({"inner": (inc, value)}, "inner")

    with All():
        assert get({"a": (inc, 1), "b": (nested, "a")}, "b") == 3
        with pytest.raises(ZeroDivisionError):
            get({"z": (lambda: 1 / 0,)}, "z")
    assert {entry[-1] for entry in seen} == {threading.get_ident()}
    assert [entry[:-1] for entry in seen] == [
        ("start",), ("start_state",), ("pre", "a"), ("post", "a"), ("pre", "b"), ("post", "b"), ("finish", False),
        ("start",), ("start_state",), ("pre", "z"), ("finish", True),
    ]  # fmt: skip


def test_diagnostics_work(capsys):
    graph = layered_graph(0)
    with ProgressBar(minimum=0), Profiler() as tasks, ResourceProfiler(dt=0.01) as resources, CacheProfiler() as cache:
        get(graph | {"slow": (time.sleep, 0.1)}, ["out", "slow"])
    assert "100% Completed" in capsys.readouterr().out
    times = {result.key: result for result in tasks.results}
    assert {"slow", "out", (9, 0)} <= set(times) <= {*graph, "slow"}
    assert all(result.start_time <= result.end_time for result in tasks.results)
    # Profiler tells workers by their threads: they are the arena's, never the caller.
    assert threading.get_ident() not in {result.worker_id for result in tasks.results}
    assert resources.results and {result.key for result in cache.results} >= set(times)


# --- errors


def test_first_exception_reaches_the_caller_with_the_frames_of_the_task():
    def fails(value):
        raise LookupError(f"value {value}")

    graph = {"a": (inc, 1), "b": (fails, "a"), "c": (inc, "b")}
    with pytest.raises(LookupError, match="value 2") as caught:
        get(graph, "c")
    assert "fails" in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit, StopIteration])
def test_exceptions_of_every_kind_reach_the_caller(error):
    def fails():
        raise error("told")

    with pytest.raises(error, match="told"):
        get({"x": (fails,), "y": (inc, 1)}, ["x", "y"])
    assert get({"y": (inc, 1)}, "y") == 2


def test_after_an_error_queued_tasks_are_dropped_and_running_ones_end_unseen():
    started, release, ended, later = threading.Event(), threading.Event(), threading.Event(), []

    def long():
        started.set()
        release.wait(20)
        ended.set()

    def fails():
        started.wait(20)
        raise ValueError("early")

    graph = {"long": (long,), "fails": (fails,)} | {("k", i): (later.append, i) for i in range(100)}
    cache: dict = {}
    with pytest.raises(ValueError, match="early"):
        get(graph, ["long", "fails"], cache=cache, num_workers=2)
    assert not ended.is_set()  # nobody waited for it
    release.set()
    assert ended.wait(20)
    assert later == [] and "long" not in cache


def test_rerun_exceptions_locally_runs_the_task_again_in_the_caller():
    threads = []

    def fails():
        threads.append(threading.get_ident())
        raise ValueError("again")

    with pytest.raises(ValueError, match="again"):
        get({"x": (fails,)}, "x", rerun_exceptions_locally=True)
    assert len(threads) == 2 and threads[0] != threads[1] == threading.get_ident()


def test_ctrl_c_ends_the_wait_at_once_while_tasks_run_on():
    code = """
        import os, signal, threading, time
        from composable_threads.dask_backend import get
        running, release, done = threading.Semaphore(0), threading.Event(), []
        def task(i):
            running.release()
            release.wait()
            done.append(i)
        def interrupt():
            running.acquire()
            running.acquire()
            os.kill(os.getpid(), signal.SIGINT)
        threading.Thread(target=interrupt).start()
        try:
            get({("k", i): (task, i) for i in range(50)}, [("k", i) for i in range(50)], num_workers=2)
        except KeyboardInterrupt:
            print("interrupted", done)
        release.set()
        print(get({"x": (sum, [1, 2])}, "x"))
        while len(done) < 2:
            time.sleep(0.001)
        print(sorted(done) == sorted(set(done)), len(done))
    """
    assert check_fresh(code) == "interrupted []\n3\nTrue 2\n"


# --- nesting, threads, limits


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_graphs_nest_in_tasks_to_any_depth(slots):
    code = f"""
        from composable_threads import _native, info
        _native.configure({slots})
        import dask
        def nested(depth):
            if depth == 0:
                return 1
            return sum(dask.compute(*[dask.delayed(nested)(depth - 1) for _ in range(3)], scheduler="composable"))
        print(nested(5), info()["peak_running"] <= {slots})
    """
    assert check_fresh(code) == "243 True\n"


def concurrency(**kwargs) -> int:
    lock, now, most = threading.Lock(), [0], [0]

    def task(_):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.005)
        with lock:
            now[0] -= 1

    graph = {("k", i): (task, i) for i in range(24)}
    get(graph, list(graph), **kwargs)
    return most[0]


@pytest.mark.parametrize("workers", [1, 2])
def test_num_workers_limits_the_tasks_of_a_graph(workers):
    assert concurrency(num_workers=workers) <= workers
    with dask.config.set(num_workers=workers):
        assert concurrency() <= workers


def test_more_workers_than_slots_may_wait_for_one_another():
    barrier = threading.Barrier(12)
    graph = {("k", i): (barrier.wait, 30) for i in range(12)}
    assert sorted(get(graph, list(graph), num_workers=12)) == list(range(12))


@pytest.mark.parametrize(("workers", "error"), [(-1, ValueError), (1.5, TypeError), ("two", TypeError)])
def test_bad_num_workers_is_an_error(workers, error):
    with pytest.raises(error):
        get({"x": (inc, 1)}, "x", num_workers=workers)


@pytest.mark.parametrize("kind", [ThreadPoolExecutor, StockThreadPool])
@pytest.mark.parametrize("way", ["argument", "config"])
def test_given_pool_is_used_instead(kind, way):
    def in_arena():
        return _native.task_depth() > 0

    with kind(2) as pool:
        if way == "argument":
            assert get({"x": (in_arena,)}, "x", pool=pool) is False
        else:
            with dask.config.set(pool=pool):
                assert get({"x": (in_arena,)}, "x") is False
    assert get({"x": (in_arena,)}, "x") is True


def test_tasks_see_the_context_of_the_caller_and_do_not_change_it():
    variable = contextvars.ContextVar("variable", default="default")

    def change():
        before = variable.get()
        variable.set("changed")
        return before

    variable.set("caller's")
    assert get(dict.fromkeys(range(20), (change,)), list(range(20))) == ("caller's",) * 20
    assert variable.get() == "caller's"


# --- what may be asked for


def test_keys_may_be_nested_and_graphs_of_any_form():
    graph = {"a": 1, "b": (inc, "a"), "c": [(inc, "b"), "a"], "d": {"k": "a"}, ("t", 0): (sum, ["a", "b"])}
    assert get(graph, [["a", "b"], [("t", 0), []]]) == ((1, 2), (3, ()))
    assert get(graph, "c") == [3, 1]
    assert get(graph, ["b", "b"]) == (2, 2)
    assert get({}, []) == ()

"""What distributed promises to the tasks of a worker; every promise is also tried with the stock threads."""

from __future__ import annotations

import contextvars
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import cache

import pytest

distributed = pytest.importorskip("distributed")

import dask  # noqa: E402
from composable_threads import _native  # noqa: E402
from composable_threads.dask_backend import ArenaThreadPoolExecutor  # noqa: E402
from dask import delayed  # noqa: E402
from distributed import (  # noqa: E402
    Client,
    LocalCluster,
    get_client,
    get_task_stream,
    get_worker,
    rejoin,
    secede,
    worker_client,
)  # fmt: skip
from distributed_tasks import Shared  # noqa: E402

LONG = 30  # seconds after which a test that waits for another thread gives up


@pytest.fixture(scope="module")
def clients():
    """Gives a client of a worker by kind and number of threads."""
    with ExitStack() as stack:

        @cache
        def client(kind, nthreads):
            cluster = LocalCluster(
                processes=False,
                n_workers=1,
                threads_per_worker=nthreads,
                executor=ArenaThreadPoolExecutor() if kind == "arena" else None,
                resources={"token": 1},
                dashboard_address=":0",
            )
            return stack.enter_context(Client(stack.enter_context(cluster), set_as_default=False))

        yield client


@pytest.fixture(params=["stock", "arena"])
def kind(request):
    return request.param


@pytest.fixture
def one(clients, kind):
    return clients(kind, 1)


@pytest.fixture
def two(clients, kind):
    return clients(kind, 2)


@pytest.fixture(params=[1, 2])
def client(clients, kind, request):
    return clients(kind, request.param)


# --- where a task runs


def test_tasks_run_in_the_arena_and_at_most_nthreads_at_once(kind, two):
    shared = Shared(lock=threading.Lock(), now=0, most=0)

    def task(i):
        with shared.lock:
            shared.now += 1
            shared.most = max(shared.most, shared.now)
        time.sleep(0.005)
        with shared.lock:
            shared.now -= 1
        return _native.holds_permit() and _native.task_depth() == 1

    in_arena = two.gather(two.map(task, range(40), pure=False))
    assert set(in_arena) == {kind == "arena"} and shared.most == 2


def test_a_task_finds_its_worker_and_a_client(client):
    def task():
        return get_worker().address, get_client().scheduler.address, get_client() is get_worker().client

    assert client.submit(task, pure=False).result(LONG) == (
        next(iter(client.scheduler_info()["workers"])), client.scheduler.address, True
    )  # fmt: skip


def test_context_variables_of_a_task_are_its_own(one):
    shared = Shared(variable=contextvars.ContextVar("variable", default="outside"))

    def task(i):
        before = shared.variable.get()
        shared.variable.set(i)
        return before, shared.variable.get()

    assert one.gather(one.map(task, range(5), pure=False)) == [("outside", i) for i in range(5)]


def test_an_error_has_the_tasks_traceback(client):
    def broken():
        raise LookupError("nothing there")

    future = client.submit(broken, pure=False)
    with pytest.raises(LookupError, match="nothing there") as caught:
        future.result(LONG)
    assert caught.traceback[-1].name == "broken"


def test_retries_run_a_task_again(client):
    shared = Shared(left=2)

    def fails_twice():
        shared.left -= 1
        if shared.left >= 0:
            raise OSError("again")
        return "done"

    assert client.submit(fails_twice, retries=2, pure=False).result(LONG) == "done"


def test_a_cancelled_task_does_not_begin(one):
    shared = Shared(begun=threading.Event(), release=threading.Event(), ran=[])

    def holds():
        shared.begun.set()
        shared.release.wait(LONG)

    holder = one.submit(holds, pure=False)
    assert shared.begun.wait(LONG)
    queued = one.submit(lambda: shared.ran.append(1), pure=False)
    tasks = one.cluster.workers[0].state.tasks
    while queued.key not in tasks:
        time.sleep(0.001)
    queued.cancel()
    while queued.key in tasks:
        time.sleep(0.001)
    shared.release.set()
    holder.result(LONG)
    assert one.submit(int, pure=False).result(LONG) == 0
    assert queued.cancelled() and shared.ran == []


def test_resources_bound_what_runs_at_once(one):
    def task(i):
        return i + 1

    assert one.gather(one.map(task, range(4), resources={"token": 1}, pure=False)) == [1, 2, 3, 4]


def test_an_annotation_names_another_executor(two):
    worker = two.cluster.workers[0]
    with ThreadPoolExecutor(1, thread_name_prefix="Named") as named:
        worker.executors["named"] = named
        try:
            with dask.annotate(executor="named"):
                where = delayed(lambda: (threading.current_thread().name, _native.holds_permit()))()
                name, in_arena = two.compute(where, optimize_graph=False).result(LONG)
        finally:
            del worker.executors["named"]
    assert name.startswith("Named") and not in_arena
    with dask.annotate(executor="unknown"):
        lost = two.compute(delayed(int)(), optimize_graph=False)
    with pytest.raises(ValueError, match="unknown"):
        lost.result(LONG)


def test_an_actor_keeps_its_thread(client):
    class Counter:
        def __init__(self):
            self.n, self.threads = 0, set()

        def add(self, n):
            self.n += n
            self.threads.add(threading.get_ident())
            return self.n

        def seen(self):
            return len(self.threads)

    counter = client.submit(Counter, actor=True).result(LONG)
    assert [counter.add(n).result(LONG) for n in range(5)] == [0, 1, 3, 6, 10]
    assert counter.seen().result(LONG) == 1


# --- tasks that wait for others


def total_of(n, depth):
    parts = [delayed(total_of)(n, depth - 1) for _ in range(2)] if depth else [delayed(int)(n)]
    return delayed(sum)(parts).compute()


def test_dask_compute_in_tasks_does_not_deadlock(client):
    futures = client.map(total_of, range(6), depth=2, pure=False)
    assert client.gather(futures) == [4 * n for n in range(6)]


def test_worker_client_in_tasks_does_not_deadlock(client):
    def task(n):
        with worker_client() as inner:
            return sum(inner.gather(inner.map(pow, range(n), [2] * n, pure=False)))

    assert client.gather(client.map(task, range(6), pure=False)) == [sum(i * i for i in range(n)) for n in range(6)]


def test_a_task_that_has_seceded_leaves_its_place_to_others(one):
    shared = Shared(answered=threading.Event())

    def asks():
        secede()
        return shared.answered.wait(LONG)

    asking = one.submit(asks, pure=False)
    assert one.submit(lambda: shared.answered.set(), pure=False).result(LONG) is None  # noqa: PLW0108  an Event cannot be pickled
    assert asking.result(LONG)


def test_a_long_running_task_that_polls_holds_nobody_up(one):
    shared = Shared(stop=False)

    def polls():
        secede()
        rounds = 0
        while not shared.stop:
            rounds += 1
        return rounds

    polling = one.submit(polls, pure=False)
    assert one.gather(one.map(abs, range(20), pure=False)) == list(range(20))
    shared.stop = True
    assert polling.result(LONG) > 0


def test_rejoin_waits_for_a_place(one):
    shared = Shared(seceded=threading.Event(), holds=threading.Event(), release=threading.Event(), order=[])

    def leaves():
        secede()
        shared.seceded.set()
        assert shared.holds.wait(LONG)
        rejoin()
        shared.order.append("rejoined")

    def keeps():
        shared.holds.set()
        assert shared.release.wait(LONG)
        time.sleep(0.05)
        shared.order.append("ended")

    leaving = one.submit(leaves, pure=False)
    assert shared.seceded.wait(LONG)
    keeping = one.submit(keeps, pure=False)
    assert shared.holds.wait(LONG)
    time.sleep(0.05)
    assert shared.order == []
    shared.release.set()
    one.gather([leaving, keeping])
    assert shared.order == ["ended", "rejoined"]


def test_many_tasks_secede_and_rejoin_by_turns(two):
    shared = Shared(lock=threading.Lock(), now=0, most=0)

    def task(i):
        for _ in range(5):
            secede()
            rejoin()
            with shared.lock:
                shared.now += 1
                shared.most = max(shared.most, shared.now)
            time.sleep(0.001)
            with shared.lock:
                shared.now -= 1
        return i

    assert two.gather(two.map(task, range(20), pure=False)) == list(range(20))
    assert shared.most <= 2
    executor = two.cluster.workers[0].executors["default"]
    if isinstance(executor, ArenaThreadPoolExecutor):
        assert not executor._away and not executor._rejoin_list and executor._tasks.group.limit == 2


def test_a_second_secede_is_refused(one):
    def task():
        secede()
        with pytest.raises(KeyError):
            secede()

    one.submit(task, pure=False).result(LONG)
    assert one.submit(abs, -1).result(LONG) == 1


# --- what the dashboard shows


def busy_for_the_profiler(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def test_the_profile_and_the_call_stack_show_running_tasks(two):
    worker = two.cluster.workers[0]
    running = two.submit(busy_for_the_profiler, 1.0, pure=False)
    stacks = {}
    while not stacks and not running.done():
        stacks = two.call_stack([running])
    assert "busy_for_the_profiler" in str(stacks)
    running.result(LONG)
    worker.trigger_profile()
    assert "busy_for_the_profiler" in str(two.profile(key="busy_for_the_profiler"))


def test_the_task_stream_names_threads_of_the_worker(two):
    with get_task_stream(two) as stream:
        two.gather(two.map(lambda i: time.sleep(0.01), range(8), pure=False))
    assert len(stream.data) == 8 and all(record["status"] == "OK" and record["thread"] for record in stream.data)

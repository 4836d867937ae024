"""What distributed promises to the tasks of a worker; every promise is also tried with the stock threads."""

from __future__ import annotations

import contextvars
import threading
import time
from concurrent.futures import ThreadPoolExecutor

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
def client(request):
    """A client of a cluster of one worker, of this kind and so many threads.

    One at a time: a task's result that looks for its worker, as an actor does, takes any that there is in the process.
    """
    kind, nthreads = request.param
    executor = ArenaThreadPoolExecutor() if kind == "arena" else None
    with (
        LocalCluster(
            processes=False,
            n_workers=1,
            threads_per_worker=nthreads,
            executor=executor,
            resources={"token": 1},
            dashboard_address=":0",
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def workers_of(*sizes):
    """Run a test with workers of so many threads, the arena's and stock ones."""
    kinds = [(kind, size) for kind in ("stock", "arena") for size in sizes]
    return pytest.mark.parametrize("client", kinds, indirect=True, ids=str, scope="module")


# --- where a task runs


@workers_of(2)
def test_tasks_run_in_the_arena_and_at_most_nthreads_at_once(client):
    shared = Shared(lock=threading.Lock(), now=0, most=0)

    def task(i):
        with shared.lock:
            shared.now += 1
            shared.most = max(shared.most, shared.now)
        time.sleep(0.005)
        with shared.lock:
            shared.now -= 1
        return _native.holds_permit() and _native.task_depth() == 1

    in_arena = client.gather(client.map(task, range(40), pure=False))
    assert (
        set(in_arena) == {isinstance(client.cluster.workers[0].executors["default"], ArenaThreadPoolExecutor)}
        and shared.most == 2
    )


@workers_of(1, 2)
def test_a_task_finds_its_worker_and_a_client(client):
    def task():
        return get_worker().address, get_client().scheduler.address, get_client() is get_worker().client

    assert client.submit(task, pure=False).result(LONG) == (
        next(iter(client.scheduler_info()["workers"])), client.scheduler.address, True
    )  # fmt: skip


@workers_of(1)
def test_context_variables_of_a_task_are_its_own(client):
    shared = Shared(variable=contextvars.ContextVar("variable", default="outside"))

    def task(i):
        before = shared.variable.get()
        shared.variable.set(i)
        return before, shared.variable.get()

    assert client.gather(client.map(task, range(5), pure=False)) == [("outside", i) for i in range(5)]


@workers_of(1, 2)
def test_an_error_has_the_tasks_traceback(client):
    def broken():
        raise LookupError("nothing there")

    future = client.submit(broken, pure=False)
    with pytest.raises(LookupError, match="nothing there") as caught:
        future.result(LONG)
    assert caught.traceback[-1].name == "broken"


@workers_of(1, 2)
def test_retries_run_a_task_again(client):
    shared = Shared(left=2)

    def fails_twice():
        shared.left -= 1
        if shared.left >= 0:
            raise OSError("again")
        return "done"

    assert client.submit(fails_twice, retries=2, pure=False).result(LONG) == "done"


@workers_of(1)
def test_a_cancelled_task_does_not_begin(client):
    shared = Shared(begun=threading.Event(), release=threading.Event(), ran=[])

    def holds():
        shared.begun.set()
        shared.release.wait(LONG)

    holder = client.submit(holds, pure=False)
    assert shared.begun.wait(LONG)
    queued = client.submit(lambda: shared.ran.append(1), pure=False)
    tasks = client.cluster.workers[0].state.tasks
    while queued.key not in tasks:
        time.sleep(0.001)
    queued.cancel()
    while queued.key in tasks:
        time.sleep(0.001)
    shared.release.set()
    holder.result(LONG)
    assert client.submit(int, pure=False).result(LONG) == 0
    assert queued.cancelled() and shared.ran == []


@workers_of(1)
def test_resources_bound_what_runs_at_once(client):
    def task(i):
        return i + 1

    assert client.gather(client.map(task, range(4), resources={"token": 1}, pure=False)) == [1, 2, 3, 4]


@workers_of(2)
def test_an_annotation_names_another_executor(client):
    worker = client.cluster.workers[0]
    with ThreadPoolExecutor(1, thread_name_prefix="Named") as named:
        worker.executors["named"] = named
        try:
            with dask.annotate(executor="named"):
                where = delayed(lambda: (threading.current_thread().name, _native.holds_permit()))()
                name, in_arena = client.compute(where, optimize_graph=False).result(LONG)
        finally:
            del worker.executors["named"]
    assert name.startswith("Named") and not in_arena
    with dask.annotate(executor="unknown"):
        lost = client.compute(delayed(int)(), optimize_graph=False)
    with pytest.raises(ValueError, match="unknown"):
        lost.result(LONG)


@workers_of(1, 2)
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


@workers_of(1, 2)
def test_dask_compute_in_tasks_does_not_deadlock(client):
    futures = client.map(total_of, range(6), depth=2, pure=False)
    assert client.gather(futures) == [4 * n for n in range(6)]


@workers_of(1, 2)
def test_worker_client_in_tasks_does_not_deadlock(client):
    def task(n):
        with worker_client() as inner:
            return sum(inner.gather(inner.map(pow, range(n), [2] * n, pure=False)))

    assert client.gather(client.map(task, range(6), pure=False)) == [sum(i * i for i in range(n)) for n in range(6)]


@workers_of(1)
def test_a_task_that_has_seceded_leaves_its_place_to_others(client):
    shared = Shared(answered=threading.Event())

    def asks():
        secede()
        return shared.answered.wait(LONG)

    asking = client.submit(asks, pure=False)
    assert client.submit(lambda: shared.answered.set(), pure=False).result(LONG) is None  # noqa: PLW0108  it cannot be pickled
    assert asking.result(LONG)


@workers_of(1)
def test_a_long_running_task_that_polls_holds_nobody_up(client):
    shared = Shared(stop=False)

    def polls():
        secede()
        rounds = 0
        while not shared.stop:
            rounds += 1
        return rounds

    polling = client.submit(polls, pure=False)
    assert client.gather(client.map(abs, range(20), pure=False)) == list(range(20))
    shared.stop = True
    assert polling.result(LONG) > 0


@workers_of(1)
def test_rejoin_waits_for_a_place(client):
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

    leaving = client.submit(leaves, pure=False)
    assert shared.seceded.wait(LONG)
    keeping = client.submit(keeps, pure=False)
    assert shared.holds.wait(LONG)
    time.sleep(0.05)
    assert shared.order == []
    shared.release.set()
    client.gather([leaving, keeping])
    assert shared.order == ["ended", "rejoined"]


@workers_of(2)
def test_many_tasks_secede_and_rejoin_by_turns(client):
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

    assert client.gather(client.map(task, range(20), pure=False)) == list(range(20))
    assert shared.most <= 2
    executor = client.cluster.workers[0].executors["default"]
    if isinstance(executor, ArenaThreadPoolExecutor):
        assert not executor._away and not executor._rejoin_list and executor._tasks.group.limit == 2


@workers_of(1)
def test_a_second_secede_is_refused(client):
    def task():
        secede()
        with pytest.raises(KeyError):
            secede()

    client.submit(task, pure=False).result(LONG)
    assert client.submit(abs, -1).result(LONG) == 1


# --- what the dashboard shows


def busy_for_the_profiler(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


@workers_of(2)
def test_the_profile_and_the_call_stack_show_running_tasks(client):
    worker = client.cluster.workers[0]
    running = client.submit(busy_for_the_profiler, 1.0, pure=False)
    while running.key not in worker.active_threads.values():
        time.sleep(0.001)
    assert "busy_for_the_profiler" in str(worker.get_call_stack()[running.key])
    running.result(LONG)
    worker.trigger_profile()
    assert "busy_for_the_profiler" in str(client.profile(key="busy_for_the_profiler"))


@workers_of(2)
def test_the_task_stream_names_threads_of_the_worker(client):
    def streamed(i):
        time.sleep(0.01)
        return threading.get_ident()

    with get_task_stream(client) as stream:
        futures = client.map(streamed, range(8), pure=False)
        idents = dict(zip([future.key for future in futures], client.gather(futures), strict=True))
    assert {record["key"]: record["thread"] for record in stream.data if record["key"] in idents} == idents

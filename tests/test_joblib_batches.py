"""Short tasks come in batches, and no task can tell: order, errors, tasks that wait for another, what is drawn when."""

from __future__ import annotations

import gc
import itertools
import threading
import time
import weakref

import joblib
import pytest
from composable_threads import _native
from composable_threads._relay import Relay
from composable_threads.joblib_backend import ComposableBackend
from composable_threads.joblib_backend.call import Call, _SharedBatch
from fresh import check_fresh
from joblib import Parallel, delayed, parallel_config
from joblib.parallel import BatchedCalls

LONG = 30  # seconds after which a test that waits for another thread gives up


def square(i):
    return i * i


def call(tasks, **options):
    """Results, and how many batches they came in."""
    parallel = Parallel(**{"n_jobs": 2, "backend": "composable"} | options)
    results = list(parallel(tasks))
    return results, parallel.n_dispatched_batches


# --- which calls have batches


def test_short_tasks_come_in_batches_and_their_results_in_order():
    results, batches = call(delayed(square)(i) for i in range(10_000))
    assert results == [i * i for i in range(10_000)]
    assert batches < 1_000


@pytest.mark.parametrize(
    "options",
    [{"return_as": "generator"}, {"return_as": "generator_unordered"}, {"timeout": LONG}, {"batch_size": 1}],
    ids=lambda options: next(iter(options)) + "=" + str(next(iter(options.values()))),
)
def test_nothing_is_batched_where_one_could_tell(options):
    results, batches = call((delayed(square)(i) for i in range(500)), **options)
    assert sorted(results) == [i * i for i in range(500)]
    assert batches == 500


def test_a_batch_size_that_was_asked_for_means_tasks_one_after_another_in_one_thread():
    def task(i):
        return i, threading.get_ident()

    results, batches = call((delayed(task)(i) for i in range(400)), batch_size=8, pre_dispatch="all")
    assert [i for i, _ in results] == list(range(400)) and batches == 50
    assert all(len({thread for _, thread in results[i : i + 8]}) == 1 for i in range(0, 400, 8))


def test_long_tasks_are_not_batched():
    results, batches = call(delayed(time.sleep)(0.004) for _ in range(30))
    assert results == [None] * 30 and batches == 30


def test_the_size_follows_what_is_drawn_from_the_iterator_and_its_cost():
    ahead, started = [], itertools.count()

    def task():
        next(started)

    def calls():
        for asked in range(100):
            ahead.append(asked + 1 - int(repr(started)[6:-1]))
            time.sleep(0.003)  # makes what the task needs
            yield delayed(task)()

    _, batches = call(calls())
    assert batches == 100
    assert max(ahead) <= 6  # pre_dispatch and n_jobs of 2, as with threads


def test_batches_end_with_their_call():
    with Parallel(n_jobs=2, backend="composable") as parallel:
        parallel(delayed(square)(i) for i in range(3_000))
        assert parallel.n_dispatched_batches < 1_000
        assert parallel._backend.compute_batch_size() == 1
        parallel(delayed(time.sleep)(0.004) for _ in range(10))
        assert parallel.n_dispatched_batches == 10


# --- tasks that wait for one another


@pytest.mark.parametrize("n_jobs", [2, 5])
def test_tasks_may_wait_for_one_another_after_many_short_ones(n_jobs):
    meetings = []

    def calls():
        for short in (1_000, 1_500, 7, 400, 3_000):
            yield from (delayed(square)(i) for i in range(short))
            meetings.append(threading.Barrier(n_jobs))
            yield from (delayed(meetings[-1].wait)(LONG) for _ in range(n_jobs))

    results, batches = call(calls(), n_jobs=n_jobs)
    assert batches < 2_000
    at = 0
    for short in (1_000, 1_500, 7, 400, 3_000):
        assert results[at : at + short] == [i * i for i in range(short)]
        assert sorted(results[at + short : at + short + n_jobs]) == list(range(n_jobs))
        at += short + n_jobs


def test_a_task_may_wait_for_the_last_one_of_its_batch():
    done = threading.Event()
    calls = [delayed(square)(i) for i in range(6_000)]
    calls[3_000], calls[3_040] = delayed(done.wait)(LONG), delayed(done.set)()
    results, batches = call(calls)
    assert results[3_000] is True and results[:3_000] == [i * i for i in range(3_000)] and batches < 1_000


def test_never_more_than_n_jobs_short_tasks_at_once():
    now, most, lock = 0, 0, threading.Lock()

    def task():
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        with lock:
            now -= 1

    _, batches = call((delayed(task)() for _ in range(5_000)), n_jobs=3)
    assert most <= 3 and batches < 2_500


# --- errors


@pytest.mark.parametrize("place", [5, 2_000, 5_999])
def test_an_error_in_a_batch_reaches_the_caller_and_ends_the_batch(place):
    ran = []

    def task(i):
        ran.append(i)
        if i == place:
            raise LookupError(f"told by {i}")
        if i > place:
            time.sleep(0.05)

    parallel = Parallel(n_jobs=2, backend="composable")
    with pytest.raises(LookupError, match=f"told by {place}") as caught:
        parallel(delayed(task)(i) for i in range(6_000))
    assert "in task" in str(caught.value.__cause__)
    assert place in ran and len(ran) < place + 20
    assert _native.counts()["open_tasks"] == 0
    assert parallel(delayed(square)(i) for i in range(3_000)) == [i * i for i in range(3_000)]


def test_nothing_more_of_a_batch_begins_after_an_error_though_the_caller_is_busy():
    for _ in range(6):  # either thread may be the caller
        ran, failed = [], threading.Event()

        def task(i, ran=ran, failed=failed):
            ran.append(i)
            if i == 3_000:
                assert failed.wait(LONG)
                time.sleep(0.1)
            if i == 3_001:
                failed.set()
                raise LookupError
            if i > 3_001:
                time.sleep(0.001)

        with pytest.raises(LookupError):
            Parallel(n_jobs=2, backend="composable")(delayed(task)(i) for i in range(9_000))
        assert len(ran) < 3_020


def test_a_call_that_is_aborted_leaves_nothing_queued(monkeypatch):
    groups = []

    class Seen(Call):
        def __init__(self, *args):
            super().__init__(*args)
            groups.append(self.group)

    monkeypatch.setattr("composable_threads.joblib_backend.backend.Call", Seen)

    def task(i):
        if i == 2_000:
            time.sleep(0.01)  # so that the rest of its batch is taken by others
            raise LookupError
        if i > 2_000:
            time.sleep(0.05)

    with pytest.raises(LookupError):
        Parallel(n_jobs=4, backend="composable")(delayed(task)(i) for i in range(9_000))
    assert groups[0].queued == 0


def test_ctrl_c_just_after_an_item_was_counted_ends_the_call():
    class Counted:
        def __init__(self, left):
            self.left = left

        def __next__(self):
            left = next(self.left)
            if left == 1:
                batch()  # meanwhile another thread ends the batch
                raise KeyboardInterrupt
            return left

    call = Call(Parallel(n_jobs=2, backend="composable"), 2, None)
    told, failed = [], []
    call.tell = lambda callback, out: told.append(out)
    call.fail = failed.append
    nested = ComposableBackend(nesting_level=1), -1
    batch = _SharedBatch(call, BatchedCalls([(square, (2,), {}), (square, (3,), {})], nested), None, 0)
    batch._left = Counted(batch._left)
    batch()
    assert told == [[4, 9]] and [type(error) for error in failed] == [KeyboardInterrupt]


# A worker has taken 1 from the queue when 0 fails, and the caller is in 2, which waits for 1 as it may with threads.
ORDER = """
import threading
from composable_threads import _native
_native.configure(4)
from joblib import Parallel, delayed
def task(i):
    events[i].wait()
    events[i + 1].set()
    if i != 1:
        raise LookupError(i)
for _ in range(500):
    events = [threading.Event() for _ in range(4)]
    events[0].set()
    try:
        Parallel(n_jobs=3, backend="composable", batch_size=SIZE)(delayed(task)(i) for i in range(3))
    except LookupError:
        pass
"""


@pytest.mark.parametrize("size", [1, "auto"])
def test_a_task_begins_that_one_which_has_begun_may_wait_for_though_the_call_has_failed(size):
    check_fresh(f"SIZE = {size!r}\n" + ORDER, timeout=40)


# --- what surrounds a task


def test_every_task_sees_joblibs_configuration_and_none_sees_anothers():
    def task(i):
        before = joblib.parallel.get_active_backend()
        parallel_config("threading", n_jobs=7)  # set and not put back
        return type(before[0]), before[0].nesting_level, before[1]

    class Mine(ComposableBackend):
        pass

    with parallel_config(Mine(), n_jobs=2, verbose=0):
        before = joblib.parallel._backend.config
        results, batches = call((delayed(task)(i) for i in range(3_000)), backend=None, n_jobs=None)
        assert joblib.parallel._backend.config is before
    assert set(results) == {(Mine, 1, -1)} and batches < 1_000


def test_inner_limits_hold_in_every_task_of_a_batch_and_nowhere_else():
    code = """
import numba, threading, time
from joblib import Parallel, delayed, parallel_config
numba.set_num_threads(2)
def task(i):
    return numba.get_num_threads()
class Calls:
    def __init__(self):
        self.seen = set()
    def __iter__(self):
        for i in range(2_000):
            self.seen.add((threading.current_thread() is threading.main_thread(), numba.get_num_threads()))
            yield delayed(task)(i)
calls = Calls()
with parallel_config("composable", n_jobs=2, inner_max_num_threads=1):
    parallel = Parallel()
    print(set(parallel(calls)), parallel.n_dispatched_batches < 1_000, (True, 2) in calls.seen, (True, 1) in calls.seen)
print(numba.get_num_threads())
"""
    env = {"NUMBA_NUM_THREADS": "2", "NUMBA_THREADING_LAYER": "composable"}
    assert check_fresh(code, env=env) == "{1} True True False\n2\n"


@pytest.mark.parametrize("batch_size", ["auto", 1, 16])
def test_nested_calls_with_many_tasks(batch_size):
    def outer(i):
        return sum(Parallel(n_jobs=2, batch_size=batch_size)(delayed(square)(i + j) for j in range(200)))

    results, _ = call(delayed(outer)(i) for i in range(40))
    assert results == [sum((i + j) ** 2 for j in range(200)) for i in range(40)]


# --- what is left behind


def test_arguments_and_results_of_batches_die_with_their_last_user():
    class Value:
        pass

    refs = []

    def make():
        value = Value()
        refs.append(weakref.ref(value))
        return value

    def task(value):
        return make()

    gc.disable()  # a cycle would be found and cleared
    try:
        results, batches = call(delayed(task)(make()) for _ in range(2_000))
        assert batches < 1_000 and len(refs) == 4_000
        del results
        deadline = time.monotonic() + LONG
        while any(ref() is not None for ref in refs) and time.monotonic() < deadline:
            time.sleep(0.005)
        assert sum(ref() is not None for ref in refs) == 0
    finally:
        gc.enable()


def test_calls_leave_no_objects_and_no_memory_behind():
    code = """
import gc
from joblib import Parallel, delayed
def resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096
def calls(count):
    for _ in range(count):
        Parallel(n_jobs=2, backend="composable")(delayed(abs)(i) for i in range(20))
    gc.collect()
    return len(gc.get_objects()), resident()
calls(100)
objects, memory = calls(400)
more_objects, more_memory = calls(4_000)
print(more_objects - objects < 50, more_memory - memory < 2 << 20)
"""
    assert check_fresh(code) == "True True\n"


# --- the relay


def test_a_relay_takes_turns_one_at_a_time_and_loses_none():
    taken, inside = [], []

    def take(thread, turn):
        inside.append(thread)
        assert len(inside) == 1
        taken.append((thread, turn))
        inside.pop()

    def bring(thread):
        for turn in range(2_000):
            relay(thread, turn)

    relay = Relay(take)
    threads = [threading.Thread(target=bring, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    for number in range(6):  # those of one thread in its order
        assert [turn for thread, turn in taken if thread == number] == list(range(2_000))


def test_a_relay_does_not_let_a_thread_wait_for_another():
    began, release, taken = threading.Event(), threading.Event(), []

    def take(turn):
        taken.append(turn)
        if turn == "long":
            began.set()
            assert release.wait(LONG)

    relay = Relay(take)
    thread = threading.Thread(target=relay, args=("long",))
    thread.start()
    assert began.wait(LONG)
    relay("left to the other thread")
    assert taken == ["long"]
    release.set()
    thread.join(LONG)
    assert taken == ["long", "left to the other thread"]


def test_a_turn_that_comes_in_the_last_moment_is_taken():
    class Lock:
        held = False

        def acquire(self, blocking):
            assert not blocking
            free, self.held = not self.held, True
            return free

        def release(self):
            if len(taken) == 1:
                relay("late")
            self.held = False

    taken = []
    relay = Relay(taken.append)
    relay._busy = Lock()
    relay("first")
    assert taken == ["first", "late"]

"""What Joblib promises of a backend of threads; most promises are also tried on the stock one."""

from __future__ import annotations

import gc
import itertools
import multiprocessing
import pickle
import threading
import time
import warnings
import weakref

import joblib
import pytest
from composable_threads import _native
from composable_threads.joblib_backend import ActivatedBackend, ComposableBackend
from fresh import check_fresh
from joblib import Parallel, delayed, parallel_config
from joblib._parallel_backends import ThreadingBackend

FORMS = ("list", "generator", "generator_unordered")
GENERATORS = FORMS[1:]
LONG = 30  # seconds after which a test that waits for another thread gives up


@pytest.fixture(params=["composable", "threading"])
def backend(request):
    return request.param


@pytest.fixture(params=FORMS)
def form(request):
    return request.param


def square(i):
    return i * i


def squares(count, **options):
    return list(Parallel(**options)(delayed(square)(i) for i in range(count)))


def fails(text="told"):
    raise LookupError(text)


# --- answers


@pytest.mark.parametrize("n_jobs", [None, 1, 2, 3, 8, -1, -2, -100])
def test_any_n_jobs_gives_every_result_in_order(backend, form, n_jobs):
    found = squares(20, n_jobs=n_jobs, backend=backend, return_as=form)
    assert (sorted(found) if form == "generator_unordered" else found) == [i * i for i in range(20)]


@pytest.mark.parametrize("pre_dispatch", ["all", "n_jobs", "3*n_jobs", 1, 7])
@pytest.mark.parametrize("batch_size", ["auto", 1, 4, 100])
def test_any_dispatch_gives_every_result_in_order(form, pre_dispatch, batch_size):
    options = {"n_jobs": 3, "pre_dispatch": pre_dispatch, "batch_size": batch_size, "return_as": form}
    found = squares(53, backend="composable", **options)
    assert (sorted(found) if form == "generator_unordered" else found) == [i * i for i in range(53)]


@pytest.mark.parametrize("count", [0, 1])
def test_few_or_no_tasks(backend, form, count):
    assert squares(count, n_jobs=2, backend=backend, return_as=form) == [0] * count


def test_zero_jobs_are_refused(backend):
    with pytest.raises(ValueError, match="n_jobs == 0 in Parallel has no meaning"):
        squares(1, n_jobs=0, backend=backend)
    with parallel_config(backend), pytest.raises(ValueError, match="n_jobs == 0"):
        joblib.effective_n_jobs(0)


@pytest.mark.parametrize("limit", [0, -1, 1.5, "2"])
def test_bad_inner_limits_are_refused_before_a_task_meets_them(limit):
    with pytest.raises((ValueError, TypeError), match="inner_max_num_threads must be"):
        parallel_config("composable", inner_max_num_threads=limit)


def test_n_jobs_counts_from_the_size_of_the_arena():
    code = """
import joblib
from composable_threads import _native
_native.configure(5)
with joblib.parallel_config("composable"):
    print([joblib.effective_n_jobs(n) for n in (-1, -2, -5, -9, 1, 3, 99)], joblib.Parallel()._effective_n_jobs())
with joblib.parallel_backend("composable"):
    print(joblib.effective_n_jobs(), joblib.effective_n_jobs(None), joblib.Parallel()._effective_n_jobs())
"""
    assert check_fresh(code) == "[5, 4, 1, 1, 1, 3, 99] 5\n5 5 5\n"


def test_tasks_may_wait_for_one_another_however_small_the_arena(form):
    for count in (2, 5, 12):
        meeting = threading.Barrier(count)
        calls = (delayed(meeting.wait)(LONG) for _ in range(count))
        found = Parallel(n_jobs=count, backend="composable", return_as=form)(calls)
        assert sorted(found) == list(range(count))


def test_never_more_than_n_jobs_tasks_at_once(form):
    lock, now, most = threading.Lock(), 0, 0

    def task():
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.002)
        with lock:
            now -= 1

    list(Parallel(n_jobs=3, backend="composable", return_as=form)(delayed(task)() for _ in range(60)))
    assert most <= 3


# --- the iterator of tasks


@pytest.mark.parametrize("place", [0, 3, 19])
def test_errors_of_the_iterator_reach_the_caller(backend, form, place):
    def calls():
        for i in range(20):
            if i == place:
                raise LookupError("in the iterator")
            yield delayed(square)(i)

    with Parallel(n_jobs=2, backend=backend, return_as=form) as parallel:
        with pytest.raises(LookupError, match="in the iterator"):
            list(parallel(calls()))
        assert sorted(parallel(delayed(square)(i) for i in range(4))) == [0, 1, 4, 9]


def test_the_iterator_is_asked_only_for_what_is_dispatched(backend):
    asked, release = [], threading.Event()

    def calls():
        for i in range(100):
            asked.append(i)
            yield delayed(release.wait)(LONG)

    results = Parallel(n_jobs=2, backend=backend, pre_dispatch=5, return_as="generator")(calls())
    assert asked == [0, 1, 2, 3, 4]
    release.set()
    assert list(results) == [True] * 100


@pytest.mark.parametrize("bad", [3, [3], [(square, 3)]], ids=["number", "list of numbers", "half a call"])
def test_what_is_no_list_of_calls_fails_as_it_does_with_threads(bad):
    raised = []
    for name in ("composable", "threading"):
        with pytest.raises(Exception) as caught:  # noqa: PT011  # whatever the stock one raises
            Parallel(n_jobs=2, backend=name)(bad)
        raised.append((caught.type, str(caught.value)))
    assert raised[0] == raised[1]
    assert squares(3, n_jobs=2, backend="composable") == [0, 1, 4]


# --- errors, time-outs, early ends


def test_first_error_reaches_the_caller_with_its_frames(backend, form):
    with pytest.raises(LookupError, match="told") as caught:
        list(Parallel(n_jobs=2, backend=backend, return_as=form)(delayed(fails)() for _ in range(6)))
    assert type(caught.value.__cause__).__name__ == "_RemoteTraceback"
    assert "in fails" in str(caught.value.__cause__)


@pytest.mark.parametrize("error", [SystemExit, GeneratorExit, KeyboardInterrupt, MemoryError])
def test_errors_of_any_kind_end_the_call(backend, error):
    def task():
        raise error("why")

    with pytest.raises(error, match="why"):
        Parallel(n_jobs=2, backend=backend)(delayed(task)() for _ in range(6))


def test_an_error_whose_traceback_cannot_be_formatted_ends_the_call():
    class Unspeakable(Exception):
        def __getattribute__(self, name):
            raise RuntimeError("no " + name)

    def task():
        raise Unspeakable

    with pytest.raises((Unspeakable, RuntimeError)):
        Parallel(n_jobs=2, backend="composable")(delayed(task)() for _ in range(6))


def test_an_error_beside_the_task_ends_the_call(form):
    # Joblib's callback runs code of subclasses and prints progress; the stock backend's thread dies of it and hangs.
    class Counting(ComposableBackend):
        def batch_completed(self, batch_size, duration):
            fails("beside the task")

    with pytest.raises(LookupError, match="beside the task"):
        list(Parallel(n_jobs=2, backend=Counting(), return_as=form)(delayed(square)(i) for i in range(9)))
    assert squares(3, n_jobs=2, backend="composable") == [0, 1, 4]


def test_an_error_drops_what_is_queued_and_leaves_parallel_usable(backend, form):
    ran = []

    def task(i):
        ran.append(i)
        if i == 0:
            fails()
        time.sleep(0.005)

    with Parallel(n_jobs=2, backend=backend, return_as=form, pre_dispatch="all") as parallel:
        for _ in range(3):
            ran.clear()
            with pytest.raises(LookupError):
                list(parallel(delayed(task)(i) for i in range(300)))
            later = list(parallel(delayed(square)(i) for i in range(5)))
            assert backend == "threading" or sorted(later) == [0, 1, 4, 9, 16]  # see the next test
            assert len(ran) < 100


@pytest.mark.parametrize("base", [ComposableBackend, ThreadingBackend])
def test_what_an_aborted_call_did_not_dispatch_is_not_in_the_next_one(base):
    class Slow(base):
        asked = 0

        def compute_batch_size(self):
            self.asked += 1
            while self.asked == 2 and not self.parallel._aborting:  # until the first task has failed
                time.sleep(0.001)
            return 1

    parallel = Parallel(n_jobs=3, backend=Slow())
    with pytest.raises(LookupError):
        parallel([delayed(fails)(), delayed(str)("dropped"), delayed(str)("left over")])
    right = [0, 1, 4]
    wrong = ["left over", *right]  # Joblib keeps its look-ahead
    assert parallel(delayed(square)(i) for i in range(3)) == (right if base is ComposableBackend else wrong)


def test_timeout_ends_the_call_and_leaves_the_backend_usable(backend, form):
    if form == "generator_unordered" and not hasattr(joblib.parallel, "DEFAULT_PROCESS_BACKEND"):
        pytest.skip("before 1.5 Joblib itself looks at no clock here")
    release = threading.Event()
    try:
        with pytest.raises(multiprocessing.TimeoutError):
            parallel = Parallel(n_jobs=2, backend=backend, return_as=form, timeout=0.05)
            list(parallel(delayed(release.wait)(LONG) for _ in range(8)))
        # The tasks that hang hold two threads of the arena; the next call has others.
        assert squares(6, n_jobs=2, backend=backend) == [0, 1, 4, 9, 16, 25]
    finally:
        release.set()


def test_timeout_counts_for_each_result_and_not_for_all(backend, form):
    calls = (delayed(time.sleep)(0.03) for _ in range(40))
    assert list(Parallel(n_jobs=2, backend=backend, return_as=form, timeout=10)(calls)) == [None] * 40


def test_results_come_in_the_order_they_are_ready_where_asked_for(backend):
    release = threading.Event()

    def task(i):
        if i == 0:
            assert release.wait(LONG)
        return i

    calls = (delayed(task)(i) for i in range(8))
    results = Parallel(n_jobs=2, backend=backend, return_as="generator_unordered")(calls)
    assert sorted(itertools.islice(results, 7)) == [1, 2, 3, 4, 5, 6, 7]
    release.set()
    assert list(results) == [0]


@pytest.mark.parametrize("way", ["close", "collect"])
@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize("managed", [False, True])
def test_generator_ended_early_drops_the_rest_and_leaves_the_backend_usable(backend, generator, way, managed):
    ran, release = [], threading.Event()

    def task(i):
        ran.append(i)
        return i > 3 and release.wait(LONG)

    with parallel_config(backend, n_jobs=2):
        parallel = Parallel(return_as=generator, pre_dispatch="all")
        if managed:
            parallel.__enter__()
        results = parallel(delayed(task)(i) for i in range(100))
        next(results)
        with pytest.warns(UserWarning, match="tasks"):
            if way == "close":
                results.close()
            del results
            gc.collect()
        release.set()
        assert sorted(parallel(delayed(square)(i) for i in range(4))) == [0, 1, 4, 9]
        if managed:
            parallel.__exit__(None, None, None)
        assert squares(4) == [0, 1, 4, 9]
    assert len(ran) < 60


def test_generator_may_be_consumed_and_closed_in_other_threads():
    def consume(count):
        seen.extend(itertools.islice(results, count))

    for end in ("exhausted", "closed"):
        seen = []
        results = Parallel(n_jobs=2, backend="composable", return_as="generator")(delayed(square)(i) for i in range(50))
        for count in (1, 10, 39 if end == "exhausted" else 5):
            thread = threading.Thread(target=consume, args=(count,))
            thread.start()
            thread.join()
        assert seen == [i * i for i in range(len(seen))] and len(seen) == (50 if end == "exhausted" else 16)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # told if tasks were left, which is up to the timing
            results.close()
    assert squares(4, n_jobs=2, backend="composable") == [0, 1, 4, 9]
    assert _native.counts()["running"] <= 1


# --- instances, threads


@pytest.mark.parametrize("make", [ComposableBackend, ActivatedBackend])
def test_a_backend_can_be_pickled_even_while_a_call_is_live(make):
    with parallel_config(make(inner_max_num_threads=3), n_jobs=2) as context:
        instance = context["backend"]
        results = Parallel(return_as="generator")(delayed(square)(i) for i in range(30))
        copy = pickle.loads(pickle.dumps(instance))
        assert type(copy) is make and (copy.nesting_level, copy.inner_max_num_threads) == (0, 3)
        assert squares(4, backend=copy, n_jobs=2) == [0, 1, 4, 9]
        assert list(results) == [i * i for i in range(30)]


def test_one_instance_serves_many_calls_at_once_and_keeps_its_class_and_attributes():
    class Tagged(ComposableBackend):
        def __init__(self, tag, **options):
            super().__init__(**options)
            self.tag = tag

    instance = Tagged("mine")
    live = [Parallel(n_jobs=2, backend=instance, return_as="generator") for _ in range(4)]
    results = [parallel(delayed(square)(i) for i in range(20)) for parallel in live]
    assert squares(9, n_jobs=2, backend=instance) == [i * i for i in range(9)]
    for generator in reversed(results):
        assert list(generator) == [i * i for i in range(20)]
    assert {(type(parallel._backend), parallel._backend.tag) for parallel in live} == {(Tagged, "mine")}


@pytest.mark.parametrize("shared", [True, False], ids=["one instance", "by name"])
def test_calls_from_many_threads_do_not_mix(shared):
    backend, wrong = ComposableBackend() if shared else "composable", []

    def caller(number):
        for turn in range(15):
            form = FORMS[turn % 3]
            calls = (delayed(square)(1000 * number + i) for i in range(12))
            found = sorted(Parallel(n_jobs=3, backend=backend, return_as=form)(calls))
            if found != [(1000 * number + i) ** 2 for i in range(12)]:
                wrong.append((number, turn, found))

    threads = [threading.Thread(target=caller, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * LONG)
    assert not wrong and not any(thread.is_alive() for thread in threads)


def test_a_parallel_object_is_reused_and_refuses_two_calls_at_once(backend):
    with Parallel(n_jobs=2, backend=backend) as parallel:
        for _ in range(50):
            assert parallel(delayed(square)(i) for i in range(5)) == [0, 1, 4, 9, 16]
    assert parallel(delayed(square)(i) for i in range(3)) == [0, 1, 4]
    parallel = Parallel(n_jobs=2, backend=backend, return_as="generator")
    results = parallel(delayed(square)(i) for i in range(3))
    with pytest.raises(RuntimeError, match="already running"):
        parallel(delayed(square)(i) for i in range(3))
    assert list(results) == [0, 1, 4]


def test_arguments_and_results_die_with_their_last_user(form):
    class Value:
        pass

    arguments = [Value() for _ in range(6)]
    refs = [weakref.ref(value) for value in arguments]
    gc.disable()  # a cycle would be found and cleared
    try:
        calls = (delayed(lambda value: Value())(arguments.pop()) for _ in range(6))
        refs += [weakref.ref(value) for value in Parallel(n_jobs=2, backend="composable", return_as=form)(calls)]
        deadline = time.monotonic() + LONG
        while any(ref() is not None for ref in refs) and time.monotonic() < deadline:
            time.sleep(0.005)
        assert [ref() for ref in refs] == [None] * 12
    finally:
        gc.enable()

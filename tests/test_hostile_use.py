"""Wrong arguments, dead objects, calls from where nobody expects them: a clear error or the right answer."""

from __future__ import annotations

import concurrent.futures as futures
import re
import threading

import composable_threads as c
import numpy
import pytest
from composable_threads import _native
from composable_threads.dask_backend import get
from fresh import check_fresh, run_fresh
from joblib import Parallel, delayed, parallel_config
from numba_kernels import check_numba

HUGE = 10**30


class Unfit:
    """Raises whatever is asked of it."""

    def __getattribute__(self, name):
        raise LookupError("unfit")

    def __index__(self):
        raise LookupError("unfit")

    __bool__ = __iter__ = __call__ = __hash__ = __index__


# --- numbers

COUNTS = {
    "max_workers": lambda count: list(c.Executor(count).map(abs, [-1])) == [1],
    "processes": lambda count: (
        [c.ThreadPool(count).map(abs, [-1]), list(c.ThreadPool(count).imap(abs, [-1]))] == [[1], [1]]
    ),
    "num_workers": lambda count: get({"x": (abs, -1)}, "x", num_workers=count) == 1,
    "slots": lambda count: c.activate(slots=count).deactivate() is None,
}


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("count", [2.5, float("nan"), "2", b"2", [2], {2: 2}.keys(), complex(2), object()])
def test_a_count_that_is_no_whole_number_is_refused_by_name(name, count):
    with pytest.raises(TypeError, match=f"{name} must be a whole number or None, not '{type(count).__name__}'"):
        COUNTS[name](count)
    assert not c.info()["active"]


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("count", [-1, -HUGE, numpy.int64(-3)])
def test_a_count_below_one_is_refused_by_name(name, count):
    with pytest.raises(ValueError, match=f"{name} must be greater than 0"):
        COUNTS[name](count)


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("count", [10**9, HUGE, numpy.int64(10**12)])
def test_any_large_count_is_taken(name, count):
    assert COUNTS[name](count)


@pytest.mark.parametrize("n_jobs", [HUGE, 10**9, -HUGE, 2.5, "2", None, float("nan"), [], 0])
def test_joblib_takes_and_refuses_the_numbers_that_its_threads_do(n_jobs):
    def outcome(backend):
        try:
            # Joblib multiplies the number into the text of pre_dispatch, which has its own limits.
            return Parallel(n_jobs, backend=backend, pre_dispatch="all")(delayed(abs)(-i) for i in range(5))
        except Exception as error:
            return type(error), error.args

    expected = (
        outcome("threading") if n_jobs not in (HUGE, 10**9) else [0, 1, 2, 3, 4]
    )  # which starts that many threads
    assert outcome("composable") == expected


@pytest.mark.parametrize("count", [HUGE, 10**9])
def test_any_large_inner_limit_is_taken(count):
    with parallel_config("composable", n_jobs=2, inner_max_num_threads=count):
        assert Parallel()(delayed(abs)(-i) for i in range(3)) == [0, 1, 2]


# --- other arguments


@pytest.mark.parametrize("value", [0, 1, None, "yes", HUGE, numpy.True_, Unfit])
def test_deterministic_takes_true_and_false_only(value):
    with pytest.raises(TypeError, match="takes True or False, not"):
        c.deterministic(value)
    assert _native.numba.deterministic() is False


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: c.activate(2), TypeError, "positional"),
        (lambda: c.info(1), TypeError, "positional"),
        (lambda: c.reset_peak(1), TypeError, "positional"),
        (lambda: c.task(1), TypeError, "positional"),
        (lambda: c.blocking(1), TypeError, "positional"),
        (lambda: c.nothing, AttributeError, "'composable_threads' has no attribute 'nothing'"),
        (lambda: c.Executor(initializer=5), TypeError, "initializer must be a callable"),
        (lambda: c.ThreadPool(initializer=5), TypeError, "initializer must be a callable"),
        (lambda: c.Executor().submit(), TypeError, "fn"),
        (lambda: c.Executor().submit(5).result(), TypeError, "not callable"),
        (lambda: c.Executor().submit(Unfit()).result(), LookupError, "unfit"),
        (lambda: c.Executor().map(abs, [1], timeout="soon"), TypeError, "timeout must be a number of seconds or None"),
        (lambda: list(c.Executor().map(abs, Unfit())), LookupError, "unfit"),
        (lambda: list(c.Executor().map(abs, 5)), TypeError, "not iterable"),
        (lambda: list(c.Executor().map(threading.Event().wait, [0.1], timeout=-HUGE)), futures.TimeoutError, None),
        (lambda: c.ThreadPool().map(abs, Unfit()), LookupError, "unfit"),
        (lambda: list(c.ThreadPool().imap(abs, [1], chunksize=0)), ValueError, "[Cc]hunksize"),
        (lambda: list(c.ThreadPool().imap(abs, [1], chunksize=-HUGE)), ValueError, "[Cc]hunksize"),
        (lambda: c.ThreadPool().apply(Unfit()), LookupError, "unfit"),
        (lambda: get(None, "x"), TypeError, "a graph is a Mapping or has __dask_graph__, not 'NoneType'"),
        (lambda: get(5, "x"), TypeError, "a graph is a Mapping or has __dask_graph__, not 'int'"),
        (lambda: get({"x": 1}, "y"), KeyError, "y"),
        (lambda: get({"x": 1}, {}), TypeError, "unhashable"),
        (lambda: get({"x": (abs, "y"), "y": (abs, "x")}, "x"), RuntimeError, "Cycle"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_named(call, error, text):
    with pytest.raises(error, match=text):
        call()


# --- dead objects


def test_what_has_ended_says_so():
    executor, pool = c.Executor(), c.ThreadPool(2)
    executor.shutdown()
    pool.terminate()
    for call in (lambda: executor.submit(int), lambda: executor.map(abs, [1])):
        with pytest.raises(RuntimeError, match="after shutdown"):
            call()
    for call in (lambda: pool.map(abs, [1]), lambda: pool.imap(abs, [1]), lambda: pool.apply_async(abs)):
        with pytest.raises(ValueError, match="not running"):
            call()
    for again in (executor.shutdown, pool.terminate, pool.close, pool.join):
        assert again() is None
    with pytest.raises(RuntimeError, match="after shutdown"), executor:
        executor.submit(int)


def test_an_activation_that_activate_did_not_make_ends_none():
    with c.activate():
        c.Activation().deactivate()
        with c.Activation():
            pass
        assert c.info()["active"]
    assert not c.info()["active"]
    c.Activation().deactivate()
    with c.activate():
        assert c.info()["active"]
    assert not c.info()["active"]


def test_a_blocking_context_is_of_one_block_and_thread_and_keeps_the_permit():
    def task():
        context = c.blocking()
        with pytest.raises(RuntimeError, match="was not entered"):
            context.__exit__(None, None, None)
        with context:
            assert not _native.holds_permit()
            with pytest.raises(RuntimeError, match="in use already"):
                context.__enter__()
            errors = []
            thread = threading.Thread(target=lambda: errors.append(pytest.raises(RuntimeError, context.__exit__)))
            thread.start()
            thread.join()
            assert "by the thread that entered it" in str(errors[0].value)
            assert not _native.holds_permit()
        assert _native.holds_permit()
        with context:  # and again, one after the other
            pass
        return _native.holds_permit()

    with c.Executor() as pool:
        assert all(pool.map(lambda _: task(), range(10)))
    with c.blocking():
        pass


def test_a_task_context_that_is_never_left_ends_with_its_thread_or_object():
    check_fresh("""
import gc, threading
import composable_threads as c
from composable_threads import _native
_native.configure(2)
kept = []
def enter():
    context = c.task()
    context.__enter__()
    kept.append(context)
def counted():
    return _native.counts()["running"]
for _ in range(50):
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
executor = c.Executor()
assert list(executor.map(abs, range(-50, 0))) == list(range(50, 0, -1))
while counted(): pass  # join() does not wait for the very end of a thread
try:
    kept[-1].__exit__(None, None, None)
except RuntimeError as error:
    assert "by the thread that entered it" in str(error)
else:
    raise AssertionError
kept.clear()
gc.collect()
c.task().__enter__()  # dropped at once
assert _native.task_depth() == 0 and counted() == 0
# Dropped by another thread: its own one keeps counting until it ends.
box, entered, go = [], threading.Event(), threading.Event()
def live():
    box.append(c.task())
    box[0].__enter__()
    entered.set()
    go.wait()
thread = threading.Thread(target=live)
thread.start()
entered.wait()
box.clear()
go.set()
thread.join()
while counted(): pass
c.reset_peak()
assert list(executor.map(abs, range(50))) == list(range(50))
assert c.info()["peak_running"] <= 2
""")


# --- from anywhere

CALLS = """
import atexit, gc, os, random, signal, sys, threading, time, weakref
import numba, joblib
import composable_threads as c
from composable_threads import _native
from composable_threads.dask_backend import get
from joblib import Parallel, delayed
_native.configure({slots})
@numba.njit("i8(i8)", parallel=True, cache=False)
def region(n):
    total = 0
    for i in numba.prange(n):
        total += i
    return total
executor, limited, pool = c.Executor(), c.Executor(2), c.ThreadPool(2)
def in_a_new_one():
    with c.Executor() as new:
        return sum(new.map(abs, range(20)))
def activated():
    with c.activate():
        return sum(executor.map(abs, range(20)))
def blocked():
    with c.blocking():
        return 190
def as_a_task():
    with c.task():
        return region(20)
calls = dict(
    submit=lambda: sum(future.result() for future in [executor.submit(abs, -i) for i in range(20)]),
    map=lambda: sum(executor.map(abs, range(20))),
    joblib=lambda: sum(Parallel(2, backend="composable")(delayed(abs)(i) for i in range(20))),
    generator=lambda: sum(Parallel(2, backend="composable", return_as="generator")(delayed(abs)(i) for i in range(20))),
    dask=lambda: sum(get({{f"k{{i}}": (abs, -i) for i in range(20)}}, [f"k{{i}}" for i in range(20)])),
    pool=lambda: sum(pool.map(abs, range(20))),
    imap=lambda: sum(pool.imap(abs, range(20))),
    apply=lambda: pool.apply(abs, (-190,)),
    region=lambda: region(20),
    new=in_a_new_one, activate=activated, blocking=blocked, task=as_a_task,
    info=lambda: 190 if c.info()["peak_running"] <= {peak} else 0,
)
for call in calls.values():
    assert call() == 190
"""

STORM = """
random = random.Random(1)
depth, outside, inside, wrong = 0, 0, 0, []
def call_one(*_):
    global depth, inside
    if depth >= {deepest}:
        return
    depth += 1
    name = random.choice(list(calls))
    try:
        answer = calls[name]()
    except BaseException as error:
        answer = error
    if answer == 190:
        inside += 1
    else:
        wrong.append((name, answer))
    depth -= 1
class Cycle:
    def __init__(self):
        self.me = self
class Dies(Cycle):
    def __del__(self):
        call_one()
references = []
def provoke():
    if {kind!r} == "destructor":
        Dies()
    elif {kind!r} == "weakref callback":
        references.append(weakref.ref(Cycle(), call_one))
if {kind!r} == "signal handler":
    signal.signal(signal.SIGALRM, call_one)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.002)
else:
    gc.set_threshold(50)  # in the middle of anything
while outside < 300 or inside < 100:
    provoke()
    for name, call in calls.items():
        assert call() == 190, name
        outside += 1
signal.setitimer(signal.ITIMER_REAL, 0)
gc.set_threshold(0)
assert not wrong, wrong
assert executor.submit(abs, -1).result() == pool.apply(abs, (-1,)) == 1
"""


@pytest.mark.parametrize("slots", [1, 2])
@pytest.mark.parametrize("kind", ["signal handler", "destructor", "weakref callback"])
def test_every_call_may_come_in_the_middle_of_every_other(kind, slots):
    check_numba(CALLS.format(slots=slots, peak=1000) + STORM.format(kind=kind, deepest=2), slots=slots)


@pytest.mark.parametrize("where", ["in a task", "in the iterator", "in a callback"])
def test_every_call_may_be_made(where):
    code = {
        "in a task": """
for name, call in calls.items():
    for outer in (executor, c.Executor(1)):
        assert outer.submit(call).result() == 190, name
        assert list(outer.map(lambda _: call(), range(3))) == [190] * 3, name
    assert Parallel(2, backend="composable")(delayed(call)() for _ in range(3)) == [190] * 3, name
    assert get({"x": (call,), "y": (call,)}, ["x", "y"]) == (190, 190), name
    assert c.ThreadPool(2).map(lambda _: call(), range(3)) == [190] * 3, name
""",
        "in the iterator": """
def items(call):
    for i in range(3):
        assert call() == 190
        yield i
for name, call in calls.items():
    assert list(executor.map(abs, items(call))) == [0, 1, 2], name
    assert Parallel(2, backend="composable")(delayed(abs)(i) for i in items(call)) == [0, 1, 2], name
    assert c.ThreadPool(2).map(abs, items(call)) == [0, 1, 2], name
    assert list(c.ThreadPool(2).imap(abs, items(call))) == [0, 1, 2], name
    assert list(pool.imap(abs, items(call))) == [0, 1, 2], name  # of the pool that is called, too
""",
        "in a callback": """
for name, call in calls.items():
    said = []
    ended = threading.Event()
    def callback(_):
        try:
            said.append(call())
        finally:
            ended.set()
    executor.submit(abs, -1).add_done_callback(callback)
    assert ended.wait(30) and said == [190], (name, said)
    # A pool calls its callbacks one after another, so none may wait for another.
    if name not in ("pool", "imap", "apply"):
        ended.clear()
        pool.apply_async(abs, (-1,), callback=callback).get()
        assert ended.wait(30) and said == [190] * 2, (name, said)
""",
    }[where]
    check_numba(CALLS.format(slots=2, peak=1000) + code, slots=2)


END = """
def tell(name, call):
    try:
        answer = call()
    except Exception as error:
        answer = f"{{type(error).__name__}}: {{error}}"
    os.write(1, f"{{name}}: {{answer}}\\n".encode())
"""


def test_calls_at_exit_give_an_answer_or_say_that_it_is_too_late():
    said = check_numba(
        CALLS.format(slots=2, peak=1000)
        + END.format()
        + """
for name, call in calls.items():
    atexit.register(tell, name, call)
""",
        slots=2,
    )
    answers = dict(line.split(": ", 1) for line in said.splitlines())
    late = "RuntimeError: cannot schedule new futures after interpreter shutdown"  # the words of concurrent.futures
    by_futures = dict.fromkeys(["submit", "map", "new", "activate"], late)
    names = ["joblib", "generator", "dask", "pool", "imap", "apply", "region", "blocking", "task", "info"]
    assert answers == by_futures | dict.fromkeys(names, "190")


@pytest.mark.parametrize("name", ["submit", "map", "joblib", "dask", "pool", "imap", "apply", "region", "task"])
def test_calls_of_the_last_destructor_end_at_once(name):
    # Modules are being taken apart: Python itself can import nothing any more, and no thread but this one runs.
    said = check_numba(
        CALLS.format(slots=2, peak=1000)
        + END.format()
        + f"""
class Last:
    def __del__(self, tell=tell, call=calls[{name!r}]):
        tell({name!r}, call)
_last = Last()
""",
        slots=2,
    )
    answer = said.strip().split(": ", 1)[1]
    if name in ("region", "task"):
        assert answer == "190"
    else:
        # Which it is depends on what is gone already.
        assert re.match(r"(Runtime|Import|Attribute|Type|Name|Value)Error: ", answer), answer


def test_a_graph_that_needs_itself_and_a_pool_that_joins_itself_end(tmp_path):
    done = run_fresh("""
import composable_threads as c
executor, pool = c.Executor(), c.ThreadPool(2)
for call in (lambda: executor.submit(executor.shutdown).result(), lambda: pool.apply(pool.join)):
    try:
        call()
    except (RuntimeError, ValueError) as error:
        print(type(error).__name__, error)
""")
    assert done.returncode == 0 and done.stdout.splitlines() == [
        "RuntimeError cannot join current thread",
        "ValueError Pool is still running",
    ], done

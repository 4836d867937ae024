"""What Python, NumPy and Numba keep for each thread or context: a task sees what it would see in a stock pool, and what it
changes is its own."""

from __future__ import annotations

from fresh import check_fresh
from tool_doors import DOORS


def test_tasks_see_the_context_variables_that_they_see_in_the_stock_pools():
    # The exceptions are ours: an Executor's tasks have a copy of their submitter's context, and so have Dask's where it
    # is too old to do the same.
    code = """
import contextvars
variable = contextvars.ContextVar("variable", default="unset")
variable.set("the caller's")

def task(item):
    found = variable.get()
    variable.set(item)
    return found

for door, run in through.items():
    found = run(at_once(task), range(2))
    assert found == ["the caller's" if door in ("executor", "dask") else stock[door](at_once(task), range(2))[0]] * 2, (door, found)
    assert variable.get() == "the caller's", door
"""
    check_fresh(DOORS + code)


def test_a_pool_keeps_what_its_initializer_and_tasks_set_and_shows_it_to_no_other():
    code = """
import contextvars
variable = contextvars.ContextVar("variable", default="unset")

def task(item):
    found = variable.get()
    variable.set(f"{found}+")
    return found

def outcome(make, first):
    with make(1, initializer=variable.set, initargs=(first,)) as pool:
        return list(pool.map(task, range(3)))

def activated(*args, **options):
    with c.activate():
        return ThreadPoolExecutor(*args, **options)

wanted = ["a", "a+", "a++"]
assert outcome(ThreadPoolExecutor, "a") == outcome(ThreadPool, "a") == wanted
for make in (c.ThreadPool, activated, ThreadPoolExecutor):
    for first in "ab":
        found = outcome(make, first)
        assert found == [value.replace("a", first) for value in wanted], (make, found)
for door, run in through.items():  # on the same workers
    assert run(at_once(task), range(2)) == ["unset"] * 2, door
"""
    check_fresh(DOORS + code)


def test_a_nested_task_on_the_same_thread_has_a_context_of_its_own():
    code = """
import contextvars
variable = contextvars.ContextVar("variable", default="unset")

def leaf(item):
    found = variable.get()
    variable.set("leaf")
    return found

def outer(item):
    variable.set("outer")
    inner = through["joblib"](leaf, range(3))
    with c.activate():
        pool = ThreadPoolExecutor()
    own = pool.submit(lambda: pool.submit(leaf, 0).result()).result()
    return inner, own, variable.get()

for door, run in through.items():
    assert run(outer, range(4)) == [(["unset"] * 3, "unset", "outer")] * 4, door
"""
    check_fresh(DOORS + code)


def test_a_child_forked_in_a_task_runs_others_of_the_same_executor():
    code = """
import os

def fork(_):
    child = os.fork()
    if child == 0:
        os._exit(executor.submit(int, 5).result() + sum(executor.map(int, [1, 1])))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

with c.activate():
    executor = ThreadPoolExecutor()
    assert executor.submit(fork, 0).result() == 7
"""
    check_fresh(DOORS + code, env={"PYTHONWARNINGS": "ignore::DeprecationWarning"})


def test_errstate_of_a_task_is_its_own():
    code = """
import numpy as np

def careful(item):
    with np.errstate(divide="raise"):
        inner = through["joblib"](careless, range(2))  # some of them on this very thread
        try:
            np.float64(1) / np.float64(0)
        except FloatingPointError:
            return inner, "raised"

def careless(item):
    return np.geterr()["divide"]

def for_good(item):
    np.seterr(divide="raise")

if int(np.__version__.split(".")[0]) >= 2:  # a variable of the thread before, which a task shares with its caller
    for door, run in through.items():
        assert run(careful, range(4)) == [(["warn"] * 2, "raised")] * 4, door
        run(at_once(for_good), range(2))
        assert through["joblib"](at_once(careless), range(2)) == ["warn"] * 2, door
        assert np.geterr()["divide"] == "warn", door
        with np.errstate(divide="ignore"):
            found = run(at_once(careless), range(2))
            wanted = ["ignore"] * 2 if door in ("executor", "dask") else stock[door](at_once(careless), range(2))
        assert found == wanted, (door, found, wanted)
"""
    check_fresh(DOORS + code)


def test_warnings_filters_count_in_tasks():
    code = """
import warnings

def task(item):
    warnings.warn(f"item {item}", UserWarning, stacklevel=1)
    return item

def refused(item):
    try:
        return task(item)
    except UserWarning as error:
        return str(error)

for door in through:
    for run in (through[door], stock[door]):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert run(task, range(4)) == [0, 1, 2, 3], door
        told = sorted(str(warning.message) for warning in caught)
        assert told == [f"item {i}" for i in range(4)], (door, told)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert run(refused, range(2)) == ["item 0", "item 1"], door
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert run(refused, range(2)) == [0, 1], door
"""
    check_fresh(DOORS + code)


def test_random_generators_give_each_task_what_they_give_serially():
    code = """
import random
import numba, numpy as np

children = np.random.SeedSequence(12).spawn(16)

@numba.njit(nogil=True)
def drawn(seed):
    np.random.seed(seed)
    total = 0.0
    for _ in range(1000):
        total += np.random.random()
    return total

def task(item):
    legacy, own = np.random.RandomState(item), random.Random(item)
    return (np.random.default_rng(children[item]).normal(), legacy.rand(), own.random(), drawn(item))

serial = [task(item) for item in range(16)]
for door, run in through.items():
    assert run(task, range(16)) == serial, door
"""
    check_fresh(DOORS + code)

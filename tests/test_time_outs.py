"""Time-outs end a wait, whatever comes in between: in Python before 3.13 ``SimpleQueue.get`` misses its own."""

from __future__ import annotations

import sys

import pytest
from fresh import check_fresh

PROGRAM = """
import concurrent.futures, multiprocessing, queue, signal, threading, time
import composable_threads as c
came = threading.Event()
def outlast(*_):
    time.sleep(0.3)
    came.set()
signal.signal(signal.SIGALRM, outlast)
release = threading.Event()
def later(seconds, call):
    timer = threading.Timer(seconds, call)
    timer.daemon = True
    timer.start()
later(20, release.set)  # a wait that misses its time-out gets a value
def task(i=0):
    release.wait()
    return i
"""
LATE = """
signal.setitimer(signal.ITIMER_REAL, 0.05)
try:
    print("value", wait(0.1))
except (concurrent.futures.TimeoutError, multiprocessing.TimeoutError, queue.Empty) as error:
    print("late", came.is_set())
release.set()
"""
WAYS = {
    "future": "executor = c.Executor(2); wait = executor.submit(task).result",
    "map": "executor = c.Executor(2); wait = lambda timeout: next(executor.map(task, range(4), timeout=timeout))",
    "apply": "pool = c.ThreadPool(2); wait = pool.apply_async(task).get",
    "map_async": "pool = c.ThreadPool(2); wait = pool.map_async(task, range(4)).get",
    "imap": "pool = c.ThreadPool(2); wait = pool.imap(task, range(4)).next",
    "imap_unordered": "pool = c.ThreadPool(2); wait = pool.imap_unordered(task, range(4)).next",
    "as_completed": """
executor = c.Executor(2)
wait = lambda timeout: list(concurrent.futures.as_completed([executor.submit(task)], timeout))
""",
}


@pytest.mark.parametrize("way", WAYS)
def test_a_signal_handler_that_outlasts_the_time_does_not_make_it_endless(way):
    assert check_fresh(PROGRAM + WAYS[way] + LATE) == "late True\n"


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="Python 3.13 has another queue")
def test_it_makes_the_stock_queue_endless():
    way = "values = queue.SimpleQueue(); wait = lambda timeout: values.get(timeout=timeout)\n"
    way += "later(3, lambda: values.put(7))\n"
    assert check_fresh(PROGRAM + way + LATE + "came.is_set() or print('the handler did not run')") == "value 7\n"


@pytest.mark.parametrize("timeout", [0, -1, 1e-9, 1e-6])
@pytest.mark.parametrize("way", ["map", "apply", "imap"])
def test_no_time_at_all_is_time_enough_to_see_what_is_there(way, timeout):
    code = f"""
timeouts = [{timeout}] * 300
outcomes = []
for timeout in timeouts:
    try:
        outcomes.append(wait(timeout))
    except (concurrent.futures.TimeoutError, multiprocessing.TimeoutError):
        outcomes.append("late")
print(set(outcomes))
release.set()
"""
    assert check_fresh(PROGRAM + WAYS[way] + code) == "{'late'}\n"

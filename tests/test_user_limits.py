"""threadpoolctl's limits win in the task that sets them, whatever its share was when they began and ended."""

from __future__ import annotations

import pytest

pytest.importorskip("sklearn")
pytest.importorskip("threadpoolctl")
from width_programs import run

# Two tasks fill the arena; the first one waits, when it says so, until the other has ended and its share is all cores:
# SciPy's library, which it does not limit, tells.
TWO = """
def two(first):
    here, gone = threading.Barrier(2), threading.Event()
    def other():
        here.wait()
        gone.wait()
    def one():
        here.wait()
        assert numpy_width() == scipy_width() == 1
        def alone():
            gone.set()
            until(lambda: scipy_width() == 2)
        return first(alone)
    with ct.Executor(2) as executor:
        waits, result = executor.submit(other), executor.submit(one)
        result = result.result()
        waits.result()
    until(lambda: _native.counts()["running"] == 0)
    return result
"""


@pytest.mark.parametrize(
    "limit",
    [
        "threadpool_limits({NUMPY: 1})",
        "ThreadpoolController().limit(limits={NUMPY: 1})",
        "ThreadpoolController().select(filepath=NUMPY).limit(limits=1)",
        "threadpool_limits.wrap({NUMPY: 1})",
        "ThreadpoolController().wrap(limits={NUMPY: 1})",
    ],
)
def test_limit_that_equals_the_share_stands_when_the_share_grows(limit):
    code = f"""
def first(alone):
    with {limit}:
        alone()
        inside = numpy_width()
    return inside, numpy_width()
for _ in range(3):
    print(*two(first), numpy_width(), scipy_width())
"""
    assert run(TWO + code, 2).splitlines() == ["1 2 2 2"] * 3


def test_limit_above_the_share_stands_in_a_full_arena():
    code = """
def first(alone):
    with threadpool_limits(2, user_api="blas"):
        inside = numpy_width(), scipy_width()
        with ct.Executor(2) as executor:  # the load changes, the limit does not
            executor.submit(int).result()
            later = numpy_width(), scipy_width()
    afterwards = numpy_width(), scipy_width()
    alone()
    return inside, later, afterwards
print(*two(first), numpy_width())
"""
    assert run(TWO + code, 2).strip() == "(2, 2) (2, 2) (1, 1) 2"


def test_of_two_limits_at_once_the_smaller_one_stands_and_none_is_left_over():
    code = """
steps = [threading.Event() for _ in range(4)]
here = threading.Barrier(2)
def one():
    here.wait()
    with threadpool_limits(2, user_api="blas"):
        seen.append(numpy_width())
        steps[0].set()
        steps[1].wait()  # the other's limit has begun
        seen.append(numpy_width())
    steps[2].set()
    steps[3].wait()  # the other's has ended
    seen.append(numpy_width())
def other():
    here.wait()
    steps[0].wait()
    with threadpool_limits(1, user_api="blas"):
        steps[1].set()
        steps[2].wait()  # the first one's has ended
        seen.append(numpy_width())
    steps[3].set()
for turn in range(3):
    seen = []
    for step in steps: step.clear()
    with ct.Executor(2) as executor:
        for future in [executor.submit(one), executor.submit(other)]:
            future.result()
    until(lambda: _native.counts()["running"] == 0)
    print(seen, numpy_width())
"""
    # The last of a turn is the share of two tasks, or of one where the other has left.
    for line in run(code, 2).splitlines():
        assert line in ("[2, 1, 1, 1] 2", "[2, 1, 1, 2] 2")


def test_end_of_a_limit_does_not_bring_back_a_share_of_long_ago():
    # What threadpoolctl puts back, in libraries that were not limited too, is what it found when the limit began.
    code = """
def first(alone):
    with threadpool_limits(1, user_api="openmp"):
        alone()
    return numpy_width(), scipy_width()
print(*two(first))
"""
    assert run(TWO + code, 2).strip() == "2 2"


def test_limit_without_an_end_stays_as_it_does_without_us():
    code = """
with ct.Executor(2) as executor:
    limits = executor.submit(lambda: threadpool_limits(1, user_api="blas")).result()
until(lambda: _native.counts()["running"] == 0)
print(numpy_width(), scipy_width())
together(3, widths)
print(numpy_width(), scipy_width())
limits.restore_original_limits()
limits.unregister()  # twice is no harm
print(numpy_width(), scipy_width(), widths())
"""
    assert run(code, 2).splitlines() == ["1 1", "1 1", "2 2 {'openblas': [2], 'openmp': [2]}"]


def test_limit_of_a_task_whose_end_comes_when_no_task_is_left():
    # It began while the share was 1, which is no width of the user's.
    code = """
def first(alone):
    limits = threadpool_limits({NUMPY: 1})
    alone()
    return limits
limits = two(first)
print(numpy_width(), scipy_width())
limits.restore_original_limits()
print(numpy_width(), scipy_width())
"""
    assert run(TWO + code, 2).splitlines() == ["1 2", "2 2"]


def test_limit_set_outside_tasks_while_they_run_lowers_the_share():
    code = """
held = threading.Event()
with ct.Executor(1) as executor:
    running = executor.submit(held.wait)
    until(lambda: _native.counts()["running"] == 1)
    print(numpy_width())
    with threadpool_limits({NUMPY: 1}):
        more = ct.Executor(1)
        more.submit(int).result()  # the share was 1 meanwhile
        until(lambda: scipy_width() == 2)
        print(numpy_width())
    print(numpy_width())
    held.set()
print(numpy_width(), widths())
"""
    assert run(code, 2).splitlines() == ["2", "1", "2", "2 {'openblas': [2], 'openmp': [2]}"]


def test_limit_that_began_before_the_tasks_and_ends_among_them():
    code = """
held = threading.Event()
with ct.Executor(1) as executor:
    with threadpool_limits(1, user_api="blas"):
        running = executor.submit(held.wait)
        until(lambda: _native.counts()["running"] == 1)
        print(numpy_width())
    print(numpy_width())
    with ct.Executor(1) as other:
        print(other.submit(numpy_width).result())
    held.set()
until(lambda: _native.counts()["running"] == 0)
print(numpy_width())
"""
    assert run(code, 2).splitlines() == ["1", "2", "1", "2"]


def test_limit_of_a_thread_of_the_program_survives_its_tasks():
    code = """
import joblib
out = []
def body():
    with threadpool_limits(1):
        with ct.task():
            out.append(widths())
        out.extend(joblib.Parallel(2, backend="composable")(joblib.delayed(widths)() for _ in range(3)))
        out.append(widths())
    out.append(widths())
thread = threading.Thread(target=body)
thread.start()
thread.join()
narrow = {"openblas": [1], "openmp": [1]}
# OpenMP's width is a thread's own, so workers do not know of this thread's limit.
print(out[0] == out[4] == narrow, all(seen["openblas"] == [1] for seen in out[:5]), out[5], widths())
"""
    wide = "{'openblas': [2], 'openmp': [2]}"
    assert run(code, 2).strip() == f"True True {wide} {wide}"


def test_limit_in_a_task_that_raises():
    code = """
def first(alone):
    try:
        with threadpool_limits(1):
            raise ValueError
    except ValueError:
        at_once = numpy_width()
    alone()
    return at_once, numpy_width()
print(two(first), widths())
"""
    assert run(TWO + code, 2).strip() == "(1, 2) {'openblas': [2], 'openmp': [2]}"


def test_limit_in_a_task_is_gone_afterwards_and_those_around_tasks_survive_them():
    code = """
def limited():
    with threadpool_limits(1):
        inside = widths()
    return inside, widths()
print(*together(1, limited)[0], widths())
with threadpool_limits(1):
    together(3, widths)
    print(widths())
together(3, widths)
print(widths())
"""
    narrow, wide = "{'openblas': [1], 'openmp': [1]}", "{'openblas': [2], 'openmp': [2]}"
    assert run(code, 2).splitlines() == [f"{narrow} {wide} {wide}", narrow, wide]

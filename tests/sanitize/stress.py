"""A little of everything through the extension, for `python -m tests.sanitizers extension`; prints ``done`` at its end.

Answers are checked, but what counts is what AddressSanitizer has to say. Rounds are few: everything is slow under it.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
import warnings
from concurrent.futures import CancelledError

import composable_threads as ct
import dask
import joblib
import numba
import numpy as np
from composable_threads import _native
from composable_threads.dask_backend import get
from composable_threads.dask_backend.order import order

ROUNDS = 12
warnings.filterwarnings("ignore", category=DeprecationWarning)  # of forks beside threads
# Joblib, of a generator given up.
warnings.filterwarnings("ignore", message=".*have been cancelled", category=UserWarning)


@numba.njit(parallel=True, nogil=True)
def total(values):
    found = 0.0
    for i in numba.prange(values.size):
        found += values[i]
    return found


@numba.njit
def checked(i, bad):
    if i == bad:
        raise ValueError("bad")
    return i


@numba.njit(parallel=True)
def raises(n, bad):
    for i in numba.prange(n):
        checked(i, bad)


@numba.vectorize(["f8(f8)"], target="parallel")
def doubled(x):
    return 2 * x


try:
    raises(1, 0)  # the call that compiles loses the error in Numba itself
except (ValueError, SystemError):
    pass

VALUES = np.arange(20_000.0)
SUM = VALUES.sum()


def regions() -> None:
    for size in (0, 1, 7, 1000, VALUES.size):
        assert total(VALUES[:size]) == VALUES[:size].sum()
    assert (doubled(VALUES) == 2 * VALUES).all()
    for bad in (0, 500, 999):
        try:
            raises(1000, bad)
        except ValueError:
            continue
        except SystemError as error:  # how Numba's own wrapper reports an error of a kernel
            assert isinstance(error.__cause__, ValueError)
            continue
        raise AssertionError("lost")
    old = numba.get_num_threads()
    numba.set_num_threads(1)
    assert total(VALUES) == SUM
    numba.set_num_threads(old)


def work(i: int) -> float:
    if i % 3 == 0:
        return float(total(VALUES))
    if i % 3 == 1:
        return float((np.ones((40, 40)) @ np.ones((40, 40))).sum())
    return float(sum(range(i)))


EXPECTED = [SUM if i % 3 == 0 else 64000.0 if i % 3 == 1 else float(sum(range(i))) for i in range(30)]


def fail(i: int) -> int:
    if i == 7:
        raise LookupError(i)
    return i


def joblib_calls() -> None:
    for form in ("list", "generator", "generator_unordered"):
        parallel = joblib.Parallel(n_jobs=3, backend="composable", return_as=form)
        found = list(parallel(joblib.delayed(work)(i) for i in range(30)))
        assert (found if form != "generator_unordered" else sorted(found)) == (
            EXPECTED if form != "generator_unordered" else sorted(EXPECTED)
        )
        try:
            list(parallel(joblib.delayed(fail)(i) for i in range(30)))
        except LookupError:
            pass
        else:
            raise AssertionError("lost")
    abandoned = joblib.Parallel(n_jobs=2, backend="composable", return_as="generator")(
        joblib.delayed(work)(i) for i in range(30)
    )
    next(abandoned)
    del abandoned


def graphs() -> None:
    dsk = {("x", i): (work, i) for i in range(30)}
    dsk["sum"] = (sum, [("x", i) for i in range(30)])
    assert get(dsk, ["sum", [("x", 3)]]) == (sum(EXPECTED), (EXPECTED[3],))
    assert len(set(order(dict(dask.delayed(sum)([dask.delayed(abs)(i) for i in range(50)]).dask)).values())) > 50
    assert dask.delayed(sum)([dask.delayed(abs)(-i) for i in range(50)]).compute(scheduler="composable") == 1225
    try:
        get({"a": (fail, 7), "b": (fail, "a")}, "b")
    except LookupError:
        pass
    else:
        raise AssertionError("lost")
    try:
        get({"a": (abs, "b"), "b": (abs, "a")}, "a")
    except RuntimeError:
        pass
    else:
        raise AssertionError("a cycle")


def executors() -> None:
    with ct.Executor(3) as executor:
        assert list(executor.map(work, range(30))) == EXPECTED
        futures = [executor.submit(fail, i) for i in range(10)]
        assert [type(future.exception()).__name__ for future in futures].count("LookupError") == 1
    executor = ct.Executor(1)
    gate = threading.Event()
    begun = threading.Event()
    first = executor.submit(lambda: begun.set() or gate.wait())
    others = [executor.submit(gate.wait) for _ in range(20)]
    assert begun.wait(60)
    executor.shutdown(wait=False, cancel_futures=True)
    gate.set()
    assert first.result()
    for future in others:
        try:
            future.result()
        except CancelledError:
            pass


def nested(depth: int = 3) -> float:
    if depth == 0:
        return float(total(VALUES))
    with ct.Executor(2) as executor:
        return sum(executor.map(nested, [depth - 1] * 2))


def mixed() -> None:
    def one(_: int) -> float:
        return sum(joblib.Parallel(n_jobs=2, backend="composable")(joblib.delayed(graph)() for _ in range(2)))

    def graph() -> float:
        return get({"a": (work, 0), "b": (work, 3), "c": (sum, ["a", "b"])}, "c")

    with ct.Executor(3) as executor:
        assert list(executor.map(one, range(3))) == [4 * SUM] * 3
    assert nested() == 8 * SUM


def blocked() -> None:
    barrier = threading.Barrier(5)
    with ct.Executor(5) as executor:
        assert sorted(executor.map(lambda _: barrier.wait(20), range(5))) == [0, 1, 2, 3, 4]

    def waits() -> None:
        with ct.blocking():
            time.sleep(0.002)

    with ct.Executor(2) as executor:
        for future in [executor.submit(waits) for _ in range(6)]:
            future.result()


def threads() -> None:
    found: list[float] = []
    crowd = [threading.Thread(target=lambda: found.append(total(VALUES))) for _ in range(8)]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join()
    assert found == [SUM] * 8


def forks() -> None:
    def in_child() -> int:
        child = os.fork()
        if child == 0:
            try:
                regions()
                with ct.Executor(2) as executor:
                    assert list(executor.map(work, range(6))) == EXPECTED[:6]
                os._exit(0)
            except BaseException:
                sys.excepthook(*sys.exc_info())
                os._exit(1)
        return os.waitpid(child, 0)[1]

    assert in_child() == 0
    with ct.Executor(2) as executor:
        assert executor.submit(in_child).result() == 0


def hostile() -> None:
    for call in (
        lambda: _native.configure(-1),
        lambda: _native.order([0, 5], [1], [True], ["a"]),
        lambda: _native.order([0, -1], [], [True], ["a"]),
        lambda: _native.TaskGroup(0),
        lambda: ct.Executor(-1),
    ):
        try:
            call()
        except (ValueError, TypeError, IndexError, RuntimeError, OverflowError):
            continue
        raise AssertionError("accepted")


assert os.environ["NUMBA_THREADING_LAYER"] == "composable"
for _ in range(ROUNDS):
    for part in (regions, joblib_calls, graphs, executors, mixed, blocked, threads, forks, hostile):
        part()
        gc.collect()
assert numba.threading_layer() == "composable" and _native.counts()["running"] == 0
with ct.activate():
    joblib_calls()
    assert dask.delayed(abs)(-3).compute() == 3
print(ct.info()["slots"] and "done")

"""What Numba's own threading layers get wrong, or lose, is right in the arena; each stock bug is shown beside it."""

from __future__ import annotations

import pytest
from fresh import run_fresh
from numba_kernels import check_numba, run_numba

# --- numba #1721: reduce, accumulate and reduceat of a parallel ufunc split a loop that must not be split

REDUCE = """
import numba, numpy as np
@numba.vectorize(["f8(f8,f8)", "i8(i8,i8)"], target="parallel")
def add(x, y):
    return x + y
@numba.vectorize(["f8(f8,f8)"], target="parallel")
def larger(x, y):
    return x if x > y else y
"""

RIGHT = """
rng = np.random.default_rng(0)
for size in (1, 2, 7, 300, 5000, 200_000):
    x = rng.integers(-9, 9, size).astype(float)
    assert add.reduce(x) == x.sum(), size
    assert add.reduce(x[::-1]) == x.sum()
    assert larger.reduce(x) == x.max()
    assert (add.accumulate(x) == np.add.accumulate(x)).all(), size
    assert (add.accumulate(x[::-1]) == np.add.accumulate(x[::-1])).all()
    out = np.empty(2 * size)[::-2]
    assert (add.accumulate(x, out=out) == np.add.accumulate(x)).all()
    ends = np.unique(rng.integers(0, size, 5))
    assert (add.reduceat(x, ends) == np.add.reduceat(x, ends)).all()
    assert add.reduce(x.astype(np.int32)) == x.sum()  # through NumPy's casting buffers
    assert add.reduce(x, where=x > 0, initial=0.0) == x[x > 0].sum()
for shape in ((3, 2000), (2000, 3), (50, 40, 30)):
    x = rng.integers(-9, 9, shape).astype(float)
    for axis in range(len(shape)):
        assert (add.reduce(x, axis=axis) == x.sum(axis=axis)).all(), (shape, axis)
        assert (add.accumulate(x, axis=axis) == np.add.accumulate(x, axis=axis)).all(), (shape, axis)
        assert (add.reduce(x.T, axis=axis) == x.T.sum(axis=axis)).all()
        assert (add.reduceat(x, [0, 1, 2], axis=axis) == np.add.reduceat(x, [0, 1, 2], axis=axis)).all()
x = np.arange(100_000.0)
out = np.zeros(1000)
add.at(out, np.arange(3000) % 1000, 1.0)
assert (out == 3).all()
assert (add.outer(x[:300], x[:300]) == np.add.outer(x[:300], x[:300])).all()
add(x, x, out=x)
assert (x == 2 * np.arange(100_000.0)).all()
expected = x[:-1] + 1
add(x[:-1], 1.0, out=x[1:])
assert (x[1:] == expected).all()
"""


@pytest.mark.parametrize("slots", [1, 2, 4])
def test_reductions_of_parallel_ufuncs_are_right(slots):
    check_numba(REDUCE + RIGHT, slots=slots)


@pytest.mark.parametrize("layer", ["omp", "tbb"])
def test_reductions_of_parallel_ufuncs_are_wrong_in_stock_layers(layer):
    done = run_fresh(
        "import composable_threads  # pip's libtbb is found\n" + REDUCE + """
for _ in range(200):
    if add.reduce(np.ones(200_000)) != 200_000:
        print("wrong")
        break
""", env={"NUMBA_THREADING_LAYER": layer, "NUMBA_NUM_THREADS": "4"})  # fmt: skip
    assert done.returncode == 0, done.stderr
    if done.stdout != "wrong\n":
        pytest.skip(f"{layer} was right 200 times: its threads never ran at the same time")


# --- numba #2811, #7350: exceptions of workers vanish; those of the caller are the cause of a SystemError, or vanish too

RAISING = """
import collections, threading
import numba, numpy as np
import composable_threads as c

@numba.njit
def checked(i, bad):
    x = 1.0
    for _ in range(5000):
        x = x * 1.0000001 + 1e-9
    if i == bad:
        raise ValueError("item", i)
    return x

@numba.njit(parallel=True, nogil=True)
def region(n, bad):
    out = np.zeros(n)
    for i in numba.prange(n):
        out[i] = checked(i, bad)
    return out

@numba.njit(parallel=True)
def nested(n, bad):
    out = np.zeros(n)
    for i in numba.prange(n):
        out[i] = region(100, bad if i == n - 1 else -1).sum()
    return out

@numba.vectorize(["f8(f8)"], target="parallel")
def root(x):
    if x < 0:
        raise ValueError("negative")
    y = x
    for _ in range(1000):
        y = y * 1.0000001 + 1e-9
    return y

@numba.guvectorize(["void(f8[:], f8[:])"], "(n)->()", target="parallel")
def total(x, out):
    out[0] = 1.0  # what it holds at first may overflow, and NumPy's warning then meets the error
    for _ in range(3000):
        out[0] = out[0] * 1.0000001 + 1e-9
    if x[0] < 0:
        raise ValueError("negative row")
    out[0] = x.sum()

def raised(function, *args):
    try:
        function(*args)
    except ValueError as error:
        return error.args

def negative_at(shape, index):
    x = np.ones(shape)
    x[index] = -1
    return x
"""

ALL_RAISE = """
nested(2, -1)
def run():
    for bad in (0, 1, 99, 150, 198, 199):
        assert raised(region, 200, bad) == ("item", bad), bad
        assert raised(root, negative_at(5000, 25 * bad)) == ("negative",), bad
        assert raised(total, negative_at((200, 3), (bad, 0))) == ("negative row",), bad
    for bad in (0, 50, 99):
        assert raised(nested, 8, bad) == ("item", bad), bad
    assert raised(region, 200, -1) is None
    assert raised(root, np.ones(5000)) is None
run()
errors = []
def caught():
    try:
        run()
    except BaseException as error:
        errors.append(error)
threads = [threading.Thread(target=caught) for _ in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert not errors, errors
with c.Executor() as executor:
    for future in [executor.submit(run) for _ in range(3)]:
        future.result()
"""


@pytest.mark.parametrize("slots", [1, 2, 4])
def test_exceptions_of_any_item_reach_the_caller(slots):
    check_numba(RAISING + ALL_RAISE, slots=slots)


def test_many_errors_at_once_are_one():
    check_numba(RAISING + """
@numba.njit(parallel=True)
def all_raise(n):
    for i in numba.prange(n):
        checked(i, i)
raised(all_raise, 100)
for _ in range(200):
    kind, item = raised(all_raise, 100)
    assert kind == "item" and 0 <= item < 100
    assert raised(root, np.full(5000, -1.0)) == ("negative",)
    assert raised(region, 100, -1) is None  # nothing is left over
""", slots=4)  # fmt: skip


def test_the_call_that_compiles_raises_too():
    check_numba(RAISING + "assert raised(region, 200, 7) == raised(nested, 8, 7) == ('item', 7)", slots=2)


def test_exceptions_of_the_caller_are_system_errors_in_the_stock_layer():
    done = run_fresh(RAISING + """
try:
    region(2, 0)  # compiles: the error stays behind, for whatever is called next
    region(2, 0)
except BaseException as error:
    print(type(error).__name__)
""", env={"NUMBA_THREADING_LAYER": "omp", "NUMBA_NUM_THREADS": "1"})  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "SystemError\n"), done.stderr


def test_function_cached_under_the_arena_runs_under_a_stock_layer(tmp_path):
    code = """
import os, numba
@numba.njit
def checked(i):
    if i == 500:
        raise ValueError("item")
    return i
@numba.njit(parallel=True, cache=True)
def region(n):
    found = 0
    for i in numba.prange(n):
        found += checked(i)
    return found
print(region(100), sum(region.stats.cache_hits.values()), numba.threading_layer())
try:
    region(501)
except Exception as error:
    print(type(error).__name__)
"""
    (tmp_path / "cached.py").write_text(code)
    for layer, hits, error in (
        ("composable", 0, "ValueError\n"),
        ("workqueue", 1, ""),
        ("composable", 1, "ValueError\n"),
    ):
        env = {"NUMBA_THREADING_LAYER": layer, "NUMBA_NUM_THREADS": "1", "PYTHONPATH": str(tmp_path)}
        done = run_fresh("import cached", env=env)
        assert (done.returncode, done.stdout) == (0, f"4950 {hits} {layer}\n{error}"), done.stderr


def test_exceptions_of_workers_vanish_in_the_stock_layer():
    done = run_fresh(RAISING + """
lost = sum(raised(root, negative_at(5000, 4999)) is None for _ in range(50))
print(lost > 0)
""", env={"NUMBA_THREADING_LAYER": "workqueue", "NUMBA_NUM_THREADS": "2"})  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


# --- numba #8578: functions loaded from the cache call symbols that nobody has registered

CACHED = """
import numba
@numba.njit(parallel=True, cache=True)
def region(n):
    found = 0
    for i in numba.prange(n):
        found += i
    return found
@numba.njit(cache=True)
def serial(n):
    return region(n)
@numba.njit(cache=True)
def thread_id():
    return numba.get_thread_id()
def ufunc():  # its decorator launches the layer
    @numba.vectorize(["f8(f8)"], target="parallel", cache=True)
    def after(x):
        return x + 1
    return after
"""

USES = {
    "region": ("cached.region(1000)", "499500"),
    "serial_caller_of_a_region": ("cached.serial(1000)", "499500"),
    "thread_id": ("cached.thread_id()", "0"),
    "ufunc": ("cached.ufunc()(1.0)", "2.0"),
}


def use_cached(tmp_path, use, layer):
    module = tmp_path / "cached.py"
    if not module.exists():  # Numba up to 0.60 takes a module that is written again for another one
        module.write_text(CACHED)
    env = {"NUMBA_THREADING_LAYER": layer, "NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(tmp_path)}
    return run_fresh(f"import cached\nprint({use})", env=env)


@pytest.mark.parametrize("use", USES)
def test_functions_loaded_from_the_cache_run(tmp_path, use):
    # The caller of the region is compiled when the region comes from the cache already: its code has no mention of it.
    code, expected = USES[use]
    for _ in range(3):
        use_cached(tmp_path, "cached.region(10)", "composable")
        done = use_cached(tmp_path, code, "composable")
        assert (done.returncode, done.stdout, done.stderr) == (0, expected + "\n", "")


@pytest.mark.parametrize("use", ["serial_caller_of_a_region", "thread_id"])
def test_functions_loaded_from_the_cache_crash_in_the_stock_layer(tmp_path, use):
    code, expected = USES[use]
    for _ in range(3):
        use_cached(tmp_path, "cached.region(10)", "workqueue")
        done = use_cached(tmp_path, code, "workqueue")
        if done.returncode < 0:
            return
        assert done.stdout == expected + "\n"
    pytest.fail("this Numba does not crash any more")


@pytest.mark.parametrize(("first", "then"), [("composable", "workqueue"), ("workqueue", "composable")])
def test_cache_is_shared_with_other_layers(tmp_path, first, then):
    for layer in (first, then):
        done = use_cached(tmp_path, "cached.region(1000), cached.region.stats.cache_hits.total()", layer)
        assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "499500 1\n"


# --- each stock region takes the GIL, although it runs without it

BUSY = """
import sys, threading, time
from numba_kernels import *
@njit(parallel=True, nogil=True)
def regions(count, out, flags):
    until(SIGNAL, 1, flags)
    for _ in range(count):
        for i in prange(out.size):
            out[i] += 1
    flags[MOST] = 1
out, flags = np.zeros(64), new_gauge()
flags[SIGNAL] = 1
regions(1, out, flags)
leaf(50, 50_000, new_gauge())  # workers exist
flags[:] = 0

begin, ended = threading.Event(), []
def busy():
    begin.wait()
    flags[SIGNAL] = 1
    deadline = time.monotonic() + float(sys.argv[1])
    while not flags[MOST] and time.monotonic() < deadline:
        pass
    ended.append(bool(flags[MOST]))
    sys.setswitchinterval(0.005)
thread = threading.Thread(target=busy)
thread.start()
sys.setswitchinterval(1000)  # who asks for the GIL now waits until the busy thread ends
begin.set()
regions(1000, out, flags)
thread.join()
print(ended[0], out.min(), out.max())
"""


def test_regions_run_beside_a_thread_that_never_gives_the_gil_away():
    assert check_numba(BUSY, slots=2, args=["30"]) == "True 1001.0 1001.0\n"


def test_stock_regions_wait_for_the_gil():
    done = run_numba(BUSY, env={"NUMBA_THREADING_LAYER": "workqueue"}, args=["3"])
    assert (done.returncode, done.stdout) == (0, "False 1001.0 1001.0\n"), done.stderr


# --- sums differ from run to run

SUMS = """
import threading
import numba
import composable_threads as c
from numba_kernels import *

x = np.random.default_rng(1).random(10_000) + 0.1
stop = new_gauge()
def load():
    while not stop[SIGNAL]:
        nest2(8, 3000, new_gauge())
threads = [threading.Thread(target=load) for _ in range(2)]
for thread in threads: thread.start()
def results(mask):
    numba.set_num_threads(mask)
    return {repr([np.asarray(part).tolist() for part in sums(x)]) for _ in range(50)}
"""

END = """
stop[SIGNAL] = 1
for thread in threads: thread.join()
print(found)
"""


@pytest.mark.parametrize("way", ["call", "variable"])
def test_deterministic_reductions_are_bitwise_equal(way):
    env = {"COMPOSABLE_DETERMINISTIC": "1"} if way == "variable" else {}
    turn_on = "c.deterministic(True)\n" if way == "call" else ""
    code = SUMS + turn_on + "found = [results(mask) for mask in (1, 2, 3, 4)]" + END
    outputs = {check_numba(code, slots=slots, env=env) for slots in (1, 2, 4)}
    assert len(outputs) == 1, outputs
    for results in eval(outputs.pop()):
        assert len(results) == 1


def test_reductions_are_not_bitwise_equal_unless_asked_for():
    # Else the test above could not fail.
    found = check_numba(SUMS + "found = [len(results(4)) for _ in range(5)]" + END, slots=4)
    assert max(eval(found)) > 1, found

"""Numba's parallel regions in the arena: ids, masks and chunks are right at any depth, never more than P threads
compute, and never fewer while there is work.
"""

from __future__ import annotations

import pytest
from fresh import check_fresh
from numba_kernels import check_numba

START = """
import threading, time
import numba
import composable_threads as c
from composable_threads import _native
from numba_kernels import *

def wait_for(condition):
    while not condition():
        time.sleep(0.001)

def at_once(count, run):
    \"\"\"`run` in `count` threads of the program.\"\"\"
    errors = []
    ready = threading.Barrier(count)
    def body():
        ready.wait()
        try:
            run()
        except BaseException as error:
            errors.append(error)
    threads = [threading.Thread(target=body) for _ in range(count)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    assert not errors, errors
"""

# --- ids, masks, updates, peak


@pytest.mark.parametrize("threads", [1, 2, 4, 8])
@pytest.mark.parametrize("slots", [1, 2, 3, 4, 8])
def test_ids_masks_and_updates_are_right_at_any_depth(slots, threads):
    check_numba(START + f"""
for mask in range(1, {threads} + 1):
    numba.set_num_threads(mask)
    for region, n in ((leaf, 100), (nest2, 10), (nest3, 5), (nest4, 3)):
        for rounds in (20, 5000):
            gauge = new_gauge()
            region(n, rounds, gauge)
            check_gauge(gauge, {slots})
            assert (numba.get_num_threads(), numba.get_thread_id()) == (mask, 0)
assert c.info()["peak_running"] <= {slots}
""", slots=slots, threads=threads)  # fmt: skip


@pytest.mark.parametrize("slots", [1, 2, 3, 4, 8])
def test_threads_of_the_program_share_the_arena(slots):
    check_numba(START + f"""
for count in (1, 2, 3, 4, 8, 64):
    c.reset_peak()
    gauge = new_gauge()
    def run():
        for region, n in ((leaf, 50), (nest2, 6), (nest3, 4)):
            region(n, 20_000 // count, gauge)
            assert numba.get_thread_id() == 0
            assert numba.get_num_threads() == 4
    at_once(count, run)
    check_gauge(gauge, max({slots}, count))
    assert c.info()["peak_running"] <= max({slots}, count)
""", slots=slots)  # fmt: skip


@pytest.mark.parametrize("slots", [2, 3])
def test_thread_of_the_program_takes_the_place_of_a_helper(slots):
    check_numba(START + f"""
# The first comes alone and has helpers when the others come.
gauge, ended = new_gauge(), threading.Event()
def first():
    while not ended.is_set():
        leaf(500, 10_000, gauge)
thread = threading.Thread(target=first)
thread.start()
wait_for(lambda: gauge[MOST] == {slots})
for _ in range(10):
    at_once({slots} - 1, lambda: leaf(50, 10_000, gauge))
ended.set()
thread.join()
check_gauge(gauge, {slots})
assert c.info()["peak_running"] <= {slots}
""", slots=slots)  # fmt: skip


def test_masks_of_the_threads_of_the_program_are_their_own():
    check_numba(START + """
wanted = iter([1, 2, 3, 4] * 2)
lock = threading.Lock()
def run():
    assert numba.get_num_threads() == 4  # of a new thread
    with lock:
        mask = next(wanted)
    numba.set_num_threads(mask)
    for _ in range(20):
        gauge = new_gauge()
        nest2(6, 500, gauge)
        check_gauge(gauge, 8)
        assert numba.get_num_threads() == mask
at_once(8, run)
assert numba.get_num_threads() == 4
""", slots=4)  # fmt: skip


def test_body_that_sets_the_mask_narrows_its_nested_regions_only():
    check_numba(START + """
@njit(parallel=True)
def masks(n, seen, gauge):
    for i in prange(n):
        numba.set_num_threads(1 + i % 3)
        leaf(20, 200, gauge)
        seen[i] = numba.get_num_threads()
seen = np.zeros(30, np.int64)
for _ in range(20):
    gauge = new_gauge()
    masks(30, seen, gauge)
    check_gauge(gauge, 4)
    assert (seen == 1 + np.arange(30) % 3).all()
    assert (numba.get_num_threads(), numba.get_parallel_chunksize()) == (4, 0)
""", slots=4)  # fmt: skip


# --- never idle


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize(("n", "first"), [(2, 0), (3, 1), (4, 2), (64, 0), (1000, 500)])
def test_long_iterations_run_at_once(n, first, deterministic):
    # Nothing tells beforehand that the first one, or the first after many short ones, is long. In two divisions the
    # short ones of (4, 2) and (1000, 500) would be one thread's part, the long ones the other's.
    if deterministic and first > 1:
        first = 0
    check_numba(START + f"""
c.deterministic({deterministic})
for _ in range(3):
    gauge = new_gauge()
    meet({n}, {first}, 2, gauge)
    check_gauge(gauge, 2)
    assert gauge[MOST] == 2, gauge
""", slots=2, threads=2)  # fmt: skip


@pytest.mark.parametrize("n", [8, 64])
def test_loop_that_was_short_so_far_may_be_long_the_next_time(n):
    # As after a call on little data that only compiles.
    check_numba(START + f"""
for _ in range(100): leaf({n}, 1, new_gauge())
gauge = new_gauge()
leaf({n}, 5_000_000, gauge)
check_gauge(gauge, 2)
assert gauge[MOST] == 2, gauge
""", slots=2, threads=2)  # fmt: skip


def test_few_long_items_of_a_gufunc_run_at_once():
    check_numba(START + """
@guvectorize(["void(i8, i8[:], i8[:])"], "(),(n)->()", target="parallel")
def item(wanted, gauge, out):
    atomic_max(gauge, MOST, atomic_add(gauge, NOW, 1) + 1)
    until(MOST, wanted, gauge)
    atomic_add(gauge, NOW, -1)
    out[0] = 1
gauge = new_gauge()
assert item(np.full(2, 2), gauge).sum() == 2
check_gauge(gauge, 2)
assert gauge[MOST] == 2, gauge
""".replace("@guv", "from numba import guvectorize\n@guv", 1), slots=2, threads=2)  # fmt: skip


def test_region_that_began_narrow_widens_when_others_end():
    check_numba(START + """
first, second = new_gauge(), new_gauge()
thread = threading.Thread(target=hold, args=(4, first))
thread.start()
wait_for(lambda: first[MOST] == 2)  # both slots are taken
later = threading.Thread(target=meet, args=(40, 0, 2, second))
later.start()
wait_for(lambda: second[MOST] >= 1)
first[SIGNAL] = 1
thread.join()
later.join()
check_gauge(second, 2)
assert second[MOST] == 2, second
""", slots=2, threads=2)  # fmt: skip


@pytest.mark.parametrize("caller", ["thread", "task"])
def test_caller_that_waits_leaves_its_slot_to_others(caller):
    check_numba(START + f"""
from numba import parallel_chunksize
@njit(parallel=True, nogil=True)
def apart(gauge):
    # The helper's iteration outlasts the caller's. Without a chunk size the caller would run both, found short.
    with parallel_chunksize(1):
        for _ in prange(2):
            atomic_max(gauge, MOST, atomic_add(gauge, NOW, 1) + 1)
            until(MOST, 2, gauge)
            if get_thread_id() > 0:
                until(SIGNAL, 1, gauge)
            atomic_add(gauge, NOW, -1)
executor = c.Executor()
for _ in range(3):
    gauge = new_gauge()
    if "{caller}" == "task":
        region = executor.submit(apart, gauge)
    else:
        thread = threading.Thread(target=apart, args=(gauge,))
        thread.start()
    wait_for(lambda: gauge[MOST] == 2)
    executor.submit(gauge.__setitem__, SIGNAL, 1).result()
    region.result() if "{caller}" == "task" else thread.join()
    gauge[SIGNAL] = 0
    check_gauge(gauge, 2)
assert c.info()["peak_running"] <= 2
""", slots=2, threads=2)  # fmt: skip


# --- chunks


@pytest.mark.parametrize("chunk", [0, 1, 3, 7, 100, 1000])
def test_chunk_size_decides_how_items_are_cut(chunk):
    # The kernel's side of the ABI: what it is called with.
    check_numba(f"""
    import ctypes
    from composable_threads._native import numba as abi
    size_t, pointer = ctypes.c_size_t, ctypes.c_void_p
    KERNEL = ctypes.CFUNCTYPE(None, *[ctypes.POINTER(size_t)] * 3, pointer)
    parallel_for = ctypes.CFUNCTYPE(None, *[pointer] * 5, size_t, size_t, ctypes.c_ssize_t)(abi.parallel_for)
    set_chunk = ctypes.CFUNCTYPE(size_t, size_t)(abi.set_parallel_chunksize)
    get_chunk = ctypes.CFUNCTYPE(size_t)(abi.get_parallel_chunksize)
    get_id = ctypes.CFUNCTYPE(ctypes.c_ssize_t)(abi.get_thread_id)
    for count in (1, 2, 99, 100, 4097):
        for arrays in (1, 3, 40):
            calls, wrong = [], []
            def kernel(args, dims, steps, data):
                begin = args[0] // 16
                expected = [(16 * begin, 2**64 - 8 * begin)[array % 2] % 2**64 for array in range(arrays)]
                if args[:arrays] != expected or dims[1] != 7 or get_chunk() != 0 or not 0 <= get_id() < 4:
                    wrong.append((args[:arrays], dims[1], get_chunk(), get_id()))
                calls.append((begin, dims[0]))
            args = (size_t * arrays)()
            steps = (size_t * arrays)(*[(16, 2**64 - 8)[array % 2] for array in range(arrays)])
            dims = (size_t * 2)(count, 7)
            assert set_chunk({chunk}) == 0
            parallel_for(KERNEL(kernel), args, dims, steps, None, 1, arrays, 4)
            assert set_chunk(0) == {chunk}
            assert not wrong, wrong
            assert sorted(calls)[0][0] == 0
            covered = 0
            for begin, length in sorted(calls):
                assert begin == covered
                covered += length
            assert covered == count
            if {chunk} and count > 4:  # no more items than threads: each has an id of its own
                assert all(length == {chunk} for begin, length in sorted(calls)[:-1])
    """, slots=3)  # fmt: skip


@pytest.mark.parametrize("n", [12, 40])
def test_chunks_are_taken_one_by_one_by_whoever_is_free(n):
    # One iteration lasts until all the others are done: nothing may be queued behind it.
    check_numba(START + f"""
numba.set_parallel_chunksize(1)
for slow in range(0, {n}, 3):
    gauge = new_gauge()
    outlast({n}, slow, gauge)
    assert gauge[LATE] == 0, (slow, gauge)
    assert numba.get_parallel_chunksize() == 1
""", slots=2, threads=2)  # fmt: skip


# --- tasks, threads


def test_ids_and_masks_do_not_leak_from_task_to_task():
    check_numba(START + """
def task(number):
    found = numba.get_thread_id(), numba.get_num_threads(), numba.get_parallel_chunksize()
    numba.set_num_threads(1 + number % 4)
    numba.set_parallel_chunksize(number)
    gauge = new_gauge()
    nest2(5, 500, gauge)
    check_gauge(gauge, 3)
    assert numba.get_num_threads() == 1 + number % 4
    assert numba.get_parallel_chunksize() == number
    return found
numba.set_num_threads(2)
with c.Executor() as executor:
    assert set(executor.map(task, range(60))) == {(0, 4, 0)}
assert numba.get_num_threads() == 2
assert c.info()["peak_running"] <= 3
""", slots=3)  # fmt: skip


def test_nested_regions_of_tasks_and_threads_do_not_exceed_the_arena():
    check_numba(START + """
gauge = new_gauge()
with c.Executor() as executor:
    futures = [executor.submit(nest3, 4, 3000, gauge) for _ in range(20)]
    for future in futures: future.result()
check_gauge(gauge, 2)
assert c.info()["peak_running"] <= 2
""", slots=2)  # fmt: skip


def test_threads_do_not_grow_over_a_thousand_regions():
    check_numba(START + """
import os
def alive():
    return sorted(open(f"/proc/self/task/{task}/comm").read() for task in os.listdir("/proc/self/task"))
gauge = new_gauge()
nest3(6, 20_000, gauge)
meet(20, 0, 2, gauge)
before = len(alive())
def run():
    for number in range(125):
        (leaf, nest2)[number % 2](8, 2000, gauge)
at_once(8, run)
for _ in range(500):  # spares that nobody needs end
    if len(alive()) <= before: break
    time.sleep(0.01)
assert len(alive()) <= before, (before, alive())
""", slots=4)  # fmt: skip


def test_a_loop_that_was_tiny_and_becomes_large_is_shared():
    # What a loop costs is remembered per iteration; a tiny one is left whole, which a large one must not be.
    code = """
    import numba, numpy as np
    from composable_threads import _native
    _native.configure(2)
    @numba.njit(parallel=True, nogil=True)
    def ids(out):
        for i in numba.prange(out.size):
            x = 1.0 + i
            for _ in range(200):
                x = np.sqrt(x + 1.0)
            out[i] = numba.get_thread_id() if x > 0 else 9
    for _ in range(1000):
        ids(np.zeros(2))
    large = np.zeros(500_000)
    ids(large)
    print(sorted(set(large)))
    """
    assert (
        check_fresh(code, env={"NUMBA_THREADING_LAYER": "composable", "NUMBA_NUM_THREADS": "2"})
        == "[np.float64(0.0), np.float64(1.0)]\n"
    )

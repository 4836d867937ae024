"""Numba regions without nested pools: ``regions.py CASE [SIZE]``, wall time of one region of the case.

Nothing here knows of any layer: it is chosen by NUMBA_THREADING_LAYER.
"""

from __future__ import annotations

import ctypes
import math
import sys
import threading
import time

import numpy as np
from measure import measure
from numba import guvectorize, njit, prange, vectorize


@njit(parallel=True, nogil=True)
def fill(out):
    for i in prange(out.size):
        out[i] = i


@njit(nogil=True)
def fill_often(out, regions):
    for _ in range(regions):
        fill(out)


libc = ctypes.CDLL(None)
usleep, clock_gettime = libc.usleep, libc.clock_gettime
usleep.argtypes, clock_gettime.argtypes = [ctypes.c_uint], [ctypes.c_int, ctypes.c_void_p]


@njit(nogil=True)
def fill_beside(out, regions, stamps):
    usleep(2_000)  # the busy thread has the GIL from here on
    clock_gettime(1, stamps[0].ctypes)
    for _ in range(regions):
        fill(out)
    clock_gettime(1, stamps[1].ctypes)


@njit(parallel=True, nogil=True)
def nest(outs, regions):
    for i in prange(outs.shape[0]):
        for _ in range(regions):
            fill(outs[i])


@njit(parallel=True, nogil=True)
def work(a, out):
    for i in prange(out.size):
        x = a[i]
        for _ in range(4):
            x = math.sqrt(x + 1.0)
        out[i] = x


@njit(nogil=True)
def work_often(a, out, regions):
    for _ in range(regions):
        work(a, out)


@njit(parallel=True, nogil=True)
def triangle(a):
    total = 0.0
    for i in prange(a.size):
        x = 0.0
        for j in range(i):
            x += math.sqrt(a[j] + i)
        total += x
    return total


@njit(parallel=True, nogil=True)
def copy(a, out):
    for i in prange(out.size):
        out[i] = a[i] + 1.0


def empty(_):
    out = np.zeros(8)
    return (lambda: fill_often(out, 20_000)), 20_000


def small(_):
    out = np.zeros(1_000)
    return (lambda: fill_often(out, 20_000)), 20_000


def nested(_):
    outs = np.zeros((2, 8))
    return (lambda: nest(outs, 20_000)), 20_000


def after_idling(_):
    """The sleep itself is not counted: `measure` is told the time of the regions alone."""
    out = np.zeros(100_000)
    a = np.random.rand(out.size)
    work(a, out)
    spent = []

    def run():
        spent.clear()
        for _ in range(30):
            time.sleep(0.01)
            start = time.perf_counter()
            fill(out[:8])
            spent.append(time.perf_counter() - start)

    return run, lambda: sorted(spent)[len(spent) // 2]


def busy_python(_):
    """Time is taken where the GIL is not held: what it costs to get it back at the end is the program's own matter."""
    out, stop = np.zeros(8), threading.Event()
    stamps = np.zeros((2, 2), np.int64)  # seconds, nanoseconds

    def spin():
        while not stop.is_set():
            sum(range(100))

    threading.Thread(target=spin, daemon=True).start()
    fill_beside(out, 1, stamps)

    def seconds():
        (first_s, first_ns), (last_s, last_ns) = stamps.tolist()
        return ((last_s - first_s) + (last_ns - first_ns) * 1e-9) / 50

    return (lambda: fill_beside(out, 50, stamps)), seconds


def sweep(elements):
    out = np.zeros(elements)
    a = np.random.rand(elements)
    regions = max(3, 6_000_000 // elements)
    return (lambda: work_often(a, out, regions)), regions


def triangular(chunk):
    from numba import set_parallel_chunksize

    a = np.random.rand(12_000)
    set_parallel_chunksize(chunk)
    return (lambda: triangle(a)), 1


def memory_bound(_):
    a = np.random.rand(4_000_000)
    out = np.zeros_like(a)
    # The first few calls find the data in nobody's cache, whatever the layer.
    return (lambda: [copy(a, out) for _ in range(20)]), 20


def compute_bound(_):
    return sweep(2_000_000)


def vectorize_cheap(_):
    add = vectorize(["float64(float64, float64)"], target="parallel")(lambda a, b: a + b)
    a = np.random.rand(1_000_000)
    out = np.zeros_like(a)
    return (lambda: [add(a, a, out) for _ in range(20)]), 20


def vectorize_dear(_):
    def body(a, b):
        x = a
        for _ in range(20):
            x = math.sqrt(x + b)
        return x

    dear = vectorize(["float64(float64, float64)"], target="parallel")(body)
    a = np.random.rand(1_000_000)
    out = np.zeros_like(a)
    return (lambda: dear(a, a, out)), 1


def guvectorize_rows(_):
    def body(row, out):
        total = 0.0
        for value in row:
            total += math.sqrt(value)
        out[0] = total

    rows = guvectorize(["void(float64[:], float64[:])"], "(n)->()", target="parallel")(body)
    a = np.random.rand(2_000, 500)
    out = np.zeros(2_000)
    return (lambda: [rows(a, out) for _ in range(10)]), 10


if __name__ == "__main__":
    run, scale = globals()[sys.argv[1]](int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    measure(run, scale=scale)

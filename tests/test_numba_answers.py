"""Every shape of parallel loop and ufunc gives the serial answer, for any mask, chunk size and size of the arena."""

from __future__ import annotations

import pytest
from numba_kernels import check_numba

# Each function is compiled twice, with parallel=True and without; arguments are made anew for each call.
LOOPS = """
import itertools, math
import numba
import numpy as np
from numba import prange

def doubled(n):
    out = np.zeros(n)
    for i in prange(n):
        out[i] = 2 * i
    return out

def between(start, stop):
    out = np.zeros(100, np.int64)
    for i in prange(start, stop):
        out[i] += i + 1
    return out

def unsigned(n):
    out = np.zeros(n)
    for i in prange(np.uint64(n)):
        out[np.intp(i)] = i * 3
    return out

def reductions(x):
    total, product, least, most, bits = 0.0, 1.0, np.inf, -np.inf, 0
    for i in prange(x.size):
        total += x[i]
        product *= 1 + x[i] / 1024
        least = min(least, x[i])
        most = max(most, x[i])
        bits += int(x[i]) & 3
    return np.array([total, product, least, most, bits])

def array_reduction(x):
    rows = np.zeros(3)
    for i in prange(x.shape[0]):
        rows += x[i]
    return rows

def two_dimensions(a):
    return np.sqrt(a) + a[:, ::-1] * 2

def three_dimensions(n, m, k):
    out = np.zeros((n, m, k))
    for i in prange(n):
        for j in prange(m):
            for l in prange(k):
                out[i, j, l] = i * 100 + j * 10 + l
    return out

def triangle(n):
    out = np.zeros(n)
    for i in prange(n):
        for j in range(i):
            out[i] += j
    return out

def expressions(x):
    return (x[::-1] + 1).sum() + np.where(x > 3, x, -x)[::2].mean() + (x * x).max() + x.argmin()

def histogram(x):
    counts = np.zeros(5, np.int64)
    for i in prange(x.size):
        one = np.zeros(5, np.int64)
        one[int(x[i]) % 5] = 1
        counts += one
    return counts

X = lambda n: np.arange(n, dtype=float) * 7 % 11 + 1
CALLS = [
    (doubled, [(n,) for n in (0, 1, 2, 3, 5, 31, 32, 33, 1000, 40_000)]),
    (between, [(0, 0), (5, 5), (9, 3), (-100, -90), (-3, 4), (0, 1), (0, 100), (17, 99)]),
    (unsigned, [(n,) for n in (0, 1, 7, 1000)]),
    (reductions, [(X(n),) for n in (1, 2, 7, 100, 3000)] + [(X(4000)[::-3],), (X(0),)]),
    (array_reduction, [(X(3 * n).reshape(n, 3),) for n in (0, 1, 5, 1000)] + [(X(3000).reshape(1000, 3)[::-1],)]),
    (two_dimensions, [(X(n * m).reshape(n, m),) for n, m in ((1, 1), (1, 500), (500, 1), (3, 7), (60, 70), (0, 4))]),
    (three_dimensions, [(1, 1, 1), (2, 3, 4), (30, 1, 20), (1, 40, 40), (17, 13, 11), (3, 0, 5)]),
    (triangle, [(n,) for n in (1, 33, 600)]),
    (expressions, [(X(n),) for n in (1, 10, 5001)] + [(X(900)[::-2],)]),
    (histogram, [(X(n),) for n in (0, 1, 2000)]),
]
SERIAL = [(numba.njit(function), calls) for function, calls in CALLS]
PARALLEL = [numba.njit(parallel=True)(function) for function, calls in CALLS]
EXPECTED = [[serial(*args) for args in calls] for serial, calls in SERIAL]

from composable_threads import _native
for mask, chunk in itertools.product((1, 2, 3, 5, 8), (0, 1, 3, 1000)):
    numba.set_num_threads(mask)
    numba.set_parallel_chunksize(chunk)
    for (function, calls), parallel, expected in zip(CALLS, PARALLEL, EXPECTED):
        for args, answer in zip(calls, expected):
            found = parallel(*args)
            np.testing.assert_allclose(found, answer, rtol=1e-12, err_msg=f"{function.__name__} {mask} {chunk}")
    assert (numba.get_num_threads(), numba.get_parallel_chunksize()) == (mask, chunk)
"""

UFUNCS = """
import itertools
import numba
import numpy as np

@numba.vectorize(["f8(f8,f8)", "i8(i8,i8)"], target="parallel")
def combine(x, y):
    return x * 2 + y

@numba.guvectorize(["void(f8[:], f8[:], f8[:])"], "(n),(n)->()", target="parallel")
def dot(x, y, out):
    out[0] = (x * y).sum()

@numba.guvectorize(["void(f8[:,:], f8[:], f8[:])"], "(m,n),(n)->(m)", target="parallel")
def apply(a, x, out):
    for i in range(a.shape[0]):
        out[i] = (a[i] * x).sum()

@numba.guvectorize(["void(f8[:], i8, f8[:])"], "(n),()->(n)", target="parallel")
def roll(x, by, out):
    for i in range(x.size):
        out[i] = x[(i + by) % x.size]

rng = np.random.default_rng(0)
for mask, chunk in itertools.product((1, 2, 5, 8), (0, 1, 7, 5000)):
    numba.set_num_threads(mask)
    numba.set_parallel_chunksize(chunk)
    for n in (0, 1, 2, 7, 100, 4095, 4096, 20_000):
        x, y = rng.random((2, n))
        same = np.testing.assert_array_equal
        same(combine(x, y), x * 2 + y)
        same(combine(x[::-1], y), x[::-1] * 2 + y)
        same(combine(x, 3.0), x * 2 + 3)
        same(combine(2.5, y), 5 + y)
        same(combine(x.astype(np.float32), y), x.astype(np.float32) * 2.0 + y)
        same(combine((x * 99).astype(np.int16), np.int8(3)), (x * 99).astype(np.int16).astype(np.int64) * 2 + 3)
        same(combine(x[:, None][:50], y[:50]), x[:50, None] * 2 + y[:50])
        expected = x * 2 + y
        combine(x, y, out=x)
        same(x, expected)
    for rows in (0, 1, 2, 3, 9, 500):
        a, x = rng.random((rows, 6, 4)), rng.random(4)
        np.testing.assert_allclose(apply(a, x), a @ x)
        np.testing.assert_allclose(apply(a[::-1], x), a[::-1] @ x)
        b = rng.random((rows, 5))
        np.testing.assert_allclose(dot(b, b[0] if rows else np.ones(5)), b @ (b[0] if rows else np.ones(5)))
        np.testing.assert_allclose(dot(b.T.copy().T, b), (b * b).sum(axis=1))
        by = np.arange(rows)
        same(roll(b, by), np.array([np.roll(row, -shift) for row, shift in zip(b, by)]).reshape(rows, 5))
    assert (numba.get_num_threads(), numba.get_parallel_chunksize()) == (mask, chunk)
"""


def test_parallel_loops_give_the_serial_answers():
    check_numba(LOOPS, slots=3, threads=8)


@pytest.mark.parametrize("slots", [1, 3])
def test_parallel_ufuncs_give_the_answers_of_numpy(slots):
    check_numba(UFUNCS, slots=slots, threads=8)

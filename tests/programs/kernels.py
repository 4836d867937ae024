"""The Numba regions of programs: whole numbers, so exact answers, and a count of the threads that compute at once."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import guvectorize, njit, objmode, prange
from numba_kernels import MOST, NOW, atomic_add, atomic_max, new_gauge

gauge = new_gauge()


@njit
def enter(gauge):
    atomic_max(gauge, MOST, atomic_add(gauge, NOW, 1) + 1)


@njit
def leave(gauge):
    atomic_add(gauge, NOW, -1)


@njit(parallel=True, nogil=True)
def region(n, gauge):
    total = 0
    for i in prange(n):
        enter(gauge)
        total += i
        leave(gauge)
    return total


@njit(parallel=True, nogil=True)
def row(i, m, gauge):
    total = 0
    for j in prange(m):
        enter(gauge)
        total += i + j
        leave(gauge)
    return total


@njit(parallel=True, nogil=True)
def nested(n, m, gauge):
    total = 0
    for i in prange(n):
        total += row(i, m, gauge)
    return total


@guvectorize(["(int64[:], int64[:])"], "(n)->()", target="parallel", nopython=True)
def row_sums(x, out):
    total = 0
    for i in range(x.shape[0]):
        total += x[i]
    out[0] = total


@njit
def checked(i, at):  # a loop with a raise in itself is not parallel
    if i == at:
        raise ValueError(i)
    return i


@njit(parallel=True, nogil=True)
def bad(n, at):
    out = np.zeros(n, np.int64)
    for i in prange(n):
        out[i] = checked(i, at)
    return out.sum()


# A region takes no Python objects: what its iterations call waits here under a number.
_calls: dict[int, tuple[list[Callable[[], int]], list[BaseException]]] = {}
_numbers = itertools.count()


def call(number: int, i: int) -> int:
    calls, errors = _calls[number]
    try:
        return calls[i]()
    except BaseException as error:
        errors.append(error)
        return 0


@njit(parallel=True)
def objects(number, n):
    total = 0
    for i in prange(n):
        with objmode(result="int64"):
            result = call(number, i)
        total += result
    return total


def run_objects(calls: list[Callable[[], int]]) -> int:
    """The sum of what the iterations of a region get from Python; the first error of one."""
    number, errors = next(_numbers), []
    _calls[number] = calls, errors
    try:
        total = objects(number, len(calls))
    finally:
        del _calls[number]
    if errors:
        raise errors[0]
    return int(total)


def run_bad(n: int, at: int) -> Any:
    try:
        return bad(n, at)
    except SystemError as error:  # how CPython shows an error that another thread of the region set
        raise (error.__cause__ or error) from None


def compile_all() -> None:
    region(1, gauge), nested(1, 1, gauge), run_objects([int])
    row_sums(np.ones((1, 8), np.int64))
    try:  # the call that compiles loses the error in Numba itself
        bad(2, -1)
    except SystemError:
        pass
    gauge[:] = 0

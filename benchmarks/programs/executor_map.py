"""``map`` of a call that does nothing, each call a task: ``executor_map.py COUNT composable|stock|pool``."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.pool import ThreadPool

from measure import measure

CALLS = 200_000  # about so many are measured altogether


def nothing(_):
    return None


def composable(count):
    from composable_threads import Executor

    return executor(Executor(2), count)


def stock(count):
    return executor(ThreadPoolExecutor(2), count)


def executor(executor, count):
    return lambda: list(executor.map(nothing, range(count)))


def pool(count):
    pool = ThreadPool(2)
    return lambda: pool.map(nothing, range(count), chunksize=1)


if __name__ == "__main__":
    count, kind = int(sys.argv[1]), sys.argv[2]
    measure(globals()[kind](count), max(3, min(50, CALLS // count)), count)

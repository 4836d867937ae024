"""How long a fork takes in the parent: ``fork.py fresh|idle|tasks|region``. Nothing here knows of any cure."""

from __future__ import annotations

import os
import statistics
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from kernel import square_roots
from measure import measure

FORKS = 100


def fresh():
    return lambda: None


def idle():
    pool, kernel, a = ThreadPoolExecutor(2), square_roots(), np.random.rand(200_000)
    kernel(a, 2)
    list(pool.map(abs, range(100)))
    return pool.shutdown


def tasks():
    """Two that hold no lock of the interpreter's."""
    pool, stop = ThreadPoolExecutor(2), threading.Event()

    def work(a):
        while not stop.is_set():
            np.sort(a)

    futures = [pool.submit(work, np.random.rand(1_000_000)) for _ in range(2)]
    return lambda: (stop.set(), [future.result() for future in futures])


def region():
    kernel, a, stop = square_roots(), np.random.rand(200_000), threading.Event()
    kernel(a, 2)

    def work():
        while not stop.is_set():
            kernel(a, 50)

    thread = threading.Thread(target=work)
    thread.start()
    return lambda: (stop.set(), thread.join())


def fork_often():
    took.clear()
    for _ in range(FORKS):
        begun = time.perf_counter()
        child = os.fork()
        if child == 0:
            os._exit(0)
        took.append(time.perf_counter() - begun)
        os.waitpid(child, 0)


if __name__ == "__main__":
    took: list[float] = []
    end = globals()[sys.argv[1]]()
    measure(fork_often, scale=lambda: statistics.median(took), end=end)

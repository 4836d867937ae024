"""How soon a program is left: ``leaving.py exit|ctrl-c NAME``. Nothing here knows of any cure."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from measure import measure

TASKS, TASK_S = 200, 0.01


# --- programs that end


def idle(pool):
    pool.submit(abs, -1).result()


def queued(pool):
    for i in range(1_000):
        pool.submit(abs, i)
    sys.exit(3)


def daemon(pool):
    futures = [pool.submit(time.sleep, TASK_S) for _ in range(10)]
    threading.Thread(target=lambda: [future.result() for future in futures], daemon=True).start()


def error(pool):
    idle(pool)
    raise LookupError("as intended")


def generator(pool):
    global left  # until the interpreter is finalised
    left = pool.map(abs, range(100))
    next(left)


def ending(name):
    try:
        globals()[name](ThreadPoolExecutor(2))
    finally:
        print(time.time(), flush=True)


def exits(name):
    done = subprocess.run(
        [sys.executable, *sys.orig_argv[1:-2], "ending", name],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=False,
    )
    took.append(time.time() - float(done.stdout))
    expected = {"queued": 3, "error": 1}.get(name, 0)
    if done.returncode != expected:
        raise SystemExit(f"{name}: exit code {done.returncode}, not {expected}")


# --- calls that are interrupted


def region():
    from numba import njit, prange

    @njit(parallel=True, nogil=True)
    def work(n, rounds):
        out = 0.0
        for i in prange(n):
            x = float(i)
            for _ in range(rounds):
                x = (x * x + 1.0) ** 0.5
            out += x
        return out

    work(1, 1)
    begun = time.perf_counter()
    work(1, 100_000)
    rounds = int(100_000 * TASK_S / (time.perf_counter() - begun))
    return lambda: work(TASKS, rounds)


def joblib(return_as="list"):
    from joblib import Parallel, delayed

    def call():
        return list(Parallel(2, "threading", return_as)(delayed(time.sleep)(TASK_S) for _ in range(TASKS)))

    return call


def joblib_generator():
    return joblib("generator")


def dask():
    from dask import compute, delayed

    tasks = [delayed(time.sleep, pure=False)(TASK_S) for _ in range(TASKS)]
    return lambda: compute(*tasks, scheduler="threads", num_workers=2)


def executor():
    pool = ThreadPoolExecutor(2)
    return lambda: list(pool.map(time.sleep, [TASK_S] * TASKS))


def interrupted(call):
    def interrupt():
        sent.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)

    sent: list[float] = []
    timer = threading.Timer(0.2, interrupt)
    timer.start()
    try:
        call()
        time.sleep(60)  # where the call was not interrupted
    except KeyboardInterrupt:
        took.append(time.perf_counter() - sent[0])
    timer.join()


if __name__ == "__main__":
    kind, name = sys.argv[1:]
    took: list[float] = []
    if kind == "ending":
        ending(name)
    elif kind == "exit":
        measure(lambda: exits(name), scale=lambda: took[-1])
    else:
        call = globals()[name]()
        measure(lambda: interrupted(call), scale=lambda: took[-1])

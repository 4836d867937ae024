"""Doors to the arena beside the stock part that each stands for, for tests of what users look at tasks with.

Code of fresh processes begins with `DOORS`; ``through[door](task, items)`` runs ``task(item)`` for all items, each as a task
of its own, two at a time, and gives the results in order.
"""

from __future__ import annotations

NAMES = ["executor", "activated", "pool", "joblib", "dask"]

DOORS = """
import sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.pool import ThreadPool
import dask, joblib
import composable_threads as c
from composable_threads import _native
_native.configure(2)

def by_executor(make):
    def run(task, items):
        with make(2) as executor:
            return [future.result() for future in [executor.submit(task, item) for item in items]]
    return run

def by_pool(make):
    def run(task, items):
        with make(2) as pool:
            return pool.map(task, items, chunksize=1)
    return run

def by_joblib(backend):
    def run(task, items):
        with joblib.parallel_config(backend, n_jobs=2):
            return joblib.Parallel(batch_size=1)(joblib.delayed(task)(item) for item in items)
    return run

def by_dask(scheduler):
    def run(task, items):
        calls = [dask.delayed(task, pure=False)(item) for item in items]
        return list(dask.compute(*calls, scheduler=scheduler, num_workers=2))
    return run

def by_activated(task, items):
    with c.activate():
        return by_executor(ThreadPoolExecutor)(task, items)

through = {"executor": by_executor(c.Executor), "activated": by_activated, "pool": by_pool(c.ThreadPool),
           "joblib": by_joblib("composable"), "dask": by_dask("composable")}
stock = {"executor": by_executor(ThreadPoolExecutor), "activated": by_executor(ThreadPoolExecutor),
         "pool": by_pool(ThreadPool), "joblib": by_joblib("threading"), "dask": by_dask("threads")}

def at_once(task):
    # Each of two tasks waits for the other, so both of two threads run one.
    barrier = threading.Barrier(2)
    def run(item):
        barrier.wait(30)
        return task(item)
    return run
"""

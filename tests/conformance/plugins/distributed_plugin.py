"""Gives workers of distributed's own tests the arena in the place of their threads: ``pytest -p distributed_plugin``.

Workers of the test's process get it when they are made, unless the test gives them an executor; nannies' keep theirs.
"""

from __future__ import annotations

import functools
import threading

import record
from composable_threads import _native
from composable_threads.dask_backend import ArenaThreadPoolExecutor, worker_process
from distributed import utils_test
from distributed.utils_test import cleanup, loop, loop_in_thread  # noqa: F401  # fixtures that Joblib's tests want
from distributed.worker import Worker


def replace():
    stock = Worker.__init__

    @functools.wraps(stock)
    def __init__(self, *args, executor=None, **kwargs):
        stock(self, *args, executor=executor, **kwargs)
        if executor is None or (isinstance(executor, dict) and "default" not in executor):
            prefix = self.executors["default"]._thread_name_prefix
            self.executors["default"] = CountedThreadPoolExecutor(self.state.nthreads, prefix)

    Worker.__init__ = __init__
    utils_test.threading = OwnThreads()


class OwnThreads:
    """In the place of `threading` where distributed looks for threads that a test leaves behind: the arena's stay."""

    @staticmethod
    def enumerate():
        return [thread for thread in threading.enumerate() if not isinstance(thread, threading._DummyThread)]

    def __getattr__(self, name):
        return getattr(threading, name)


class CountedThreadPoolExecutor(ArenaThreadPoolExecutor):
    def submit(self, fn, /, *args, **kwargs):
        record.used()
        return super().submit(fn, *args, **kwargs)


if not record.STOCK:
    # Workers of all sizes follow one another here, so none of them chooses the arena's.
    _native.configure(4)
    worker_process._choose_slots = lambda: None
    replace()

"""``ThreadPool``: the interface of ``multiprocessing.pool.ThreadPool`` onto the arena."""

from __future__ import annotations

import multiprocessing.pool as stock
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from . import _native
from ._blocking import blocking
from .executor import check_workers


class ThreadPool(stock.ThreadPool):
    """A thread pool whose tasks run in the arena: `apply`, `map`, `imap`, `starmap` and their kin as in the original.

    Parameters
    ----------
    processes : int, optional
        At most so many of its tasks at once; default: the number of CPUs, as in the original. More than the arena's
        size run only while others are blocked.
    initializer, initargs : callable, tuple, optional
        Called once in every thread before it runs its first task of this pool.

    The iterable of a `map` without a length and of an `imap` is consumed as tasks start, by the threads that run them.

    Raises
    ------
    ValueError, TypeError
        For a `processes` that is not a whole number above 0, an `initializer` that is not callable.
    """

    def __init__(self, processes: int | None = None, initializer: Callable | None = None, initargs: tuple = ()):
        if processes is not None and check_workers(processes, "processes") is None:
            raise ValueError("processes must be greater than 0")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        # What the methods of the original look at. No threads are started, so its own __init__ is left out.
        self._state = stock.RUN
        self._cache: dict[int, Any] = {}
        self._processes = processes or os.cpu_count() or 1
        self._pool = range(self._processes)  # its length decides the chunk size of a map
        self._initializer = initializer
        self._initargs = initargs
        self._prepared = threading.local()
        self._group = _native.TaskGroup(self._processes)
        self._taskqueue = _Feeder(self)
        self._result_lock = threading.RLock()

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__qualname__} state={self._state} processes={self._processes}>"

    def __del__(self, _warn: Any = None, RUN: str = stock.RUN) -> None:  # noqa: N803
        pass  # nothing to clean up: the threads are the arena's

    def close(self) -> None:
        """Take no more tasks."""
        if self._state == stock.RUN:
            self._state = stock.CLOSE

    def terminate(self) -> None:
        """Drop what has not started. Running tasks go on, as in the original, and nobody waits for them."""
        self._state = stock.TERMINATE
        self._group.drop_queued()

    def join(self) -> None:
        """Wait until every task is done; close() or terminate() comes first."""
        if self._state == stock.RUN:
            raise ValueError("Pool is still running")
        if self._state == stock.TERMINATE:
            return
        self._group.help(run=False)

    # The original's results wait on an event; in a task of ours the permit serves others meanwhile.
    def apply_async(
        self,
        func: Callable,
        args: Iterable = (),
        kwds: dict | None = None,
        callback: Callable | None = None,
        error_callback: Callable | None = None,
    ) -> stock.ApplyResult:
        """As in the original."""
        return _awaitable(super().apply_async(func, args, kwds or {}, callback, error_callback))

    def _map_async(self, *args: Any, **kwargs: Any) -> stock.MapResult:
        return _awaitable(super()._map_async(*args, **kwargs))

    def imap(self, func: Callable, iterable: Iterable, chunksize: int = 1) -> Any:
        """As in the original."""
        return _awaitable(super().imap(func, iterable, chunksize))

    def imap_unordered(self, func: Callable, iterable: Iterable, chunksize: int = 1) -> Any:
        """As in the original."""
        return _awaitable(super().imap_unordered(func, iterable, chunksize))

    def _store(self, job: int, index: int, outcome: tuple[bool, Any]) -> None:
        # The original's results are filled, and its callbacks called, by one thread.
        if not self._result_lock.acquire(blocking=False):
            with blocking():
                self._result_lock.acquire()
        try:
            result = self._cache.get(job)
            if result is not None:
                result._set(index, outcome)
        finally:
            self._result_lock.release()


class _Awaitable:
    def wait(self, timeout: float | None = None) -> None:
        with blocking():
            super().wait(timeout)  # type: ignore[misc]


class _AwaitableIterator:
    def next(self, timeout: float | None = None) -> Any:
        with blocking():
            return super().next(timeout)  # type: ignore[misc]

    __next__ = next


class _ArenaApplyResult(_Awaitable, stock.ApplyResult):
    pass


class _ArenaMapResult(_Awaitable, stock.MapResult):
    pass


class _ArenaIMapIterator(_AwaitableIterator, stock.IMapIterator):
    pass


class _ArenaIMapUnorderedIterator(_AwaitableIterator, stock.IMapUnorderedIterator):
    pass


_AWAITABLE = {
    stock.ApplyResult: _ArenaApplyResult,
    stock.MapResult: _ArenaMapResult,
    stock.IMapIterator: _ArenaIMapIterator,
    stock.IMapUnorderedIterator: _ArenaIMapUnorderedIterator,
}


def _awaitable(result: Any) -> Any:
    kind = _AWAITABLE.get(type(result))
    if kind is not None:
        result.__class__ = kind
    return result


class _Feeder:
    """Stands in for the original's task queue: what is put there goes to the arena.

    The original puts a pair: tasks ``(job, index, func, args, kwargs)``, as a list of one or as a generator, and a function
    to be told how many there were. The generator may be endless, so it is drawn from as tasks run.
    """

    def __init__(self, pool: ThreadPool):
        self._pool = pool

    def put(self, item: tuple[Iterable, Callable[[int], None] | None]) -> None:
        tasks, set_length = item
        if isinstance(tasks, list):
            for task in tasks:
                self._pool._group.submit(_Call(self._pool, task))
            return
        stream = _Stream(self._pool, iter(tasks), set_length)
        for _ in range(self._pool._processes):
            self._pool._group.submit(stream)


class _Stream:
    """Draws one task, goes to the end of the queue again, and runs the task."""

    def __init__(self, pool: ThreadPool, tasks: Iterator, set_length: Callable[[int], None] | None):
        self._pool = pool
        self._tasks: Iterator | None = tasks
        self._set_length = set_length
        self._lock = threading.Lock()
        self._drawn = 0

    def _draw(self) -> Any:
        if not self._lock.acquire(blocking=False):
            with blocking():
                self._lock.acquire()
        try:
            if self._tasks is None:
                return None
            try:
                task = next(self._tasks)
            except BaseException as error:
                self._tasks = None
                if self._set_length is not None:
                    self._set_length(self._drawn)
                if isinstance(error, StopIteration):
                    return None
                raise
            self._drawn += 1
            return task
        finally:
            self._lock.release()

    def __call__(self) -> None:
        if self._pool._state == stock.TERMINATE:
            return
        task = self._draw()
        if task is not None:
            self._pool._group.submit(self)
            _Call(self._pool, task)()


class _Call:
    __slots__ = ("_pool", "_task")

    def __init__(self, pool: ThreadPool, task: tuple):
        self._pool = pool
        self._task = task

    def __call__(self) -> None:
        pool = self._pool
        job, index, func, args, kwargs = self._task
        try:
            if pool._initializer is not None and not getattr(pool._prepared, "done", False):
                pool._initializer(*pool._initargs)
                pool._prepared.done = True
            outcome = (True, func(*args, **kwargs))
        except BaseException as error:
            outcome = (False, error)
        pool._store(job, index, outcome)

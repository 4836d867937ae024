"""``ThreadPool``: the interface of ``multiprocessing.pool.ThreadPool`` onto the arena."""

from __future__ import annotations

import multiprocessing.pool as stock
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from . import _native
from ._blocking import awaiting
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

    As in the original, tasks begin in the order in which they were asked for. The iterable of an `imap` is consumed as its
    tasks begin, by the threads that run them.

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
        self._cache = _Results()
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
        """Drop what has not started. Running tasks go on, as in the original; join() waits for them."""
        self._state = stock.TERMINATE
        self._taskqueue.clear()
        self._group.drop_queued()

    def join(self) -> None:
        """Wait until every task is done; close() or terminate() comes first."""
        if self._state == stock.RUN:
            raise ValueError("Pool is still running")
        self._group.help(run=False)

    def _store(self, job: int, index: int, outcome: tuple[bool, Any]) -> None:
        # The original's results are filled, and its callbacks called, by one thread.
        if not self._result_lock.acquire(blocking=False):
            with awaiting():
                self._result_lock.acquire()
        try:
            result = self._cache.get(job)
            if result is not None:
                result._set(index, outcome)
        finally:
            self._result_lock.release()


# The original's results wait on an event or a condition; in a task of ours the permit serves others meanwhile.


class _Awaitable:
    def wait(self, timeout: float | None = None) -> None:
        if self.ready():  # type: ignore[attr-defined]
            return
        with awaiting():
            super().wait(timeout)  # type: ignore[misc]


class _AwaitableIterator:
    def next(self, timeout: float | None = None) -> Any:
        if self._items:  # type: ignore[attr-defined]
            return super().next(timeout)  # type: ignore[misc]
        with awaiting():
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


class _Results(dict):
    """The original's table of results that are awaited; each enters it when it is made."""

    def __setitem__(self, job: int, result: Any) -> None:
        kind = _AWAITABLE.get(type(result))
        if kind is not None:
            result.__class__ = kind
        super().__setitem__(job, result)


class _Feeder:
    """Stands in for the original's task queue: what is put there goes to the arena.

    The original puts a pair: tasks ``(job, index, func, args, kwargs)``, as a list of one or as a generator, and a function
    to be told how many there were. The generator may be endless, so it is drawn from as tasks run. The group is given
    tickets, all alike: whoever runs one runs the first task that nobody has drawn. There are as many tickets as tasks
    in lists, and for each generator as many more as tasks of it may run at once.
    """

    def __init__(self, pool: ThreadPool):
        self._pool = pool
        self._lock = threading.Lock()
        self._sources: deque[_Source] = deque()  # under the lock

    def put(self, item: tuple[Iterable, Callable[[int], None] | None]) -> None:
        tasks, set_length = item
        streamed = not isinstance(tasks, list)
        self._sources.append(_Source(iter(tasks), set_length, streamed))
        for _ in range(self._pool._processes if streamed else len(tasks)):  # type: ignore[arg-type]
            self._pool._group.submit(self._run_ticket)

    def clear(self) -> None:
        self._sources.clear()

    def _run_ticket(self) -> None:
        task = self._draw()
        if task is not None:
            _run(self._pool, task)

    def _draw(self) -> Any:
        if not self._lock.acquire(blocking=False):
            with awaiting():
                self._lock.acquire()
        try:
            while self._sources and self._pool._state != stock.TERMINATE:
                source = self._sources[0]
                try:
                    task = next(source.tasks)
                except BaseException as error:
                    if self._sources and self._sources[0] is source:
                        self._sources.popleft()
                    if source.set_length is not None:
                        source.set_length(source.drawn)
                    if isinstance(error, StopIteration):
                        continue
                    raise
                source.drawn += 1
                if source.streamed:
                    self._pool._group.submit(self._run_ticket)
                return task
            return None
        finally:
            self._lock.release()


class _Source:
    __slots__ = ("drawn", "set_length", "streamed", "tasks")

    def __init__(self, tasks: Iterator, set_length: Callable[[int], None] | None, streamed: bool):
        self.tasks = tasks
        self.set_length = set_length
        self.streamed = streamed
        self.drawn = 0


def _run(pool: ThreadPool, task: tuple) -> None:
    job, index, func, args, kwargs = task
    try:
        if pool._initializer is not None and not getattr(pool._prepared, "done", False):
            pool._initializer(*pool._initargs)
            pool._prepared.done = True
        outcome = (True, func(*args, **kwargs))
    except BaseException as error:
        outcome = (False, error)
    pool._store(job, index, outcome)

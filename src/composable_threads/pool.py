"""``ThreadPool``: the interface of ``multiprocessing.pool.ThreadPool`` onto the arena."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.pool as stock
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextvars import Context
from typing import Any

from . import _native
from ._blocking import MOST_AT_ONCE, awaiting
from ._relay import Relay
from ._semaphore import BinarySemaphore
from .executor import check_workers

# How often, and after how many seconds, a thread looks again whether it may draw from a stream, before it leaves it to
# others.
_LOOKS = 4
# So many of a stream's tasks are asked for at first; each that begins asks for one more.
_TICKETS = 1024
_LOOK = 50e-6


class _Place(threading.local):
    """What a pool keeps in each thread that runs its tasks. Its tasks on one thread never nest."""

    prepared = False

    def __init__(self) -> None:
        # As that of a thread of the pool's own: empty at first. A worker's own would show what other pools left in it.
        self.context = Context()


class ThreadPool(stock.ThreadPool):
    """A thread pool whose tasks run in the arena: `apply`, `map`, `imap`, `starmap` and their kin as in the original.

    Parameters
    ----------
    processes : int, optional
        At most so many of its tasks at once; default: the number of CPUs, as in the original. More than the arena's
        size run only while others are blocked.
    initializer, initargs : callable, tuple, optional
        Called once in every thread before it runs its first task of this pool.

    As in the original, tasks begin in the order in which they were asked for. The iterable of an `imap` is consumed as
    its tasks begin, by the threads that run them.

    Raises
    ------
    ValueError, TypeError
        For a `processes` that is not a whole number above 0, an `initializer` that is not callable.

    Examples
    --------
    >>> from composable_threads import ThreadPool
    >>> with ThreadPool(2) as pool:
    ...     pool.map(abs, [-1, 2, -3]), pool.starmap(pow, [(2, 3), (3, 2)])
    ([1, 2, 3], [8, 9])
    """

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., Any] | None = None,
        initargs: tuple[Any, ...] = (),
    ):
        if processes is not None and check_workers(processes, "processes") is None:
            raise ValueError("processes must be greater than 0")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        # What the methods of the original look at. No threads are started, so its own __init__ is left out.
        self._state = stock.RUN
        self._cache = _Results()
        self._processes = processes or os.cpu_count() or 1
        self._pool = range(min(self._processes, MOST_AT_ONCE))  # its length decides the chunk size of a map
        self._initializer = initializer
        self._initargs = initargs
        self._place = _Place()
        self._group = _native.TaskGroup(min(self._processes, MOST_AT_ONCE))
        self._taskqueue = _Feeder(self)
        self._store = Relay(self._fill)

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

    def _fill(self, job: int, index: int | None, outcome: Any) -> None:
        # The original's results are filled, and its callbacks called, by one thread at a time.
        result = self._cache.get(job)
        if result is None:
            return
        try:
            result._set(index, outcome)
        except BaseException as error:  # of a callback; ends the thread that called it in the original, and so all
            self._cache.pop(job, None)
            result._pool = None
            result._event.set()
            _report(error)


# The original's results wait on an event or a condition, whose locks a thread has while it goes to sleep and wakes.
# There a destructor or a signal handler may come in between and wait for tasks of the same pool, which could not tell
# of their ends. So these wait on another kind of lock. And a task that waits gives its permit to others meanwhile.


class _Gate:
    """In the place of an Event."""

    __slots__ = ("_open", "_opened")

    def __init__(self) -> None:
        self._open = False
        self._opened = BinarySemaphore()

    def is_set(self) -> bool:
        return self._open

    def set(self) -> None:
        self._open = True
        self._opened.release()

    def wait(self, timeout: float | None = None) -> None:
        _native.deepen()
        try:
            with awaiting():
                self._opened.acquire(timeout)
        finally:
            if self._open:
                self._opened.release()  # for whoever waits, too


class _Awaitable:
    def wait(self, timeout: float | None = None) -> None:
        if not self.ready():  # type: ignore[attr-defined]
            self._event.wait(timeout)  # type: ignore[attr-defined]


_END = object()


class _Outcomes:
    """Outcomes on their way to those who iterate."""

    __slots__ = ("_arrived", "_waiting")

    def __init__(self) -> None:
        self._waiting: deque[Any] = deque()
        self._arrived = BinarySemaphore()

    def put(self, outcome: Any) -> None:
        self._waiting.append(outcome)
        self._arrived.release()

    def take(self, timeout: float | None) -> Any:
        """The oldest one. Raises multiprocessing.TimeoutError if there is none within `timeout` seconds."""
        try:
            return self._waiting.popleft()
        except IndexError:
            _native.deepen()
        end = None if timeout is None else time.monotonic() + timeout
        try:
            while True:
                with awaiting():
                    in_time = self._arrived.acquire(None if end is None else end - time.monotonic())
                try:
                    return self._waiting.popleft()
                except IndexError:  # another thread took it, before it began to wait
                    if not in_time:
                        raise multiprocessing.TimeoutError from None
        finally:
            if self._waiting:
                self._arrived.release()  # one token may stand for several


class _AwaitableIterator:
    _arrived: _Outcomes
    _index: int

    def next(self, timeout: float | None = None) -> Any:
        outcome = self._arrived.take(timeout)
        if outcome is _END:
            self._arrived.put(_END)
            self._pool = None
            raise StopIteration
        success, value = outcome
        if success:
            return value
        raise value

    __next__ = next

    def _set_length(self, length: int) -> None:
        self._pool._store(self._job, None, length)  # type: ignore[attr-defined]

    # By one thread at a time:

    def _set(self, index: int | None, outcome: Any) -> None:
        if index is None:
            self._length = outcome
        else:
            self._arrive(index, outcome)
        if self._index == self._length and self._cache.pop(self._job, None) is not None:  # type: ignore[attr-defined]
            self._arrived.put(_END)

    def _arrive(self, index: int, outcome: Any) -> None:
        waiting: dict[int, Any] = self._unsorted  # type: ignore[attr-defined]
        waiting[index] = outcome
        while self._index in waiting:
            self._arrived.put(waiting.pop(self._index))
            self._index += 1


class _ArenaApplyResult(_Awaitable, stock.ApplyResult[Any]):
    pass


class _ArenaMapResult(_Awaitable, stock.MapResult[Any]):
    pass


class _ArenaIMapIterator(_AwaitableIterator, stock.IMapIterator):  # type: ignore[type-arg]
    pass


class _ArenaIMapUnorderedIterator(_AwaitableIterator, stock.IMapUnorderedIterator):  # type: ignore[type-arg]
    def _arrive(self, index: int, outcome: Any) -> None:
        self._arrived.put(outcome)
        self._index += 1


_AWAITABLE = {
    stock.ApplyResult: _ArenaApplyResult,
    stock.MapResult: _ArenaMapResult,
    stock.IMapIterator: _ArenaIMapIterator,
    stock.IMapUnorderedIterator: _ArenaIMapUnorderedIterator,
}


class _Results(dict[int, Any]):
    """The original's table of results that are awaited; each enters it when it is made."""

    def __setitem__(self, job: int, result: Any) -> None:
        kind = _AWAITABLE.get(type(result))
        if kind is not None:
            result.__class__ = kind
            if issubclass(kind, _AwaitableIterator):
                result._arrived = _Outcomes()
            else:
                result._event = _Gate()
        super().__setitem__(job, result)


class _Feeder:
    """Stands in for the original's task queue: what is put there goes to the arena.

    The original puts a pair: tasks ``(job, index, func, args, kwargs)``, as a list of one or as a generator, and for an
    `imap` a function to be told how many there were. The generator of an `imap` may be endless, so it is drawn from as
    tasks run; that of a `map` ends and is drawn from at once. The group is given tickets, all alike: whoever runs one
    runs the first task that nobody has drawn. There are as many tickets as tasks in lists, and for each stream as many
    more as tasks of it may run at once.
    """

    def __init__(self, pool: ThreadPool):
        self._pool = pool
        self._sources: deque[_Listed | _Streamed] = deque()
        self._ticket = self._run_ticket  # always the same object: tickets next to each other share an entry

    def put(self, item: tuple[Iterable[Any], Callable[[int], None] | None]) -> None:
        tasks, set_length = item
        pool = self._pool
        source: _Listed | _Streamed
        if set_length is None:
            source = _Listed(tasks)
            tickets = len(source.tasks)
            if tickets == 0:
                return
            job = source.tasks[0][0]
        else:
            source = _Streamed(tasks, set_length, lambda: pool._group.submit(self._ticket))
            tickets = min(pool._processes, _TICKETS)
            job = source.job
        self._sources.append(source)
        try:
            pool._group.submit(self._ticket, tickets)
        except BaseException:  # no thread to be had, for one; nobody will ask for these results
            with contextlib.suppress(ValueError):
                self._sources.remove(source)
            pool._cache.pop(job, None)
            raise

    def clear(self) -> None:
        self._sources.clear()

    def _run_ticket(self) -> None:
        sources = self._sources
        task: Any = _NONE_LEFT
        while task is _NONE_LEFT:
            try:
                source = sources[0]
            except IndexError:
                return
            task = self._draw(source)
        if task is _NOT_NOW:
            # A look at what is there now will do: what comes later brings its own tickets, and whoever draws from a
            # stream puts a new one afterwards.
            drawn = (self._draw(source) for source in tuple(sources))
            task = next((task for task in drawn if task is not _NONE_LEFT and task is not _NOT_NOW), None)
            if task is None:
                return
        _run(self._pool, task)

    def _draw(self, source: _Listed | _Streamed) -> Any:
        task = _NOT_NOW if self._pool._state == stock.TERMINATE else source.draw()
        if task is _NONE_LEFT:
            with contextlib.suppress(ValueError):  # another thread has removed it
                self._sources.remove(source)
        return task


_NONE_LEFT, _NOT_NOW = object(), object()


class _Listed:
    __slots__ = ("tasks",)

    def __init__(self, tasks: Iterable[Any]):
        self.tasks = deque(tasks)

    def draw(self) -> Any:
        try:
            return self.tasks.popleft()
        except IndexError:
            return _NONE_LEFT


class _Streamed:
    __slots__ = ("_drawn", "_lock", "_more", "_set_length", "_tasks", "job")

    def __init__(self, tasks: Iterable[Any], set_length: Callable[[int], None], more: Callable[[], None]):
        self._tasks = iter(tasks)
        self._set_length: Callable[[int], None] | None = set_length
        self.job = set_length.__self__._job  # type: ignore[attr-defined]
        self._more = more
        self._drawn = 0
        self._lock = threading.Lock()

    def draw(self) -> Any:
        if not self._acquire():
            return _NOT_NOW
        set_length = None
        try:
            task = next(self._tasks, _NONE_LEFT)
        except BaseException as error:
            # The original's generator makes such a task of an Exception; any other ends its thread, and all wait
            # forever.
            task = self.job, self._drawn, _raise, (error,), {}
        if task is _NONE_LEFT:
            set_length, self._set_length = self._set_length, None
        else:
            self._drawn += 1
        self._lock.release()
        if set_length is not None:
            set_length(self._drawn)
        if task is not _NONE_LEFT:
            self._more()
        return task

    def _acquire(self) -> bool:
        # Nobody sleeps here: the iterable runs code of the program's, which may wait for tasks of this very pool. A
        # thread asleep at a lock is also handed it before it has the GIL, so the one that has the GIL must wait for it.
        for _ in range(_LOOKS):
            if self._lock.acquire(blocking=False):
                return True
            time.sleep(_LOOK)
        return False


def _raise(error: BaseException) -> None:
    raise error


def _report(error: BaseException) -> None:
    """Tell of an error as of one that ends a thread."""
    told = threading.ExceptHookArgs((type(error), error, error.__traceback__, threading.current_thread()))
    try:
        threading.excepthook(told)
    except BaseException as worse:
        second = threading.ExceptHookArgs((type(worse), worse, worse.__traceback__, threading.current_thread()))
        with contextlib.suppress(BaseException):  # stderr is broken: there is nobody to tell
            threading.__excepthook__(told)
            threading.__excepthook__(second)


# What calls another function, with the items of a batch.
_STARS = (stock.mapstar, stock.starmapstar)  # type: ignore[attr-defined]


def _run(pool: ThreadPool, task: tuple[Any, ...]) -> None:
    job, index, func, args, kwargs = task
    try:
        place = pool._place
        if pool._initializer is not None and not place.prepared:
            place.context.run(pool._initializer, *pool._initargs)
            place.prepared = True
        if _native.trace_on():
            _native.trace_label(args[0][0] if func in _STARS else func)
        outcome = (True, place.context.run(func, *args, **kwargs))
    except BaseException as error:
        outcome = (False, error)
    pool._store(job, index, outcome)

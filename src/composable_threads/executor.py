"""``Executor``: the interface of ``concurrent.futures`` onto the arena."""

from __future__ import annotations

import contextlib
import contextvars
import operator
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.thread import BrokenThreadPool
from typing import Any

from . import _native
from ._blocking import MOST_AT_ONCE, awaiting, here
from ._map import MapCalls

_executors: weakref.WeakSet[_Tasks] = weakref.WeakSet()
_interpreter_ends = False
_BROKEN = "A thread initializer failed, the thread pool is not usable anymore"
# So many tasks that wait for one another share a stack; then one sleeps and the next has a thread, and stack, of its
# own.
_DEEPEST = 16


class ArenaFuture(Future[Any]):
    """A future of the arena.

    A task that waits for it runs it itself if it has not started, else gives its permit away.
    """

    def __init__(self, tasks: _Tasks, work: _Work):
        super().__init__()
        self._work = work
        self._waiters = _Waiters(tasks)

    def result(self, timeout: float | None = None) -> Any:
        return self._await(super().result, timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        error: BaseException | None = self._await(super().exception, timeout)
        return error

    def _await(self, wait: Callable[..., Any], timeout: float | None) -> Any:
        if self.done() or not (here.running or _native.holds_permit()):
            return wait(timeout)
        work = self._work
        if timeout is None and work.tasks.may_run_here():
            # As a task of its own, of which this thread runs the one that it waits for: Numba's thread mask and the
            # widths of BLAS that it sets end with it.
            group = _native.TaskGroup(1)
            group.submit(work)
            group.help()
            if self.done():
                return wait(timeout)
        with work.tasks.one_place_lent(), awaiting():
            return wait(timeout)


class _AwaitedEvent(threading.Event):
    # The keeper finds a task that sleeps, but takes no permit from a region.
    def wait(self, timeout: float | None = None) -> bool:
        if self.is_set() or not _native.holds_permit():
            return super().wait(timeout)
        with awaiting():
            return super().wait(timeout)


class _Waiters(list[Any]):
    """What stands in ``Future._waiters``: who waits by ``concurrent.futures.wait`` and ``as_completed``.

    While a task, or an iteration of a region, sleeps there its permit serves others.
    """

    def __init__(self, tasks: _Tasks):
        super().__init__()
        self._tasks = tasks
        self._in_tasks: list[Any] = []

    def append(self, waiter: Any) -> None:
        super().append(waiter)
        if type(waiter.event) is threading.Event:
            waiter.event.__class__ = _AwaitedEvent
        if here.running:
            self._in_tasks.append(waiter)
            self._tasks.awaits(waiter, 1)

    def remove(self, waiter: Any) -> None:
        super().remove(waiter)
        if waiter in self._in_tasks:
            self._in_tasks.remove(waiter)
            self._tasks.awaits(waiter, -1)


class _Work:
    """One submitted call. Run by whoever claims it first: a worker, or a task that waits for it."""

    __slots__ = ("_args", "_claim", "_context", "_fn", "_kwargs", "_outer", "_outer_depth", "future", "live", "tasks")

    def __init__(
        self, tasks: _Tasks, context: Any, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ):
        self.tasks = tasks
        # These are None once somebody has claimed it.
        self.future: Any = ArenaFuture(tasks, self)
        self._context = context
        self._fn: Any = fn
        self._args: Any = args
        self._kwargs: Any = kwargs
        self._claim = [None]
        self.live = True
        self._outer: _Work | None = here.work  # submitted by it ...
        depth = _native.deepen() - 1
        self._outer_depth = depth if self._outer is None else 0  # ... or in a task of that depth

    def cancel(self) -> None:
        """Nobody runs it any more."""
        future = self.future
        self._forget()
        if future is not None and future.cancel():
            future.set_running_or_notify_cancel()

    def _depth(self) -> int:
        """How many submitted one another and have not ended: those may be waiting."""
        depth, work, outer = 1, self, self._outer
        while outer is not None and outer.live:
            depth, work, outer = depth + 1, outer, outer._outer
        return depth + work._outer_depth

    def _forget(self) -> None:
        self.future = self._fn = self._args = self._kwargs = self._context = None

    def __call__(self) -> None:
        try:
            self._claim.pop()
        except IndexError:
            return
        future, fn, args, kwargs, context, tasks = (
            self.future, self._fn, self._args, self._kwargs, self._context, self.tasks,
        )  # fmt: skip
        # An argument must not live as long as a queue entry that somebody else has run already.
        self._forget()
        if not future.set_running_or_notify_cancel():
            return
        running, outside = here.running, here.work
        if context is None:
            context = tasks.context_here()
        running.append(tasks)
        here.work = self
        if self._outer is not None or self._outer_depth:
            _native.nest(self._depth())
        try:
            tasks.prepare_thread()
            result = context.run(fn, *args, **kwargs)
        except BaseException as error:
            running.pop()
            here.work = outside
            self.live, self._outer = False, None
            _settle(future.set_exception, error)
            # The error's traceback refers to this frame: break the cycle with the future in it.
            del future, self
        else:
            running.pop()
            here.work = outside
            self.live, self._outer = False, None
            _settle(future.set_result, result)


def _settle(settle: Callable[[Any], None], outcome: Any) -> None:
    try:
        settle(outcome)
    except BaseException:
        # A callback's, of which futures log an Exception only. It is nobody's result: a task that waits here must not
        # see it.
        if threading.current_thread() is threading.main_thread():  # Ctrl-C
            raise
        import logging

        # What the stock one says.
        logging.getLogger("concurrent.futures").critical("Exception in worker", exc_info=True)


class _Place(threading.local):
    """What an executor keeps in each thread that runs its tasks."""

    prepared = False
    context: contextvars.Context | None = None


# Read by the native module while a trace is recorded; a slot under a second name costs no call of Python's.
_Work.trace_label = vars(_Work)["_fn"]  # type: ignore[attr-defined]


class _Tasks:
    """The arena's side of an executor: its group, its initializer, whether it still takes work.

    Shared by `Executor` and by a `ThreadPoolExecutor` that was made under ``activate()``.
    """

    def __init__(
        self,
        limit: int,
        limited: bool,
        initializer: Callable[..., Any] | None,
        initargs: tuple[Any, ...],
        *,
        joined_at_exit: bool = True,
    ):
        self.limited = limited  # by the user
        self.joined_at_exit = joined_at_exit
        self._limit = min(limit, MOST_AT_ONCE)
        self._lent = 0
        self._awaits: dict[int, int] = {}
        self.group = _native.TaskGroup(self._limit)
        self.initializer = initializer
        self._initargs = initargs
        self._place = _Place()
        self._broken = False
        self._closed = False
        self._lock = threading.RLock()  # a signal handler or a destructor may come in between
        _executors.add(self)

    def prepare_thread(self) -> None:
        """Run the initializer once per thread, before that thread's first task; BrokenThreadPool if one failed."""
        if self._broken:
            raise BrokenThreadPool(_BROKEN)
        if self._thread_is_prepared():
            return
        try:
            (self._place.context or contextvars.Context()).run(self.initializer, *self._initargs)  # type: ignore[arg-type]
        except BaseException:
            import logging

            logging.getLogger("concurrent.futures").critical("Exception in initializer:", exc_info=True)
            self._broken = True
            raise BrokenThreadPool(_BROKEN) from None
        self._place.prepared = True

    def _thread_is_prepared(self) -> bool:
        return self.initializer is None or self._place.prepared

    def context_here(self) -> contextvars.Context:
        """For a task that brings none: empty at first and the same in all tasks on this thread, as in a stock pool.

        A worker's own would show what tasks of other executors left in it.
        """
        context = self._place.context
        if context is None:
            context = self._place.context = contextvars.Context()
        return context.copy() if self in here.running else context  # entered once at a time

    def may_run_here(self) -> bool:
        """Whether the task on this thread that waits for one of these may run it on its own stack.

        An executor of one worker is a queue: its tasks begin in order and never overlap. So out of turn run only those
        of an executor without a limit, and those that wait for this very thread to end its task.
        """
        if not self._thread_is_prepared():
            return False
        if len(here.running) < _DEEPEST:
            return not self.limited or self in here.running
        return self.limited and self in here.running and self.group.active >= self.group.limit

    def submit(
        self, context: contextvars.Context | None, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> ArenaFuture:
        work = _Work(self, context, fn, args, kwargs)
        future: ArenaFuture = work.future
        self.submit_runs(work, 1)
        return future

    def submit_runs(self, work: Callable[[], Any], runs: int) -> None:
        """Queue so many runs of `work`, each a task; it has a method `cancel`, for a shutdown."""
        with self._lock:
            if self._broken:
                raise BrokenThreadPool(_BROKEN)
            if self._closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            if _interpreter_ends:
                raise RuntimeError("cannot schedule new futures after interpreter shutdown")
            self.group.submit(work, runs)

    def map(
        self, fn: Callable[..., Any], iterables: tuple[Iterable[Any], ...], timeout: float | None, *, in_context: bool
    ) -> Iterator[Any]:
        """What ``concurrent.futures.Executor.map`` does; `in_context`: each call in a copy of the caller's context."""
        try:
            end = None if timeout is None else timeout + time.monotonic()
        except TypeError:
            raise TypeError(f"timeout must be a number of seconds or None, not {type(timeout).__name__!r}") from None
        calls = MapCalls(self, fn)
        try:
            calls.submit_all(iterables, in_context)
        except KeyboardInterrupt:  # nobody will ask for what was drawn, but the executor's end would wait for it
            calls.cancel()
            raise
        return calls.results(end)

    # Where the user set no limit it is that of the stock executor, or the arena's size if that is larger, so that tasks
    # which wait for their own inner work do not make room for ever more of the outermost level. But a task that waits
    # for something outside the arena gives its place to another, and so does one that waits for tasks of this executor,
    # which may be queued behind it.

    def lend(self, places: int) -> None:
        """Let so many tasks more begin; an executor whose limit is the user's lends none."""
        if not self.limited:
            with self._lock:
                self._lent += places
                self.group.limit = self._limit + self._lent

    def awaits(self, waiter: Any, futures: int) -> None:
        """`waiter` waits for so many futures more, or less; one place is lent for all of them."""
        with self._lock:
            before = self._awaits.pop(id(waiter), 0)
            if before + futures > 0:
                self._awaits[id(waiter)] = before + futures
        if (before > 0) != (before + futures > 0):
            self.lend(1 if before == 0 else -1)

    @contextlib.contextmanager
    def one_place_lent(self) -> Iterator[None]:
        self.lend(1)
        try:
            yield
        finally:
            self.lend(-1)

    def shutdown(self, wait: bool, cancel_futures: bool) -> None:
        with self._lock:
            self._closed = True
        if cancel_futures:
            self.group.drop_queued(lambda work: work.cancel())
        if wait:
            self.join()

    def join(self) -> None:
        """Return when nothing is queued or running."""
        if self in here.running:
            raise RuntimeError("cannot join current thread")
        self.group.help(run=False)

    def renew_after_fork(self) -> None:
        # Another thread of the parent may have been in submit(), and this one in a task, in whose context it still is.
        self._lock = threading.RLock()
        prepared, self._place = self._place.prepared, _Place()
        self._place.prepared = prepared


def _renew_after_fork() -> None:
    # The task that this thread forked in, if any, is its parent's.
    here.running = []
    for tasks in list(_executors):
        tasks.renew_after_fork()


os.register_at_fork(after_in_child=_renew_after_fork)


def _join_at_exit() -> None:
    # As concurrent.futures does: what was submitted is done before the interpreter ends.
    global _interpreter_ends
    _interpreter_ends = True
    for tasks in list(_executors):
        with tasks._lock:
            pass
        if tasks.joined_at_exit:
            tasks.join()


threading._register_atexit(_join_at_exit)  # type: ignore[attr-defined]  # what concurrent.futures.thread uses


def check_workers(max_workers: Any, name: str = "max_workers") -> int | None:
    """`max_workers` if it is None or a whole number above 0; raises as ``ThreadPoolExecutor`` does."""
    if max_workers is None:
        return None
    try:
        count = operator.index(max_workers)
    except TypeError:
        raise TypeError(f"{name} must be a whole number or None, not {type(max_workers).__name__!r}") from None
    if count <= 0:
        raise ValueError(f"{name} must be greater than 0")
    return count


class Executor(ThreadPoolExecutor):
    """An executor whose tasks run in the arena, beside everything else that does.

    Parameters
    ----------
    max_workers : int, optional
        At most so many of its tasks at once; default: as many as the arena's size, a few more while some are blocked,
        as in the original, and any number while these say so (`blocking`). More than the arena's size compute at no
        time.
    thread_name_prefix : str, optional
        Accepted for compatibility; the arena's threads have names of their own.
    initializer, initargs : callable, tuple, optional
        Called once in every thread before it runs its first task of this executor.

    Tasks see a copy of the context variables of their submitter. Futures are ``concurrent.futures.Future``; a task may
    wait for another task of the same executor without a deadlock. It is a ``ThreadPoolExecutor``, because asyncio's
    ``set_default_executor`` takes no other, but has no threads of its own.

    Raises
    ------
    ValueError, TypeError
        For a `max_workers` that is not a whole number above 0, an `initializer` that is not callable.

    Examples
    --------
    >>> from composable_threads import Executor
    >>> with Executor() as executor:
    ...     later = executor.submit(pow, 2, 10)
    ...     squares = list(executor.map(lambda n: n * n, range(5)))
    >>> later.result(), squares
    (1024, [0, 1, 4, 9, 16])

    A task may wait for others:

    >>> def total(n):
    ...     parts = [executor.submit(total, n - part) for part in (1, 2)] if n > 1 else []
    ...     return sum(part.result() for part in parts) if parts else n
    >>> with Executor() as executor:
    ...     executor.submit(total, 8).result()
    21

    It serves an event loop:

    >>> import asyncio
    >>> async def main():
    ...     asyncio.get_running_loop().set_default_executor(Executor())
    ...     return await asyncio.to_thread(sum, [1, 2, 3])
    >>> asyncio.run(main())
    6
    """

    def __init__(
        self,
        max_workers: int | None = None,
        thread_name_prefix: str = "",
        initializer: Callable[..., Any] | None = None,
        initargs: tuple[Any, ...] = (),
    ):
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        workers = check_workers(max_workers) or _native.slots()
        super().__init__(workers, thread_name_prefix or "composable")
        # What the stock one would have for its default, of which some may be asleep: asyncio's default executor is
        # given whatever blocks.
        limit = max(workers, min(32, workers + 4)) if max_workers is None else workers
        self._tasks = _Tasks(limit, max_workers is not None, initializer, initargs)

    def _adjust_thread_count(self) -> None:
        pass  # `activate()` leaves alone what has its own

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Schedule ``fn(*args, **kwargs)``; raises RuntimeError after shutdown."""
        return self._tasks.submit(contextvars.copy_context(), fn, args, kwargs)

    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        **options: Any,
    ) -> Iterator[Any]:
        """``map(fn, *iterables)`` with its calls as tasks, begun at once and in order; results come in order.

        `timeout`: seconds from now after which a result that is not there is a TimeoutError. `chunksize` is ignored, as
        by ``ThreadPoolExecutor``: every call is a task. Where a call raises, its error is raised in the place of the
        result; then, or if the iterator is closed, the calls that have not begun are dropped.
        """
        # Options of newer Pythons; a subclass that may want to see each call.
        if options or type(self).submit is not Executor.submit:
            return super().map(fn, *iterables, timeout=timeout, chunksize=chunksize, **options)
        return self._tasks.map(fn, iterables, timeout, in_context=True)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more tasks; with `wait`, return when those submitted are done.

        `cancel_futures` drops those queued.
        """
        self._shutdown = True  # where the original has it
        self._tasks.shutdown(wait, cancel_futures)

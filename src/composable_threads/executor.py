"""``Executor``: the interface of ``concurrent.futures`` onto the arena."""

from __future__ import annotations

import contextvars
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Executor as _BaseExecutor
from concurrent.futures import Future
from concurrent.futures.thread import BrokenThreadPool
from typing import Any

from . import _native
from ._blocking import blocking

_executors: weakref.WeakSet[_Tasks] = weakref.WeakSet()
_interpreter_ends = False
_BROKEN = "A thread initializer failed, the thread pool is not usable anymore"


class ArenaFuture(Future):
    """A future of the arena. A task that waits for it runs it itself if it has not started, else gives its permit away."""

    _work: _Work | None = None

    def result(self, timeout: float | None = None) -> Any:
        if not self.done() and _native.holds_permit():
            self._wait_in_task(timeout)
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        if not self.done() and _native.holds_permit():
            self._wait_in_task(timeout)
        return super().exception(timeout)

    def _wait_in_task(self, timeout: float | None) -> None:
        work = self._work
        if timeout is None and work is not None and work.may_run_here():
            work()
        if not self.done():
            with blocking():
                try:
                    super().exception(timeout)
                except BaseException:  # cancelled or late: result() and exception() say so
                    pass


class _Work:
    """One submitted call. Run by whoever claims it first: a worker, or a task that waits for it."""

    __slots__ = ("_args", "_claim", "_context", "_fn", "_future", "_kwargs", "_tasks")

    def __init__(self, tasks: _Tasks, future: Future, context: Any, fn: Callable, args: tuple, kwargs: dict):
        self._tasks = tasks
        self._future = future
        self._context = context
        self._fn = fn
        self._args = args
        self._kwargs = kwargs
        self._claim = [None]

    def may_run_here(self) -> bool:
        return self._tasks.initializer is None

    def __call__(self) -> None:
        try:
            self._claim.pop()
        except IndexError:
            return
        future, fn, args, kwargs, context, tasks = (
            self._future, self._fn, self._args, self._kwargs, self._context, self._tasks,
        )  # fmt: skip
        # An argument must not live as long as a queue entry that somebody else has run already.
        self._future = self._fn = self._args = self._kwargs = self._context = None
        if not future.set_running_or_notify_cancel():
            return
        if not tasks.prepare_thread():
            future.set_exception(BrokenThreadPool(_BROKEN))
            return
        try:
            result = fn(*args, **kwargs) if context is None else context.run(fn, *args, **kwargs)
        except BaseException as error:
            future.set_exception(error)
            # The error's traceback refers to this frame: break the cycle with the future in it.
            del future, self
        else:
            future.set_result(result)


class _Tasks:
    """The arena's side of an executor: its group, its initializer, whether it still takes work.

    Shared by `Executor` and by a `ThreadPoolExecutor` that was made under ``activate()``.
    """

    def __init__(self, limit: int, initializer: Callable | None, initargs: tuple):
        self.group = _native.TaskGroup(limit)
        self.initializer = initializer
        self._initargs = initargs
        self._prepared = threading.local()
        self._broken = False
        self._closed = False
        self._lock = threading.Lock()
        _executors.add(self)

    def prepare_thread(self) -> bool:
        """Run the initializer once per thread, before that thread's first task; False if one failed."""
        if self._broken:
            return False
        if self.initializer is None or getattr(self._prepared, "done", False):
            return True
        try:
            self.initializer(*self._initargs)
        except BaseException:
            import logging

            logging.getLogger("concurrent.futures").critical("Exception in initializer:", exc_info=True)
            self._broken = True
            return False
        self._prepared.done = True
        return True

    def submit(self, context: contextvars.Context | None, fn: Callable, args: tuple, kwargs: dict) -> ArenaFuture:
        future = ArenaFuture()
        work = _Work(self, future, context, fn, args, kwargs)
        future._work = work
        with self._lock:
            if self._broken:
                raise BrokenThreadPool(_BROKEN)
            if self._closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            if _interpreter_ends:
                raise RuntimeError("cannot schedule new futures after interpreter shutdown")
            self.group.submit(work)
        return future

    def shutdown(self, wait: bool, cancel_futures: bool) -> None:
        with self._lock:
            self._closed = True
        if cancel_futures:
            self.group.drop_queued(_cancel)
        if wait:
            self.group.help(run=False)


def _cancel(work: _Work) -> None:
    future = work._future
    if future is not None and future.cancel():
        future.set_running_or_notify_cancel()


def _join_at_exit() -> None:
    # As concurrent.futures does: what was submitted is done before the interpreter ends.
    global _interpreter_ends
    _interpreter_ends = True
    for tasks in list(_executors):
        with tasks._lock:
            pass
        tasks.group.help(run=False)


threading._register_atexit(_join_at_exit)  # type: ignore[attr-defined]  # what concurrent.futures.thread uses


def check_workers(max_workers: Any, name: str = "max_workers") -> int | None:
    """`max_workers` if it is None or a whole number above 0; raises as ``ThreadPoolExecutor`` does."""
    if max_workers is None:
        return None
    if not isinstance(max_workers, int):
        raise TypeError(f"{name} must be a whole number or None, not {type(max_workers).__name__!r}")
    if max_workers <= 0:
        raise ValueError(f"{name} must be greater than 0")
    return max_workers


class Executor(_BaseExecutor):
    """An executor whose tasks run in the arena, beside everything else that does.

    Parameters
    ----------
    max_workers : int, optional
        At most so many of its tasks at once; default: the arena's size. More than that run only while others are
        blocked.
    thread_name_prefix : str, optional
        Accepted for compatibility; the arena's threads have names of their own.
    initializer, initargs : callable, tuple, optional
        Called once in every thread before it runs its first task of this executor.

    Tasks see a copy of the context variables of their submitter. Futures are ``concurrent.futures.Future``; a task may
    wait for another task of the same executor without a deadlock.

    Raises
    ------
    ValueError, TypeError
        For a `max_workers` that is not a whole number above 0, an `initializer` that is not callable.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        thread_name_prefix: str = "",
        initializer: Callable | None = None,
        initargs: tuple = (),
    ):
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        self._max_workers = check_workers(max_workers) or _native.slots()
        self._tasks = _Tasks(self._max_workers, initializer, initargs)

    def submit(self, fn: Callable, /, *args: Any, **kwargs: Any) -> Future:
        """Schedule ``fn(*args, **kwargs)``; raises RuntimeError after shutdown."""
        return self._tasks.submit(contextvars.copy_context(), fn, args, kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more tasks; with `wait`, return when those submitted are done, `cancel_futures` drops those queued."""
        self._tasks.shutdown(wait, cancel_futures)

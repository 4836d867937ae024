"""The exact path: Dask's own scheduling loop, with the arena in the place of its pool.

For what only that loop does: callbacks, a cache of the caller's, exceptions run again locally, batches of a chosen
size.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from queue import Empty, Queue
from threading import current_thread, main_thread
from typing import Any

from dask.local import get_async
from dask.threaded import pack_exception

from .. import _native
from .._blocking import awaiting

# How often the main thread looks for Ctrl-C, in seconds.
SIGNAL_LOOK = 0.05


def get_exactly(dsk: Mapping[Any, Any], keys: Any, *, num_workers: int, **kwargs: Any) -> Any:
    """``dask.local.get_async`` whose tasks run in the arena."""
    group = _native.TaskGroup(num_workers)

    def submit(fn: Any, /, *args: Any) -> Future[Any]:
        future = _Batch()
        group.submit(_Task(future, contextvars.copy_context(), fn, args))
        return future

    options = {"get_id": _thread_id, "pack_exception": pack_exception, **kwargs}
    try:
        # This thread only hands out tasks and sleeps in between; if it is in a task itself, its permit serves others.
        with awaiting():
            return get_async(submit, num_workers, dsk, keys, **options)
    finally:
        group.drop_queued()


def _thread_id() -> int | None:
    return current_thread().ident


class _Batch(Future[Any]):
    """What Dask gets for tasks it submits. It asks for one thing: that the queue it waits at be told of the end."""

    def add_done_callback(self, fn: Callable[[Future[Any]], Any]) -> None:
        queue = getattr(fn, "__self__", None)
        if type(queue) is Queue and current_thread() is main_thread():
            queue.__class__ = _WatchfulQueue
        super().add_done_callback(fn)


class _WatchfulQueue(Queue[Any]):
    # Python misses a signal that comes just before it goes to sleep on a lock, until something else wakes it.
    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        while True:
            try:
                return super().get(timeout=SIGNAL_LOOK)
            except Empty:
                pass


class _Task:
    __slots__ = ("_args", "_context", "_fn", "_future")

    def __init__(self, future: Future[Any], context: contextvars.Context, fn: Any, args: tuple[Any, ...]):
        self._future = future
        self._context = context
        self._fn = fn
        self._args = args

    @property
    def trace_label(self) -> str:
        batch = self._args[0]  # of Dask's (key, data, ...)
        return str(batch[0][0]) if len(batch) == 1 else f"{batch[0][0]} and {len(batch) - 1} more"

    def __call__(self) -> None:
        future = self._future
        try:
            result = self._context.run(self._fn, *self._args)
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)

"""A Dask scheduler whose tasks run in the arena."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from queue import Empty, Queue
from threading import current_thread, main_thread
from typing import Any

import dask
from dask.local import get_async
from dask.threaded import get as threaded_get
from dask.threaded import pack_exception

from .. import _native
from .._blocking import awaiting

# How often the main thread looks for Ctrl-C, in seconds.
SIGNAL_LOOK = 0.05


def get(
    dsk: Mapping,
    keys: Any,
    cache: Any = None,
    num_workers: int | None = None,
    pool: Any = None,
    **kwargs: Any,
) -> Any:
    """Compute `keys` of a Dask graph in the arena; a drop-in for ``dask.threaded.get``.

    Parameters
    ----------
    dsk : Mapping or anything with ``__dask_graph__``
        The graph.
    keys : key or (nested) list of keys
        What to compute; lists come back as tuples of the same shape.
    cache : MutableMapping, optional
        Kept by the caller: results are stored in it, and keys found in it count as done.
    num_workers : int, optional
        At most so many tasks of this graph at once; default, also through Dask's config: the arena's size.
    pool : concurrent.futures.Executor or multiprocessing pool, optional
        Use this pool instead of the arena, as ``dask.threaded.get`` does.
    **kwargs
        Passed on to ``dask.local.get_async``; unknown ones are ignored there.
    """
    pool = pool or dask.config.get("pool", None)
    num_workers = num_workers or dask.config.get("num_workers", None)
    if pool is not None:
        return threaded_get(dsk, keys, cache=cache, num_workers=num_workers, pool=pool, **kwargs)
    num_workers = num_workers or _native.slots()
    group = _native.TaskGroup(num_workers)

    def submit(fn: Any, /, *args: Any) -> Future:
        future = _Batch()
        group.submit(_Task(future, contextvars.copy_context(), fn, args))
        return future

    try:
        # This thread only hands out tasks and sleeps in between; if it is in a task itself, its permit serves others.
        with awaiting():
            return get_async(
                submit,
                num_workers,
                dsk,
                keys,
                cache=cache,
                get_id=_thread_id,
                pack_exception=pack_exception,
                **kwargs,
            )
    finally:
        group.drop_queued()


def _thread_id() -> int | None:
    return current_thread().ident


class _Batch(Future):
    """What Dask gets for tasks it submits. It asks for one thing: that the queue it waits at be told of the end."""

    def add_done_callback(self, fn: Callable[[Future], Any]) -> None:
        queue = getattr(fn, "__self__", None)
        if type(queue) is Queue and current_thread() is main_thread():
            queue.__class__ = _WatchfulQueue
        super().add_done_callback(fn)


class _WatchfulQueue(Queue):
    # Python misses a signal that comes just before it goes to sleep on a lock, until something else wakes it.
    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        while True:
            try:
                return super().get(timeout=SIGNAL_LOOK)
            except Empty:
                pass


class _Task:
    __slots__ = ("_args", "_context", "_fn", "_future")

    def __init__(self, future: Future, context: contextvars.Context, fn: Any, args: tuple[Any, ...]):
        self._future = future
        self._context = context
        self._fn = fn
        self._args = args

    def __call__(self) -> None:
        future = self._future
        try:
            result = self._context.run(self._fn, *self._args)
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)

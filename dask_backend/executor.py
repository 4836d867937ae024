"""``ArenaThreadPoolExecutor``: the threads of a ``distributed.Worker`` are the arena's.

A worker takes an executor for one of threads, whose tasks have context variables and find their worker, by the name of
its class. What ``secede()`` and ``rejoin()`` of ``distributed.threadpoolexecutor`` do with such a pool is, here:

    secede      `_adjust_thread_count`: the task gives its place and its permit away and goes on, as one thread more
    rejoin      `submit`, of a thread that stands in `_rejoin_list`: it waits for a place, then for a permit

State, under `_lock` where two fields must agree:

    _threads    those in whose tasks this pool has a place
    _away       those that have seceded, by ident: whether they had a permit
    _returning  how many of those wait for a place
    group.limit `_size` + those that are away - those that return: a place that is awaited goes to no new task
    _open       whether it keeps the doors of the process open
    _shutdown   as in the stock one: takes no tasks, until another worker has it
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from distributed.threadpoolexecutor import ThreadPoolExecutor, thread_state
from distributed.worker import Worker

from .. import _native
from .._blocking import MOST_AT_ONCE
from ..executor import _Tasks, check_workers
from . import worker_process

_ABSENT = object()
# A worker's loop takes a millisecond or two between the end of a task and the next; more where it is busy.
_SETTLE_SECONDS = 0.02


class ArenaThreadPoolExecutor(ThreadPoolExecutor):
    """An executor for ``distributed.Worker``: its tasks run in the arena, and what they nest runs there too.

    ``LocalCluster(processes=False, executor=ArenaThreadPoolExecutor())``. Workers in other processes get theirs from
    `ComposablePlugin` or from the preload module. With the first task, until its worker is closed, the doors of the
    process lead to the arena as under ``activate()``, but for pools of threads that are made outside tasks. The arena
    stays, and so may the executor, for the next worker.

    Parameters
    ----------
    max_workers : int, optional
        At most so many tasks at once, of all workers that share the executor; default: the sum of their `nthreads`.
    thread_name_prefix : str, optional
        What the names of threads begin with in its tasks.

    Raises
    ------
    ValueError, TypeError
        For a `max_workers` that is not a whole number above 0.
    """

    def __init__(self, max_workers: int | None = None, thread_name_prefix: str = "DaskArenaThreads"):
        self._wanted = check_workers(max_workers)
        super().__init__(max_workers=self._wanted or 1, thread_name_prefix=thread_name_prefix)  # type: ignore[no-untyped-call]
        self._tasks: _Tasks | None = None
        self._lock = threading.Lock()
        self._away: dict[int, bool] = {}
        self._returning = 0
        self._size = min(self._max_workers, MOST_AT_ONCE)
        self._workers_known = 0
        self._open = False
        self._names: dict[int | None, str] = {}
        self._settles: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Open the process's doors to the arena, as the first task does.

        Raises RuntimeError if the executor was shut down and no worker has it.
        """
        with self._lock:
            if self._shutdown:
                if not self._has_live_worker():
                    raise RuntimeError("cannot schedule new futures after shutdown")
                self._shutdown = False
            if not self._open:
                worker_process.enter()
                self._open = True
            if self._tasks is None:
                self._tasks = _Tasks(self._size, True, None, (), joined_at_exit=False)
                weakref.finalize(self, self._tasks.group.settle_load, False).atexit = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:  # type: ignore[override]
        """Schedule ``fn(*args, **kwargs)``; raises RuntimeError after shutdown."""
        if self._rejoin_list and self._rejoin():
            joined: Future[Any] = Future()
            joined.set_result(None)
            return joined
        if self._shutdown or not self._open:
            self.open()
        if self._wanted is None and self._workers_known != len(Worker._instances):
            self._count_workers()
        future = self._tasks.submit(None, self._run, (fn, args, kwargs), {})  # type: ignore[union-attr]
        if not self._settles:
            self._settle_later()
        return future

    def _settle_later(self) -> None:
        # A worker hears on its loop that a task has ended, and only then gives the next one. Not to take that gap for
        # idleness, widths follow this executor's load with a delay, which the loop of its worker sees to.
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # who is no worker
            return
        if self._tasks is not None and self._tasks.group.settle_load():
            self._settles = loop.call_later(_SETTLE_SECONDS, self._settle_later)
        else:
            self._settles = None

    def shutdown(self, wait: bool = True, timeout: float | None = None, *, cancel_futures: bool = False) -> None:
        """Wait for the tasks, at most `timeout` seconds; not for those that have seceded.

        A worker does this to its executors when it is closed. Where another one has this executor it takes more tasks.
        """
        with self._lock:
            self._shutdown = not self._has_live_worker()
        tasks = self._tasks
        if tasks is not None:
            if cancel_futures:
                tasks.group.drop_queued(lambda work: work.cancel())
            if wait:
                tasks.group.help(self._is_idle, run=False, timeout=timeout)
            settles, self._settles = self._settles, None
            if settles is not None:
                settles.cancel()
                tasks.group.settle_load(goes_on=False)
        with self._lock:
            if self._shutdown and self._open:
                self._open = False
                worker_process.leave()

    # --- the pool's size

    def _live_workers(self) -> list[Worker]:
        workers = [worker for worker in list(Worker._instances) if self in worker.executors.values()]
        return [worker for worker in workers if worker_process.is_live(worker)]

    def _has_live_worker(self) -> bool:
        return bool(self._live_workers())

    def _count_workers(self) -> None:
        # A thread that waits for a place looks at the size too.
        known = len(Worker._instances)
        size = sum(worker.state.nthreads for worker in self._live_workers())
        with self._lock:
            self._workers_known = known
            self._size = self._max_workers = min(size or _native.slots(), MOST_AT_ONCE)
            self._set_limit()

    def _set_limit(self) -> None:
        self._tasks.group.limit = self._size + len(self._away) - self._returning  # type: ignore[union-attr]

    def _is_idle(self) -> bool:
        group = self._tasks.group  # type: ignore[union-attr]
        return group.active + group.queued <= len(self._away)

    # --- what a task does

    def _run(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        thread, state = threading.current_thread(), vars(thread_state)
        own_name, thread.name = thread.name, self._names.get(thread.ident) or self._new_name(thread.ident)
        outer = state.get("executor", _ABSENT), state.get("proceed")
        state["executor"], state["proceed"] = self, True
        self._threads.add(thread)
        try:
            return fn(*args, **kwargs)
        finally:
            thread.name = own_name
            self._threads.discard(thread)
            if self._away and thread.ident in self._away:
                with self._lock:
                    del self._away[thread.ident]
                    self._set_limit()
            if outer[0] is _ABSENT:
                del state["executor"], state["proceed"]
            else:
                state["executor"], state["proceed"] = outer

    def _new_name(self, ident: int | None) -> str:
        name = self._names[ident] = f"{self._thread_name_prefix}-{os.getpid()}-{len(self._names)}"
        return name

    def _adjust_thread_count(self) -> None:
        # By secede(), in the task's thread, which it has removed from `_threads`.
        thread = threading.get_ident()
        if self._tasks is None or thread in self._away:
            return
        with self._lock:
            self._away[thread] = _native.block_begin()
            self._set_limit()
        self._tasks.group.nudge()  # who returns or waits for the end of the others

    def _rejoin(self) -> bool:
        thread = threading.current_thread()
        with self._rejoin_lock:
            mine = next((entry for entry in self._rejoin_list if entry[0] is thread), None)
            if mine is None:
                return False
            self._rejoin_list.remove(mine)
        if thread.ident in self._away:
            self._take_place(thread.ident)
        self._threads.add(thread)
        mine[1].set()
        return True

    def _take_place(self, thread: int) -> None:
        group = self._tasks.group  # type: ignore[union-attr]
        with self._lock:
            self._returning += 1
            self._set_limit()
        had = False

        def takes_place() -> bool:
            nonlocal had
            with self._lock:
                if group.active - len(self._away) >= self._size:
                    return False
                had = self._away.pop(thread)
                self._returning -= 1
                self._set_limit()
                return True

        group.help(takes_place, run=False)
        _native.block_end(had)

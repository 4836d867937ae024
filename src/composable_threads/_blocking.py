"""``blocking()``: a task says that it waits. ``task()``: a block of the program's own thread says that it is one."""

from __future__ import annotations

import threading
from typing import Any

from . import _native

# More tasks than this at once nobody's threads can run; larger numbers fit no C integer.
MOST_AT_ONCE = 1 << 30


class _Here(threading.local):
    def __init__(self) -> None:
        self.running: list[Any] = []  # the executors of whose tasks this thread is in the middle
        self.work: Any = None  # the innermost of those tasks, if it was submitted by itself


here = _Here()


class awaiting:
    """Context in which a task waits for other work of the arena: its permit serves another thread meanwhile."""

    __slots__ = ("_had",)

    def __enter__(self) -> None:
        self._had = _native.block_begin()

    def __exit__(self, *_: object) -> None:
        _native.block_end(self._had)


class blocking:
    """Context in which a task waits for something outside the arena: I/O, a lock, another task.

    Its permit serves another thread meanwhile; at the end the task may have to wait for a free one. Outside tasks,
    and nested in another one, it does nothing. Do not compute in it: that would be one thread more than the arena's
    size. Raises RuntimeError if a context is entered twice or left by another thread.

    >>> import time
    >>> from composable_threads import Executor, blocking
    >>> def fetch(page):
    ...     with blocking():
    ...         time.sleep(0.01)  # a server's answer
    ...     return page * 2
    >>> with Executor() as executor:
    ...     list(executor.map(fetch, range(4)))
    [0, 2, 4, 6]
    """

    __slots__ = ("_had", "_lender", "_thread")

    def __init__(self) -> None:
        self._thread: int | None = None

    def __enter__(self) -> None:
        if self._thread is not None:
            raise RuntimeError("this blocking() context is in use already; make one per block")
        self._thread = threading.get_ident()
        # Another task of the same executor may take the place, unless the user said how many may have begun at once.
        # Where the task awaits work that it asked for itself this would only begin ever more tasks of the outermost
        # level.
        self._lender = here.running[0] if here.running else None
        if self._lender is not None:
            self._lender.lend(1)
        self._had = _native.block_begin()

    def __exit__(self, *_: object) -> None:
        if self._thread is None:
            raise RuntimeError("this blocking() context was not entered")
        if self._thread != threading.get_ident():
            raise RuntimeError("a blocking() context must be left by the thread that entered it")
        self._thread = None
        _native.block_end(self._had)
        if self._lender is not None:
            self._lender.lend(-1)


def task() -> _native.TaskContext:
    """Context in which a thread of the program computes as a task of the arena.

    It counts among the arena's threads, and its BLAS and OpenMP calls get the width that is their share. In a task, and
    nested in itself, it does nothing. Raises RuntimeError if a context is entered twice or left by another thread.

    >>> import composable_threads
    >>> composable_threads.reset_peak()
    >>> with composable_threads.task():
    ...     total = sum(range(10))
    >>> composable_threads.info()["peak_running"]
    1
    """
    return _native.TaskContext()

"""A semaphore that holds one token at most, for threads that wait for one another's results."""

from __future__ import annotations

import contextlib
import threading


class BinarySemaphore:
    """Begins without a token; one that is released while there is one changes nothing.

    It is one lock in C, and none that Python code holds: a destructor or a signal handler may come in the middle and
    wait for the same. ``queue.SimpleQueue.get`` is no substitute: before Python 3.13 it waits for good where its time
    is up when a signal handler returns or the thread gets its core back.
    """

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def release(self) -> None:
        if self._lock.locked():
            with contextlib.suppress(RuntimeError):  # another thread was quicker
                self._lock.release()

    def acquire(self, timeout: float | None = None) -> bool:
        """Take the token. False if there was none within `timeout` seconds; None: wait as long as it takes."""
        if timeout is None:
            return self._lock.acquire()
        return self._lock.acquire(timeout=min(max(0, timeout), threading.TIMEOUT_MAX))

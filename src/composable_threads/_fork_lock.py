"""A lock of a module that a forked child finds free."""

from __future__ import annotations

import os
import threading


class ForkLock:
    """A re-entrant lock, as a context manager; lives as long as the process.

    Another thread of the parent may have held it at the fork, and that thread does not exist in the child.
    """

    def __init__(self) -> None:
        self._renew()
        os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

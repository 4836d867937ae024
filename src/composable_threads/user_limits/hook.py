"""The one patch of threadpoolctl: its limiter says when a limit begins and when it ends.

Inside a task a limit must win for its extent. From OpenBLAS, which has one width per process, it cannot be told: a
limit that equals the share at that moment changes nothing, and is gone when the share changes; and what is put back at
its end may be a share of long ago. All of threadpoolctl's entries (``threadpool_limits``,
``ThreadpoolController.limit``, the decorators) end in the two methods wrapped here. Read and tested with threadpoolctl
3.1 to 3.8.

Loaded by file, without the package around it, so nothing of ours may be imported at the top.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # importing typing would be a cost of every start
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any


def counts_of(limiter: Any) -> dict[str, int]:
    """Path of each library that the limiter limits -> how many threads; as threadpoolctl matches them."""
    wanted = limiter._limits or {}
    counts: dict[str, int] = {}
    for library in limiter._controller.lib_controllers:
        for key in (library.filepath, library.prefix, library.user_api):
            if key in wanted:
                if wanted[key] is not None:
                    counts[library.filepath] = wanted[key]
                break
    return counts


def install(threadpoolctl: ModuleType) -> None:
    """Patch the imported module ``threadpoolctl``. Idempotent."""
    limiter = threadpoolctl._ThreadpoolLimiter
    if hasattr(limiter, "_composable_threads_stock"):
        return
    stock = limiter._composable_threads_stock = limiter._set_threadpool_limits, limiter.restore_original_limits

    def _set_threadpool_limits(self: Any) -> None:
        new_limits = getattr(sys.modules.get("composable_threads._native"), "UserLimits", None)
        if new_limits is None:
            stock[0](self)
            return
        limits = new_limits()
        stock[0](self)
        limits.begin(counts_of(self))
        # Until 3.1 one decorator serves all calls of its function, so there may be several.
        self.__dict__.setdefault("_composable_threads_limits", []).append(limits)

    def restore_original_limits(self: Any) -> None:
        stock[1](self)
        limits = self.__dict__.get("_composable_threads_limits")
        if limits:
            limits.pop().end()

    _set_threadpool_limits.__doc__ = stock[0].__doc__
    restore_original_limits.__doc__ = stock[1].__doc__
    limiter._set_threadpool_limits = _set_threadpool_limits
    limiter.restore_original_limits = limiter.unregister = restore_original_limits


def activate(threadpoolctl: ModuleType) -> None:
    """Limits count with and without an activation."""


def deactivate(threadpoolctl: ModuleType) -> None:
    """Limits count with and without an activation."""

"""What the ``distributed`` workers of one process share while any of them runs its tasks in the arena."""

from __future__ import annotations

import functools
import logging
import sys
import threading
from collections.abc import Callable
from typing import Any

import distributed.utils
from distributed.core import Status
from distributed.worker import Worker

from .. import _native
from .._blocking import awaiting
from ..activation import Activation, activate_for_tasks
from .nanny import imposed_widths

logger = logging.getLogger("distributed.worker")

_lock = threading.Lock()
_executors = 0  # that are open
_activation: Activation | None = None


def is_live(worker: Worker) -> bool:
    """Whether it takes tasks, or is about to."""
    return worker.status not in (Status.closing, Status.closed, Status.failed, Status.closing_gracefully)


def enter() -> None:
    """An executor opens: the first one makes the arena as large as the workers want it and opens the doors."""
    global _executors, _activation
    with _lock:
        _executors += 1
        if _executors > 1:
            return
        try:
            _activation = activate_for_tasks(slots=_choose_slots())
        except BaseException:
            _executors = 0
            raise
        _native.impose_widths(imposed_widths())
        _patch_sync(_sync_with_permit_away(distributed.utils.sync))


def leave() -> None:
    """An executor closes; with the last one the doors do. The arena stays."""
    global _executors, _activation
    with _lock:
        _executors -= 1
        if _executors > 0 or _activation is None:
            return
        _patch_sync(distributed.utils.sync.__wrapped__)  # type: ignore[attr-defined]
        _native.impose_widths({})
        _activation.deactivate()
        _activation = None


def _choose_slots() -> int | None:
    nthreads = sum(worker.state.nthreads for worker in list(Worker._instances) if is_live(worker))
    started = _native.started_slots()
    if started is None:
        return nthreads or None
    if nthreads and started > nthreads:
        logger.warning(
            "The arena of this process already runs with %d slots, for workers of %d threads. Workers that are started "
            "with --preload composable_threads.dask_backend.preload choose its size.",
            started,
            nthreads,
        )
    return None


# A task that waits for others, with or without seceding, sleeps in there. The keeper would find it after some 20 ms.


def _sync_with_permit_away(stock: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(stock)
    def sync(*args: Any, **kwargs: Any) -> Any:
        if not _native.holds_permit():
            return stock(*args, **kwargs)
        with awaiting():
            return stock(*args, **kwargs)

    return sync


def _patch_sync(sync: Callable[..., Any]) -> None:
    # Modules of distributed import it by name.
    current = distributed.utils.sync
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "distributed" and vars(module).get("sync") is current:
            module.sync = sync  # type: ignore[attr-defined]

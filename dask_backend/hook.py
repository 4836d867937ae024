"""The one patch of Dask: the name ``composable`` in its table of schedulers.

Read and tested with Dask 2025.1 to 2026.8.

Loaded by file, without the package around it, so nothing of ours may be imported at the top.
"""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing would be a cost of every start
if TYPE_CHECKING:
    from typing import Any


def install(base: Any) -> None:
    """Register with the imported module ``dask.base``. Idempotent."""
    base.named_schedulers.setdefault("composable", _get)


def _get(dsk: Any, keys: Any, **kwargs: Any) -> Any:
    """Compute in the arena: ``composable_threads.dask_backend.get``, imported at its first use."""
    from composable_threads.dask_backend import get

    return get(dsk, keys, **kwargs)


def activate(base: Any) -> None:
    """Take over Dask's threads, asked for by name or by default; processes, sync and clusters stay.

    Collections keep the function they were given at import as their default, so it is exchanged where all schedulers
    are looked up.
    """
    import dask.threaded

    stock_lookup, stock_get = base.get_scheduler, dask.threaded.get

    def get_scheduler(*args: Any, **kwargs: Any) -> Any:
        found = stock_lookup(*args, **kwargs)
        return _get if found is stock_get else found

    base._composable_threads_stock = stock_lookup
    base.get_scheduler = get_scheduler


def deactivate(base: Any) -> None:
    """Give them back."""
    base.get_scheduler = base._composable_threads_stock
    del base._composable_threads_stock

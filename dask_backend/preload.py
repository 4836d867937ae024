"""A preload module of Dask's: its workers run their tasks in the arena from the first one on.

``dask worker --preload composable_threads.dask_backend.preload``, ``LocalCluster(preload=...)``,
``distributed.worker.preload`` in Dask's configuration, or ``DASK_DISTRIBUTED__WORKER__PRELOAD`` in the environment.
"""

from __future__ import annotations

from distributed import Worker

from .plugin import install, remove


async def dask_setup(worker: Worker) -> None:
    """Called in the worker's process before it takes tasks. Raises TypeError for what is no worker."""
    install(worker)


async def dask_teardown(worker: Worker) -> None:
    """Called in the worker's process when it is closed."""
    remove(worker)

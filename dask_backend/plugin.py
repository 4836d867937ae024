"""``ComposablePlugin``: a cluster's workers run their tasks in the arena, one arena a process."""

from __future__ import annotations

import logging

from distributed import Worker
from distributed.diagnostics.plugin import WorkerPlugin

from . import worker_process
from .executor import ArenaThreadPoolExecutor

logger = logging.getLogger("distributed.worker")


class ComposablePlugin(WorkerPlugin):
    """``client.register_plugin(ComposablePlugin())``: the workers that there are, and those to come, use the arena.

    In a worker's process the arena has as many slots as the worker has threads, or as its container allows if that is
    less. Its tasks run there, and so do the Numba regions, Joblib calls, Dask graphs and pools of threads in them; BLAS
    and OpenMP calls use the slots that are free. Where libraries are loaded before the plugin comes, their idle threads
    may spin; the preload ``composable_threads.dask_backend.preload`` comes before them.

    Tasks that run when it comes or goes end where they began.
    """

    name = "composable-threads"

    def setup(self, worker: Worker) -> None:
        """Called in the worker's process."""
        install(worker)

    def teardown(self, worker: Worker) -> None:
        """Give the worker its own threads back. One that is being closed waits for our tasks as for its own."""
        remove(worker)


def install(worker: Worker) -> None:
    """Let `worker` run its tasks in the arena. Idempotent.

    Raises TypeError if it is no worker, as the scheduler and the nanny, which have preloads of their own.
    """
    if not isinstance(worker, Worker):
        raise TypeError(f"the arena is for the tasks of a distributed.Worker, not for a {type(worker).__name__}")
    stock = worker.executors["default"]
    if isinstance(stock, ArenaThreadPoolExecutor):
        return
    prefix = getattr(stock, "_thread_name_prefix", "Dask-Default-Threads")
    executor = ArenaThreadPoolExecutor(worker.state.nthreads, prefix)
    executor.open()
    worker.executors["default"] = executor
    worker._composable_threads_stock = stock  # type: ignore[attr-defined]
    logger.info("Tasks run in the arena of composable-threads")


def remove(worker: Worker) -> None:
    """Undo `install`; what runs goes on. A worker that is being closed keeps the arena for what it still waits for."""
    stock = getattr(worker, "_composable_threads_stock", None)
    if stock is None:
        return
    del worker._composable_threads_stock  # type: ignore[attr-defined]
    if not worker_process.is_live(worker):
        if stock not in worker.executors.values():  # those the worker closes itself, or leaves, as the offload executor
            stock.shutdown(wait=False)
        return
    executor = worker.executors["default"]
    worker.executors["default"] = stock
    if isinstance(executor, ArenaThreadPoolExecutor):
        executor.shutdown(wait=False)

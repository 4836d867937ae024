"""Tasks of dask.distributed on worker processes: ``cluster.py NAME PROCESSES THREADS HOW``, wall time of one task.

NAME: of `cluster_tasks.ROUNDS`. HOW: ``composable`` (the preload), ``stock``, or ``free``, stock without the widths of
1 that a nanny sets. CPU time and switches are those of the client's process, which has the scheduler, not of the
workers.
"""

from __future__ import annotations

import sys

import cluster_tasks
import dask
from distributed import Client, LocalCluster
from measure import measure

_WIDTHS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def main(name: str, processes: int, threads: int, how: str) -> None:
    if how == "free":
        dask.config.set({f"distributed.nanny.pre-spawn-environ.{width}": None for width in _WIDTHS})
    preload = ["composable_threads.dask_backend.preload"] if how == "composable" else []
    options = {"n_workers": processes, "threads_per_worker": threads, "dashboard_address": ":0", "preload": preload}
    cluster = LocalCluster(processes=True, **options)
    client = Client(cluster)
    task, rounds = getattr(cluster_tasks, name), cluster_tasks.ROUNDS[name]

    def run():
        client.gather(client.map(task, range(rounds), pure=False))

    def end():
        client.close()
        cluster.close()

    client.run(task, 0)  # loads and compiles
    measure(run, scale=rounds, end=end)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])

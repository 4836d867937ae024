"""Dask graphs of trivial tasks: ``dask_tasks.py SCHEDULER SHAPE TASKS``, wall time of one task.

SCHEDULER: ``composable``, ``threads`` or ``sync``. SHAPE: ``wide``, ``chain``, ``tree``, or ``array``, the sum of so
many chunks plus one.
"""

from __future__ import annotations

import sys

import dask
from dask._task_spec import convert_legacy_graph
from dask.base import get_scheduler
from measure import measure


def increment(value):
    return value + 1


def add(left, right):
    return left + right


def wide(tasks):
    graph = {("leaf", i): (increment, i) for i in range(tasks)}
    return graph | {"out": (sum, list(graph))}, "out"


def chain(tasks):
    graph = {("link", 0): (increment, 0)}
    return graph | {("link", i): (increment, ("link", i - 1)) for i in range(1, tasks)}, ("link", tasks - 1)


def tree(tasks):
    level = [("node", 0, i) for i in range((tasks + 1) // 2)]
    graph: dict = dict.fromkeys(level, (increment, 0))
    depth = 0
    while len(level) > 1:
        depth += 1
        above = [("node", depth, i) for i in range(len(level) // 2)]
        graph |= {key: (add, level[2 * i], level[2 * i + 1]) for i, key in enumerate(above)}
        level = above + level[2 * len(above) :]
    return graph, level[0]


def main(scheduler: str, shape: str, tasks: int) -> None:
    if shape == "array":
        import dask.array as da

        # Counted as the tasks of the graph that is left after optimisation.
        count = len((da.ones(2 * tasks, chunks=2) + 1).sum().__dask_graph__())
        measure(lambda: (da.ones(2 * tasks, chunks=2) + 1).sum().compute(scheduler=scheduler), scale=count)
        return
    graph, key = globals()[shape](tasks)
    graph = convert_legacy_graph(graph)
    get = get_scheduler(scheduler=scheduler)
    with dask.config.set(num_workers=2):
        measure(lambda: get(graph, key), scale=len(graph))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))

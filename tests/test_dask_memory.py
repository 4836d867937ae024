"""Peak memory of graphs: no more values alive at once than under Dask's own threads (dask #7583: 10 GB instead of
0.2)."""

from __future__ import annotations

import threading
import time

import dask.local
import dask.threaded
import pytest
from composable_threads.dask_backend import get

LOCK = threading.Lock()


class Turns:
    """Tasks end in the order in which they began: no worker runs ahead of another that got no time for a while."""

    changed = threading.Condition()
    begun = ended = 0

    @classmethod
    def take(cls) -> None:
        with cls.changed:
            mine, cls.begun = cls.begun, cls.begun + 1
        time.sleep(0.0005)  # so that others begin meanwhile
        with cls.changed:
            cls.changed.wait_for(lambda: cls.ended == mine)
            cls.ended += 1
            cls.changed.notify_all()


class Chunk:
    """A loaded chunk; its class counts how many are alive, and the most there were."""

    alive = most = 0

    def __init__(self):
        with LOCK:
            Chunk.alive += 1
            Chunk.most = max(Chunk.most, Chunk.alive)

    def __del__(self):
        with LOCK:
            Chunk.alive -= 1


def load(*_):
    Turns.take()
    return Chunk()


def reduce(*_):
    Turns.take()
    return 1.0


def tree_reduction(leaves: int = 128, width: int = 4) -> tuple[dict, object]:
    """Load many chunks, make a number of each, add the numbers up in a tree."""
    graph: dict = {}
    level: list = []
    for i in range(leaves):
        graph["load", i] = (load,)
        graph["part", i] = (reduce, ("load", i))
        level.append(("part", i))
    depth = 0
    while len(level) > 1:
        above = [("sum", depth, i) for i in range(-(len(level) // -width))]
        for i, key in enumerate(above):
            graph[key] = (reduce, *level[i * width : (i + 1) * width])
        level, depth = above, depth + 1
    return graph, level[0]


def anomalies(steps: int = 100) -> tuple[dict, object]:
    """The case of dask #7583: every step loads two fields, combines them, and is written on its own."""
    graph: dict = {}
    for i in range(steps):
        graph["u", i] = (load,)
        graph["v", i] = (load,)
        graph["du", i] = (load, ("u", i))
        graph["dv", i] = (load, ("v", i))
        graph["curl", i] = (load, ("du", i), ("dv", i))
        graph["store", i] = (reduce, ("curl", i))
    graph["all"] = (reduce, *(("store", i) for i in range(steps)))
    return graph, "all"


def stencil(columns: int = 60) -> tuple[dict, object]:
    """Each chunk is used by itself and its two neighbours."""
    graph: dict = {("load", i): (load,) for i in range(columns)}
    for i in range(columns):
        graph["smooth", i] = (load, *(("load", j) for j in range(max(0, i - 1), min(columns, i + 2))))
        graph["part", i] = (reduce, ("smooth", i))
    graph["all"] = (reduce, *(("part", i) for i in range(columns)))
    return graph, "all"


def peak(which, graph, key, workers: int) -> int:
    assert Chunk.alive == 0
    Chunk.most = 0
    which(graph, key, num_workers=workers)
    deadline = time.monotonic() + 10
    while Chunk.alive:  # a worker may still be on its way out of the last task
        assert time.monotonic() < deadline
        time.sleep(0.001)
    return Chunk.most


@pytest.mark.parametrize("make", [tree_reduction, anomalies, stencil])
def test_one_worker_holds_exactly_what_get_sync_holds(make):
    graph, key = make()
    assert peak(get, graph, key, 1) == peak(dask.local.get_sync, graph, key, 1)


@pytest.mark.parametrize("workers", [2, 4])
@pytest.mark.parametrize("make", [tree_reduction, anomalies, stencil])
def test_several_workers_hold_no_more_than_under_dasks_threads(make, workers):
    # The tasks sleep, so more may run at once than there are cores; which begins first differs from run to run.
    graph, key = make()
    ours, stock = (sorted(peak(which, graph, key, workers) for _ in range(5)) for which in (get, dask.threaded.get))
    assert ours[2] <= 1.05 * stock[-1], (ours, stock)

"""What does the scheduler add to a Dask task, and how does that grow with the graph?

Peers: Dask's threads and its synchronous scheduler.
"""

from .harness import OURS, Case, Peer, Question

SIZES = (100, 1_000, 10_000, 100_000)

QUESTION = Question(
    name="dask_tasks",
    text="wall time of one trivial task, graphs of 100 to 100,000",
    cases=(
        *(
            Case(f"{shape}, {tasks:,}", "dask_tasks.py", after=(shape, str(tasks)))
            for shape in ("wide", "chain", "tree")
            for tasks in SIZES
        ),
        Case("(da.ones(8000, chunks=2) + 1).sum()", "dask_tasks.py", after=("array", "4000")),
    ),
    peers=(
        Peer(OURS, extra=("composable",)),
        Peer("threads", extra=("threads",)),
        Peer("sync", extra=("sync",)),
    ),
)

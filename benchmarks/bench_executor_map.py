"""What does a call cost that does nothing, in an executor's `map`?

Rows by number of calls show how the cost grows: wall time is per call. Peers: the stock executor of threads, also when
activated, and the stock pool of threads with chunks of one call.
"""

from .harness import OURS, Case, Peer, Question

QUESTION = Question(
    name="executor_map",
    text="Executor.map with two workers, per trivial call",
    cases=tuple(Case(f"{count:,} calls", "executor_map.py", (str(count),)) for count in (100, 1_000, 10_000, 100_000)),
    peers=(
        Peer(OURS, extra=("composable",)),
        Peer("ThreadPoolExecutor", extra=("stock",)),
        Peer("ThreadPoolExecutor, activated", launcher=("-m", "composable_threads"), extra=("stock",)),
        Peer("ThreadPool", extra=("pool",)),
    ),
)

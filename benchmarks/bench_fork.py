"""How long does a fork hold up the parent?

The child ends at once. Wall time is that of `os.fork()` in the parent, the median of a hundred. Peers: Python without
the arena, with Numba's workqueue and tbb layers where there are regions.
"""

from .harness import OURS, Case, Peer, Question, tbb_on_path

CASES = {
    "nothing started": "fresh",
    "idle": "idle",
    "two tasks running": "tasks",
    "a region running": "region",
}

QUESTION = Question(
    name="fork",
    text="os.fork() in the parent",
    cases=tuple(Case(name, "fork.py", (state,)) for name, state in CASES.items()),
    peers=(
        Peer(OURS, {"NUMBA_THREADING_LAYER": "composable"}, ("-m", "composable_threads")),
        Peer("workqueue", {"NUMBA_THREADING_LAYER": "workqueue"}),
        Peer("tbb", {"NUMBA_THREADING_LAYER": "tbb"} | tbb_on_path()),
    ),
)

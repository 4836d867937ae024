"""How long does a nested program take whose tasks call a parallel Numba kernel?

Peers: Numba's omp, tbb and workqueue layers under stock pools of two threads, and omp with every library pinned to one
thread by hand. workqueue aborts where two threads launch regions at once, so it appears pinned only.
"""

from .harness import OURS, Case, Peer, Question, pinned, tbb_on_path

QUESTION = Question(
    name="numba_nested",
    text="pools of two threads whose tasks call a parallel Numba kernel",
    cases=tuple(Case(name, "nested.py", (name, "2")) for name in ("dask_numba", "joblib_numba", "pool_numba")),
    peers=(
        Peer(OURS, launcher=("-m", "composable_threads")),
        Peer("omp", {"NUMBA_THREADING_LAYER": "omp"}),
        Peer("tbb", {"NUMBA_THREADING_LAYER": "tbb"} | tbb_on_path()),
        Peer("omp, pinned", pinned(NUMBA_THREADING_LAYER="omp")),
        Peer("tbb, pinned", pinned(NUMBA_THREADING_LAYER="tbb") | tbb_on_path()),
    ),
)

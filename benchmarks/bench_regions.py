"""What does one Numba region cost by itself, and who balances an unbalanced one?

Peers: Numba's omp, tbb and workqueue layers, and the predecessor `python -m tbb`. bench_region_chunks.py asks how far
from the best chunk size chosen by hand the default is.
"""

from .harness import OURS, Case, Peer, Question, tbb_on_path

COMPOSABLE = {"NUMBA_THREADING_LAYER": "composable"}
OMP = {"NUMBA_THREADING_LAYER": "omp"}
TBB = {"NUMBA_THREADING_LAYER": "tbb"} | tbb_on_path()
PEERS = (Peer(OURS, COMPOSABLE), Peer("omp", OMP), Peer("tbb", TBB))
CASES = {
    "empty, back to back": "empty",
    "1,000 elements": "small",
    "nested in a region": "nested",
    "after 10 ms of idling": "after_idling",
    "with a busy Python thread": "busy_python",
    "triangular loop": "triangular",
    "memory-bound, 4e6 elements": "memory_bound",
    "compute-bound, 2e6 elements": "compute_bound",
    "vectorize 1e6, cheap": "vectorize_cheap",
    "vectorize 1e6, dear": "vectorize_dear",
    "guvectorize 2,000 rows": "guvectorize_rows",
}

QUESTION = Question(
    name="regions",
    text="one Numba region by itself, P = 2",
    cases=tuple(Case(name, "regions.py", (case,)) for name, case in CASES.items()),
    peers=(
        *PEERS,
        Peer("workqueue", {"NUMBA_THREADING_LAYER": "workqueue"}, cannot={"nested in a region": "aborts"}),
        Peer("python -m tbb", tbb_on_path(), ("-m", "tbb"), needs="tbb"),
    ),
)

"""What does one Numba region cost by itself, and who balances an unbalanced one?

Peers: Numba's omp, tbb and workqueue layers (workqueue aborts where regions nest), and for the triangular loop omp with
a chunk size, which it ignores, and ours with several, the best of which is the hand-tuned one.
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
    peers=PEERS,
)

"""How much of the machine does a saturated nested program use: the CPU time of its work done serially, by P x wall?

1.0 is the physical limit. The serial peer is one worker with every library pinned to one thread.
"""

from .bench_blas_nested import NAMES
from .harness import OURS, Case, Peer, Question, pinned

QUESTION = Question(
    name="efficiency",
    text="serial CPU time of the work by (2 x wall); 1.0 is the limit",
    cases=tuple(
        Case(name, "nested.py", (name,))
        for name in ("dask_numba", "joblib_numba", "pool_numba", *(name for name in NAMES if name != "tail_matmul"))
    ),
    peers=(
        Peer(OURS, launcher=("-m", "composable_threads"), extra=("2",)),
        Peer("stock", extra=("2",)),
        Peer("pinned", pinned(), extra=("2",)),
        Peer("serial", pinned(), extra=("1",)),
    ),
    serial="serial",
    slots=2,
)
